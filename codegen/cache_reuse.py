"""A cache as passes over memory see it: which of their lines are still there in the next.

What one pass reads is there if it fits; of what does not fit, the share that is missed follows from how many lines fall
into one set and how the cache replaces them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen.memory_timing import Cache


@dataclass(frozen=True)
class Sweep:
    """Reads or writes that go over the lines of a buffer once.

    Attributes:
        buffer: which.
        new: share of the lines to which it comes first; the rest were there in the cycle before.
    """

    buffer: int
    new: float = 0.0


@dataclass(frozen=True)
class Reuse:
    """A cache, or memory without one, as a kernel's passes see it.

    Attributes:
        cache: None where there is none.
        wait: core cycles until the word that missed is there; the rest of its line comes after it.
        random: the cache replaces any line of a set, else the one not used for longest.
    """

    cache: Cache | None
    wait: int
    random: bool

    def cycles(self, size: float) -> float:
        """Cycles of waiting for so many contiguous bytes."""
        return size / self.cache.line * self.wait if self.cache else 0.0

    def swept(self, size: float, between: float = 0.0, new: float = 0.0) -> float:
        """Lines of `size` bytes that a pass over them misses.

        Args:
            size: bytes.
            between: other bytes that each pass reads.
            new: bytes that each pass reads for the first time.
        """
        if self.cache is None:
            return 0.0
        sets = self.cache.sets
        lines, others = size / self.cache.line, new / self.cache.line / sets
        together = lines + between / self.cache.line
        # Some sets hold a line more than the rest.
        least = together // sets
        more = together - least * sets
        missed = sum(n * of * self._missed(n, others) for n, of in ((least + 1, more), (least, sets - more)))
        return lines * missed / together if together else 0.0

    def scattered(self, offsets: NDArray[np.int64], passes: float, step: int, stride: int, written: int = 0) -> float:
        """Lines that passes over bytes at `offsets` miss again.

        Args:
            offsets: what one pass reads.
            passes: how many.
            step: bytes by which one pass is further than the one before.
            stride: the least distance between offsets, which passes fill step by step.
            written: bytes that each pass writes elsewhere, one after the other.
        """
        if self.cache is None or passes <= 0:
            return 0.0
        lines = np.unique(offsets.ravel() // self.cache.line)
        of_sets = [float(n) for n in np.bincount(lines % self.cache.sets) if n]
        new = self.new(step, stride)
        others = written / self.cache.line / self.cache.sets
        again = sum(n * self._missed(n, others) for n in of_sets)
        # The cache is empty when a kernel begins: new lines replace others once it is full.
        come = passes * (new * lines.size + written / self.cache.line)
        full = max(0.0, 1.0 - self.cache.ways * self.cache.sets / max(1.0, come))
        return passes * ((1 - new) * again + full * new * sum(map(self._settling, of_sets)))

    def new(self, step: int, stride: int) -> float:
        """Share of the passes that come to new lines: each is `step` bytes further, until `stride` bytes on."""
        return min(1.0, step / min(self.cache.line, stride)) if self.cache else 0.0

    def lines(self, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of each set the lines with bytes at `offsets`, where there is a cache."""
        assert self.cache is not None
        lines = np.unique(offsets // self.cache.line) % self.cache.sets
        return np.bincount(lines, minlength=self.cache.sets).astype(np.float64)

    def swept_in_turn(self, buffers: Sequence[NDArray[np.float64]], cycle: Sequence[Sweep]) -> list[float]:
        """Lines that each sweep of a cycle misses again when the cycle is repeated over and over.

        Args:
            buffers: of each set the lines of each buffer.
            cycle: what is swept, one after the other.
        """
        assert self.cache is not None
        found, times = np.unique(np.stack(buffers), axis=1, return_counts=True)
        swept = [sweep.buffer for sweep in cycle]
        lines = found[swept]
        known = np.array([[1.0 - sweep.new] for sweep in cycle])
        if not self.random:
            missed = np.broadcast_to(found.sum(axis=0) > self.cache.ways, lines.shape)
            return [float(n) for n in (known * lines * missed) @ times]
        stays = 1.0 - 1.0 / self.cache.ways  # after one miss of its set
        # Of each sweep the one before over the same buffer, and those between them.
        ats = range(len(cycle))
        since = [next(back for back in range(1, len(cycle) + 1) if swept[at - back] == swept[at]) for at in ats]
        turns = [(at, at - back, np.arange(at - back + 1, at)) for at, back in enumerate(since)]
        own, missed, replacing = np.maximum(0.0, lines - 1) / 2, np.ones(lines.shape), lines.copy()
        for _ in range(_ITERATIONS):
            before = missed.copy()
            for at, last, between in turns:
                missed[at] = 1.0 - stays ** (own[at] * (missed[at] + missed[last]) + replacing[between].sum(axis=0))
                replacing[at] = lines[at] * (1.0 - known[at] * (1.0 - missed[at]))
            if np.abs(missed - before).max() < _NEGLIGIBLE / 10:
                break
        missed[missed < _NEGLIGIBLE] = 0.0
        return [float(n) for n in (known * lines * missed) @ times]

    def together(self, stride: int) -> float:
        """How many times as many lines four rows miss that are read at once: those in one set replace each other."""
        if self.cache is None:
            return 1.0
        of_sets = np.bincount(np.arange(4) * stride // self.cache.line % self.cache.sets)
        return 1.0 + sum(self._settling(float(n)) for n in of_sets) / 4

    def _missed(self, lines: float, others: float = 0.0) -> float:
        """Share of the lines of one set that is missed, when the same and each time `others` are read over and over."""
        assert self.cache is not None
        ways = self.cache.ways
        if not self.random:
            return 1.0 if lines > ways else min(1.0, others) if lines == ways else 0.0
        # A line stays if none of the misses until it is read again replaces it.
        share = 1.0
        for _ in range(_ITERATIONS):
            share = 1.0 - (1.0 - 1.0 / ways) ** (share * max(0.0, lines - 1) + others)
        return share if share > _NEGLIGIBLE else 0.0

    def _settling(self, lines: float) -> float:
        """Misses until new lines that fit a set are all there, beyond the first of each: they replace each other."""
        assert self.cache is not None
        ways = self.cache.ways
        if not self.random or lines > ways:
            return 0.0
        return sum(ways / (ways - there) for there in range(int(lines))) - lines


_ITERATIONS, _NEGLIGIBLE = 60, 0.001
