"""Unicorn's own library and the hooks in C, called through one cffi instance: each callback at native speed."""

import functools
from pathlib import Path
from typing import Any

import unicorn

from conformance.host import HostLibrary
from conformance.toolchain import NATIVE, build_shared_library
from refsim.errors import EmulationError

_UNICORN_API = """
int uc_open(int arch, int mode, void **machine);
int uc_close(void *machine);
int uc_ctl(void *machine, int control, ...);
int uc_mem_map_ptr(void *machine, uint64_t address, size_t size, uint32_t permissions, void *memory);
int uc_mem_unmap(void *machine, uint64_t address, size_t size);
int uc_reg_read(void *machine, int id, void *value);
int uc_reg_write(void *machine, int id, const void *value);
int uc_reg_write_batch(void *machine, const int *ids, void *const *values, int count);
int uc_hook_add(void *machine, size_t *hook, int type, void *callback, void *user, uint64_t begin, uint64_t end);
int uc_hook_del(void *machine, size_t hook);
int uc_emu_start(void *machine, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
int uc_emu_stop(void *machine);
const char *uc_strerror(int error);
"""


@functools.cache
def libraries() -> tuple[HostLibrary, Any]:
    """The hooks of `native/block_hook.c` and Unicorn itself, as libraries that share one cffi instance."""
    names = ("data_access", "memory_model", "timer", "block_hook")
    library = build_shared_library([NATIVE / f"{name}.c" for name in names], name="block_hook")
    hooks = HostLibrary(library, [NATIVE / f"{name}.h" for name in names])
    folder = Path(unicorn.__file__).parent / "lib"
    found = [path for path in sorted(folder.glob("*unicorn*")) if path.suffix not in {".a", ".lib"}]
    if not found:
        raise EmulationError(f"Unicorn's library is not in {folder}; install the package anew: pip install unicorn")
    hooks.ffi.cdef(_UNICORN_API)
    return hooks, hooks.ffi.dlopen(str(found[0]))
