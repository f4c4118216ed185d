# SPDX-License-Identifier: Apache-2.0
"""Exported graphs against torch, on clouds that no calibration has seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from foundry_core.card import ModelCard
from foundry_core.data.shapes import load_shapes
from foundry_core.errors import InputError
from foundry_core.export.graph import example_inputs, output_names, perceive
from foundry_core.models.heads import Perception
from foundry_core.runtime.session import Session

if TYPE_CHECKING:
    from foundry_core.evaluation.probe import Split

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


def read_split(path: str | Path) -> Split:
    """What a probe learns from and is judged on; InputError where the set has no labels or no test split."""
    from foundry_core.evaluation.probe import Split

    shapes = load_shapes(path)
    if shapes.split is None:
        raise InputError(
            f"{path}: split: missing; --check judges a test part: add it (docs/data.md) or give another set"
        )
    return Split.of(shapes)


class Probes:
    """Linear probes on the features of a model and of its exported forms, at the default budget.

    The strength of the probe is chosen on torch's features of the training shapes, once for each of ``seeds`` splits of
    these; every form then gets probes of the same strengths, trained and judged on its own features, as a user of the
    exported graph would. So what is compared is the features, and not the luck of a choice.

    Attributes:
        accuracy: percent of test shapes that torch's features are told right by, the mean over the seeds.
    """

    def __init__(self, network: Perception, card: ModelCard, split: Split, seeds: int = 3) -> None:
        from foundry_core.evaluation.features import Source, group_clouds, pooled_features
        from foundry_core.evaluation.probe import choose_strength
        from foundry_core.export.rewrite import fused_backbone

        self._labels = split.train.label, split.test.label
        self._groups = [group_clouds(part.points, card.preprocessing) for part in (split.train, split.test)]
        backbone = fused_backbone(network.backbone)  # the same numbers, sooner
        source = Source(card.name, backbone, card.preprocessing, tuple(card.budgets), card.budget)
        features = [pooled_features(source, groups) for groups in self._groups]
        self._strengths = [choose_strength("linear", features[0], self._labels[0], seed) for seed in range(seeds)]
        self.accuracy = self._accuracy(*features)

    def _accuracy(self, train: np.ndarray, test: np.ndarray) -> float:
        from foundry_core.evaluation.probe import probe_of_strength

        scores = {
            strength: probe_of_strength("linear", train, self._labels[0], strength).score(test, self._labels[1])
            for strength in set(self._strengths)
        }
        return 100.0 * float(np.mean([scores[strength] for strength in self._strengths]))

    def of(self, session: Session) -> float:
        """Percent of test shapes that the features of a graph are told right by, the mean over the seeds."""
        return self._accuracy(*(session_features(session, groups) for groups in self._groups))


def accuracy_drop(session: Session, network: Perception, card: ModelCard, split: Split, seeds: int = 3) -> float:
    """Points of accuracy that a linear probe loses by the exported form, see :class:`Probes`."""
    probes = Probes(network, card, split, seeds)
    return probes.accuracy - probes.of(session)


def session_features(session: Session, groups) -> np.ndarray:
    """Mean and maximum over the token features of a graph: float32 [M,2d] for M clouds cut into patches."""
    rows = []
    for centers, neighborhoods, _ in groups.batches():
        inputs = {"centers": centers.numpy(), "neighborhoods": neighborhoods.numpy()}
        tokens = session.run(inputs, ["tokens"])["tokens"]
        rows.append(np.concatenate([tokens.mean(axis=1), tokens.max(axis=1)], axis=1))
    return np.concatenate(rows)
