# SPDX-License-Identifier: Apache-2.0
"""Features of shape sets: those of a model, and the two floors that every table carries beside it (needs torch)."""

from __future__ import annotations

import numpy as np
import torch
from rich.progress import track

from foundry_core import geometry
from foundry_core.card import Preprocessing, find_model, load_card
from foundry_core.data.stream import ShapeStream, StreamConfig
from foundry_core.models.heads import pool
from foundry_core.models.registry import load_model, random_teacher

RANDOM = "random:"  # random:<model> is that model's teacher architecture with random weights
HISTOGRAM = "histogram"


def model_features(backbone, clouds, size: Preprocessing, title: str = "features") -> np.ndarray:
    """Mean and maximum over the token features: float32 [M,2d] for clouds [M,P,3]."""
    rows = []
    for start in track(range(0, len(clouds), 64), description=title):
        points = np.stack([geometry.prepare(cloud, size.points)[0] for cloud in clouds[start : start + 64]])
        centers, neighborhoods = map(torch.from_numpy, geometry.group_batch(points, size.groups, size.neighbors))
        with torch.no_grad():
            rows.append(pool(backbone(centers, neighborhoods)["tokens"]).numpy())
    return np.concatenate(rows)


def calibrate_batch_norm(backbone, size: Preprocessing, seed: int, batches: int = 8) -> None:
    """Give a random network the batch statistics of procedural shapes: without them it would be no fair floor."""
    stream = ShapeStream(StreamConfig(), size.points, seed)
    backbone.train()
    for number in range(batches):
        clouds = np.stack([stream[32 * number + i] for i in range(32)])
        with torch.no_grad():
            backbone(*map(torch.from_numpy, geometry.group_batch(clouds, size.groups, size.neighbors)))
    backbone.eval()


def histogram_features(clouds, bins: int = 32, pairs: int = 4096) -> np.ndarray:
    """A handcrafted global descriptor, float32 [M,F]: shape distributions (Osada et al., 2002) and moments.

    Histograms of distances between random pairs (D2), of angles at random triples (A3) and of radii, of the
    coordinates along each axis, and the sorted spread along the principal axes.
    """
    rows = []
    rng = np.random.default_rng(0)
    for cloud in clouds:
        points, _, _ = geometry.normalize(np.asarray(cloud, np.float32))
        a, b, c = points[rng.integers(0, len(points), (3, pairs))]
        u, v = b - a, c - a
        lengths = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
        cosine = (u * v).sum(axis=1) / np.maximum(lengths, 1e-9)
        columns = [
            np.histogram(np.linalg.norm(u, axis=1), bins, (0, 2))[0] / pairs,
            np.histogram(np.arccos(np.clip(cosine, -1, 1)), bins, (0, np.pi))[0] / pairs,
            np.histogram(np.linalg.norm(points, axis=1), bins, (0, 1))[0] / len(points),
            *(np.histogram(points[:, axis], bins, (-1, 1))[0] / len(points) for axis in range(3)),
            np.sqrt(np.sort(np.linalg.eigvalsh(np.cov(points.T)))[::-1].clip(0)),
        ]
        rows.append(np.concatenate(columns))
    return np.asarray(rows, np.float32)


def features(model: str, clouds, seed: int) -> tuple[np.ndarray, int | None]:
    """Features of clouds [M,P,3] by a model name or path, ``random:<model>`` or ``histogram``; and the budget."""
    if model == HISTOGRAM:
        return histogram_features(clouds), None
    if model.startswith(RANDOM):
        card = load_card(find_model(model.removeprefix(RANDOM)))
        card = card.model_copy(update={"architecture": card.architecture.model_copy(update={"supertokens": None})})
        backbone = random_teacher(card, seed)
        calibrate_batch_norm(backbone, card.preprocessing, seed)
        return model_features(backbone, clouds, card.preprocessing, model), None
    network, card = load_model(model)
    budget = max(card.budgets) if card.budgets else None
    return model_features(network.backbone, clouds, card.preprocessing, card.name), budget
