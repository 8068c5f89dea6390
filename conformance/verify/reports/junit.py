"""junit.xml: one suite a place, one case a check, as GitLab, Jenkins and most CI systems read it."""

from xml.etree import ElementTree

from conformance.verify.reports.catalogue import rule
from conformance.verify.reports.wording import explained, measured, one_line, printable
from conformance.verify.result import Check, Divergence, Outcome, Report


def render(report: Report) -> str:
    """The file's text."""
    places = list(dict.fromkeys(check.place for check in report.checks))
    totals = _totals(report.checks)
    del totals["skipped"]  # which the schema of Jenkins knows of suites alone
    root = ElementTree.Element("testsuites", {"name": "tinyformer verify", **totals})
    for place in places:
        checks = tuple(check for check in report.checks if check.place == place)
        _add_suite(root, report, place, checks)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _add_suite(root: ElementTree.Element, report: Report, place: str, checks: tuple[Check, ...]) -> None:
    about = {"name": one_line(place), "timestamp": report.started.removesuffix("Z").removesuffix("+00:00")}
    suite = ElementTree.SubElement(root, "testsuite", about | _totals(checks))
    properties = ElementTree.SubElement(suite, "properties")
    facts = {"model": report.model, "model-sha256": report.model_sha256, "command": report.command}
    for build in report.builds:
        if build.place == place and build.elf_sha256:
            facts["elf-sha256"] = build.elf_sha256
    for name, value in facts.items():
        ElementTree.SubElement(properties, "property", {"name": name, "value": one_line(value)})
    for check in checks:
        _add_case(suite, check)
    divergences = [_divergence_lines(divergence) for divergence in report.divergences if divergence.place == place]
    if divergences:
        ElementTree.SubElement(suite, "system-out").text = printable("\n".join(divergences))


def _add_case(suite: ElementTree.Element, check: Check) -> None:
    about = {
        "name": one_line(check.name),
        "classname": one_line(f"verify.{check.place}"),
        "time": f"{check.seconds:.3f}",
    }
    case = ElementTree.SubElement(suite, "testcase", about)
    if check.outcome is Outcome.PASSED:
        return
    kind = "failure" if check.outcome is Outcome.FAILED else "skipped"
    found = ElementTree.SubElement(case, kind, {"message": one_line(check.detail)})
    if check.outcome is Outcome.FAILED:
        found.set("type", one_line(check.name))
        asked = rule(check.name)
        lines = (asked.title, measured(check), check.detail, asked.why, asked.remedy)
        found.text = printable("\n".join(line for line in lines if line))


def _divergence_lines(divergence: Divergence) -> str:
    lines = ["first divergence: " + explained(divergence), *divergence.contributions]
    if divergence.reproducer:
        lines.append(f"reproducer: {divergence.reproducer}")
    return "\n".join(lines)


def _totals(checks: tuple[Check, ...]) -> dict[str, str]:
    def count(outcome: Outcome) -> str:
        return str(sum(check.outcome is outcome for check in checks))

    return {
        "tests": str(len(checks)),
        "failures": count(Outcome.FAILED),
        "errors": "0",
        "skipped": count(Outcome.NOT_RUN),
        "time": f"{sum(check.seconds for check in checks):.3f}",
    }
