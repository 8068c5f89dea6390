"""The other half of `conformance.places.HostPlace`: runs kernels in a process of its own, which they may crash.

Started as `python -m conformance.host_process LIBRARY`. Reads pickles from standard input, first the C declarations,
then lists of requests; writes the memory after each call of a list to standard output. Imports little: it starts anew
after each crash.
"""

import mmap
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from cffi import FFI
from numpy.typing import NDArray


@dataclass(frozen=True)
class Request:
    """One call of a kernel.

    Attributes:
        kernel: the C function.
        params: fields of its parameter struct.
        variadic: inputs are passed as one array of pointers.
        image: the memory that it works on.
        inputs, output, scratch: offsets in it; None where there is no scratch.
    """

    kernel: str
    params: Mapping[str, int | NDArray[Any]]
    variadic: bool
    image: bytes
    inputs: tuple[int, ...]
    output: int
    scratch: int | None


class Memory:
    """Memory that ends where an inaccessible page begins (on POSIX systems).

    Args:
        ffi: a cffi instance that knows mprotect.
        size: usable bytes.
    """

    def __init__(self, ffi: FFI, size: int) -> None:
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._pages = mmap.mmap(-1, self.size + mmap.PAGESIZE)
        self.bytes: Any = ffi.from_buffer("int8_t[]", self._pages)
        if sys.platform != "win32":
            guard = ffi.cast("void *", self.bytes + self.size)
            if ffi.dlopen(None).mprotect(guard, mmap.PAGESIZE, 0) != 0:
                raise OSError("the system refuses to protect a guard page")


def run(ffi: FFI, library: Any, memory: Memory, request: Request) -> bytes:
    """Call the kernel; its memory afterwards."""
    size = len(request.image)
    start = memory.bytes + (memory.size - size)
    ffi.memmove(start, request.image, size)
    arguments, _kept = passed(ffi, start, request)
    getattr(library, request.kernel)(*arguments)
    return bytes(ffi.buffer(start, size))


def passed(ffi: FFI, start: Any, request: Request) -> tuple[list[Any], list[Any]]:
    """What the kernel is called with, and what must be kept until then.

    Args:
        ffi: a cffi instance that knows the kernels.
        start: where the image lies.
        request: the call.
    """
    struct = ffi.new(f"{request.kernel}_params *")
    kept = []  # cffi does not keep alive what a struct points to
    for name, kind in ffi.typeof(struct).item.fields:
        value: Any = request.params[name]
        if isinstance(value, np.ndarray):
            value = ffi.from_buffer(f"{kind.type.item.cname}[]", np.ascontiguousarray(value))
            kept.append(value)
        setattr(struct, name, value)
    inputs = [start + offset for offset in request.inputs]
    scratch = ffi.NULL if request.scratch is None else start + request.scratch
    arguments = [ffi.new("int8_t *[]", inputs)] if request.variadic else inputs
    return [struct, *arguments, start + request.output, scratch], kept


def main() -> None:
    """Serve requests until standard input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    ffi = FFI()
    ffi.cdef(pickle.load(requests))  # noqa: S301 - the parent process writes it
    ffi.cdef("int mprotect(void *address, size_t length, int protection);")
    library = ffi.dlopen(sys.argv[1])
    memory = Memory(ffi, 1 << 16)
    while True:
        try:
            batch: list[Request] = pickle.load(requests)  # noqa: S301 - the same
        except EOFError:
            return
        largest = max((len(request.image) for request in batch), default=0)
        if largest > memory.size:
            memory = Memory(ffi, largest)
        answers.write(pickle.dumps([run(ffi, library, memory, request) for request in batch], pickle.HIGHEST_PROTOCOL))
        answers.flush()


if __name__ == "__main__":
    main()
