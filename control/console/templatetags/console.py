"""Tags and filters of the console's templates: states with icon and word, times, numbers, digests."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from control.console.icons import ICONS

register = template.Library()

_SHORT: Final = 12  # digits of a digest in a list; the search finds it by them


@register.simple_tag
def icon(name: str) -> SafeString:
    """Return an icon. It repeats the word beside it, so screen readers are spared it."""
    return format_html(
        '<svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false"><path d="{}"/></svg>',
        ICONS[name],
    )


@register.simple_tag
def status(level: str, word: str) -> SafeString:
    """Return a state: an icon and a word, so that nobody has to tell colours apart."""
    return format_html('<span class="status {}">{}{}</span>', level, icon(level), word)


@register.filter
def moment(at: datetime | None) -> SafeString | str:
    """Return a time as people say it, with the exact one behind it."""
    if at is None:
        return "never"
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', f"{at:%Y-%m-%dT%H:%M:%SZ}", exact, _said(at)
    )


@register.filter
def exact(at: datetime | None) -> SafeString | str:
    """Return a time to the second."""
    if at is None:
        return "never"
    return format_html(
        '<time datetime="{}">{} <span class="quiet">UTC</span></time>',
        f"{at:%Y-%m-%dT%H:%M:%SZ}",
        f"{at:%Y-%m-%d %H:%M:%S}",
    )


def _said(at: datetime) -> str:
    gone = timezone.now() - at
    behind = gone >= timedelta()
    seconds = int(abs(gone).total_seconds())
    for unit, length in (("day", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            count = seconds // length
            if unit == "day" and count > 6:
                return f"{at:%Y-%m-%d}"
            name = f"{unit}s" if unit == "day" and count > 1 else unit
            return f"{count} {name} ago" if behind else f"in {count} {name}"
    return "just now" if behind else "in a moment"


@register.filter
def digest(value: str) -> SafeString:
    """Return the first digits of an id or digest; all of them when pointed at."""
    return format_html('<code title="{}">{}</code>', value, value[:_SHORT])


@register.filter
def grouped(number: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{number:,}"


@register.filter
def words(code: str) -> str:
    """Return a code of ours as words."""
    return code.replace("_", " ")


@register.filter
def percent(part: int, whole: int) -> int:
    """Return what part of a whole something is, in percent."""
    return 0 if whole <= 0 else min(100, max(0, round(100 * part / whole)))


@register.filter
def duration(seconds: int) -> str:
    """Return a length of time in its largest units."""
    parts = []
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
