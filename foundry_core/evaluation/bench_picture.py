# SPDX-License-Identifier: Apache-2.0
"""The picture of a benchmark: medians of every configuration, smallest batch and fewest threads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from foundry_core.files import write_atomically


def draw_benchmark(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a PNG with one bar for each row: geometry and network, and a tick at the 95th percentile."""
    batch, threads = min(row["batch"] for row in rows), min(row["threads"] for row in rows)
    shown = [row for row in rows if row["batch"] == batch and row["threads"] == threads]
    shown.sort(key=lambda row: (row["model"], row["p50_ms"]))
    place = np.arange(len(shown))
    geometry = np.array([row["geometry_p50_ms"] for row in shown])
    network = np.array([row["network_p50_ms"] for row in shown])
    figure = Figure(figsize=(10, 1.5 + 0.28 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.barh(place, geometry, color="0.7", label="sampling and grouping")
    axes.barh(place, network, left=geometry, color="tab:blue", label="network")
    axes.plot([row["p95_ms"] for row in shown], place, "|", color="black", label="95th percentile, both")
    axes.set_yticks(place, [_title(row) for row in shown])
    axes.invert_yaxis()
    axes.set_xlabel(f"ms, batch {batch}, {threads} thread{'s' if threads > 1 else ''}")
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    write_atomically(path, stream.getvalue())


def _title(row: dict[str, Any]) -> str:
    budget = "" if row["budget"] is None else f" s={row['budget']}"
    outputs = "" if row["outputs"] == ["tokens"] else f", {'+'.join(row['outputs'])}"
    return f"{row['model']}{budget}, {row['runtime']} {row['precision']}{outputs}"


#: axis of a scaling -> what it is called, and what is drawn over it
_AXES = {
    "points": ("points of a cloud", "ms for a cloud"),
    "groups": ("groups", "ms for a cloud"),
    "supertokens": ("supertokens", "ms for a cloud"),
    "segments": ("segments of a frame", "ms for a frame"),
    "sweep": ("points of a sweep", "ms from crop to labels"),
    "memory": ("points of a sweep", "peak memory of the process, MB"),
}


def draw_scaling(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a PNG with a panel for each axis: medians, and what of them is sampling, grouping or the scene."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    panels = dict(zip(_AXES, figure.subplots(2, 3).flat, strict=True))
    lines = sorted({(row["model"], row["runtime"], row["precision"]) for row in rows})
    for number, line in enumerate(lines):
        mine = [row for row in rows if (row["model"], row["runtime"], row["precision"]) == line]
        for axis, axes in panels.items():
            chosen = sorted(
                (row for row in mine if row["axis"] == ("sweep" if axis == "memory" else axis)),
                key=lambda row: row["value"],
            )
            if not chosen:
                continue
            values = [row["value"] for row in chosen]
            main = [row["rss_mb" if axis == "memory" else "p50_ms"] for row in chosen]
            axes.plot(values, main, "o-", color=f"C{number}", label=" ".join(line))
            if axis != "memory":
                name = "of it the scene" if axis == "sweep" else "of it sampling and grouping"
                apart = [row["geometry_p50_ms"] for row in chosen]
                axes.plot(values, apart, ".:", color=f"C{number}", label=None if number else name)
    for axis, axes in panels.items():
        axes.set_xlabel(_AXES[axis][0])
        axes.set_ylabel(_AXES[axis][1])
        axes.grid(alpha=0.3)
        if axes.has_data():
            if axis not in ("sweep", "memory"):
                axes.set_xscale("log", base=2)
            axes.set_ylim(bottom=0)
            axes.legend(fontsize="small")
        else:
            axes.set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    write_atomically(path, stream.getvalue())
