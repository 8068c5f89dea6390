"""What each check asks, for readers who meet its name for the first time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """A check in words.

    Attributes:
        title: short, such as "Image fits the flash".
        why: what goes wrong on the chip where it fails.
        remedy: what to do then.
    """

    title: str
    why: str
    remedy: str


RULES = {
    "build": Rule(
        "The image builds",
        "The compiler or the linker refused the generated C: there is no image to examine.",
        "Read the compiler's message; another version or another compiler may take it.",
    ),
    "flash": Rule(
        "Image fits the flash",
        "Code and constants of the linked image exceed the chip's flash: it cannot be programmed as a whole.",
        "Prune or shrink the model, use sparse weights, build with -Os, or choose a chip with more flash.",
    ),
    "ram": Rule(
        "Data, arena and stack fit the RAM",
        "Static data, arena and stack of the linked image exceed the chip's RAM: they would overwrite each other.",
        "Let `tinyformer plan` show what sets the arena, shrink that, or choose a chip with more RAM.",
    ),
    "bit-exact": Rule(
        "Every tensor equals the golden model",
        "A byte differs from the golden model: what the chip computes is not what was evaluated.",
        "Read the first divergence, run its reproducer, and look at the compiler's options and version.",
    ),
    "memory-access": Rule(
        "No access outside its regions",
        "The code reads or writes memory that is none of its own, or writes to flash: a fault on the chip, or silent "
        "corruption of other data.",
        "Compare the address with the memory map; a plan that lets buffers overlap or an index past the end does this.",
    ),
    "alignment": Rule(
        "No access the core cannot make",
        "An unaligned access is a hard fault on a core without support for it, such as the Cortex-M0+.",
        "Build for the target's own core, and align the arena as the generated header asks.",
    ),
    "uninitialised": Rule(
        "No reliance on uninitialised memory",
        "Runs from differently poisoned memory disagree: the output depends on what was in RAM before.",
        "Look for a tensor or scratch that is read before it is written; the first divergence names the step.",
    ),
    "stack": Rule(
        "Stack stays within its bound",
        "The stack grows past its bound and would overwrite other data.",
        "Reserve more stack in the linker script, or look for recursion and large local variables.",
    ),
    "deterministic": Rule(
        "Repeated runs agree",
        "The same input gave different bytes: state of an earlier run leaks into the next.",
        "Look for static variables and for tensors that are not written in every run.",
    ),
    "undefined-behaviour": Rule(
        "No undefined behaviour",
        "A sanitizer found undefined behaviour in the C: another compiler or option may give other bytes.",
        "The finding names file and line; fix it there.",
    ),
    "latency": Rule(
        "Latency within the limit",
        "One inference takes longer than was allowed.",
        "`tinyformer profile` shows which layers take the time.",
    ),
    "qemu": Rule(
        "Boots and agrees under QEMU",
        "A second, independent emulator does not boot the firmware or computes other bytes.",
        "Compare the bytes with the first emulator's: start-up code, vector table and stack differ between them.",
    ),
    "accuracy": Rule(
        "Accuracy close to the float model's",
        "Quantisation cost more accuracy than was allowed.",
        "The error of each layer shows where it is lost; calibrate with more samples or keep that layer wider.",
    ),
}


def rule(name: str) -> Rule:
    """The rule of a check; for a name that the catalogue lacks, one that says its name."""
    return RULES.get(name) or Rule(name.replace("-", " ").capitalize(), "", "")
