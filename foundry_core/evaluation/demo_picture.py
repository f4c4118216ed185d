# SPDX-License-Identifier: Apache-2.0
"""The picture of ``foundry demo``: one sweep with what was found in it, and close-ups coloured by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foundry_core.colors import class_color
from foundry_core.evaluation.pictures import box_corners, pyplot, save_figure
from foundry_core.records import positions

_DARK, _PANEL, _INK, _DIM = "#0e1116", "#161b22", "#e6e9ef", "#8b93a1"
_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))


@dataclass(frozen=True)
class CloseUp:
    """One object to show: points float32 [n,3] in the sensor frame, found parts int [n], and a caption.

    Attributes:
        name: the class that was found; ``truth`` is the true one where it differs, else None.
        probability: of the class.
    """

    points: np.ndarray
    part: np.ndarray
    name: str
    probability: float
    truth: str | None = None


class _View:
    """A perspective camera that looks from ``eye`` at ``target``, both [3]; gives picture coordinates and depth."""

    def __init__(self, eye, target) -> None:
        forward = np.asarray(target, float) - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        self._eye, self._axes = np.asarray(eye, float), np.stack([right, np.cross(right, forward), forward])

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = (np.asarray(points, float) - self._eye) @ self._axes.T
        depth = np.maximum(seen[:, 2], 0.2)
        return seen[:, :2] / depth[:, None], np.where(seen[:, 2] > 0.2, seen[:, 2], np.nan)


def draw_demo(
    parts: np.ndarray,
    objects: np.ndarray,
    classes: Mapping[int, str],
    part_names: Mapping[int, str],
    close_ups: Sequence[CloseUp],
    path: str | Path,
    title: str,
    subtitle: str = "",
) -> None:
    """Draw a sweep obliquely from above with boxes and class names, and up to eight close-ups.

    Args:
        parts, objects: records of one frame, see :mod:`foundry_core.records`.
        classes, part_names: id -> name.
        path: .png, written under a temporary name first.
    """
    plt = pyplot()
    close_ups = list(close_ups)[:8]
    columns = max(3, (len(close_ups) + 1) // 2)
    rows = -(-len(close_ups) // columns) if close_ups else 0
    figure = plt.figure(figsize=(16, 8.6 + 3.9 * rows), dpi=110, facecolor=_DARK)
    layout = figure.add_gridspec(
        1 + rows, columns, height_ratios=[8.0] + [3.9] * rows, hspace=0.1, wspace=0.05,
        left=0.02, right=0.98, bottom=0.02, top=0.935,
    )  # fmt: skip
    figure.text(0.02, 0.977, title, color=_INK, fontsize=19, weight="bold", va="center")
    figure.text(0.02, 0.953, subtitle, color=_DIM, fontsize=11.5, va="center")
    try:
        _draw_sweep(figure.add_subplot(layout[0, :]), parts, objects, classes)
        for number, item in enumerate(close_ups):
            axes = figure.add_subplot(layout[1 + number // columns, number % columns])
            _draw_close_up(axes, item, part_names)
        save_figure(figure, path)
    finally:
        plt.close(figure)


def _draw_sweep(axes, parts, objects, classes) -> None:
    points = positions(parts)
    owner = parts["object_id"]
    class_id = np.full(len(parts), -1)
    class_id[owner >= 0] = objects["class_id"][owner[owner >= 0]]
    reach = np.hypot(points[:, 0], points[:, 1])
    near = reach < 30
    far = float(reach[near].max(initial=1.0))
    floor = float(np.percentile(points[near, 2], 5)) if near.any() else 0.0
    if (points[:, 0] > -0.5).all():  # a camera sees only what is ahead
        middle = np.array([0.5 * far, 0.0, floor])
        view = _View(middle + far * np.array([-1.1, -0.75, 0.9]), middle)
    else:
        middle = np.array([0.06 * far, 0.0, floor])
        view = _View(middle + far * np.array([-0.45, -1.5, 1.45]), middle)
    picture, depth = view(points)
    owned = near & (owner >= 0) & np.isfinite(depth)
    ours = owned if owned.any() else near & np.isfinite(depth)
    x_low, y_low = np.percentile(picture[ours], 0.2, axis=0) - 0.03
    x_high, y_high = np.percentile(picture[ours], 99.8, axis=0) + 0.03
    # walls would hide what stands behind them: they are cut off at head height, like a doll's house
    shown = np.isfinite(depth) & ((owner >= 0) | (points[:, 2] < floor + min(2.2, 0.2 * far)))
    order = np.argsort(-np.nan_to_num(depth, nan=1e9))
    height = np.clip((points[:, 2] - floor) / 2.2, 0, 1)[:, None]
    rest = np.array([0.20, 0.27, 0.36]) * (1 - height) + np.array([0.42, 0.50, 0.60]) * height
    colors = rest.copy()
    for number in np.unique(class_id[owner >= 0]):
        colors[(class_id == number) & (owner >= 0)] = _color(int(number)) * (1 if number >= 0 else 0.75)
    found = owner >= 0
    size = np.where(found, 3.4, 0.8) * np.clip(1.9 * far / np.nan_to_num(depth, nan=1e9), 0.4, 2.5) ** 2
    order = order[shown[order]]
    axes.set_facecolor(_DARK)
    axes.scatter(*picture[order].T, s=size[order], c=colors[order], linewidths=0, rasterized=True)
    limits = (x_low, x_high, y_low, y_high)
    labels = []
    for row in objects:
        corners, box_depth = view(box_corners(row))
        if np.isnan(box_depth).any() or not _inside(corners.mean(axis=0), limits):
            continue
        number = int(row["class_id"])
        color = _color(number)
        for a, b in _EDGES:
            axes.plot(
                *corners[[a, b]].T, color=color, lw=1.1 if number >= 0 else 0.5, alpha=0.95 if number >= 0 else 0.4
            )
        if number >= 0:
            labels.append((float(box_depth.mean()), corners, classes.get(number, str(number)), color))
    _place_labels(axes, sorted(labels, key=lambda label: label[0]), limits)
    _fill(axes, (x_low + x_high) / 2, (y_low + y_high) / 2, x_high - x_low, 1.05 * (y_high - y_low))
    axes.axis("off")


def _fill(axes, x: float, y: float, width: float, height: float) -> None:
    """Centre the axes on (x, y) and show at least width by height, at equal scales."""
    box = axes.get_position()
    inches = axes.figure.get_size_inches()
    aspect = box.width * inches[0] / (box.height * inches[1])
    width = max(width, height * aspect)
    axes.set_xlim(x - width / 2, x + width / 2)
    axes.set_ylim(y - width / aspect / 2, y + width / aspect / 2)


def _color(index: int) -> np.ndarray:
    """The colour of an id, light enough for a dark ground."""
    color = np.array(class_color(index))
    light = float(color @ (0.3, 0.59, 0.11))
    return color + (1 - color) * max(0.0, 0.55 - light)


def _inside(point, limits) -> bool:
    return limits[0] <= point[0] <= limits[1] and limits[2] <= point[1] <= limits[3]


def _place_labels(axes, labels, limits) -> None:
    """Write names above boxes, the nearest first; one that would cover another is left out."""
    width, height = limits[1] - limits[0], limits[3] - limits[2]
    taken: list[tuple[float, float]] = []
    for _, corners, name, color in labels:
        x, y = float(corners[:, 0].mean()), float(corners[:, 1].max())
        if any(abs(x - a) < 0.06 * width and abs(y - b) < 0.035 * height for a, b in taken):
            continue
        taken.append((x, y))
        axes.annotate(
            name, (x, y), xytext=(0, 4), textcoords="offset points", ha="center", va="bottom", fontsize=9.5,
            color=color, weight="bold", zorder=5,
            bbox={"boxstyle": "round,pad=0.18", "facecolor": _DARK, "edgecolor": "none", "alpha": 0.7},
        )  # fmt: skip


def _draw_close_up(axes, item: CloseUp, part_names: Mapping[int, str]) -> None:
    center = (item.points.min(axis=0) + item.points.max(axis=0)) / 2
    extent = float(np.linalg.norm(np.ptp(item.points, axis=0)))
    # from where the sensor was, a little to the side and above, so that depth shows
    azimuth = np.arctan2(-center[1], -center[0]) + 0.45
    away = 2.6 * extent
    eye = center + [away * np.cos(azimuth), away * np.sin(azimuth), 0.38 * away]
    picture, depth = _View(eye, center)(item.points)
    order = np.argsort(-depth)
    colors = np.array([_color(int(part)) for part in item.part])
    size = float(np.clip(9000 / len(picture), 3.5, 42))
    axes.set_facecolor(_PANEL)
    axes.scatter(*picture[order].T, s=size, c=colors[order], linewidths=0)
    middle = (picture.min(axis=0) + picture.max(axis=0)) / 2
    width, height = np.ptp(picture, axis=0)
    _fill(axes, middle[0], middle[1] + 0.08 * height, 1.25 * width, 1.4 * height)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#2a313c")
    wrong = f"   (is: {item.truth})" if item.truth else ""
    axes.text(0.03, 0.955, item.name, transform=axes.transAxes, color=_INK, fontsize=14, weight="bold", va="top")
    axes.text(
        0.03, 0.865, f"{item.probability:.0%}, {len(item.points)} points{wrong}", transform=axes.transAxes,
        color="#ff8f8f" if wrong else _DIM, fontsize=9.5, va="top",
    )  # fmt: skip
    parts, counts = np.unique(item.part, return_counts=True)
    ranked = [int(part) for part in parts[np.argsort(-counts)] if part >= 0][:7]
    for line, part in enumerate(ranked):
        axes.text(
            0.975, 0.955 - 0.075 * line, part_names.get(part, str(part)), transform=axes.transAxes, ha="right",
            va="top", color=_color(part), fontsize=10.5, weight="bold",
        )  # fmt: skip
