"""C code on this machine: a shared library, loaded through cffi, with the declarations of its own header."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cffi import FFI, CDefError

from refsim.errors import ToolchainError


def parse_header(path: Path) -> str:
    """The declarations of a C header, as cffi's `cdef` takes them.

    Meant for plain C99 headers of declarations: included files, conditional blocks and static inline functions are left
    out, attributes are dropped, and macros stay where their value is an integer literal.

    Raises:
        ToolchainError: The file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ToolchainError(f"header {path} cannot be read: {error.strerror}") from error
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL).replace("\\\n", " ")
    kept, depth = [], 0
    guard = re.search(r"^\s*#\s*ifndef\s+(\w+)\s+#\s*define\s+\1\b", text)
    for line in text[guard.end() :].splitlines() if guard else text.splitlines():
        directive = re.match(r"\s*#\s*(\w+)", line)
        if directive is None:
            kept += [line] if depth == 0 else []
        elif directive[1] in ("if", "ifdef", "ifndef"):
            depth += 1
        elif directive[1] == "endif":
            depth -= 1
        elif depth == 0 and re.fullmatch(r"\s*#\s*define\s+\w+\s+\(?-?(0[xX][0-9a-fA-F]+|\d+)[uUlL]*\)?\s*", line):
            kept.append(re.sub(r"[()]|(?<=[0-9a-fA-F])[uUlL]+\s*$", "", line))
    text = "\n".join(kept)
    text = re.sub(r"\bstatic\s+inline\b[^;{]*(?P<body>\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})", "", text)
    return re.sub(r"__attribute__\s*\(\(.*?\)\)", "", text)


class HostLibrary:
    """A loaded shared library.

    `build_shared_library` gives every content its own path, so a rebuilt library is loaded anew.

    Attributes:
        ffi: The cffi instance that knows the declarations.
        lib: The library's functions and the headers' integer constants.

    Args:
        path: The shared library.
        headers: Headers whose declarations it implements, a header after those that it includes.

    Raises:
        ToolchainError: The library cannot be loaded, or a header has something that cffi does not understand.
    """

    def __init__(self, path: Path, headers: Sequence[Path]) -> None:
        self.ffi: FFI = FFI()
        for header in headers:
            try:
                self.ffi.cdef(parse_header(header))
            except CDefError as error:
                raise ToolchainError(f"header {header} has a declaration that cffi cannot read: {error}") from error
        try:
            self.lib: Any = self.ffi.dlopen(str(path))
        except OSError as error:
            raise ToolchainError(f"library {path} cannot be loaded: {error}") from error
