"""Plots are well-formed SVG and show what was measured where it was measured."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bench.serve.plot import HEIGHT, WIDTH, Point, render_plot

SVG = "{http://www.w3.org/2000/svg}"


def parse(text: str) -> ET.Element:
    return ET.fromstring(text)


def test_a_plot_names_its_lines_and_axes() -> None:
    lines = {"ours": [Point(1, 50, 49, 51), Point(8, 130, 120, 135)], "<tuned> & co": [Point(1, 50, 50, 50)]}
    root = parse(render_plot("Tokens & more", "streams", "tokens/s", lines))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"Tokens & more", "streams", "tokens/s", "ours", "<tuned> & co", "1", "8", "0"} <= set(texts)
    assert len(list(root.iter(f"{SVG}polyline"))) == 2
    assert len(list(root.iter(f"{SVG}circle"))) == 3


def test_a_greater_value_is_higher_up() -> None:
    root = parse(render_plot("", "", "", {"ours": [Point(1, 10, 10, 10), Point(2, 20, 20, 20)]}))
    low, high = (float(circle.attrib["cy"]) for circle in root.iter(f"{SVG}circle"))
    assert high < low


@given(st.lists(st.floats(0, 1e7, allow_subnormal=False), min_size=1, max_size=8))
def test_every_mark_lies_within_the_picture(values: list[float]) -> None:
    points = [Point(place, value, value, value) for place, value in enumerate(values)]
    for circle in parse(render_plot("t", "x", "y", {"ours": points})).iter(f"{SVG}circle"):
        assert 0 <= float(circle.attrib["cx"]) <= WIDTH
        assert 0 <= float(circle.attrib["cy"]) <= HEIGHT


@pytest.mark.parametrize("highest", [0.0, 0.7, 1.0, 9.9, 10.0, 134.0, 2047.0, 99_999.0])
def test_the_axis_has_a_readable_number_of_steps(highest: float) -> None:
    root = parse(render_plot("", "", "", {"ours": [Point(1, highest, highest, highest)]}))
    lines = [path for path in root.iter(f"{SVG}path") if path.attrib["stroke"] == "#ddd"]
    assert 4 <= len(lines) <= 11
