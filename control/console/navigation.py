"""The console's sections, in one place. A section that a role may not see is not offered to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from django.urls import reverse

from control.operators.roles import Role, may


class Section(NamedTuple):
    """A section.

    Attributes:
        label, icon: What is shown.
        name: Of its first page (`urls.py`); pages below that address belong to it.
        right: That its pages ask for.
    """

    label: str
    icon: str
    name: str
    right: str


NAVIGATION: Final = (
    (
        "Now",
        (
            Section("Overview", "overview", "console:overview", "fleet.view_node"),
            Section("Alarms", "alarm", "console:alarms", "audit.view_alarm"),
        ),
    ),
    (
        "Serve",
        (
            Section("Clients", "client", "console:clients", "clients.view_client"),
            Section("Devices", "device", "console:devices", "clients.view_device"),
            Section("Models", "model", "console:models", "pins.view_modelpin"),
            Section("Nodes", "node", "console:nodes", "fleet.view_node"),
        ),
    ),
    (
        "Prove",
        (
            Section("Receipts", "receipt", "console:receipts", "audit.view_receiptrecord"),
            Section("Log", "log", "console:log", "transparency.view_checkpointrecord"),
        ),
    ),
    (
        "Manage",
        (
            Section("Operators", "operator", "console:operators", "operators.view_operator"),
            Section("API tokens", "token", "console:tokens", "operators.view_apitoken"),
            Section("API reference", "reference", "console:reference", "clients.view_client"),
        ),
    ),
)


class Link(NamedTuple):
    """A section as a page offers it."""

    label: str
    icon: str
    url: str
    current: bool


def navigation_for(role: Role | None, path: str) -> list[tuple[str, list[Link]]]:
    """Return the groups of sections that a role may see; the one that `path` is in is the current one."""
    groups = ((title, list(_links(sections, role, path))) for title, sections in NAVIGATION)
    return [(title, links) for title, links in groups if links]


def _links(sections: tuple[Section, ...], role: Role | None, path: str) -> Iterator[Link]:
    for section in sections:
        if may(role, section.right):
            url = reverse(section.name)
            current = path == url if url == reverse("console:overview") else path.startswith(url)
            yield Link(section.label, section.icon, url, current)
