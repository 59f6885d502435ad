"""Says what a session was begun with. A browser's own words are not kept: they are whatever a client chose."""

from __future__ import annotations

from typing import Final

# The first that is found wins: most of them name those below them, too.
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iPadOS"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)


def describe_browser(user_agent: str) -> str:
    """Return browser and system in words of our own, for example "Firefox on Linux"."""
    return f"{_found(_BROWSERS, user_agent, 'a browser')} on {_found(_SYSTEMS, user_agent, 'some system')}"


def _found(table: tuple[tuple[str, str], ...], text: str, otherwise: str) -> str:
    return next((word for mark, word in table if mark in text), otherwise)
