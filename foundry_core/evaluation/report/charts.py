# SPDX-License-Identifier: Apache-2.0
"""Line charts as SVG that takes its colours from the page, so that they follow light, dark and print."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from foundry_core.evaluation.report.html import Html, tag

# drawn at the width of a phone, and scaled up from there: letters are never smaller than on the phone
WIDTH, HEIGHT = 400.0, 286.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 14.0, 12.0, 40.0
_GAP = 11.0  # height of a label
COLORS = 8  # --c0 to --c7 of the style sheet


@dataclass(frozen=True)
class Mark:
    """A point of a series: where, its deviation, and what is written beside it."""

    x: float
    y: float
    deviation: float = 0.0
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Marks joined by a line.

    Attributes:
        style: number of the page's colours and forms, or None for a teacher, who also has a line across.
        level: the line across alone, for a teacher who has no place on the horizontal axis.
    """

    name: str
    style: int | None
    marks: list[Mark] = field(default_factory=list)
    level: bool = False


class _Scale:
    """From values to units of the drawing."""

    def __init__(self, values: Sequence[float], start: float, end: float, log: bool, pad: float = 0.08) -> None:
        self._of = math.log10 if log else float
        low, high = self._of(min(values)), self._of(max(values))
        around = max((high - low) * pad, 0.06 if log else abs(high) * 0.01, 1e-6)
        self.low, self.high, self.start, self.end, self.log = low - around, high + around, start, end, log

    def __call__(self, value: float) -> float:
        share = (self._of(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values inside: 1, 2, 5 and ten times these."""
        if self.log:
            powers = range(math.floor(self.low), math.ceil(self.high) + 1)
            # the finest of the usual steps that leaves room for the labels
            for digits in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
                values = [digit * 10.0**power for power in powers for digit in digits]
                inside = [value for value in values if self.low <= math.log10(value) <= self.high]
                if len(inside) <= 7:
                    return inside
            return inside
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (factor * step) <= 6)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [round(number * step, 10) for number in range(first, last + 1)]


def line_chart(
    series: Sequence[Series], x_label: str, y_label: str, log: bool = False, x_ticks: Sequence[float] | None = None
) -> Html:
    """A chart of one panel.

    Args:
        series: those without a mark are left out.
        log: whether the horizontal axis is logarithmic.
        x_ticks: where to write numbers; by default round values.
    """
    series = [item for item in series if item.marks]
    marks = [mark for item in series for mark in item.marks]
    x = _Scale([mark.x for mark in marks], _LEFT, WIDTH - _RIGHT, log)
    bounds = [mark.y + sign * mark.deviation for mark in marks for sign in (-1, 1)]
    y = _Scale(bounds, HEIGHT - _BOTTOM, _TOP, False, 0.1)
    parts = [_grid(x, y, x_ticks or x.ticks(), x_label)]
    taken = [box for item in series for box in _covered(item, x, y)]
    for item in series:
        color = "ink" if item.style is None else f"c{item.style % COLORS}"
        ordered = sorted(item.marks, key=lambda mark: mark.x)
        at = [(x(mark.x), y(mark.y)) for mark in ordered]
        drawn: list[Html] = []
        if item.style is None:
            level = at[0][1]
            drawn.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=level, y2=level, class_="level"))
        if len(at) > 1:
            drawn.append(tag("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in at), class_="path"))
        for mark, (a, b) in zip(ordered, at):
            if item.level:
                continue
            if mark.deviation:
                low, high = y(mark.y - mark.deviation), y(mark.y + mark.deviation)
                drawn.append(tag("line", x1=a, x2=a, y1=low, y2=high, class_="spread"))
            title = f"{item.name}{', ' + mark.label if mark.label else ''}: {mark.y:.4g} at {mark.x:.4g}"
            drawn.append(marker(item.style, a, b, title))
        for mark, (a, b) in zip(ordered, at):
            if mark.label and (place := _place(a, b, mark.label, taken)):
                drawn.append(tag("text", mark.label, x=place[0], y=place[1], text_anchor=place[2], class_="note"))
        parts.append(tag("g", drawn, class_=f"series {color}"))
    told = f"{y_label} over {x_label}: {', '.join(item.name for item in series)}"
    return tag("svg", parts, viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img", aria_label=told, class_="chart")


def _grid(x: _Scale, y: _Scale, x_ticks: Sequence[float], x_label: str) -> Html:
    lines: list[Html] = []
    floor = HEIGHT - _BOTTOM
    for value in y.ticks():
        at = y(value)
        lines.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=at, y2=at))
        lines.append(tag("text", f"{value:g}", x=_LEFT - 7, y=at + 4, text_anchor="end"))
    for value in x_ticks:
        at = x(value)
        lines.append(tag("line", x1=at, x2=at, y1=floor, y2=floor + 4, class_="tick"))
        lines.append(tag("text", f"{value:g}", x=at, y=floor + 17, text_anchor="middle"))
    lines.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=floor, y2=floor, class_="axis"))
    lines.append(tag("text", x_label, x=WIDTH - _RIGHT, y=HEIGHT - 5, text_anchor="end", class_="title"))
    return tag("g", lines, class_="grid")


def _covered(series: Series, x: _Scale, y: _Scale) -> list[tuple[float, float, float, float]]:
    """Boxes that no label may cover: the marks of a series, their deviations, and short pieces of its line."""
    ordered = sorted(series.marks, key=lambda mark: mark.x)
    boxes = []
    for mark in ordered:
        a, b = x(mark.x), y(mark.y)
        boxes.append((a - 5, b - 5, a + 5, b + 5))
        if mark.deviation:
            boxes.append((a - 1, y(mark.y + mark.deviation), a + 1, y(mark.y - mark.deviation)))
    for first, second in zip(ordered, ordered[1:]):
        (a, b), (c, d) = (x(first.x), y(first.y)), (x(second.x), y(second.y))
        pieces = max(int(math.hypot(c - a, d - b) / 6), 1)
        for piece in range(1, pieces):
            at = a + (c - a) * piece / pieces, b + (d - b) * piece / pieces
            boxes.append((at[0] - 1, at[1] - 1, at[0] + 1, at[1] + 1))
    return boxes


def _place(x: float, y: float, text: str, taken: list[tuple[float, float, float, float]]) -> tuple | None:
    """A free spot for a label beside a mark: (x, y, anchor), noted in ``taken``; None where all are covered."""
    width = 5.6 * len(text)
    spots = ((0, -9, "middle"), (0, 17, "middle"), (8, 4, "start"), (-8, 4, "end"))
    spots += ((6, -6, "start"), (-6, -6, "end"), (6, 14, "start"), (-6, 14, "end"))
    for dx, dy, anchor in spots:
        left = x + dx - {"middle": width / 2, "start": 0.0, "end": width}[anchor]
        box = (left, y + dy - _GAP + 2, left + width, y + dy + 2)
        inside = box[0] >= _LEFT and box[2] <= WIDTH - 2 and box[1] >= 2 and box[3] <= HEIGHT - _BOTTOM
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return x + dx, y + dy, anchor
    return None


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def marker(style: int | None, x: float, y: float, title: str | None = None) -> Html:
    """The sign of a series: its form tells it apart where its colour does not."""
    told = tag("title", title) if title else None
    form = 0 if style is None else style % 4
    if form == 0:
        return tag("circle", told, cx=x, cy=y, r=4, class_="mark")
    points = {
        1: ((-3.7, -3.7), (3.7, -3.7), (3.7, 3.7), (-3.7, 3.7)),
        2: ((0, -5), (4.6, 3.6), (-4.6, 3.6)),
        3: ((0, -5.3), (5.3, 0), (0, 5.3), (-5.3, 0)),
    }[form]
    return tag("polygon", told, points=" ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in points), class_="mark")


def legend(series: Iterable[Series]) -> Html:
    """Names and signs of the series of one or more charts, each once."""
    seen = {item.name: item for item in series}
    entries = []
    for item in seen.values():
        color = "ink" if item.style is None else f"c{item.style % COLORS}"
        sign = tag(
            "svg",
            tag("g", marker(item.style, 7.0, 7.0), class_=f"series {color}"),
            viewBox="0 0 14 14", class_="sign", aria_hidden="true",
        )  # fmt: skip
        entries.append(tag("li", sign, item.name))
    return tag("ul", entries, class_="legend")
