"""report.sarif: failed checks as results of SARIF 2.1.0, for GitHub code scanning."""

import hashlib
import json
from typing import Any
from urllib.parse import quote

from conformance.verify.reports.catalogue import rule
from conformance.verify.reports.wording import explained, measured
from conformance.verify.result import Check, Outcome, Report

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def render(report: Report) -> str:
    """The file's text.

    Every result lies at line 1 of the model's file, since an alert needs a place in the repository; its fingerprint
    tells checks and places apart. What did not run is a notification, not a result.
    """
    names = list(dict.fromkeys(check.name for check in report.checks))
    indices = {name: index for index, name in enumerate(names)}
    targets = dict.fromkeys(build.target for build in report.builds)
    run = {
        "tool": {
            "driver": {
                "name": "tinyformer verify",
                "version": report.versions.get("tinyformer", ""),
                "rules": [_rule(name) for name in names],
            }
        },
        "automationDetails": {"id": f"tinyformer-verify/{report.model}/{'+'.join(targets)}/"},
        "invocations": [
            {
                "commandLine": report.command,
                "startTimeUtc": report.started.replace("+00:00", "Z"),
                "executionSuccessful": True,
                "toolExecutionNotifications": [
                    _notification(check, indices) for check in report.checks if check.outcome is Outcome.NOT_RUN
                ],
            }
        ],
        "artifacts": [
            {
                "location": {"uri": quote(report.model, errors="backslashreplace")},
                "hashes": {"sha-256": report.model_sha256},
            }
        ],
        "results": [
            _result(report, check, indices[check.name]) for check in report.checks if check.outcome is Outcome.FAILED
        ],
        "columnKind": "unicodeCodePoints",
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _rule(name: str) -> dict[str, Any]:
    asked = rule(name)
    text = " ".join(part for part in (asked.why, asked.remedy) if part) or asked.title
    return {
        "id": name,
        "name": "".join(part.capitalize() for part in name.split("-")),
        "shortDescription": {"text": asked.title},
        "fullDescription": {"text": asked.why or asked.title},
        "help": {"text": text, "markdown": text},
        "defaultConfiguration": {"level": "error"},
        "properties": {"precision": "very-high", "problem.severity": "error", "tags": ["firmware", "quantization"]},
    }


def _result(report: Report, check: Check, index: int) -> dict[str, Any]:
    figures = measured(check)
    lines = [f"{check.place}: {check.detail}" + (f" ({figures})" if figures else "")]
    if check.name == "bit-exact":
        lines += ["First divergence: " + explained(d) for d in report.divergences if d.place == check.place]
    return {
        "ruleId": check.name,
        "ruleIndex": index,
        "level": "error",
        "message": {"text": "\n".join(lines)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(report.model, errors="backslashreplace"), "index": 0},
                    "region": {"startLine": 1},
                }
            }
        ],
        "partialFingerprints": {"primaryLocationLineHash": _fingerprint(check)},
    }


def _notification(check: Check, indices: dict[str, int]) -> dict[str, Any]:
    return {
        "associatedRule": {"id": check.name, "index": indices[check.name]},
        "level": "warning",
        "message": {"text": f"{check.place}: not run: {check.detail}"},
    }


def _fingerprint(check: Check) -> str:
    """The same for the same check at the same place, whatever it found."""
    return hashlib.sha256(f"{check.name}\n{check.place}".encode(errors="backslashreplace")).hexdigest()[:16] + ":1"
