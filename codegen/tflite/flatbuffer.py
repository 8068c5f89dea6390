"""Reading FlatBuffers: tables of optional fields and vectors, every offset checked where it is followed.

The format is the FlatBuffers project's (https://flatbuffers.dev/internals). Its Python runtime trusts the file; this
reader trusts nothing: an offset outside the file, a vector longer than the file, or a file whose tables lie on top of
one another so that reading takes for ever all end in a `ModelError`.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refsim.errors import ModelError

_CORRUPT = "not a TensorFlow Lite file, or a corrupt one"
_MOST_TABLES = 2**16
"""Tables in one vector, far more than the tensors of any network for a microcontroller."""
_SHARING = 16
"""How often a file's bytes may be read as vectors: writers share equal ones, but not without end."""


class FlatBuffer:
    """A file's bytes.

    Attributes:
        data: the whole file.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._budget = _SHARING * len(data)

    def root(self, identifier: bytes) -> "Table":
        """The file's outermost table.

        Raises:
            ModelError: the file is too short or has another identifier.
        """
        if self.data[4:8] != identifier:
            raise ModelError(f"{_CORRUPT}: it has no identifier {identifier.decode()!r}")
        return Table(self, self.follow(0))

    def unpack(self, code: str, position: int) -> Any:
        """One number, in the notation of `struct`.

        Raises:
            ModelError: it lies outside the file.
        """
        if not 0 <= position <= len(self.data) - struct.calcsize(code):
            raise ModelError(f"{_CORRUPT}: it points to byte {position} of {len(self.data)}")
        return struct.unpack_from("<" + code, self.data, position)[0]

    def follow(self, position: int) -> int:
        """Where the offset that is stored at a position leads."""
        return position + int(self.unpack("I", position))

    def spend(self, count: int) -> None:
        """Count bytes that are read as vectors.

        Raises:
            ModelError: they are far more than the file has.
        """
        self._budget -= count
        if self._budget < 0:
            raise ModelError(f"{_CORRUPT}: its vectors overlap")


class Table:
    """A table; its fields are numbered from 0 in the order of the schema."""

    def __init__(self, buffer: FlatBuffer, position: int) -> None:
        self.buffer = buffer
        self.position = position
        self._fields = position - int(buffer.unpack("i", position))
        self._size = int(buffer.unpack("H", self._fields))

    def _field(self, number: int) -> int | None:
        """Where a field's value lies; None where the file leaves it out."""
        entry = 4 + 2 * number
        offset = int(self.buffer.unpack("H", self._fields + entry)) if entry + 2 <= self._size else 0
        return self.position + offset if offset else None

    def number(self, number: int, code: str, default: float = 0) -> Any:
        """A scalar field, in the notation of `struct`; the default where the file leaves it out."""
        position = self._field(number)
        return default if position is None else self.buffer.unpack(code, position)

    def table(self, number: int) -> "Table | None":
        """A field that is a table; None where the file leaves it out."""
        position = self._field(number)
        return None if position is None else Table(self.buffer, self.buffer.follow(position))

    def tables(self, number: int) -> list["Table"]:
        """A field that is a vector of tables; empty where the file leaves it out.

        Raises:
            ModelError: they lie outside the file, or are more than 2^16.
        """
        found = self.vector(number, "u4")
        if found.size > _MOST_TABLES:
            raise ModelError(f"{_CORRUPT}: a vector of {found.size} tables is beyond {_MOST_TABLES}")
        self.buffer.spend(found.nbytes)
        position = self._field(number)
        start = 0 if position is None else self.buffer.follow(position) + 4
        return [Table(self.buffer, start + 4 * index + int(offset)) for index, offset in enumerate(found)]

    def vector(self, number: int, dtype: str) -> NDArray[Any]:
        """A field that is a vector of numbers, as a view of the file; empty where the file leaves it out."""
        position = self._field(number)
        if position is None:
            return np.empty(0, dtype)
        start, count = self._extent(position, np.dtype(dtype).itemsize)
        return np.frombuffer(self.buffer.data, np.dtype(dtype).newbyteorder("<"), count, start)

    def integers(self, number: int, dtype: str = "i4") -> list[int]:
        """A field that is a vector of integers, as a list."""
        found = self.vector(number, dtype)
        self.buffer.spend(found.nbytes)
        return [int(n) for n in found]

    def text(self, number: int) -> str:
        """A field that is a string; bytes that are no UTF-8 are replaced."""
        found = self.vector(number, "u1")
        self.buffer.spend(found.nbytes)
        return found.tobytes().decode(errors="replace")

    def _extent(self, position: int, size: int) -> tuple[int, int]:
        """Start and length of the vector that the offset at a position leads to."""
        start = self.buffer.follow(position)
        count = int(self.buffer.unpack("I", start))
        if start + 4 + count * size > len(self.buffer.data):
            raise ModelError(f"{_CORRUPT}: a vector of {count} elements does not fit")
        return start + 4, count
