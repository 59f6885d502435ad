"""A finding: one property of the host, whether it is as it should be, what that means and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a finding stands."""

    OK = "ok"
    WARN = "warn"  # it serves, with less protection or not everything
    FAIL = "fail"  # a cell, or the node, does not serve on this host


@dataclass(frozen=True)
class Finding:
    """One row.

    Attributes:
        name: The property.
        value: What was found.
        bound: What it should be.
        status: How that stands.
        meaning: Why it matters, one line.
        hint: What to do; shown unless the status is ok.
        unit: Of the value, where it has one.
    """

    name: str
    value: str | int
    bound: str | int
    status: Status
    meaning: str
    hint: str = ""
    unit: str = ""


def judge(good: bool, otherwise: Status) -> Status:
    """Return ok if `good`, else `otherwise`."""
    return Status.OK if good else otherwise
