"""Whose bytes a model gives: how each engine rounds its operators."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from refsim.errors import UnsupportedError
from refsim.numerics import Rounding

ProfileName = Literal["litert", "cmsis-nn"]


@dataclass(frozen=True)
class Profile:
    """An engine for .tflite files.

    Attributes:
        name: of the profile.
        rounding: of the operators that round otherwise than twice, by the schema's name.
        refused: operators that the engine computes in a way of its own, or not at all.
    """

    name: ProfileName
    rounding: Mapping[str, Rounding] = field(default_factory=dict)
    refused: tuple[str, ...] = ()

    def of(self, kind: str) -> Rounding:
        """How an operator rounds."""
        return self.rounding.get(kind, Rounding.DOUBLE)


_PROFILES = {
    # LiteRT's reference kernels (BUILTIN_REF), as measured.
    "litert": Profile("litert", {"FULLY_CONNECTED": Rounding.SINGLE}),
    # TensorFlow Lite Micro with CMSIS-NN. LOGISTIC and TANH are fixed point there, RELU6 alone takes no new scale, and
    # the other two are missing.
    "cmsis-nn": Profile("cmsis-nn", refused=("GELU", "LOGISTIC", "RELU6", "RELU_N1_TO_1", "TANH")),
}


def find_profile(name: str) -> Profile:
    """The profile of a name.

    Raises:
        UnsupportedError: there is none.
    """
    if name not in _PROFILES:
        raise UnsupportedError(f"profile {name!r} is unknown; {' and '.join(get_args(ProfileName))} are supported")
    return _PROFILES[name]
