"""summary.md: the verdict on one screen, as GitHub shows it on the page of a workflow run."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from conformance.verify.reports.wording import counts, explained, headline, measured, one_line
from conformance.verify.result import Build, Check, Outcome, Report

_ROWS = 200
"""Checks that are listed one by one; GitHub refuses summaries above 1 MiB."""

_RANK = {Outcome.FAILED: 0, Outcome.NOT_RUN: 1, Outcome.PASSED: 2}
_MARKS = {Outcome.PASSED: "✅", Outcome.FAILED: "❌", Outcome.NOT_RUN: "⚪"}


def render(report: Report) -> str:
    """Markdown: verdict, first divergences, failed checks, then the others folded away."""
    lines = [f"## {_MARKS[report.verdict]} {_text(headline(report))}", "", f"Model {_code(report.model)}", ""]
    failed = [check for check in report.checks if check.outcome is Outcome.FAILED]
    others = sorted(
        (check for check in report.checks if check.outcome is not Outcome.FAILED), key=lambda c: _RANK[c.outcome]
    )
    if failed:
        lines += _table(failed)
    for divergence in report.divergences:
        lines += [f"**First divergence at {_text(divergence.place)}**: {_text(explained(divergence))}.", ""]
        if divergence.reproducer:
            lines += [f"Reproducer: {_code(divergence.reproducer)}", ""]
    if others:
        found = counts(report)
        words = f"{found[Outcome.PASSED]} passed, {found[Outcome.NOT_RUN]} not run"
        lines += [f"<details><summary>Other checks: {words}</summary>", "", *_table(others), "</details>", ""]
    lines += _memory(report.builds)
    lines += [f"Run again: {_code(report.command)}", ""]
    return "\n".join(lines)


def append_step_summary(report: Report, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Append the summary to the file that GitHub Actions names in GITHUB_STEP_SUMMARY.

    Returns:
        that file; None outside GitHub Actions.

    Raises:
        OSError: it cannot be written.
    """
    name = environment.get("GITHUB_STEP_SUMMARY")
    if not name:
        return None
    with Path(name).open("ab") as file:
        file.write(f"{render(report)}\n".encode(errors="backslashreplace"))
    return Path(name)


def _table(checks: list[Check]) -> Iterable[str]:
    yield "| | check | place | measured | finding |"
    yield "|---|---|---|---:|---|"
    for check in checks[:_ROWS]:
        cells = (check.name, check.place, measured(check), check.detail)
        yield f"| {_MARKS[check.outcome]} | " + " | ".join(map(_text, cells)) + " |"
    if len(checks) > _ROWS:
        yield f"| | | | | and {len(checks) - _ROWS} more, in report.json |"
    yield ""


def _memory(builds: Iterable[Build]) -> Iterable[str]:
    rows = [(build, region) for build in builds for region in build.memory]
    if not rows:
        return
    yield "| place | memory | used | of |"
    yield "|---|---|---:|---:|"
    for build, region in rows[:_ROWS]:
        used = sum(part.bytes for part in region.parts)
        share = f" ({used / region.size:.1%})" if region.size else ""
        yield f"| {_text(build.place)} | {_text(region.name)} | {used:,}{share} | {region.size:,} |"
    yield ""


def _text(text: str) -> str:
    """Text as Markdown that shows it as it is, in a cell of a table too."""
    return re.sub(r"[&<>|`*_\[\]\\~#!$]", lambda found: f"&#{ord(found[0])};", one_line(text))


def _code(text: str) -> str:
    return f"<code>{_text(text)}</code>"
