"""Where buffers lie in the arena: four strategies, each from the buffers' sizes and lives alone.

- head-tail alternation (TinyFormer paper, section III-D and Fig. 6): an operator reads at one end of the arena and
  writes at the other. Here each end is a stack of buffers with first fit: residuals stay while others alternate.
- greedy by size: the largest buffer first, each into the smallest gap that holds it.
- local search: buffers as low as they fit, one after the other; where the arena is above the lower bound, the order
  in which they are placed is improved in a bounded number of trials.
- branch and bound: the lowest buffer first, and back where what is left cannot fit; tried for arenas of the lower
  bound and a little above it, in a bounded number of steps. What it finds in an arena of the lower bound is optimal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 8
"""Alignment of every buffer, bytes."""


def aligned(size: int) -> int:
    """A size rounded up to `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Buffer:
    """A range of the arena that is in use from one step to another.

    Attributes:
        tensors: names of the tensors that lie in it, one after the other or as views of each other; none for scratch.
        bytes: a multiple of `ALIGNMENT`.
        first, last: steps (node indices), both included.
        sources: indices of the buffers that the step `first` reads.
    """

    tensors: tuple[str, ...]
    bytes: int
    first: int
    last: int
    sources: tuple[int, ...] = ()

    def meets(self, other: "Buffer") -> bool:
        """Whether both are in use in some step."""
        return self.first <= other.last and other.first <= self.last


def in_use(buffers: Sequence[Buffer], step: int) -> int:
    """Bytes of the buffers in use in a step."""
    return sum(b.bytes for b in buffers if b.first <= step <= b.last)


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """The largest sum of buffers in use in one step, bytes: no arena can be smaller."""
    return max((in_use(buffers, step) for step in {b.first for b in buffers}), default=0)


def extent(buffers: Sequence[Buffer], offsets: Sequence[int]) -> int:
    """Size of the arena that holds buffers at their offsets, bytes."""
    return max((at + b.bytes for b, at in zip(buffers, offsets, strict=True)), default=0)


def _gaps(taken: Sequence[tuple[int, int]]) -> list[tuple[int, int | None]]:
    """Start and length of the free ranges between (offset, bytes) ranges; the last one is endless (None)."""
    gaps: list[tuple[int, int | None]] = []
    free = 0
    for start, size in sorted(taken):
        if start > free:
            gaps.append((free, start - free))
        free = max(free, start + size)
    return [*gaps, (free, None)]


def _head_tail(buffers: Sequence[Buffer]) -> list[int]:
    """Alternate between the ends: a buffer goes to the end where the largest buffer it is made from does not lie."""
    at_tail: list[bool] = []
    depth: list[int] = []  # distance from the buffer's end of the arena
    for buffer in buffers:
        source = max(buffer.sources, key=lambda index: buffers[index].bytes, default=None)
        at_tail.append(source is not None and not at_tail[source])
        same_end = [i for i in range(len(depth)) if at_tail[i] == at_tail[-1] and buffers[i].meets(buffer)]
        gaps = _gaps([(depth[i], buffers[i].bytes) for i in same_end])
        depth.append(next(start for start, room in gaps if room is None or room >= buffer.bytes))
    reach = [d + b.bytes for d, b in zip(depth, buffers, strict=True)]
    heads = [i for i, tail in enumerate(at_tail) if not tail]
    tails = [i for i, tail in enumerate(at_tail) if tail]
    pairs = [reach[h] + reach[t] for h in heads for t in tails if buffers[h].meets(buffers[t])]
    arena = max([*reach, *pairs], default=0)
    return [arena - r if tail else d for d, r, tail in zip(depth, reach, at_tail, strict=True)]


def _greedy_by_size(buffers: Sequence[Buffer]) -> list[int]:
    """The largest buffer first, each into the smallest gap that holds it."""
    offsets: dict[int, int] = {}
    for index in sorted(range(len(buffers)), key=lambda i: (-buffers[i].bytes, buffers[i].first, i)):
        buffer = buffers[index]
        rivals = [(at, buffers[i].bytes) for i, at in offsets.items() if buffers[i].meets(buffer)]
        fitting = [(room, start) for start, room in _gaps(rivals) if room is not None and room >= buffer.bytes]
        offsets[index] = min(fitting)[1] if fitting else _gaps(rivals)[-1][0]
    return [offsets[index] for index in range(len(buffers))]


_TRIALS = 3000
"""Orders of buffers that the local search tries at most."""

_FIRST_ORDERS: Sequence[Callable[[Buffer], tuple[int, ...]]] = (
    lambda b: (-b.bytes, b.first),
    lambda b: (-b.bytes * (b.last - b.first + 1), b.first),
    lambda b: (b.first - b.last, -b.bytes),
    lambda b: (b.first, -b.bytes),
    lambda b: (-b.last, -b.bytes),
)
"""Sort keys of the orders that searches start from: by size, size x life, life, first and last use."""


def _local_search(buffers: Sequence[Buffer]) -> list[int]:
    """Each buffer as low as it fits, in the best order found.

    Some order gives the smallest arena: that in which the buffers of a smallest plan lie above each other. The search
    moves one buffer of a stack that reaches the arena's end, or one that meets the highest, to another place in the
    order, and keeps what is not worse.
    """
    rivals = _rivals(buffers)
    bound = lower_bound(buffers)
    random = Random(0)  # noqa: S311 - a search, no secret

    def pick(count: int) -> int:
        # Of all methods of `Random`, only this one gives the same numbers in every version of Python.
        return int(random.random() * count)

    order, offsets = _first_fit(buffers, rivals)
    arena = extent(buffers, offsets)
    for _ in range(_TRIALS):
        if arena == bound:
            break
        highest = [i for i, b in enumerate(buffers) if offsets[i] + b.bytes == arena]
        stack = [highest[pick(len(highest))]]
        while under := [j for j in rivals[stack[-1]] if offsets[j] + buffers[j].bytes == offsets[stack[-1]]]:
            stack.append(under[pick(len(under))])
        movable = [*stack, *rivals[stack[0]]]
        moved = movable[pick(len(movable))]
        trial = [i for i in order if i != moved]
        trial.insert(pick(len(order)), moved)
        found = _lowest_fit(buffers, rivals, trial)
        if (size := extent(buffers, found)) <= arena:
            order, offsets, arena = trial, found, size
    return offsets


def _rivals(buffers: Sequence[Buffer]) -> list[list[int]]:
    """Of each buffer, those that are in use at the same time."""
    return [[j for j, other in enumerate(buffers) if j != i and other.meets(b)] for i, b in enumerate(buffers)]


def _first_fit(buffers: Sequence[Buffer], rivals: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """The best of `_FIRST_ORDERS`, and the offsets that it gives."""
    starts = [sorted(range(len(buffers)), key=lambda i: (*key(buffers[i]), i)) for key in _FIRST_ORDERS]
    placed = [(order, _lowest_fit(buffers, rivals, order)) for order in starts]
    return min(placed, key=lambda start: extent(buffers, start[1]))


def _lowest_fit(buffers: Sequence[Buffer], rivals: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """Offsets where each buffer in turn goes into the lowest gap that holds it.

    Args:
        buffers: to place.
        rivals: of each buffer, those that are in use at the same time.
        order: indices of the buffers.
    """
    offsets = [-1] * len(buffers)
    for index in order:
        at = 0
        for start, end in sorted((offsets[j], offsets[j] + buffers[j].bytes) for j in rivals[index] if offsets[j] >= 0):
            if start - at >= buffers[index].bytes:
                break
            at = max(at, end)
        offsets[index] = at
    return offsets


_ROOM = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1)
"""How far above the lower bound the arenas are that branch and bound tries to fill, the smallest first."""

_NODES = 1500
"""Buffers that it places, those taken back included, before it gives up on an arena."""


def _branch_and_bound(buffers: Sequence[Buffer]) -> list[int]:
    """The smallest arena of `_ROOM` that can be filled; the best of `_FIRST_ORDERS` where none can."""
    _, offsets = _first_fit(buffers, _rivals(buffers))
    arena, bound = extent(buffers, offsets), lower_bound(buffers)
    # Between two steps in which buffers come into use nothing changes that would matter.
    steps = np.array(sorted({b.first for b in buffers}), np.int64)
    lives = np.array([(b.first <= steps) & (steps <= b.last) for b in buffers])
    sizes = np.array([b.bytes for b in buffers], np.int64)
    for room in _ROOM:
        capacity = int(bound * (1 + room))
        if capacity >= arena:
            break
        spans = lives.sum(axis=1)
        for weights in (spans, spans * sizes):
            found = _fill(lives, sizes, weights, capacity)
            if found is not None:
                return found
    return offsets


def _fill(
    lives: NDArray[np.bool_], sizes: NDArray[np.int64], weights: NDArray[np.int64], capacity: int
) -> list[int] | None:
    """Place buffers in an arena in the order of their offsets, each upon those that it meets; None where that fails.

    Some such order gives every plan in which no buffer can sink. So all buffers that are left will lie as high as the
    last one or higher, and a branch ends where that is too high for them.

    Args:
        lives: (buffers, steps), whether a buffer is in use in a step.
        sizes: (buffers,), bytes.
        weights: (buffers,); of buffers that can lie equally low the heaviest is tried first.
        capacity: of the arena, bytes.
    """
    offsets = np.zeros(len(sizes), np.int64)
    left = np.ones(len(sizes), np.bool_)
    reach = np.zeros(lives.shape[1], np.int64)  # of what has been placed, in each step

    def candidates() -> list[int]:
        """Buffers that can come next, the best one last."""
        indices = np.flatnonzero(left)
        missing = sizes[indices] @ lives[indices]
        if np.any((reach + missing)[missing > 0] > capacity):
            return []
        lowest = np.where(lives[indices], reach, 0).max(axis=1)
        # One that lies above the top of another could have come after it.
        first = (lowest + missing.max() <= capacity) & (lowest < (lowest + sizes[indices]).min())
        offsets[indices] = lowest
        indices = indices[first]
        return list(indices[np.lexsort((sizes[indices], weights[indices], -offsets[indices]))].tolist())

    branches = [candidates()]
    placed: list[tuple[int, NDArray[np.int64]]] = []  # and the reach before
    for _ in range(_NODES):
        while not branches[-1]:
            branches.pop()
            if not branches:
                return None
            index, reach = placed.pop()
            left[index] = True
        index = branches[-1].pop()
        placed.append((index, reach))
        left[index] = False
        at = int(np.max(reach[lives[index]]))
        offsets[index] = at
        reach = np.where(lives[index], at + sizes[index], reach)
        if not left.any():
            return [int(offset) for offset in offsets]
        branches.append(candidates())
    return None


STRATEGIES: Mapping[str, Callable[[Sequence[Buffer]], list[int]]] = {
    "head-tail alternation": _head_tail,
    "greedy by size": _greedy_by_size,
    "local search": _local_search,
    "branch and bound": _branch_and_bound,
}
