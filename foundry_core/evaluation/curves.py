# SPDX-License-Identifier: Apache-2.0
"""The curves of a training, drawn from its log: loss, learning rate, collapse statistics and probes over the steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foundry_core.colors import class_color
from foundry_core.evaluation.pictures import pyplot, save_figure

CURVES = "curves.png"
PROBE = "probe_"  # before the name of a shape set: percent right
HELD_OUT = "held_out_"  # before r2 and cosine, on clouds that are not learned from

_PROGRESS = ("step", "seconds", "samples_per_second")
_PARTS = ("features", "pooled", "supertokens", "alone", "usage", "tokenizer")  # of a distillation's loss
#: title -> which scalars it shows; the last takes what no other does
_PANELS: dict[str, Callable[[str], bool]] = {
    "loss": lambda key: key == "loss" or key in _PARTS,
    "probe, % right": lambda key: key.startswith(PROBE),
    "fidelity, held out": lambda key: key.startswith(HELD_OUT),
    "deviation of features": lambda key: key.endswith("_std"),
    "effective rank over clouds": lambda key: key.endswith("_rank"),
    "learning rate": lambda key: key == "learning_rate",
    "others": lambda key: True,
}


def rows_of(log: str) -> list[dict[str, Any]]:
    """Rows of a ``log.jsonl`` by step. Torn lines are left out, and rows that a resumed run wrote again."""
    rows: list[dict[str, Any]] = []
    for line in log.splitlines():
        try:
            row = json.loads(line)
            step = int(row["step"])
        except (ValueError, KeyError, TypeError):
            continue
        while rows and rows[-1]["step"] >= step:
            rows.pop()
        rows.append(row)
    return rows


def panels(rows: list[dict[str, Any]]) -> dict[str, dict[str, tuple[list[int], list[float]]]]:
    """Title -> scalar -> its steps and values; panels without a scalar are left out."""
    found: dict[str, dict[str, tuple[list[int], list[float]]]] = {title: {} for title in _PANELS}
    for row in rows:
        for key, value in row.items():
            if key in _PROGRESS or not isinstance(value, int | float):
                continue
            title = next(title for title, shows in _PANELS.items() if shows(key))
            steps, values = found[title].setdefault(key, ([], []))
            steps.append(row["step"])
            values.append(value)
    return {title: scalars for title, scalars in found.items() if scalars}


def draw_curves(log: str, path: Path, title: str) -> None:
    """Draw the text of a log into a picture, written under a temporary name first; nothing where it has no rows.

    Raises:
        InputError: the picture cannot be written.
    """
    shown = panels(rows_of(log))
    if not shown:
        return
    plt = pyplot()
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(5 * columns, 3.4 * lines), dpi=100, squeeze=False)
    for panel in axes.flat[len(shown) :]:
        panel.set_visible(False)
    for panel, (name, scalars) in zip(axes.flat, shown.items(), strict=False):
        for number, (key, (steps, values)) in enumerate(scalars.items()):
            marker = "o" if key.startswith((PROBE, HELD_OUT)) or len(steps) == 1 else None
            label = key.removeprefix(PROBE).removeprefix(HELD_OUT).replace("_", " ")
            panel.plot(steps, values, color=class_color(number), lw=1.3, marker=marker, ms=4, label=label)
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("step", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
        if len(scalars) > 1 or name.replace(" ", "_") not in scalars:
            panel.legend(fontsize=7)
    figure.suptitle(title)
    figure.subplots_adjust(wspace=0.25, hspace=0.45)  # tight_layout draws everything once more
    try:
        save_figure(figure, path)
    finally:
        plt.close(figure)
