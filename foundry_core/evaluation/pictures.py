# SPDX-License-Identifier: Apache-2.0
"""Pictures of what was found. matplotlib is imported on use and never on the robot's path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from foundry_core.colors import class_color
from foundry_core.errors import InputError
from foundry_core.files import replacing

_BACKGROUND, _INK, _GRID = "#16181d", "#d8dbe2", "#2b2f38"


def pyplot() -> Any:
    """matplotlib's pyplot, without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def box_corners(row: np.void) -> np.ndarray:
    """Corners float64 [8,3], metres, of the box of one record of :data:`foundry_core.records.OBJECT`, floor first."""
    half = np.array([row["size_x"], row["size_y"], row["size_z"]], float) / 2
    flat = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], float) * half[:2]
    c, s = np.cos(float(row["yaw"])), np.sin(float(row["yaw"]))
    flat = flat @ np.array([[c, s], [-s, c]]) + [float(row["x"]), float(row["y"])]
    low, high = float(row["z"]) - half[2], float(row["z"]) + half[2]
    return np.concatenate([np.c_[flat, np.full(4, low)], np.c_[flat, np.full(4, high)]])


def birds_eye(
    points: np.ndarray,
    objects: np.ndarray,
    path: str | Path,
    names: Mapping[int, str],
    title: str = "",
    extent: float | None = None,
) -> None:
    """Draw a sweep from above (x up, y to the left, metres) with the objects' boxes and class names.

    Args:
        points: [N,3], sensor frame, sensor at the origin.
        objects: records [n] of :data:`foundry_core.records.OBJECT`.
        path: .png (or what matplotlib writes by extension); written under a temporary name first.
        names: class id -> name; unknown objects (-1) are drawn grey and without a name.
        extent: metres from the sensor to the picture's edge; by default what holds the objects.
    """
    plt = pyplot()
    from matplotlib.lines import Line2D

    if extent is None:
        reach = np.abs(np.concatenate([objects["x"], objects["y"]])) if len(objects) else np.abs(points[:, :2]).ravel()
        extent = float(np.clip((np.percentile(reach, 98) if len(reach) else 10.0) + 4.0, 5.0, 80.0))
    figure, axes = plt.subplots(figsize=(12, 12), dpi=130, facecolor=_BACKGROUND)
    axes.set_facecolor(_BACKGROUND)
    inside = points[(np.abs(points[:, :2]) < extent).all(axis=1)]
    order = np.argsort(inside[:, 2])  # the highest on top
    inside = inside[order]
    low, high = np.percentile(inside[:, 2], (2, 98)) if len(inside) else (0.0, 1.0)
    axes.scatter(-inside[:, 1], inside[:, 0], s=0.35, c=inside[:, 2], cmap="bone", vmin=low - 1.5, vmax=high,
                 linewidths=0, rasterized=True)  # fmt: skip
    drawn: dict[int, int] = {}
    for row in objects:
        if max(abs(float(row["x"])), abs(float(row["y"]))) > extent:
            continue
        _draw_box(axes, row, names)
        drawn[int(row["class_id"])] = drawn.get(int(row["class_id"]), 0) + 1
    axes.plot([0], [0], marker=(3, 0, 0), color=_INK, markersize=9)
    handles = [
        Line2D([], [], color=class_color(index), lw=3, label=f"{names.get(index, 'unknown')}  {count}")
        for index, count in sorted(drawn.items(), key=lambda item: (item[0] < 0, -item[1]))
    ]
    if handles:
        axes.legend(handles=handles, loc="upper right", facecolor=_BACKGROUND, edgecolor=_GRID, labelcolor=_INK)
    axes.set_xlim(-extent, extent)
    axes.set_ylim(-extent, extent)
    axes.set_aspect("equal")
    axes.grid(color=_GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{-value or 0.0:g}")  # y grows to the left
    axes.set_xlabel("y [m]", color=_INK)
    axes.set_ylabel("x [m]", color=_INK)
    axes.set_title(title, color=_INK)
    for spine in axes.spines.values():
        spine.set_color(_GRID)
    try:
        save_figure(figure, path)
    finally:
        plt.close(figure)


def _draw_box(axes, row: np.void, names: Mapping[int, str]) -> None:
    class_id = int(row["class_id"])
    color = class_color(class_id)
    corners = box_corners(row)[[0, 1, 2, 3, 0]]  # the floor's outline, closed
    known = class_id >= 0
    axes.plot(-corners[:, 1], corners[:, 0], color=color, lw=1.8 if known else 0.7, alpha=1.0 if known else 0.6)
    if known:
        axes.annotate(
            f"{names.get(class_id, class_id)} {float(row['probability']):.0%}",
            (-corners[:, 1].mean(), corners[:, 0].max()), xytext=(0, 3), textcoords="offset points",
            ha="center", va="bottom", fontsize=7, color=color,
        )  # fmt: skip


def save_figure(figure, path: str | Path) -> None:
    """Write a figure in the format that the path's extension names (.png without one), under a temporary name first.

    Raises:
        InputError: the path cannot be written, or matplotlib does not know the format.
    """
    form = Path(path).suffix.lower().removeprefix(".") or "png"
    try:
        with replacing(path) as stream:
            figure.savefig(stream, format=form, facecolor=figure.get_facecolor(), bbox_inches="tight")
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: an extension that matplotlib does not know
        raise InputError(f"{path}: cannot be written ({error}); give a .png path in a writable folder") from None
