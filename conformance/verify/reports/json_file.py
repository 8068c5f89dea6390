"""report.json: everything, for programs. `report.schema.json` describes it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from conformance.verify.result import SCHEMA_VERSION, Report
from refsim.page import finite

SCHEMA = Path(__file__).with_name("report.schema.json")
"""JSON Schema, draft 2020-12."""


def as_data(report: Report) -> dict[str, Any]:
    """The report as plain data: its version, its verdict and all its fields.

    Returns:
        what `json.dumps` takes; numbers that are none are texts, as `refsim.page.finite` makes them.
    """
    data: dict[str, Any] = finite(dataclasses.asdict(report))
    return {"schema": SCHEMA_VERSION, "verdict": report.verdict} | data


def render(report: Report) -> str:
    """The file's text."""
    return json.dumps(as_data(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def reproducers(path: Path) -> tuple[str, ...]:
    """Names of the reproducers of an earlier report; none where there is no report that can be read."""
    try:
        names = [divergence["reproducer"] for divergence in json.loads(path.read_bytes())["divergences"]]
    except (OSError, ValueError, LookupError, TypeError):
        return ()
    return tuple(name for name in names if isinstance(name, str) and name and Path(name).name == name)
