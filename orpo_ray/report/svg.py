"""Plots as inline SVG. Colours are the page's own variables, so a plot is light or dark as the page is; nothing is fetched."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 26, 40
_TICKS = 5
_BAR, _GAP = 20, 8
COLOURS = 4
"""Series colours that the page has: --series-1 to --series-4."""

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Series:
    """One line. A point without a value is a gap.

    Attributes:
        bounds: lower and upper bound at each point, drawn as a whisker.
        dots: mark each point; for series of few points.
    """

    name: str
    points: Sequence[Point]
    bounds: Sequence[tuple[float, float]] | None = None
    dots: bool = False


@dataclass(frozen=True)
class Level:
    """A dashed horizontal line with a name, and a band of its uncertainty."""

    name: str
    value: float
    low: float
    high: float


Words = Callable[[float], str]


def plain(value: float) -> str:
    """A tick's number: as short as it can be."""
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{round(value, 6):,.10g}"


def ticks(low: float, high: float, count: int = _TICKS) -> list[float]:
    """About `count` round numbers that enclose `low` to `high`: multiples of 1, 2, 2.5 or 5 times a power of ten."""
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_name: str,
    y_name: str,
    levels: Sequence[Level] = (),
    whole_x: bool = True,
    y_words: Words = plain,
) -> str:
    """Lines over a number. An empty text where no series has a value.

    Args:
        title: for readers that do not see the plot.
        whole_x: ticks of x at whole numbers only.
    """
    drawn = [one for one in series if any(y is not None for _, y in one.points)]
    if not drawn:
        return ""
    xs = [x for one in drawn for x, y in one.points if y is not None]
    ys = [y for one in drawn for _, y in one.points if y is not None]
    ys += [bound for one in drawn for pair in one.bounds or () for bound in pair]
    ys += [bound for level in levels for bound in (level.low, level.high)]
    y_ticks = ticks(min(ys), max(ys))
    x_ticks = [tick for tick in ticks(min(xs), max(xs), 6) if not whole_x or tick == int(tick)]
    low, high = min(xs), max(xs)
    x_ticks = [tick for tick in x_ticks if low <= tick <= high]
    pad = (high - low) * 0.04 if any(one.dots for one in drawn) and high > low else 0.0
    scale = _Scale(low - pad, high + pad, y_ticks[0], y_ticks[-1])
    parts = [*_axes(scale, x_ticks, y_ticks, x_name, y_name, y_words)]
    for level in levels:
        parts += _level(scale, level)
    for place, one in enumerate(drawn):
        parts += _series(scale, one, place % COLOURS + 1, y_words)
    return _svg(title, HEIGHT, parts) + _legend([one.name for one in drawn], [level.name for level in levels])


def bar_chart(title: str, bars: Sequence[tuple[str, float, str]]) -> str:
    """Horizontal bars from 0: name, value, and the value in words. An empty text where no bar has a length."""
    longest = max((value for _, value, _ in bars), default=0.0)
    if longest <= 0:
        return ""
    left = min(170, 14 + 8 * max(len(name) for name, _, _ in bars))
    right = 14 + 8 * max(len(words) for _, _, words in bars)
    room = WIDTH - left - right
    parts = []
    for place, (name, value, words) in enumerate(bars):
        y, width = _GAP + place * (_BAR + _GAP), room * value / longest
        middle = y + _BAR / 2 + 4.5
        parts.append(f'<text class="tick" x="{left - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="bar" x="{left}" y="{y}" width="{max(width, 1):.1f}" height="{_BAR}" rx="2"/>')
        parts.append(f'<text class="tick" x="{left + max(width, 1) + 7:.1f}" y="{middle}">{escape(words)}</text>')
    return _svg(title, len(bars) * (_BAR + _GAP) + _GAP, parts)


@dataclass(frozen=True)
class _Scale:
    """From numbers to the plot's own units."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        span = self.x_high - self.x_low
        share = (value - self.x_low) / span if span else 0.5
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title, quote=True)}" '
        f'xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def _axes(
    scale: _Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str, y_name: str, y_words: Words
) -> Iterator[str]:
    bottom = HEIGHT - _BOTTOM
    for tick in y_ticks:
        y = scale.y(tick)
        yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="{_LEFT - 7}" y="{y + 4}" text-anchor="end">{escape(y_words(tick))}</text>'
    for tick in x_ticks:
        x = scale.x(tick)
        yield f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>'
        yield f'<text class="tick" x="{x}" y="{bottom + 17}" text-anchor="middle">{escape(plain(tick))}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    yield f'<text class="name" x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_name)}</text>'
    yield f'<text class="name" x="{_LEFT}" y="13">{escape(y_name)}</text>'


def _level(scale: _Scale, level: Level) -> Iterator[str]:
    top, bottom, y = scale.y(level.high), scale.y(level.low), scale.y(level.value)
    yield f'<rect class="band" x="{_LEFT}" y="{top}" width="{WIDTH - _LEFT - _RIGHT}" height="{round(bottom - top, 1)}"/>'
    yield f'<line class="level" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'


def _series(scale: _Scale, series: Series, colour: int, words: Words) -> Iterator[str]:
    for run in _runs(series.points):
        if len(run) == 1:
            ((at, value),) = run
            yield f'<circle class="dot c{colour}" cx="{scale.x(at)}" cy="{scale.y(value)}" r="2.5"/>'
            continue
        points = " ".join(f"{scale.x(at)},{scale.y(value)}" for at, value in run)
        yield f'<polyline class="line c{colour}" points="{points}"/>'
    if series.dots:
        bounds: Sequence[tuple[float, float] | None] = series.bounds or [None] * len(series.points)
        for point, bound in zip(series.points, bounds, strict=True):
            x, y = point
            if y is None:
                continue
            if bound is not None:
                place, low, high = scale.x(x), scale.y(bound[0]), scale.y(bound[1])
                yield f'<line class="whisker c{colour}" x1="{place}" x2="{place}" y1="{low}" y2="{high}"/>'
            told = f"{series.name}, {plain(x)}: {words(y)}"
            told += f" ({words(bound[0])} to {words(bound[1])})" if bound is not None else ""
            yield (
                f'<circle class="dot c{colour}" cx="{scale.x(x)}" cy="{scale.y(y)}" r="4"><title>{escape(told)}</title>'
                "</circle>"
            )


def _runs(points: Sequence[Point]) -> Iterator[list[tuple[float, float]]]:
    """Stretches of points that have a value."""
    run: list[tuple[float, float]] = []
    for x, y in points:
        if y is not None:
            run.append((x, y))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _legend(series: Sequence[str], levels: Sequence[str]) -> str:
    """Names of the lines, where there is more than one."""
    if len(series) + len(levels) < 2:
        return ""
    keys = [f'<span class="key c{place % COLOURS + 1}">{escape(name)}</span>' for place, name in enumerate(series)]
    keys += [f'<span class="key dashed">{escape(name)}</span>' for name in levels]
    return f'<div class="legend">{"".join(keys)}</div>'
