"""The other half of `conformance.places.HostPlace`: runs kernels in a process of its own, which they may crash.

Started as `python -m conformance.host_process LIBRARY HEADER`; reads pickled requests from standard input and writes
the memory after each call to standard output.
"""

import mmap
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.host import HostLibrary
from conformance.layout import Layout


@dataclass(frozen=True)
class Request:
    """One call of a kernel.

    Attributes:
        kernel: the C function.
        params: fields of its parameter struct.
        variadic: inputs are passed as one array of pointers.
        layout: the memory that it works on.
    """

    kernel: str
    params: Mapping[str, int | NDArray[Any]]
    variadic: bool
    layout: Layout


class Memory:
    """Memory that ends where an inaccessible page begins (on POSIX systems).

    Args:
        ffi: a cffi instance.
        size: usable bytes.
    """

    def __init__(self, ffi: Any, size: int) -> None:
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._pages = mmap.mmap(-1, self.size + mmap.PAGESIZE)
        self.bytes = ffi.from_buffer("int8_t[]", self._pages)
        if sys.platform != "win32":
            ffi.cdef("int mprotect(void *address, size_t length, int protection);", override=True)
            guard = ffi.cast("void *", self.bytes + self.size)
            if ffi.dlopen(None).mprotect(guard, mmap.PAGESIZE, 0) != 0:
                raise OSError("the system refuses to protect a guard page")


def run(library: HostLibrary, memory: Memory, request: Request) -> bytes:
    """Call the kernel; the stretch of memory afterwards."""
    ffi, layout = library.ffi, request.layout
    start = memory.bytes + (memory.size - len(layout.image))
    ffi.memmove(start, layout.image, len(layout.image))
    struct = ffi.new(f"{request.kernel}_params *")
    kept = []  # cffi does not keep alive what a struct points to
    for name, kind in ffi.typeof(struct).item.fields:
        value = request.params[name]
        if isinstance(value, np.ndarray):
            item = kind.type.item.cname
            kept.append(ffi.from_buffer(f"{item}[]", np.ascontiguousarray(value)))
            value = kept[-1]
        setattr(struct, name, value)
    inputs = [start + span.start for span in layout.inputs]
    scratch = ffi.NULL if layout.scratch is None else start + layout.scratch.start
    arguments = [ffi.new("int8_t *[]", inputs)] if request.variadic else inputs
    getattr(library.lib, request.kernel)(struct, *arguments, start + layout.output.start, scratch)
    return bytes(ffi.buffer(start, len(layout.image)))


def main() -> None:
    """Serve requests until standard input ends."""
    library = HostLibrary(Path(sys.argv[1]), [Path(sys.argv[2])])
    memory = Memory(library.ffi, 1 << 16)
    answers = sys.stdout.buffer
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)  # noqa: S301 - the parent process writes it
        except EOFError:
            return
        if len(request.layout.image) > memory.size:
            memory = Memory(library.ffi, len(request.layout.image))
        pickle.dump(run(library, memory, request), answers)
        answers.flush()


if __name__ == "__main__":
    main()
