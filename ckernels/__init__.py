"""The C kernel library's door: where its sources and headers lie. Everything else here is C."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def include_dir() -> Path:
    """The folder to pass to a C compiler with ``-I``."""
    return _FOLDER / "include"


def headers() -> list[Path]:
    """The headers that every kernel includes, sorted; each lies below `include_dir`."""
    return sorted(include_dir().rglob("*.h"))


def sources() -> dict[str, Path]:
    """Operator name -> its C source. A source is self-contained: it includes the `headers` and nothing else."""
    return {path.stem: path for path in sorted((_FOLDER / "src").glob("*.c"))}


def source(operator: str) -> Path:
    """The C source of one operator, named as in ``docs/numerics.md`` (``"conv2d"``).

    Raises:
        KeyError: there is no kernel of that name; the message lists those there are.
    """
    found = sources()
    if operator not in found:
        raise KeyError(f"no C kernel for operator {operator!r}; there are kernels for {', '.join(found)}")
    return found[operator]
