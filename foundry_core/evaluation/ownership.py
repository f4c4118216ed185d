# SPDX-License-Identifier: Apache-2.0
"""See it: which points of a shape each supertoken owns (needs torch and matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from foundry_core import geometry
from foundry_core.colors import class_color
from foundry_core.errors import InputError
from foundry_core.evaluation.answers import ask
from foundry_core.evaluation.features import Groups, Source, choose_budgets
from foundry_core.evaluation.pictures import pyplot, save_figure


@torch.no_grad()
def owners(source: Source, cloud: np.ndarray, budgets: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The supertoken of each point, at each budget.

    A point belongs to the token whose centre is nearest, and so to that token's supertoken.

    Returns:
        for each budget the model's input points float32 [N,3] and their owner int64 [N] in 0..budget-1.

    Raises:
        InputError: the model has no supertokens.
    """
    points, _ = geometry.prepare(cloud, source.size.points)
    centers, neighborhoods = geometry.group(points, source.size.groups, source.size.neighbors)
    nearest = geometry.nearest_neighbors(points, centers, 1)[:, 0]  # (N)
    batch = (torch.from_numpy(centers)[None], torch.from_numpy(neighborhoods)[None])
    source.fit(Groups(*batch))
    found = []
    for answer in ask(source.network, *batch, budgets):
        if answer.assignment is None:
            raise InputError(f"{source.name}: has no supertokens that own points; name a student or a token merging")
        found.append((points, answer.assignment[0].argmax(dim=-1).numpy()[nearest]))
    return found


def _project(points: np.ndarray, azimuth: float = -0.9, elevation: float = 0.42) -> tuple[np.ndarray, np.ndarray]:
    """Picture coordinates [N,2] and depth [N] (larger is nearer) of points [N,3], z up, seen from afar."""
    c, s = np.cos(azimuth), np.sin(azimuth)
    right, away = points @ [c, s, 0.0], points @ [-s, c, 0.0]
    c, s = np.cos(elevation), np.sin(elevation)
    return np.stack([right, c * points[:, 2] + s * away], axis=1), s * points[:, 2] - c * away


def draw_ownership(
    sources: Sequence[Source], cloud: np.ndarray, budgets: Sequence[int], path: str | Path, title: str = ""
) -> None:
    """Draw one shape [P,3] once for each model (a row) and budget (a column), points coloured by their supertoken.

    Colours are numbered: the same supertoken has the same colour in all budgets of a model.
    """
    rows = []
    for source in sources:
        own = choose_budgets(source, budgets)
        rows.append([(budget, *found) for budget, found in zip(own, owners(source, cloud, own), strict=True)])
    plt = pyplot()
    columns = max(map(len, rows))
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(4.2 * columns, 4.4 * len(rows)), dpi=120, squeeze=False, facecolor="white"
    )
    for panels, row, source in zip(axes, rows, sources, strict=True):
        for panel in panels:
            panel.axis("off")
        for panel, (budget, points, owner) in zip(panels, row, strict=False):
            picture, depth = _project(points)
            order = np.argsort(depth)
            colors = np.array([class_color(int(number)) for number in range(budget)])
            panel.scatter(*picture[order].T, s=14, c=colors[owner[order]], linewidths=0)
            panel.set_aspect("equal")
            used = len(np.unique(owner))
            panel.set_title(f"{Path(source.name).name}, s = {budget}\n{used} of {budget} own points", fontsize=10)
    if title:
        figure.suptitle(title)
    try:
        save_figure(figure, path)
    finally:
        plt.close(figure)
