"""Plots: where points come to lie, which numbers the axes have, and that the text is well-formed."""

import itertools
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_ray.report.svg import Level, Series, bar_chart, line_chart, plain, ticks

SVG = "{http://www.w3.org/2000/svg}"


def parsed(plot: str) -> ElementTree.Element:
    return ElementTree.fromstring(plot[: plot.index("</svg>") + len("</svg>")])


THOUSANDTHS = st.integers(-(10**9), 10**9).map(lambda count: count / 1000)


@given(THOUSANDTHS, THOUSANDTHS, st.integers(3, 8))
def test_ticks_enclose_the_values_evenly(a: float, b: float, count: int) -> None:
    low, high = sorted((a, b))
    found = ticks(low, high, count)
    near = 1e-6 * (high - low) + 1e-9 * abs(high)
    assert found[0] <= low + near
    assert found[-1] >= high - near
    assert 2 <= len(found) <= count + 3
    steps = [after - before for before, after in itertools.pairwise(found)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0.17, 0.98, [0, 0.25, 0.5, 0.75, 1.0]), (0, 0, [-0.5, -0.25, 0, 0.25, 0.5])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (1500, "1,500"), (0.25, "0.25"), (2e-4, "2e-4"), (3e6, "3e6"), (-1.5, "-1.5")]
)
def test_numbers_are_short(value: float, words: str) -> None:
    assert plain(value) == words


def test_points_lie_where_their_numbers_say() -> None:
    plot = parsed(line_chart("t", [Series("a", [(0, 0.0), (5, 1.0), (10, 0.5)])], x_name="x", y_name="y"))
    (line,) = plot.findall(f"{SVG}polyline")
    (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(2 * (y2 - y1), abs=0.3)
    assert y1 < y2 < y0  # upwards is less


def test_a_missing_value_is_a_gap_and_nothing_at_all_no_plot() -> None:
    points = [(0, 1.0), (1, 2.0), (2, None), (3, 1.0), (4, 2.0)]
    assert line_chart("t", [Series("a", points)], x_name="x", y_name="y").count("<polyline") == 2
    assert line_chart("t", [Series("a", [(0, None)])], x_name="x", y_name="y") == ""
    assert bar_chart("t", []) == ""


def test_one_step_is_a_point() -> None:
    plot = line_chart("t", [Series("a", [(1, 2.0)])], x_name="x", y_name="y")
    assert plot.count("<circle") == 1
    assert "nan" not in plot


def test_whiskers_and_levels_are_inside_the_plot() -> None:
    series = Series("student", [(0, 0.3), (1, 0.5)], [(0.2, 0.4), (0.1, 0.6)], dots=True)
    plot = line_chart("t", [series], x_name="x", y_name="y", levels=[Level("teacher", 0.9, 0.85, 0.97)])
    for element in parsed(plot).iter():
        for name in ("y1", "y2", "cy", "y"):
            if name in element.attrib:
                assert 0 <= float(element.attrib[name]) <= 260
    assert "teacher" in plot[plot.index("</svg>") :]
    assert plot.count("whisker") == 2


def test_bars_are_as_long_as_their_values() -> None:
    plot = parsed(bar_chart("t", [("a", 4.0, "4"), ("b", 1.0, "1"), ("c", 0.0, "0")]))
    widths = [float(bar.get("width", "nan")) for bar in plot.findall(f"{SVG}rect")]
    assert widths[0] == pytest.approx(4 * widths[1], rel=0.01)
    assert widths[2] == 1  # to be seen at all


def test_text_is_escaped() -> None:
    plot = line_chart('a "b" <c>', [Series("x & y", [(0, 1.0), (1, 2.0)], dots=True)], x_name="<i>", y_name="y")
    assert parsed(plot).get("aria-label") == 'a "b" <c>'
    assert "<i>" not in plot
