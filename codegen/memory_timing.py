"""How long a chip's memories make the core wait: caches, buses and wait states, as data.

One scheme covers what the makers name differently. A memory is read in rows over a bus; zero or one cache for
instructions and zero or one for data lie between the core and it. A core's level-1 caches, the ART accelerator of the
STM32F4, the ICACHE of the STM32U5 and the XIP cache of the RP2040 all are such caches.
"""

from dataclasses import dataclass

from refsim.errors import TargetError

BUSES = ("tcm", "ahb", "axi", "xip")
"""How a core reaches a memory: tightly coupled, the AHB or AXI bus matrix, or a serial flash executed in place."""

CONTENTS = ("instructions", "data", "both")
"""What a cache may hold."""


@dataclass(frozen=True)
class Cache:
    """A set-associative cache, or a buffer that behaves like one, between the core and some memories.

    Attributes:
        name: Its name in `MemoryTiming.caches`, such as "l1d".
        holds: One of `CONTENTS`: the accesses that it serves.
        size: Bytes.
        ways: Lines of one set; all the lines where the cache is fully associative.
        line: Bytes of one line.
        write_back: Stores stay in it until their line is evicted, and a store that misses reads its line first; where
            false, stores go to the memory and leave the cache as it is.
        source: Where the figures come from.

    Raises:
        TargetError: A figure is out of its range, or the number of sets is no power of two.
    """

    name: str
    holds: str
    size: int
    ways: int
    line: int
    write_back: bool
    source: str

    def __post_init__(self) -> None:
        if self.holds not in CONTENTS:
            raise TargetError(f"cache {self.name!r}: holds {self.holds!r}; supported are {', '.join(CONTENTS)}")
        if self.line < 4 or not _power_of_two(self.line):
            raise TargetError(f"cache {self.name!r}: line is {self.line}, it must be a power of two from 4 bytes on")
        whole = self.ways > 0 and self.size > 0 and self.size % (self.ways * self.line) == 0
        if not whole or not _power_of_two(self.sets):
            raise TargetError(
                f"cache {self.name!r}: {self.size} bytes in {self.ways} ways of {self.line}-byte lines; "
                f"size / (ways * line) must be a power of two"
            )
        if self.write_back and self.holds == "instructions":
            raise TargetError(f"cache {self.name!r}: write_back in a cache for instructions; it must be false")

    @property
    def sets(self) -> int:
        """Sets of `ways` lines; 1 where the cache is fully associative."""
        return self.size // (self.ways * self.line)


@dataclass(frozen=True)
class MemoryTiming:
    """A part of a memory region all of whose addresses are reached in the same time.

    Reading takes `read_cycles`: the bus cycles on the way, the wait states of each row, and one cycle a beat.

    Attributes:
        name: Its name in reports, such as "dtcm".
        origin: First address.
        size: Bytes.
        bus: One of `BUSES`.
        caches: Names of the `Cache`s that its accesses pass: at most one for instructions and one for data.
        clock_divider: Core cycles of one bus cycle, the unit of `latency` and `wait_states`.
        bus_bits: Bits that reach the core, or the cache before it, in one bus cycle: a whole row where the cache is
            part of the flash interface.
        row_bits: Bits that the memory reads at once; a multiple of `bus_bits`. Wait states are paid once a row.
        wait_states: Bus cycles that reading a row takes beyond one.
        latency: Bus cycles of each transfer beyond those: bridges, or command and address of a serial flash.
        prefetch: Instructions only: while the core executes one row, the next is read already.
        source: Where the figures come from.

    Raises:
        TargetError: A figure is out of its range, or a tightly coupled memory is given a cache or makes the core wait.
    """

    name: str
    origin: int
    size: int
    bus: str
    caches: tuple[str, ...]
    clock_divider: int
    bus_bits: int
    row_bits: int
    wait_states: int
    latency: int
    prefetch: bool
    source: str

    def __post_init__(self) -> None:
        where = f"memory timing {self.name!r}"
        if self.bus not in BUSES:
            raise TargetError(f"{where}: bus {self.bus!r} is unknown; supported are {', '.join(BUSES)}")
        for name in ("size", "clock_divider", "bus_bits", "row_bits"):
            if getattr(self, name) <= 0:
                raise TargetError(f"{where}: {name} is {getattr(self, name)}, it must be positive")
        for name in ("origin", "wait_states", "latency"):
            if getattr(self, name) < 0:
                raise TargetError(f"{where}: {name} is {getattr(self, name)}, it must not be negative")
        if self.row_bits % self.bus_bits:
            raise TargetError(f"{where}: row_bits {self.row_bits} is no multiple of bus_bits {self.bus_bits}")
        if self.bus == "tcm" and (self.caches or self.prefetch or self.read_cycles(4) != 1):
            raise TargetError(
                f"{where}: a tcm has no caches, no prefetch and no waits, and moves at least 32 bits in a core cycle"
            )

    @property
    def end(self) -> int:
        """First address after it."""
        return self.origin + self.size

    def read_cycles(self, size: int) -> int:
        """Core cycles until the last of `size` aligned bytes is there, without a cache; 1 where nothing waits.

        Args:
            size: Bytes: of one access, or of a cache's line that is filled.
        """
        rows, beats = -(-8 * size // self.row_bits), -(-8 * size // self.bus_bits)
        return self.clock_divider * (self.latency + rows * self.wait_states + beats)


@dataclass(frozen=True)
class Power:
    """What a chip draws while it computes.

    Attributes:
        current_ma: Typical supply current in run mode at the target's clock, mA.
        supply_v: Supply voltage of that figure, V.
        source: Table and conditions: where code runs from, peripherals, temperature.

    Raises:
        TargetError: A figure is not positive.
    """

    current_ma: float
    supply_v: float
    source: str

    def __post_init__(self) -> None:
        for name in ("current_ma", "supply_v"):
            if not getattr(self, name) > 0:
                raise TargetError(f"power: {name} is {getattr(self, name)}, it must be positive")

    @property
    def milliwatts(self) -> float:
        """Power drawn, mW."""
        return self.current_ma * self.supply_v


def _power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0
