"""`appliance doctor`: is this host fit, and what to do if not."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from appliance.doctor.finding import Finding, Status

HELP = "Look at this host: can it serve, how well is it protected, and what would mend what is missing."
_COLOURS = {Status.OK: "\x1b[32m", Status.WARN: "\x1b[33m", Status.FAIL: "\x1b[31m"}
_RESET = "\x1b[0m"
_NO_SUCH_TOOL = "appliance-no-such-tool"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(args: argparse.Namespace) -> int:
    """Look, show, and return 1 if something that serving requires is missing."""
    findings = observe()
    control = observe_control()
    table = render_table(findings, coloured=not args.json and sys.stdout.isatty())
    print(table, file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(render_json(findings, control=control)))
    return 0 if fit(findings) and control else 1


def observe() -> list[Finding]:
    """Return every finding about this host."""
    from appliance.doctor.confinement import observe_confinement
    from appliance.doctor.machine import observe_machine
    from appliance.doctor.tools import observe_tools

    return [*observe_confinement(), *observe_machine(), *observe_tools()]


def observe_control() -> bool:
    """Return whether the search for tools can tell what is there from what is not."""
    from appliance.doctor.tools import find_tool

    return find_tool("sh") is not None and find_tool(_NO_SUCH_TOOL) is None


def fit(findings: Sequence[Finding]) -> bool:
    """Return whether nothing that serving requires is missing."""
    return all(finding.status is not Status.FAIL for finding in findings)


def render_table(findings: Sequence[Finding], *, coloured: bool) -> str:
    """Return the table for people: what was found, and beneath what is not ok, why and what to do. Pure."""
    width = max(len(finding.name) for finding in findings)
    lines = [line for finding in findings for line in _rows(finding, width, coloured=coloured)]
    counts = {status: sum(f.status is status for f in findings) for status in Status}
    verdict = "this host can serve" if fit(findings) else "this host cannot serve yet"
    told = ", ".join(f"{counts[status]} {status}" for status in Status)
    return "\n".join([*lines, "", f"{verdict}: {told}"])


def _rows(finding: Finding, width: int, *, coloured: bool) -> list[str]:
    mark = f"{finding.status:4}"
    shown = f"{_COLOURS[finding.status]}{mark}{_RESET}" if coloured else mark
    value = f"{finding.value} {finding.unit}".strip()
    rows = [f"{shown}  {finding.name:{width}}  {value}"]
    if finding.status is not Status.OK:
        indent = " " * (width + 8)
        rows += [f"{indent}{finding.meaning}", f"{indent}do: {finding.hint}"]
    return rows


def render_json(findings: Sequence[Finding], *, control: bool) -> dict[str, Any]:
    """Return the object that audits and benches print. Pure. A warning is ok: the host serves."""
    checks = [
        {
            "name": finding.name,
            "value": finding.value,
            "bound": finding.bound,
            "unit": finding.unit,
            "n": 1,
            "ok": finding.status is not Status.FAIL,
        }
        for finding in findings
    ]
    told = {"name": "a tool that is there is found, one that is not there is not", "ok": control}
    return {"ok": fit(findings) and control, "checks": checks, "control": told}
