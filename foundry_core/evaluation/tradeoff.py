# SPDX-License-Identifier: Apache-2.0
"""Fidelity against latency: rows of `foundry evaluate fidelity` and of `foundry bench`, joined by model and budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from foundry_core.colors import class_color
from foundry_core.errors import InputError
from foundry_core.evaluation.pictures import pyplot, save_figure

#: what a teacher reaches in a figure that compares with itself
_PERFECT = {"r2": 1.0, "cosine": 1.0, "cka": 1.0, "neighbor_same_percent": 100.0, "neighbor_overlap_percent": 100.0}


class Point(NamedTuple):
    """One model at one budget: latency in milliseconds (median), the figure and its deviation."""

    model: str
    budget: int | None
    latency_ms: float
    value: float
    deviation: float


def read_rows(path: str | Path, *needed: str) -> list[dict]:
    """A JSON list of rows with the keys ``needed``; InputError names the file and what is wrong."""
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the JSON file that the command wrote") from None
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{path}: not valid JSON; give the file that the command wrote with --json") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: not a list of rows; give the file that the command wrote with --json")
    for row in rows:
        for key in needed:
            if key not in row:
                raise InputError(f"{path}: {key}: missing in a row; give the file that the command wrote with --json")
    return rows


def join(fidelity: Sequence[dict], bench: Sequence[dict], metric: str, data: str | None) -> dict[str, list[Point]]:
    """Points by runtime ("onnxruntime fp32, 1 thread"), the teacher among them where it was timed.

    Args:
        metric: a name in the fidelity rows' ``metrics``.
        data: the rows' data set; by default their average, or the only set.

    Raises:
        InputError: no row has the metric or the data set, or no model of the one is in the other.
    """
    names = list(dict.fromkeys(row["data"] for row in fidelity))
    data = data or ("average" if "average" in names else names[0])
    if data not in names:
        raise InputError(f"--data {data}: not among the fidelity rows; give {', '.join(names)}")
    clean = [row for row in fidelity if row["data"] == data and not row.get("shift")]
    chosen = [row for row in clean if metric in row["metrics"]]
    if not chosen:
        known = sorted({name for row in clean for name in row["metrics"]})
        raise InputError(f"--metric {metric}: not among the figures; give one of {', '.join(known)}")
    figures = {(row["model"], row["budget"]): row["metrics"][metric] for row in chosen}
    reference = _PERFECT.get(metric)
    for row in chosen:
        value = {"mean": reference, "std": 0.0} if reference is not None else None
        if metric.endswith("_accuracy_percent"):
            value = row["metrics"].get("teacher_accuracy_percent")
        if value:
            figures[row["teacher"], None] = value
    points: dict[str, list[Point]] = {}
    for row in bench:
        key = row["model"], row["budget"]
        if key in figures:
            label = " ".join(str(row[name]) for name in ("runtime", "precision") if row.get(name))
            if row.get("threads"):
                label += f", {row['threads']} thread" + "s" * (row["threads"] != 1)
            value = figures[key]
            points.setdefault(label, []).append(Point(*key, float(row["p50_ms"]), value["mean"], value["std"]))
    if not points:
        raise InputError("no model and budget of the fidelity rows was timed; run `foundry bench` on the same models")
    return points


def draw_tradeoff(points: dict[str, list[Point]], metric: str, path: str | Path) -> None:
    """Draw the figure over the latency, one panel for each runtime; the budgets of a model are joined by a line."""
    plt = pyplot()
    models = list(dict.fromkeys(point.model for group in points.values() for point in group))
    figure, axes = plt.subplots(1, len(points), figsize=(7.5 * len(points), 5.5), dpi=120, squeeze=False, sharey=True)
    for panel, (runtime, group) in zip(axes[0], points.items(), strict=True):
        for number, model in enumerate(models):
            own = sorted((point for point in group if point.model == model), key=lambda point: point.latency_ms)
            if not own:
                continue
            x, y = [point.latency_ms for point in own], [point.value for point in own]
            deviation = [point.deviation for point in own]
            panel.errorbar(x, y, yerr=deviation, marker="o", capsize=3, color=class_color(number), label=model)
            for point in own:
                if point.budget is not None:
                    panel.annotate(
                        f"s={point.budget}", (point.latency_ms, point.value), xytext=(5, 5),
                        textcoords="offset points", fontsize=8, color=class_color(number),
                    )  # fmt: skip
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
        panel.tick_params(axis="x", which="minor", labelsize=7)
        panel.set_xlabel("latency per cloud, median [ms]")
        panel.set_title(runtime)
        panel.grid(alpha=0.3, which="both")
    axes[0][0].set_ylabel(metric.replace("_", " "))
    axes[0][-1].legend(fontsize=8)
    try:
        save_figure(figure, path)
    finally:
        plt.close(figure)
