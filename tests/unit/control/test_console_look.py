"""The console's one style sheet: colours that can be read, in both themes, named in one place."""

from __future__ import annotations

import re
from itertools import product

import pytest
from django.contrib.staticfiles import finders

THEMES = ("light", "dark", "chosen dark")
TEXT = 4.5  # WCAG 2.2, 1.4.3: contrast of text
SHAPE = 3.0  # 1.4.11: of what tells a control or a state apart

PAIRS = {
    ("text", ground): TEXT
    for ground in ("ground", "surface", "sunken", "good-ground", "warn-ground", "bad-ground", "wait-ground")
}
PAIRS |= {("quiet", ground): TEXT for ground in ("ground", "surface", "sunken")}
PAIRS |= {("link", ground): TEXT for ground in ("ground", "surface", "sunken", "good-ground")}
PAIRS |= {(state, f"{state}-ground"): TEXT for state in ("good", "warn", "bad", "wait")}
PAIRS |= {("on-primary", ground): TEXT for ground in ("primary", "primary-hover")}
PAIRS |= {("on-bad", ground): TEXT for ground in ("bad", "bad-hover")}
PAIRS |= {("bad", "surface"): TEXT, ("warn", "surface"): SHAPE}
PAIRS |= dict.fromkeys(product(("edge", "focus", "primary"), ("ground", "surface", "sunken")), SHAPE)


def sheet() -> str:
    path = finders.find("console/console.css")
    assert isinstance(path, str)
    with open(path, encoding="utf-8") as file:
        return file.read()


def tokens(theme: str) -> dict[str, str]:
    blocks = re.findall(r"(:root[^{]*)\{([^}]*)\}", sheet())
    chosen = {
        "light": next(body for name, body in blocks if name.strip() == ":root"),
        "dark": next(body for name, body in blocks if "not(" in name),
        "chosen dark": next(body for name, body in blocks if '="dark"' in name),
    }[theme]
    return dict(re.findall(r"--([a-z-]+):\s*(#[0-9a-f]{6});", chosen))


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, "contrast ratio"."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_contrast_is_computed_as_the_standard_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", THEMES)
def test_every_colour_can_be_read_on_its_ground(theme: str) -> None:
    colours = tokens(theme)
    short = {pair: round(contrast(*(colours[name] for name in pair)), 2) for pair in PAIRS}
    assert {pair: found for pair, found in short.items() if found < PAIRS[pair]} == {}


def test_both_ways_to_be_dark_are_the_same() -> None:
    assert tokens("dark") == tokens("chosen dark")
    assert set(tokens("dark")) == set(tokens("light"))


def test_colours_are_named_in_one_place() -> None:
    rules = re.sub(r":root[^{]*\{[^}]*\}", "", sheet())
    rules = re.sub(r"/\*.*?\*/", "", rules, flags=re.DOTALL)
    assert not re.findall(r":[^;{]*(#[0-9a-f]{3,8}\b|rgb|hsl|\b(?:white|black|red)\b)", rules)
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", sheet()))
    named = set(re.findall(r"--([a-z0-9-]+):", sheet()))
    assert used <= named
    assert named - used <= {"shadow"}


def test_the_sheet_loads_nothing_and_respects_who_wants_no_motion() -> None:
    text = sheet()
    assert "url(" not in text
    assert "@import" not in text
    moving = re.sub(r"@media \(prefers-reduced-motion: no-preference\) \{.*?\n\}", "", text, flags=re.DOTALL)
    assert "transition" not in moving
    assert "animation" not in moving
    assert ":focus-visible" in text
