"""How far an estimate may be from a chip: the error band of each core, as the validation found it."""

import functools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from conformance.timing.cycles import Timing

BANDS_FILE = Path(__file__).parent / "bands.json"
"""What `tinyformer validate-timing --update` wrote last."""

_STEP = 5
_MIN_PROGRAMS = 2


@dataclass(frozen=True)
class Deviation:
    """One measurement against its estimate.

    Attributes:
        core: that ran it.
        timing: of the estimate.
        program: what ran; several figures may be of one program.
        relative: measured / estimated - 1.
    """

    core: str
    timing: Timing
    program: str
    relative: float


@dataclass(frozen=True)
class Band:
    """The measured time lies within this much of the estimate, as far as published measurements tell.

    Attributes:
        percent: half the band's width, of the estimate.
        figures: measurements that it rests on.
        cores: on which they were made; more than the estimate's own where that has too few.
    """

    percent: int
    figures: int
    cores: tuple[str, ...]

    @property
    def fraction(self) -> float:
        """Half the band's width, relative to the estimate."""
        return self.percent / 100

    def __str__(self) -> str:
        return f"± {self.percent} %"


def error_band(core: str, timing: Timing) -> Band | None:
    """The error band of estimates for `core`; None where no measurement tells.

    Args:
        core: one of `codegen.target.CORES`.
        timing: of the estimate.
    """
    return _stored()[1].get((core, timing.name))


def bands(deviations: Sequence[Deviation], cores: Iterable[str]) -> dict[tuple[str, str], Band]:
    """The band of each core and timing (its name).

    The rule: the largest deviation, in either direction, of the programs that were measured on the core, rounded up to
    a multiple of 5 %. Where there is one program, those of all cores count as well; where there is none, the band is
    twice as wide as that.
    """
    found = {}
    for timing in Timing:
        pool = [d for d in deviations if d.timing is timing]
        for core in cores:
            own = [d for d in pool if d.core == core]
            used = own if len({d.program for d in own}) >= _MIN_PROGRAMS else pool
            if used:
                largest = max(abs(d.relative) for d in used)
                percent = max(math.ceil(round(100 * largest / _STEP, 6)), 1) * _STEP * (1 if own else 2)
                found[core, timing.name] = Band(percent, len(used), tuple(sorted({d.core for d in used})))
    return found


def bands_as_json(found: dict[tuple[str, str], Band], compiler: str, version: str) -> str:
    """The text of `BANDS_FILE`: the bands, and the compiler of the kernels that they rest on."""
    rows = [{"core": core, "timing": timing, **asdict(band)} for (core, timing), band in found.items()]
    return json.dumps({"compiler": compiler, "version": version, "bands": rows}, indent=2) + "\n"


def band_compiler() -> str | None:
    """Name of the compiler of the kernels that the error bands rest on; None where there are no bands."""
    return _stored()[0]


@functools.cache
def _stored() -> tuple[str | None, dict[tuple[str, str], Band]]:
    if not BANDS_FILE.exists():
        return None, {}
    stored = json.loads(BANDS_FILE.read_text(encoding="utf-8"))
    rows = stored["bands"]
    found = {(r["core"], r["timing"]): Band(r["percent"], r["figures"], tuple(r["cores"])) for r in rows}
    return stored["compiler"], found
