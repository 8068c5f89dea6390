"""A Cortex-M under Unicorn: exactly the target's memory, guarded, with instruction counts at native speed.

The machine runs images of `conformance.toolchain.build_firmware`. The image's start-up code runs as it would on a chip:
it copies initial values, clears variables and enables the FPU. Then functions are called one by one, and return to
`tnf_exit`. Nothing but the chip's flash and RAM can be touched, flash cannot be written and RAM cannot be executed; RAM
holds a pattern, not zeros, at reset. Stack and arena border on inaccessible pages, and what lies between their ends and
a page's edge is a canary that every call checks. A stray access is one error that names the operator, the address and
the instruction.

Instructions are counted by a C function that Unicorn calls for each translated block. An instruction of an IT block
whose condition fails counts as executed, since it takes its cycle on the chip as well. On request cycles are counted
too: see `conformance.timing`.

Strict mode also checks each access, to the byte, and for alignment: Unicorn itself lets LDM, LDRD and VLDR of ARMv7-M
cores be unaligned, which a chip traps. Of ARMv6-M cores it traps every unaligned access, in any mode.
"""

from conformance.emulator.machine import HOST_WINDOW, CortexM
from conformance.emulator.results import CallResult, Mark, OperatorRule, StrayAccess

__all__ = ["HOST_WINDOW", "CallResult", "CortexM", "Mark", "OperatorRule", "StrayAccess"]
