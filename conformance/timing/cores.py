"""The timing models by the names of their cores."""

from conformance.timing.core import CoreModel
from conformance.timing.cortex_m0plus import CortexM0Plus
from conformance.timing.cortex_m3 import CortexM3
from conformance.timing.cortex_m4 import CortexM4
from conformance.timing.cortex_m7 import CortexM7
from conformance.timing.cortex_m33 import CortexM33
from refsim.errors import TargetError

_MODELS: dict[str, type[CoreModel]] = {
    model.name: model for model in (CortexM0Plus, CortexM3, CortexM4, CortexM7, CortexM33)
}


def core_model(name: str) -> CoreModel:
    """The timing model of a core.

    Args:
        name: one of `codegen.target.CORES`.

    Raises:
        TargetError: there is no model of that name.
    """
    if name not in _MODELS:
        raise TargetError(f"there is no timing model of core {name!r}; there is one of {', '.join(_MODELS)}")
    return _MODELS[name]()
