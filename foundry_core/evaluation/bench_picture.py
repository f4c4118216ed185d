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
