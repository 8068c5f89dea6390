"""What strict mode watches: where Unicorn's hooks of memory accesses lie."""

from collections.abc import Callable, Iterator, Sequence

from unicorn import unicorn_const as uc

Ranges = Sequence[tuple[int, int, bool]]
"""(start, end, writable) of each."""

_EVERYTHING = [(uc.UC_HOOK_MEM_READ | uc.UC_HOOK_MEM_WRITE, 1, 0)]
_ACROSS = 3
"""Bytes before an end from which an aligned access of at most four bytes may reach across it."""


class Watch:
    """Hooks of memory accesses, over as little as will do.

    Before each call of one Unicorn restores the core's whole state, which takes several times as long as the access. So
    a core that traps unaligned accesses by itself is watched only where something must not be touched.

    Args:
        add: adds a hook of one kind from a first to a last address, everywhere where first > last; gives what `remove`
            takes.
        remove: removes it.
        memory: all there is; elsewhere, and where writable memory is not, every access fails anyway.
        whole: the core needs every access watched.
    """

    def __init__(
        self, add: Callable[[int, int, int], int], remove: Callable[[int], None], memory: Ranges, *, whole: bool
    ) -> None:
        self._add, self._remove, self._memory, self._whole = add, remove, memory, whole
        self._hooks: list[int] = []
        self._places: list[tuple[int, int, int]] = []

    def everything(self) -> None:
        """Watch every access."""
        self._place(_EVERYTHING)

    def outside(self, allowed: Ranges) -> None:
        """Watch at least what is not inside one of the ranges."""
        gaps = [] if self._whole else [(uc.UC_HOOK_MEM_READ, *gap) for gap in _gaps(self._memory, allowed)]
        if gaps:
            writable = [[r for r in ranges if r[2]] for ranges in (self._memory, allowed)]
            gaps += [(uc.UC_HOOK_MEM_WRITE, *gap) for gap in _gaps(*writable)]
        self._place(gaps or _EVERYTHING)  # code that is translated while there is no hook would never call one

    def _place(self, places: list[tuple[int, int, int]]) -> None:
        if places != self._places:
            for hook in self._hooks:
                self._remove(hook)
            self._hooks, self._places = [self._add(*place) for place in places], places


def _gaps(memory: Ranges, allowed: Ranges) -> Iterator[tuple[int, int]]:
    """(first, last) address of each part of memory that is not allowed, with the last bytes of what lies before it."""
    for first, beyond, _ in memory:
        reached = first
        for start, end, _ in sorted(r for r in allowed if r[0] < beyond and r[1] > first):
            if start > reached:
                yield reached, start - 1
            reached = max(reached, end - _ACROSS)
        if reached < beyond:
            yield reached, beyond - 1
