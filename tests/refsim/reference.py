"""An operator's last step from the definitions of docs/numerics.md in Python's unbounded integers."""

from conformance.opinion.definitions import clamp, rdbpot, requant, round_half_away, srdhm

__all__ = ["finish", "rdbpot", "requantize", "round_half_away", "srdhm"]

requantize = requant


def finish(acc: int, stage, channel: int = 0) -> int:
    """An operator's last step from a `Requantization`."""
    index = channel if stage.multiplier.size > 1 else 0
    scaled = requantize(acc, int(stage.multiplier[index]), int(stage.shift[index]), int(stage.rounding))
    return clamp(scaled + stage.zero_point, stage.act_min, stage.act_max)
