"""What a report says in words: one wording for the terminal, CI systems and the page."""

import math
import re
from collections import Counter

from conformance.verify.result import Check, Divergence, Outcome, Report

ESSENTIAL = ("flash", "ram", "bit-exact", "memory-access", "alignment", "uninitialised", "deterministic", "stack")
"""Checks without which nobody can call an image safe."""

WORDS = {Outcome.PASSED: "passed", Outcome.FAILED: "failed", Outcome.NOT_RUN: "not run"}
SYMBOLS = {
    Outcome.PASSED: "\N{CHECK MARK}",
    Outcome.FAILED: "\N{BALLOT X}",
    Outcome.NOT_RUN: "\N{EN DASH}",
}


def counts(report: Report) -> dict[Outcome, int]:
    """How many checks ended in each way, failed ones first."""
    found = Counter(check.outcome for check in report.checks)
    return {outcome: found[outcome] for outcome in (Outcome.FAILED, Outcome.PASSED, Outcome.NOT_RUN)}


def headline(report: Report) -> str:
    """The verdict, such as "Do not flash: 2 of 14 checks failed". Only an image that was examined in full is safe."""
    found = counts(report)
    every = sum(found.values())
    missing = found[Outcome.NOT_RUN]
    left = f"; {missing} did not run" if missing else ""
    if report.verdict is Outcome.FAILED:
        return f"Do not flash: {found[Outcome.FAILED]} of {_plural(every, 'check')} failed{left}"
    if report.verdict is Outcome.PASSED:
        passed = f"{_plural(found[Outcome.PASSED], 'check')} passed{left}"
        lacking = unproven(report)
        return (
            f"Nothing failed, but {', '.join(lacking)} did not run: {passed}" if lacking else f"Safe to flash: {passed}"
        )
    return f"No verdict: {'none of ' + _plural(every, 'check') + ' ran' if every else 'there was nothing to check'}"


def unproven(report: Report) -> list[str]:
    """Checks of `ESSENTIAL` that were left out, or did not run somewhere."""
    passed = {check.name for check in report.checks if check.outcome is Outcome.PASSED}
    missing = {check.name for check in report.checks if check.outcome is Outcome.NOT_RUN}
    return [name for name in ESSENTIAL if name not in passed or name in missing]


def number(value: float) -> str:
    """Whole numbers as they are, others with four significant digits: 1,048,576, 12.35, 0.001234."""
    if not math.isfinite(value):
        return {math.inf: "infinite", -math.inf: "-infinite"}.get(value, "not a number")
    if value == round(value) or abs(value) >= 1000:
        return f"{round(value):,}"
    return f"{float(f'{value:.4g}'):,}"


def measured(check: Check) -> str:
    """The figure and its limit, such as "214,016 of 1,048,576 bytes"; empty where the check has none."""
    if check.figure is None:
        return ""
    figure = number(check.figure)
    if check.limit == 0:
        return f"{figure} {check.unit}".rstrip() + ", none allowed"
    limit = "" if check.limit is None else f" of {number(check.limit)}"
    return f"{figure}{limit} {check.unit}".rstrip()


def explained(divergence: Divergence) -> str:
    """The first difference in one sentence, without what feeds it."""
    at = ", ".join(map(str, divergence.element))
    before = "" if divergence.accumulator is None else f"; accumulator before requantisation {divergence.accumulator:,}"
    return (
        f"sample {divergence.sample}, step {divergence.step}, {divergence.operator} {divergence.node}: element [{at}] "
        f"of {divergence.tensor} is {divergence.found}, the golden model's {divergence.expected}{before}"
    )


def printable(text: str) -> str:
    """The text with what no terminal and no XML should be given, control characters above all, as question marks."""
    return re.sub("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


def one_line(text: str) -> str:
    """The text as `printable`, on one line."""
    return " ".join(printable(text).split())


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
