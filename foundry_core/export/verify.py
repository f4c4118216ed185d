# SPDX-License-Identifier: Apache-2.0
"""Exported graphs against torch, on clouds that no calibration has seen."""

from __future__ import annotations

import numpy as np
import torch

from foundry_core import geometry
from foundry_core.card import ModelCard
from foundry_core.data.shapes import ShapeSet
from foundry_core.export.graph import example_inputs, output_names, perceive
from foundry_core.models.heads import Perception
from foundry_core.runtime.session import Session

UNSEEN = 1_000_003  # seed of the clouds
CLOUDS = 8


def agreement(session: Session, network: Perception, card: ModelCard) -> tuple[dict[str, float], float]:
    """Differences to torch.

    Returns:
        for each output the largest absolute difference over all budgets; and the mean cosine between the token
        features, at the worst budget.
    """
    inputs = example_inputs(card, CLOUDS, UNSEEN)
    tensors = [torch.from_numpy(value) for value in inputs.values()]
    largest = dict.fromkeys(output_names(card), 0.0)
    cosines = []
    for budget in card.budgets or [None]:
        given = session.run(inputs, budget=budget)
        with torch.no_grad():
            expected = {name: value.numpy() for name, value in perceive(network, tensors, budget).items()}
        for name in largest:
            largest[name] = max(largest[name], float(np.abs(given[name] - expected[name]).max()))
        cosines.append(token_cosine(given["tokens"], expected["tokens"]))
    return largest, min(cosines)


def token_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine between token features [B,G,d]."""
    product = (a * b).sum(axis=-1)
    return float((product / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1) + 1e-12)).mean())


def accuracy_drop(session: Session, network: Perception, card: ModelCard, shapes: ShapeSet, seeds: int = 3) -> float:
    """Points of accuracy that a linear probe loses by the exported form, at the default budget.

    The probe is trained and judged on the features of each side, as a user of the exported graph would; the mean over
    ``seeds`` splits.
    """
    from foundry_core.evaluation.features import Source, group_clouds, pooled_features
    from foundry_core.evaluation.probe import Split, probe_accuracy

    split = Split.of(shapes)
    scores = []
    for side in ("torch", "graph"):
        if side == "torch":
            source = Source(card.name, network.backbone, card.preprocessing, tuple(card.budgets), card.budget)
            train, test = (
                pooled_features(source, group_clouds(part.points, card.preprocessing))
                for part in (split.train, split.test)
            )
        else:
            train, test = (session_features(session, card, part.points) for part in (split.train, split.test))
        labels = split.train.label, split.test.label
        values = [probe_accuracy("linear", train, labels[0], test, labels[1], seed) for seed in range(seeds)]
        scores.append(float(np.mean(values)))
    return scores[0] - scores[1]


def session_features(session: Session, card: ModelCard, clouds) -> np.ndarray:
    """Mean and maximum over the token features of a graph: float32 [M,2d] for clouds [M,P,3]."""
    size = card.preprocessing
    rows = []
    for start in range(0, len(clouds), 16):
        points = np.stack([geometry.prepare(cloud, size.points)[0] for cloud in clouds[start : start + 16]])
        centers, neighborhoods = geometry.group_batch(points, size.groups, size.neighbors)
        tokens = session.run({"centers": centers, "neighborhoods": neighborhoods}, ["tokens"])["tokens"]
        rows.append(np.concatenate([tokens.mean(axis=1), tokens.max(axis=1)], axis=1))
    return np.concatenate(rows)
