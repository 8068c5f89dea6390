"""Reports of a validation: for people, for programs and for CI systems.

Each format is a module of its own; all read a `Report` and nothing else.
"""

from collections.abc import Mapping
from pathlib import Path

from conformance.verify.reports import json_file, junit, page, sarif, summary
from conformance.verify.reports.files import publish
from conformance.verify.reports.summary import append_step_summary
from conformance.verify.reports.terminal import print_report
from conformance.verify.result import Report

__all__ = ["FORMATS", "append_step_summary", "print_report", "write_reports"]

FORMATS = {
    "report.json": json_file.render,
    "report.html": page.render,
    "junit.xml": junit.render,
    "report.sarif": sarif.render,
    "summary.md": summary.render,
}
"""What writes each file's text."""


def write_reports(report: Report, folder: Path, attachments: Mapping[str, bytes] | None = None) -> tuple[Path, ...]:
    """Write the report in all formats, all files together or none.

    Args:
        report: what was found.
        folder: is created where it does not exist. What else lies in it stays, but for the reproducers of the report
            that was there.
        attachments: further files by name, such as the reproducers that the divergences name.

    Returns:
        the files.

    Raises:
        TinyFormerError: they cannot be written; files of an earlier run are then as they were.
    """
    files = {name: render(report).encode(errors="backslashreplace") for name, render in FORMATS.items()}
    return publish({**(attachments or {}), **files}, folder, json_file.reproducers(folder / "report.json"))
