"""The emulated chip itself: its memory and registers, calls, and what guards them."""

import mmap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from unicorn import arm_const as arm
from unicorn import unicorn_const as uc

from codegen.target import Target
from conformance.emulator.image import read_image
from conformance.emulator.locations import Locations, NamedRange
from conformance.emulator.results import CallResult, Mark, OperatorRule, StrayAccess
from conformance.emulator.unicorn_library import libraries
from conformance.emulator.watch import Watch
from conformance.timing.core import Block
from conformance.timing.cores import core_model
from conformance.timing.cycles import BlockExecutions, Timing
from conformance.timing.timer import Timer, as_cycles, divisions
from conformance.toolchain import elf_symbols, image_usage
from refsim.errors import EmulationError

HOST_WINDOW = 0xA000_0000
"""Address of the optional memory through which a trace build hands tensors out; no chip has memory there."""

_CPU_MODELS = {
    "cortex-m0plus": arm.UC_CPU_ARM_CORTEX_M0,  # the same instruction set
    "cortex-m3": arm.UC_CPU_ARM_CORTEX_M3,
    "cortex-m4": arm.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": arm.UC_CPU_ARM_CORTEX_M7,
    "cortex-m33": arm.UC_CPU_ARM_CORTEX_M33,
}
_ACCESS = {
    uc.UC_MEM_READ: "read",
    uc.UC_MEM_READ_UNMAPPED: "read",
    uc.UC_MEM_READ_PROT: "read",
    uc.UC_MEM_WRITE: "write",
    uc.UC_MEM_WRITE_UNMAPPED: "write",
    uc.UC_MEM_WRITE_PROT: "write",
    uc.UC_MEM_FETCH: "fetch",
    uc.UC_MEM_FETCH_UNMAPPED: "fetch",
    uc.UC_MEM_FETCH_PROT: "fetch",
}
_REGISTERS = [getattr(arm, f"UC_ARM_REG_R{number}") for number in range(15)]
_SET_CPU_MODEL = uc.UC_CTL_CPU_MODEL | 1 << 26 | uc.UC_CTL_IO_WRITE << 30
_SYSTEM_CONTROL_SPACE, _CPACR = 0xE000_E000, 0xD88
_PERMISSIONS = {"r": uc.UC_PROT_READ, "w": uc.UC_PROT_WRITE, "x": uc.UC_PROT_EXEC}
_XPSR_THUMB = 1 << 24  # flags clear, and outside any IT block, where a fault may have left the machine
_PATTERN = 0xA5
_MAX_MARKS = 1 << 16
_ALWAYS_ALIGNED = "cortex-m0plus"
"""The core that traps every unaligned access."""


class CortexM:
    """An emulated chip with an image in its flash, started and ready for calls.

    Attributes:
        target: The chip.
        symbols: Address of each symbol of the image; bit 0 is set for functions.
        stack: (first address, address after the last) of the stack.
        arena: The same of the arena.
        flash_free: The same of the flash after the image, where constant data of test cases may be written.
        guards: See `CallResult.guards`.
        code_spans: (start, end) of the image's instructions.
        operator_names: Names by mark index, for messages; may be set at any time.

    Args:
        target: The chip.
        elf: An image that `build_firmware` linked for it.
        host_window: Bytes of memory at `HOST_WINDOW`, outside the chip, for trace builds.
        strict: Check each access against allowed ranges (see `allow`) and for alignment, at a seventh of the speed; on
            ARMv6-M, where Unicorn itself traps unaligned ones, at a third.
        timing: Count cycles as well: of the core alone, or, at a tenth of the speed, with the target's memories.
        pattern: Byte that RAM and stack hold where nothing was written.

    Raises:
        EmulationError: The image does not start up.
        TargetError: The image does not fit the target, or the target does not say what the timing needs.
        ToolchainError: The file is no ELF image with symbols, or the hooks cannot be built.
    """

    def __init__(
        self,
        target: Target,
        elf: Path,
        *,
        host_window: int = 0,
        strict: bool = False,
        timing: Timing | None = None,
        pattern: int = _PATTERN,
    ) -> None:
        self.target = target
        self._pattern = bytes([pattern])
        self.operator_names: Sequence[str] = ()
        self.symbols = self._symbols_of(elf)
        image_usage(elf, target)
        self._native, self._unicorn = libraries()
        self._ffi = self._native.ffi
        self._memory: dict[str, tuple[int, mmap.mmap]] = {}
        self._usual: Sequence[tuple[int, int, bool]] = ()

        handle = self._ffi.new("void **")
        # Not UC_MODE_MCLASS: with it Unicorn 2.1 makes every core a Cortex-M33, whatever model is asked for.
        self._check(self._unicorn.uc_open(uc.UC_ARCH_ARM, uc.UC_MODE_THUMB, handle))
        self._machine = self._ffi.gc(handle[0], self._unicorn.uc_close)
        model = self._ffi.cast("int", _CPU_MODELS[target.core])
        self._check(self._unicorn.uc_ctl(self._machine, _SET_CPU_MODEL, model))
        for region in target.memory:
            access = uc.UC_PROT_READ | (uc.UC_PROT_WRITE if "w" in region.permissions else 0)
            self._map(
                region.name, region.origin, region.size, access | (uc.UC_PROT_EXEC if "x" in region.permissions else 0)
            )
        if host_window:
            self._map("host window", HOST_WINDOW, -(-host_window // 1024) * 1024, uc.UC_PROT_READ | uc.UC_PROT_WRITE)

        image_end = self._load(elf)
        self.flash_free = (image_end, target.code.end)
        self.stack = (self.symbols["tnf_stack_bottom"], self.symbols["tnf_stack_top"])
        self.arena = (self.symbols["tnf_arena"], self.symbols["tnf_arena_end"])
        self._exit = self.symbols["tnf_exit"] & ~1
        self._ranges = self._named_ranges()
        self._locations = Locations(self._contents, target.code, self._ranges, self.read)
        self._canaries, self.guards = self._guard()
        self._fill_probe()
        self._timer = self._add_timer(timing) if timing else None
        self._add_hooks()
        self._watch = self._add_watch() if strict else None
        self.reset()

    def reset(self) -> None:
        """Fill RAM with a pattern and run the start-up code, as after a reset.

        Flash keeps what was written to it; what `allow` said is forgotten. Caches and branch predictor are empty.

        Raises:
            EmulationError: Start-up code strayed or did not enable the FPU.
        """
        for region in self.target.memory:
            if region.kind == "ram":
                self._memory[region.name][1][:] = self._pattern * region.size
        # The system control space is there for start-up only: a stray pointer must not find it.
        system = self._map("system control space", _SYSTEM_CONTROL_SPACE, 4096, uc.UC_PROT_READ | uc.UC_PROT_WRITE)
        self._allow([(0, 1 << 32, True)])
        try:
            self._start_up(system)
        finally:
            self._check(self._unicorn.uc_mem_unmap(self._machine, _SYSTEM_CONTROL_SPACE, 4096))
            del self._memory["system control space"]
        self._allow([(r.start, r.end, r.writable) for r in self._ranges])
        self.empty_caches()

    def empty_caches(self) -> None:
        """Empty the caches and let the branch predictor forget, which both otherwise remember from call to call."""
        if self._timer:
            self._timer.empty()

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes of flash, RAM or the host window.

        Raises:
            EmulationError: The range is not inside one of them.
        """
        memory, offset = self._at(address, size)
        return memory[offset : offset + size]

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write from outside, as a debugger would: flash, RAM or the host window. Code must not be changed.

        Raises:
            EmulationError: The range is not inside one of them.
        """
        size = memoryview(data).nbytes
        memory, offset = self._at(address, size)
        memory[offset : offset + size] = bytes(data)

    def protect(self, address: int, size: int) -> None:
        """Make whole pages of 1 KB inaccessible to emulated code; `read` and `write` still reach them.

        Raises:
            EmulationError: The range is no whole number of mapped pages.
        """
        # Unmapped, not without permissions: Unicorn 2.1 lets code read such a page once a write to it has failed.
        self._check(self._unicorn.uc_mem_unmap(self._machine, address, size))

    def allow(self, readable: Sequence[tuple[int, int]], writable: Sequence[tuple[int, int]]) -> None:
        """In strict mode, the only (address, size) ranges that code may touch beside its stack, variables and image."""
        self._allow(self._own_and(readable, writable))

    def follow(self, rules: Sequence[OperatorRule]) -> None:
        """Let each mark put its operator's rule into force, by mark index; at others what was allowed before holds.

        Args:
            rules: Empty for none, as at the start.

        Raises:
            EmulationError: A patch is not inside the chip's memory.
        """
        ffi = self._ffi
        table = ffi.new("tnf_rule[]", len(rules))
        self._rules: list[Any] = [table]  # what C points to must stay alive
        for entry, rule in zip(table, rules, strict=True):
            ranges = self._c_ranges(self._own_and(rule.readable, rule.writable))
            patches = ffi.new("tnf_patch[]", len(rule.patches))
            for patch, (address, data) in zip(patches, rule.patches, strict=True):
                memory, offset = self._at(address, len(data))
                patch.to = ffi.cast("uint8_t *", ffi.from_buffer(memory)) + offset
                patch.size = len(data)
                self._rules.append(source := ffi.new("uint8_t[]", data))
                setattr(patch, "from", source)
            entry.ranges, entry.range_count = ranges, len(ranges)
            entry.patches, entry.patch_count = patches, len(patches)
            self._rules += [ranges, patches]
        self._probe.rules, self._probe.rule_count = table, len(rules)
        self._watch_what_is_not_allowed()

    def call(self, function: str | int, *arguments: int, max_instructions: int = 10**10) -> CallResult:
        """Call a function by the Procedure Call Standard for the Arm Architecture (AAPCS32) and wait for its return.

        Args:
            function: Symbol or address.
            arguments: 32-bit words: integers and pointers; a 64-bit argument is two, at an even position.
            max_instructions: Stop once this many have been executed.

        Raises:
            StrayAccess: The code touched memory that it must not.
            EmulationError: There is no such function, it faulted, did not end, or wrote past its stack or arena.
        """
        entry = self.symbols.get(function) if isinstance(function, str) else function
        if entry is None:
            raise EmulationError(f"the image has no function {function!r}")
        bottom, top = self.stack
        self.write(bottom, self._pattern * (top - bottom))
        stacked = b"".join((word & 0xFFFFFFFF).to_bytes(4, "little") for word in arguments[4:])
        pointer = (top - len(stacked)) & ~7
        self.write(pointer, stacked)
        registers = (*arguments[:4], *(0,) * (4 - len(arguments[:4])), pointer, self._exit | 1, _XPSR_THUMB)
        for index, word in enumerate(registers):
            self._registers[index] = word & 0xFFFFFFFF
        ids, values = self._register_ids, self._register_values
        self._check(self._unicorn.uc_reg_write_batch(self._machine, ids, values, len(ids)))
        probe = self._probe
        probe.instructions = probe.blocks = probe.mark_count = 0
        probe.faulted = probe.limit_reached = probe.unaligned = False
        probe.limit = max_instructions
        probe.ranges, probe.range_count = probe.usual.ranges, probe.usual.range_count
        if self._timer:
            self._timer.begin()

        error = self._unicorn.uc_emu_start(self._machine, entry | 1, self._exit, 0, 0)
        pc = self._register(arm.UC_ARM_REG_PC)
        if self._timer:
            self._timer.end(probe.mark_count)
        if error == uc.UC_ERR_EXCEPTION:
            self._native.lib.tnf_on_exception(self._machine, probe)
        if probe.faulted:
            self._paint_canaries()
            raise self._stray(pc)
        if probe.limit_reached:
            raise EmulationError(f"{self._where(pc)} had not ended after {max_instructions} instructions")
        if error or pc & ~1 != self._exit:
            raise EmulationError(f"{self._where(pc)} stopped: {self._text(error)}")
        self._check_canaries()
        if probe.mark_count > _MAX_MARKS:
            raise EmulationError(f"{function} marked {probe.mark_count} operators; the log holds {_MAX_MARKS}")
        return CallResult(
            r0=self._register(arm.UC_ARM_REG_R0),
            r1=self._register(arm.UC_ARM_REG_R1),
            instructions=probe.instructions,
            blocks=probe.blocks,
            marks=tuple(
                Mark(m.index, m.instructions, as_cycles(m.cycles) if self._timer else None)
                for m in self._marks[0 : probe.mark_count]
            ),
            stack_bytes=len(self.read(bottom, top - bottom).lstrip(self._pattern)),
            guards=self.guards,
            cycles=self._timer.total() if self._timer else None,
        )

    def block_profile(self) -> list[BlockExecutions]:
        """What each block of instructions did in each operator of the last call, by mark index and address.

        Empty where only instructions are counted. The cycles add up to those of the call.
        """
        marks = [int(mark.index) for mark in self._marks[0 : self._probe.mark_count]]
        return self._timer.executions(marks) if self._timer else []

    def edges(self) -> list[tuple[Block | None, Block]]:
        """Which blocks were entered from which, in all calls so far; empty where only instructions are counted."""
        return self._timer.edges() if self._timer else []

    def function_at(self, address: int) -> tuple[str, int]:
        """The function that code belongs to, and the bytes from its start; ("", address) before the first one."""
        return self._contents.function_at(address)

    def _symbols_of(self, elf: Path) -> dict[str, int]:
        """The image's symbols, with those of `native/link.ld.in`."""
        return elf_symbols(elf)

    def _start_up(self, system: mmap.mmap) -> None:
        """Do what happens between reset and the first call; `system` is the system control space."""
        self.call("tnf_start")
        if self.target.fpu != "none" and system[_CPACR + 2] & 0xF0 != 0xF0:
            raise EmulationError(f"start-up code does not enable the FPU of {self.target.name}, so a chip would fault")

    def _map(self, name: str, address: int, size: int, permissions: int) -> mmap.mmap:
        memory = mmap.mmap(-1, size)
        pointer = self._ffi.from_buffer(memory)
        self._check(self._unicorn.uc_mem_map_ptr(self._machine, address, size, permissions, pointer))
        self._memory[name] = (address, memory)
        return memory

    def _load(self, elf: Path) -> int:
        """Put the image's bytes where a programmer would, and find its functions; the flash address after the image."""
        code = self.target.code
        self._memory[code.name][1][:] = b"\xff" * code.size
        self._contents = read_image(elf)
        for address, data in self._contents.segments:
            self.write(address, data)
        self.code_spans = self._contents.code_spans
        return -(-max(self._contents.end, code.origin) // 16) * 16

    def _named_ranges(self) -> list[NamedRange]:
        data = (self.symbols["tnf_data_start"], self.symbols["tnf_bss_end"])
        others = [r for r in self.target.memory if r.name not in (self.target.code_region, self.target.data_region)]
        ranges = [
            NamedRange("image", self.target.code.origin, self.flash_free[0], writable=False),
            NamedRange("free flash", *self.flash_free, writable=False),
            NamedRange("stack", *self.stack),
            NamedRange("static data", *data),
            NamedRange("arena", *self.arena),
            *(NamedRange(r.name, r.origin, r.end, r.kind == "ram") for r in others),
        ]
        if "host window" in self._memory:
            ranges.append(NamedRange("host window", HOST_WINDOW, HOST_WINDOW + len(self._memory["host window"][1])))
        return [r for r in ranges if r.end > r.start]

    def _guard(self) -> tuple[list[tuple[NamedRange, bytes]], str]:
        """Protect the guard pages; the canaries around them with their contents, and the kind of guards."""
        size = self.symbols["tnf_guard_bytes"]
        used = [self.stack, (self.symbols["tnf_data_start"], self.symbols["tnf_bss_end"]), self.arena]
        ram = self.target.data
        guards = []
        if size:
            guards = [used[1][0] - size, used[2][0] // size * size - size]
            for start in guards:
                self.protect(start, size)
        edges = sorted([(g, g + size) for g in guards] + used + [(ram.end, ram.end)])
        gaps = [NamedRange("unused RAM", low[1], high[0]) for low, high in pairwise(edges) if low[1] < high[0]]
        canaries = [(gap, self._pattern * (gap.end - gap.start)) for gap in gaps]
        bordering = any(region.end == ram.origin or region.origin == ram.end for region in self.target.memory)
        if bordering or (not size and used[2][0] - used[1][1] < 16):
            return canaries, "none"
        return canaries, "pages" if size else "canaries"

    def _fill_probe(self) -> None:
        ffi, code = self._ffi, self.target.code
        self._blocks_seen = ffi.new("uint32_t[]", code.size // 2)
        self._marks = ffi.new("tnf_mark[]", _MAX_MARKS)
        self._image = ffi.from_buffer("uint8_t[]", self._memory[code.name][1])
        probe = self._probe = ffi.new("tnf_probe *")
        probe.code, probe.blocks_seen, probe.code_origin, probe.code_size = (
            self._image,
            self._blocks_seen,
            code.origin,
            code.size,
        )
        probe.mark_address = self.symbols.get("tnf_trace_mark", 0) & ~1
        probe.marks, probe.mark_capacity, probe.r0 = self._marks, _MAX_MARKS, arm.UC_ARM_REG_R0
        probe.xpsr = arm.UC_ARM_REG_XPSR
        probe.pc = arm.UC_ARM_REG_PC
        self._register_numbers = ffi.new("int[]", _REGISTERS)
        probe.registers = self._register_numbers
        probe.reg_read = ffi.cast("int (*)(void *, int, void *)", ffi.addressof(self._unicorn, "uc_reg_read"))
        probe.reg_write = ffi.cast("int (*)(void *, int, const void *)", ffi.addressof(self._unicorn, "uc_reg_write"))
        probe.emu_stop = ffi.cast("int (*)(void *)", ffi.addressof(self._unicorn, "uc_emu_stop"))
        ids = [arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2, arm.UC_ARM_REG_R3]
        self._register_ids = ffi.new("int[]", [*ids, arm.UC_ARM_REG_SP, arm.UC_ARM_REG_LR, arm.UC_ARM_REG_XPSR])
        self._registers = ffi.new("uint32_t[]", len(self._register_ids))
        self._register_values = ffi.new("void *[]", [self._registers + i for i in range(len(self._registers))])
        self._word = ffi.new("uint32_t *")

    def _add_timer(self, timing: Timing) -> Timer:
        model = core_model(self.target.core)
        timer = Timer(self._native, self.target, timing, model, self.read)
        self._probe.timer = timer.pointer
        return timer

    def _add_hooks(self) -> None:
        """All of them before any code is translated, since those added later are not called."""
        self._add_hook(uc.UC_HOOK_BLOCK, "tnf_on_block")
        self._add_hook(uc.UC_HOOK_MEM_INVALID, "tnf_on_invalid")
        if self._timer and self._timer.watches_accesses:
            self._add_hook(uc.UC_HOOK_CODE, "tnf_on_instruction")
        elif self._timer and self._timer.watches_divisions:
            for start, end in self.code_spans:
                for address in divisions(self.read(start, end - start), start):
                    self._add_hook(uc.UC_HOOK_CODE, "tnf_on_division", address, address)

    def _add_hook(self, kind: int, function: str, first: int = 1, last: int = 0) -> int:
        ffi = self._ffi
        callback = ffi.cast("void *", ffi.addressof(self._native.lib, function))
        where = (first, last)  # everywhere where first > last
        hook = ffi.new("size_t *")
        self._check(self._unicorn.uc_hook_add(self._machine, hook, kind, callback, self._probe, *where))
        return int(hook[0])

    def _add_watch(self) -> Watch:
        def add(kind: int, first: int, last: int) -> int:
            return self._add_hook(kind, "tnf_on_access", first, last)

        def remove(hook: int) -> None:
            self._check(self._unicorn.uc_hook_del(self._machine, hook))

        spans = {name: (start, start + len(memory)) for name, (start, memory) in self._memory.items()}
        read_only = {region.name for region in self.target.memory if "w" not in region.permissions}
        memory = [(*span, name not in read_only) for name, span in spans.items()]
        return Watch(add, remove, memory, whole=self.target.core != _ALWAYS_ALIGNED)

    def _watch_what_is_not_allowed(self) -> None:
        if self._watch and self._probe.rule_count:
            self._watch.everything()
        elif self._watch:
            self._watch.outside(self._usual)

    def _own_and(
        self, readable: Sequence[tuple[int, int]], writable: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int, bool]]:
        """(start, end, writable) of stack, variables, image, and of the given (address, size) ranges."""
        own = [r for r in self._ranges if r.name in ("image", "stack", "static data")]
        given = [(r.start, r.end, r.writable) for r in own]
        given += [(a, a + n, w) for ranges, w in ((readable, False), (writable, True)) for a, n in ranges]
        return [(start, end, w) for start, end, w in given if end > start]

    def _allow(self, ranges: Sequence[tuple[int, int, bool]]) -> None:
        self._usual, self._allowed = ranges, self._c_ranges(ranges)
        self._probe.usual.ranges, self._probe.usual.range_count = self._allowed, len(self._allowed)
        self._watch_what_is_not_allowed()

    def _c_ranges(self, ranges: Sequence[tuple[int, int, bool]]) -> Any:
        return self._ffi.new("tnf_range[]", [(start, end - 1, writable) for start, end, writable in ranges])

    def _at(self, address: int, size: int) -> tuple[mmap.mmap, int]:
        for origin, memory in self._memory.values():
            if origin <= address and address + size <= origin + len(memory):
                return memory, address - origin
        raise EmulationError(f"{self.target.name} has no memory for {size} bytes at {address:#010x}")

    def _check_canaries(self) -> None:
        for canary, kept in self._canaries:
            found = self.read(canary.start, len(kept))
            if found != kept:
                address = canary.start + next(i for i, byte in enumerate(found) if byte != self._pattern[0])
                self._paint_canaries()
                raise EmulationError(
                    f"the call wrote to {address:#010x}, {self._locations.near(address, 1)}, where it has no memory"
                )

    def _paint_canaries(self) -> None:
        for canary, kept in self._canaries:
            self.write(canary.start, kept)

    def _register(self, register: int) -> int:
        self._check(self._unicorn.uc_reg_read(self._machine, register, self._word))
        return int(self._word[0])

    def _stray(self, pc: int) -> StrayAccess:
        probe = self._probe
        kind, address, size = _ACCESS[probe.fault_type], probe.fault_address, probe.fault_size
        if kind == "fetch":  # PC is where it went; what sent it there ends the last block
            pc = self._locations.last_instruction(probe.last_block, probe.last_size)
            message = f"{self._where(pc)} went to {address:#010x}, which is no code"
        elif probe.unaligned:
            message = (
                f"{self._where(pc)}: {kind} of {size} bytes at {address:#010x}, which is unaligned and traps on a chip"
            )
        else:
            message = (
                f"{self._where(pc)}: {kind} of {size} bytes at {address:#010x}, {self._locations.near(address, size)}"
            )
        return StrayAccess(
            message,
            operator=self._operator(),
            kind=kind,
            address=address,
            size=size,
            pc=pc,
            unaligned=bool(probe.unaligned),
        )

    def _operator(self) -> int | None:
        count = min(self._probe.mark_count, _MAX_MARKS)
        return int(self._marks[count - 1].index) if count else None

    def _where(self, pc: int) -> str:
        """Operator, function and instruction at an address, for a message."""
        operator = self._operator()
        if operator is None:
            return self._locations.instruction(pc)
        named = operator < len(self.operator_names)
        return f"operator {self.operator_names[operator] if named else operator}: {self._locations.instruction(pc)}"

    def _text(self, error: int) -> str:
        return str(self._ffi.string(self._unicorn.uc_strerror(error)).decode())

    def _check(self, error: int) -> None:
        if error:
            raise EmulationError(f"Unicorn refuses a request for {self.target.name}: {self._text(error)}")
