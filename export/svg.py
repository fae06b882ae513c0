"""Draws plots as SVG: bars, stacked bars, and shares beside what was said of them.

Colours stand in attributes, for files of their own; a page's style sheet goes by the classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 50, 410, 28, 194
"""Where the axes end."""

COLOURS = {
    "bar": "#2b5c8a",
    "right": "#13796b",
    "wrong": "#b4432d",
    "undecided": "#c9d6e2",
    "ink": "#1f2429",
}
_SOFT, _LINE = "#5b636c", "#e3e0da"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Says how often something was so, among what was said to be about as likely."""

    said: float
    """The mean of what was said, in [0, 1]."""
    so: float
    """The share that was so."""
    error: float | None
    """Its standard error; None where it is not known."""
    n: int
    """How many the share is of."""


def bars(labels: Sequence[str], counts: Sequence[int], *, x: str, y: str) -> str:
    """Returns one bar for each label; labels that would run into each other are left out."""
    return stacked(labels, {"bar": counts}, x=x, y=y)


def stacked(labels: Sequence[str], series: Mapping[str, Sequence[int]], *, x: str, y: str) -> str:
    """Returns bars on top of each other.

    Args:
        labels: What stands below each place.
        series: Counts at each place, by a name in `COLOURS`; the first lies at the bottom.
        x: What the places are.
        y: What is counted.
    """
    totals = [sum(values) for values in zip(*series.values(), strict=True)]
    step, top = _ticks(max(totals, default=0))
    slot = (RIGHT - LEFT) / max(1, len(labels))
    body = [_count_axis(step, top)]
    every = ceil(len(labels) / 14)
    for place, label in enumerate(labels):
        at, low = LEFT + slot * (place + 0.5), 0
        for name, values in series.items():
            if values[place]:
                box = _place(low + values[place], top), _place(low, top)
                kind = "" if name == "bar" else f"{name}, "
                title = f"{kind}{label}: {values[place]:,}"
                body.append(_rect(at - 0.4 * slot, box, 0.8 * slot, name, title))
            low += values[place]
        if place % every == 0:
            body.append(_text(at, BOTTOM + 16, label))
    if len(series) > 1:
        body.append(_legend(series))
    return _drawing(body, x, y)


def shares(points: Sequence[Share], *, x: str, y: str) -> str:
    """Returns shares with 90 % intervals over what was said; on the diagonal both agree."""
    body = [f'<path class="line" d="M{LEFT} {BOTTOM}L{RIGHT} {TOP}" stroke="{_LINE}" fill="none"/>']
    for tenths in range(0, 11, 2):
        text = f"{tenths / 10:g}"
        body.append(_text(_across(tenths / 10), BOTTOM + 16, text))
        body.append(_text(LEFT - 8, _place(tenths, 10) + 4, text, "end"))
    most = max((point.n for point in points), default=1)
    for point in points:
        at, height = _across(point.said), _place(point.so, 1)
        if point.error is not None:
            ends = (min(1.0, max(0.0, point.so + side * 1.645 * point.error)) for side in (-1, 1))
            low, high = (_place(end, 1) for end in ends)
            body.append(
                f'<path class="whisker" d="M{at:.1f} {low:.1f}V{high:.1f}" '
                f'stroke="{COLOURS["bar"]}" stroke-width="2"/>'
            )
        radius = 2.5 + 5 * (point.n / most) ** 0.5
        title = f"said {point.said:.3f}, so {point.so:.3f} of {point.n:,}"
        body.append(
            f'<circle class="bar" cx="{at:.1f}" cy="{height:.1f}" r="{radius:.1f}" '
            f'fill="{COLOURS["bar"]}"><title>{title}</title></circle>'
        )
    return _drawing(body, x, y)


def _drawing(body: Sequence[str], x: str, y: str) -> str:
    axes = f'<path class="line" d="M{LEFT} {BOTTOM}H{RIGHT}" stroke="{_LINE}" fill="none"/>'
    names = _text((LEFT + RIGHT) / 2, HEIGHT - 8, x) + _text(4, 14, y, "start")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(y)} by {escape(x)}" font-family="sans-serif" font-size="13">'
        f"{axes}{''.join(body)}{names}</svg>"
    )


def _count_axis(step: int, top: int) -> str:
    lines = []
    for count in range(0, top + 1, step):
        height = _place(count, top)
        lines.append(
            f'<path class="line" d="M{LEFT} {height:.1f}H{RIGHT}" stroke="{_LINE}" fill="none"/>'
        )
        lines.append(_text(LEFT - 8, height + 4, short(count), "end"))
    return "".join(lines)


def _legend(names: Mapping[str, object]) -> str:
    parts, at = [], RIGHT - 90 * len(names)
    for name in names:
        parts.append(_rect(at, (6, 16), 10, name) + _text(at + 15, 15, name, "start"))
        at += 90
    return "".join(parts)


def _rect(
    left: float, tops: tuple[float, float], width: float, name: str, title: str | None = None
) -> str:
    said = "" if title is None else f"<title>{escape(title)}</title>"
    return (
        f'<rect class="{name}" x="{left:.1f}" y="{tops[0]:.1f}" width="{width:.1f}" '
        f'height="{tops[1] - tops[0]:.1f}" fill="{COLOURS[name]}">{said}</rect>'
    )


def _text(at: float, height: float, text: str, anchor: str = "middle") -> str:
    return (
        f'<text x="{at:.1f}" y="{height:.1f}" text-anchor="{anchor}" fill="{_SOFT}">'
        f"{escape(text)}</text>"
    )


def _across(share: float) -> float:
    return LEFT + (RIGHT - LEFT) * share


def _place(count: float, top: float) -> float:
    """Returns the height at which a count lies."""
    return BOTTOM - (BOTTOM - TOP) * count / top


def _ticks(most: int) -> tuple[int, int]:
    """Returns a round step and the end of an axis that holds a count."""
    rough = max(1.0, most / 4)
    size = 10 ** floor(log10(rough))
    step = next(int(size * times) for times in (1, 2, 5, 10) if size * times >= rough)
    return step, step * max(1, ceil(most / step))


def short(count: float) -> str:
    """Returns a count in few characters, such as 12.5k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"
