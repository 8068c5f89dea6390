"""report.html: everything, for people. One file that needs nothing but a browser."""

from dataclasses import asdict
from pathlib import Path

from conformance.verify.reports.catalogue import rule
from conformance.verify.reports.json_file import as_data
from conformance.verify.reports.wording import headline, measured
from conformance.verify.result import Report
from refsim.page import render_page

_PAGE = Path(__file__)


def render(report: Report) -> str:
    """The file's text. Its data are those of report.json, and beside them the words that all formats share."""
    data = {
        "report": as_data(report),
        "headline": headline(report),
        "measured": [measured(check) for check in report.checks],
        "rules": {check.name: asdict(rule(check.name)) for check in report.checks},
    }
    style, script = (_PAGE.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".css", ".js"))
    return render_page(f"{report.model}: verification", data, style, script)
