"""C on the host through cffi: headers are read, and a rebuilt library is really the new one."""

from pathlib import Path

import pytest

from conformance.host import HostLibrary, parse_header
from conformance.toolchain import build_shared_library
from refsim.errors import ToolchainError

HEADER = """\
/* A header with all that ours may have.
 * int commented_out(void); */
#ifndef POINT_H
#define POINT_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#define POINT_DIMS 2 // dimensions
#define POINT_MASK 0xF0u
#define POINT_OFFSET (-3)
#define POINT_FLAGS \\
    5
#define POINT_CALL(x) ((x) + 1)
typedef struct {
    int32_t at[POINT_DIMS];
    const int8_t *name;
} point;
enum { POINT_RED = 7 };
static inline int32_t point_twice(int32_t x)
{
    if (x > 0) {
        return x * 2;
    }
    return 0;
}
int32_t point_sum(const point *p) __attribute__((pure));
#ifdef __cplusplus
}
#endif
#endif
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "point.h").write_text(HEADER)
    (tmp_path / "point.c").write_text(
        '#include "point.h"\nint32_t point_sum(const point *p) { return p->at[0] + p->at[1] + p->name[0]; }\n'
    )
    return tmp_path


def test_functions_structures_and_constants(folder: Path) -> None:
    library = HostLibrary(build_shared_library([folder / "point.c"], name="point"), [folder / "point.h"])
    name = library.ffi.new("int8_t[]", [100])
    point = library.ffi.new("point *", {"at": [-5, 20], "name": name})
    assert library.lib.point_sum(point) == 115
    constants = (library.lib.POINT_DIMS, library.lib.POINT_MASK, library.lib.POINT_OFFSET, library.lib.POINT_RED)
    assert constants == (2, 0xF0, -3, 7)


def test_what_cffi_cannot_use_is_left_out(folder: Path) -> None:
    text = parse_header(folder / "point.h")
    for absent in ("point_twice", "__attribute__", "extern", "commented_out", "POINT_CALL", "POINT_H", "include"):
        assert absent not in text
    assert "POINT_FLAGS" in text


def test_rebuilt_library_is_loaded_anew(folder: Path) -> None:
    source = folder / "f.c"
    (folder / "f.h").write_text("int f(void);\n")
    results = []
    for value in (1, 2):
        source.write_text(f"int f(void) {{ return {value}; }}\n")
        library = HostLibrary(build_shared_library([source], name="rebuilt"), [folder / "f.h"])
        results.append(library.lib.f())
    assert results == [1, 2]


def test_missing_or_wrong_files(folder: Path) -> None:
    built = build_shared_library([folder / "point.c"], name="point")
    with pytest.raises(ToolchainError, match=r"header .*absent\.h cannot be read: No such file"):
        HostLibrary(built, [folder / "absent.h"])
    (folder / "bad.h").write_text("int f(unknown_type *x);\n")
    with pytest.raises(ToolchainError, match=r"bad\.h has a declaration that cffi cannot read"):
        HostLibrary(built, [folder / "bad.h"])
    with pytest.raises(ToolchainError, match=r"point\.c cannot be loaded"):
        HostLibrary(folder / "point.c", [folder / "point.h"])
