"""A target's memories and caches as `native/memory_model.c` simulates them.

- A line that misses is read over the memory's bus. The core waits until the word that it asked for is there, which is
  sent first; the bus stays taken until the line is complete, and whoever needs it next waits for that.
- Stores go to a store buffer: the core waits only while the bus still is taken. A write-back cache reads the line of a
  store that misses; a dirty line that has to go takes its memory's bus for as long as reading it would.
- Code is fetched line by line, or row by row where no cache is, as the core reaches them. Where a memory prefetches,
  the row after one that was read is read at once, and the core waits for what is left of that time.
- Inside a block, the clock that data accesses see moves on by one cycle an access, and by its wait.
- A set replaces the line not used for longest, but a pseudo-random one in the Cortex-M7's own caches; the sequence is
  the same each time.
"""

from typing import Any

from codegen.target import Target

_SEED = 0x2545F491
_NO_LINE = 0xFFFFFFFF


class MemoryModel:
    """The memories of a target, and what their caches hold.

    Attributes:
        pointer: `tnf_memory_model *`.
        waiting: (first, last) addresses of the memories whose loads or stores may wait.

    Args:
        ffi: A cffi instance that knows `native/memory_model.h`.
        target: The chip.

    Raises:
        TargetError: The target does not describe its memories' timing.
    """

    def __init__(self, ffi: Any, target: Target) -> None:
        parts = target.memory_timing
        self._ffi = ffi
        self._lines = {c.name: ffi.new("uint32_t[]", c.size // c.line) for c in target.caches}
        self._caches = {c.name: ffi.new("tnf_cache *") for c in target.caches}
        for c in target.caches:
            cache = self._caches[c.name]
            cache.line_shift, cache.set_mask, cache.ways = c.line.bit_length() - 1, c.sets - 1, c.ways
            cache.write_back, cache.random = c.write_back, target.core == "cortex-m7" and c.ways < c.size // c.line
            cache.lines = self._lines[c.name]
        self._memories = ffi.new("tnf_memory[]", len(parts))
        for memory, part in zip(self._memories, parts, strict=True):
            code, data = target.instruction_cache(part), target.data_cache(part)
            row = max(4, part.row_bits // 8)
            memory.first, memory.last = part.origin, part.end - 1
            memory.code = self._caches[code.name] if code else ffi.NULL
            memory.data = self._caches[data.name] if data else ffi.NULL
            memory.row_shift = row.bit_length() - 1
            memory.word_cycles = part.read_cycles(4)
            memory.code_cycles = part.read_cycles(code.line if code else row)
            memory.data_cycles = part.read_cycles(data.line if data else 4)
            memory.prefetch = part.prefetch
        self.waiting = [(m.first, m.last) for m in self._memories if m.data != ffi.NULL or m.word_cycles > 1]
        self.pointer = ffi.new("tnf_memory_model *", {"memories": self._memories, "count": len(parts)})
        self.empty()

    def empty(self) -> None:
        """Empty the caches and prefetch buffers, and let the buses be free."""
        for name, cache in self._caches.items():
            self._ffi.buffer(self._lines[name])[:] = bytes(self._ffi.sizeof(self._lines[name]))
            cache.random_state = _SEED
        for memory in self._memories:
            memory.bus_free = memory.prefetched = 0
            memory.fetched_line = memory.prefetched_line = _NO_LINE
        self.pointer.clock = 0
