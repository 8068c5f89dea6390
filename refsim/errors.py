"""The project's exception hierarchy.

Every error that a user can cause is a `TinyFormerError`. Its message is one sentence or two: where (the node's,
file's or option's name), what was found, what is supported or what to do. The command line prints it on one line and
exits with 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class TinyFormerError(Exception):
    """Base of every error that the toolkit raises on purpose."""


class ModelError(TinyFormerError):
    """A model file is unreadable, corrupt or inconsistent."""


class UnsupportedError(ModelError):
    """A model is valid but uses something that the toolkit does not support; the message says what is."""


class ShapeError(ModelError):
    """Shapes do not fit: of an operator's inputs, or of the data handed to a model."""


class QuantizationError(ModelError):
    """A scale, zero point or multiplier is missing or out of range, or an accumulator could overflow."""


class DataError(TinyFormerError):
    """A dataset or sample file is missing, unreadable or of the wrong form."""


class TargetError(TinyFormerError):
    """A target description is wrong, or a model does not fit the target."""


class ToolchainError(TinyFormerError):
    """A compiler is missing or failed."""


class EmulationError(TinyFormerError):
    """Emulated code strayed, faulted or did not end."""


class ConformanceError(TinyFormerError):
    """Two places that must agree byte for byte do not."""


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put `where` (a node's or file's name) in front of any toolkit error raised inside, keeping its type."""
    try:
        yield
    except TinyFormerError as error:
        raise type(error)(f"{where}: {error}") from error
