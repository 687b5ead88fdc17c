"""Line charts as SVG text, without a library, so that the page stands alone and a README can show one."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 34, 40
_LEGEND_ROW, _LEGEND_COLUMNS = 18, 2
# Okabe and Ito's palette: told apart by the colour-blind, too. One colour a recipe, the same in each chart.
COLOURS: Mapping[str, str] = {
    "zero_shot_cot": "#999999",
    "single_cot": "#e69f00",
    "diverse_cot": "#56b4e9",
    "off_policy": "#0072b2",
    "on_policy": "#d55e00",
    "mixed_policy": "#009e73",
    "teacher_negatives": "#cc79a7",
}


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        points: (x, y, low, high); the bounds may be None.
    """

    name: str
    colour: str
    points: Sequence[tuple[float, float, float | None, float | None]]


def line_chart(
    title: str, x_title: str, y_title: str, lines: Sequence[Line], x_labels: Sequence[str] | None = None
) -> str:
    """An SVG document with `lines`, their intervals as whiskers, axes and a legend; words where there is nothing to draw.

    Args:
        x_labels: names of x = 0, 1, 2, … where x is no number.
    """
    lines = [line for line in lines if line.points]
    rows = math.ceil(len(lines) / _LEGEND_COLUMNS)
    height = HEIGHT + rows * _LEGEND_ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="14" font-weight="bold" fill="#222">{escape(title)}</text>',
    ]
    if lines:
        parts += _drawn(lines, x_title, y_title, x_labels)
        parts += _legend(lines)
    else:
        parts.append(f'<text x="{_LEFT}" y="{HEIGHT // 2}" fill="#666">nothing was measured</text>')
    return "\n".join([*parts, "</svg>\n"])


def _drawn(lines: Sequence[Line], x_title: str, y_title: str, x_labels: Sequence[str] | None) -> Iterator[str]:
    xs = [point[0] for line in lines for point in line.points]
    ys = [value for line in lines for point in line.points for value in point[1:] if value is not None]
    x_ticks = [float(place) for place in range(len(x_labels))] if x_labels else ticks(min(xs), max(xs), whole=True)
    y_ticks = ticks(min(ys), max(ys))
    x_low, x_high = min(x_ticks[0], *xs), max(x_ticks[-1], *xs)
    y_low, y_high = y_ticks[0], y_ticks[-1]
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def x_at(x: float) -> float:
        return _LEFT + 12 + (x - x_low) / ((x_high - x_low) or 1) * (right - _LEFT - 24)

    def y_at(y: float) -> float:
        return bottom - (y - y_low) / ((y_high - y_low) or 1) * (bottom - _TOP)

    for tick in y_ticks:
        yield f'<line x1="{_LEFT}" x2="{right}" y1="{y_at(tick):.1f}" y2="{y_at(tick):.1f}" stroke="#e4e4e4"/>'
        yield f'<text x="{_LEFT - 6}" y="{y_at(tick) + 4:.1f}" text-anchor="end" fill="#444">{tick:g}</text>'
    for place, tick in enumerate(x_ticks):
        label = x_labels[place] if x_labels else f"{tick:g}"
        yield f'<text x="{x_at(tick):.1f}" y="{bottom + 16}" text-anchor="middle" fill="#444">{escape(label)}</text>'
    yield f'<line x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="#888"/>'
    yield f'<text x="{(_LEFT + right) / 2:.0f}" y="{bottom + 34}" text-anchor="middle" fill="#444">{escape(x_title)}</text>'
    middle = (_TOP + bottom) / 2
    yield (
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" fill="#444" '
        f'transform="rotate(-90 14 {middle:.0f})">{escape(y_title)}</text>'
    )
    for place, line in enumerate(lines):
        aside = 2.0 * (place - (len(lines) - 1) / 2)  # so that whiskers at one x do not hide each other
        at = [(x_at(x) + aside, y_at(y)) for x, y, _, _ in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        yield f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"/>'
        for (x, y), (_, _, low, high) in zip(at, line.points, strict=True):
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{line.colour}"/>'
            if low is not None and high is not None:
                yield (
                    f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y_at(low):.1f}" y2="{y_at(high):.1f}" '
                    f'stroke="{line.colour}" stroke-opacity="0.6"/>'
                )


def _legend(lines: Sequence[Line]) -> Iterator[str]:
    for place, line in enumerate(lines):
        row, column = divmod(place, _LEGEND_COLUMNS)
        x, y = _LEFT + column * 290, HEIGHT + 6 + row * _LEGEND_ROW
        yield f'<rect x="{x}" y="{y - 8}" width="14" height="4" fill="{line.colour}"/>'
        yield f'<text x="{x + 20}" y="{y}" fill="#222">{escape(line.name)}</text>'


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers that enclose low to high: 4 to 9 of them, in steps of 1, 2 or 5 times a power of ten.

    Args:
        whole: where both ends are whole numbers, no step between them.
    """
    if high - low < 1e-12:
        low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
        whole = False
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    if whole and float(low).is_integer() and float(high).is_integer():
        step = max(1.0, math.floor(step + 0.5))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]
