# SPDX-License-Identifier: Apache-2.0
"""Confusion matrices: where a classifier is right, and what it takes for what."""

from __future__ import annotations

from foundry_core.evaluation.report.html import Html, tag
from foundry_core.evaluation.report.read import Counts

_NUMBERED = 14  # classes up to which a cell has its number written in
_MISTAKES = 8


def class_order(counts: Counts) -> list[str]:
    """True classes as they come, then those that were only told."""
    return list(dict.fromkeys([*counts, *(told for row in counts.values() for told in row)]))


def matrix(counts: Counts, title: str) -> Html:
    """The matrix as SVG, each row in shares of its true class; the diagonal has a colour of its own."""
    names = class_order(counts)
    place = {name: number for number, name in enumerate(names)}
    cell = 13.0 if len(names) > _NUMBERED else 30.0
    letters = min(max(map(len, names)), 16)
    margin = 7.0 + 7.0 * letters  # a letter is 7 wide at most, on average
    side = margin + cell * len(names) + 4
    parts: list[Html] = []
    for name, number in place.items():
        at = margin + cell * (number + 0.5)
        text = name if len(name) <= letters else name[: letters - 1] + "…"
        parts.append(tag("text", text, x=margin - 5, y=at + 4, text_anchor="end"))
        turned = f"translate({at + 4:.1f} {margin - 5:.1f}) rotate(-90)"
        parts.append(tag("text", text, transform=turned))
    extent = cell * len(names)
    parts.append(tag("rect", x=margin, y=margin, width=extent, height=extent, class_="field"))
    for true, row in counts.items():
        total = sum(row.values())
        for told, number in row.items():
            if not number:
                continue
            x, y = margin + cell * place[told], margin + cell * place[true]
            said = tag("title", f"{true} → {told}: {number} of {total}")
            kind = "right" if true == told else "wrong"
            shade = f"{0.12 + 0.88 * number / total:.2f}"
            size = {"x": x + 0.5, "y": y + 0.5, "width": cell - 1, "height": cell - 1}
            parts.append(tag("rect", said, fill_opacity=shade, class_=kind, **size))
            if len(names) <= _NUMBERED:
                strong = " strong" if number / total > 0.55 else ""
                at = {"x": x + cell / 2, "y": y + cell / 2 + 4}
                parts.append(tag("text", number, text_anchor="middle", class_=f"count{strong}", **at))
    least, most = (min(side, 640.0) if len(names) > _NUMBERED else 0.0), max(side, 340.0)
    svg = tag(
        "svg", parts, viewBox=f"0 0 {side:g} {side:g}", role="img", class_="matrix",
        aria_label=f"confusion matrix, {title}: rows are true classes, columns are answers",
        style=f"min-width:{least:.0f}px;max-width:{most:.0f}px",
    )  # fmt: skip
    return tag("div", svg, class_="scroll", tabindex=0, role="region", aria_label=f"confusion matrix, {title}")


def mistakes(counts: Counts) -> Html | None:
    """The most frequent mistakes in words."""
    wrong = [
        (number, true, told, sum(row.values()))
        for true, row in counts.items()
        for told, number in row.items()
        if true != told and number
    ]
    wrong.sort(key=lambda item: (-item[0], -item[0] / item[3]))
    if not wrong:
        return tag("p", "No mistakes.")
    rows = [
        tag("li", tag("span", true, tag("i", " → "), told), tag("b", f"{number} of {total}"))
        for number, true, told, total in wrong[:_MISTAKES]
    ]
    return tag("ol", rows, class_="mistakes")


def right_share(counts: Counts) -> float:
    """Percent that is right, over all."""
    total = sum(sum(row.values()) for row in counts.values())
    return 100.0 * sum(row.get(true, 0) for true, row in counts.items()) / max(total, 1)
