# SPDX-License-Identifier: Apache-2.0
"""Transfer heads on numpy: from the token features of a graph to calibrated classes, unknown objects and parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foundry_core.errors import InputError
from foundry_core.head_card import HEAD_WEIGHTS, HeadCard, load_head_card
from foundry_core.kernels import jit
from foundry_core.runtime.answers import softmax
from foundry_core.runtime.fewshot import Whitening, nearest_cosine
from foundry_core.runtime.perceiver import pooled
from foundry_core.tensors import read_tensors

_ROOT_HALF = np.float32(math.sqrt(0.5))


@jit
def _gelu(flat):
    for i in range(flat.shape[0]):
        flat[i] = np.float32(0.5) * flat[i] * np.float32(1.0 + math.erf(flat[i] * _ROOT_HALF))


def gelu(x: np.ndarray) -> np.ndarray:
    """Gaussian error linear unit of float32 [...], exact (not the tanh form), in place where ``x`` is contiguous."""
    x = np.ascontiguousarray(x, np.float32)
    _gelu(x.reshape(-1))
    return x


def energy(logits: np.ndarray) -> np.ndarray:
    """Minus the log of the summed exponentials [...] of logits [...,C]; high where no class claims the object
    (Liu et al., "Energy-based out-of-distribution detection", 2020)."""
    return -np.logaddexp.reduce(np.asarray(logits, np.float64), axis=-1)


def expected_tensors(card: HeadCard) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a head."""
    d, c, h = card.width, len(card.classes), card.hidden or 0
    linear = {"out.weight": (c, h or 2 * d), "out.bias": (c,)}
    space = {"space.center": (2 * d,), "space.matrix": (2 * d, 2 * d)}
    exemplars = {"space.exemplars": (card.unknown.exemplars, 2 * d)} if card.unknown and card.unknown.exemplars else {}
    if card.kind == "parts":
        p = len(card.parts)
        shapes = {"norm.weight": (d,), "norm.bias": (d,), "mlp.1.weight": (h, h), "mlp.1.bias": (h,)}
        for name, size in (("token", d), ("cloud", 2 * d), ("point", 6)):
            shapes |= {f"{name}.weight": (h, size), f"{name}.bias": (h,)}
        shapes |= {"category.weight": (h, c)} if card.category else {}
        return shapes | {"mlp.3.weight": (p, h), "mlp.3.bias": (p,)}
    if card.kind == "ncm":
        return space | {"space.means": (c, 2 * d)} | exemplars
    shapes = {"mean": (2 * d,), "scale": (2 * d,)} | linear
    if card.kind == "mlp":
        shapes |= {"hidden.weight": (h, 2 * d), "hidden.bias": (h,)}
    return shapes | (space | exemplars if exemplars else {})


@dataclass(frozen=True)
class ClassAnswers:
    """What a classification head says of B objects.

    Attributes:
        logits: float [B,C]; probabilities: float64 [B,C], after temperature scaling.
        score: float64 [B], the higher the less it is of any of the classes; unknown: bool [B].
    """

    logits: np.ndarray
    probabilities: np.ndarray
    score: np.ndarray
    unknown: np.ndarray


class TransferHead:
    """A head directory, ready to answer.

    Attributes:
        card: what the head is and which backbones it reads.

    Raises:
        InputError: the directory is damaged, or its tensors do not fit its card.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.card = load_head_card(directory)
        path = self.directory / HEAD_WEIGHTS
        self._w = read_tensors(path)
        expected = expected_tensors(self.card)
        for name in sorted(expected.keys() ^ self._w.keys()):
            known = "missing" if name in expected else "unknown"
            raise InputError(f"{path}: {known} tensor '{name}'; it does not fit {self.directory / 'head.json'}")
        for name, shape in expected.items():
            if self._w[name].shape != shape:
                found = self._w[name].shape
                raise InputError(f"{path}: tensor '{name}' is {found}, the card asks for {shape}; restore the head")
            if not np.isfinite(self._w[name]).all():
                raise InputError(f"{path}: tensor '{name}' is not finite; train the head again")

    def classify(self, tokens: np.ndarray) -> ClassAnswers:
        """Classes of objects with token features [B,G,d]."""
        features = pooled(tokens)
        logits = self._logits(features)
        temperature = self.card.calibration.temperature if self.card.calibration else 1.0
        unknown = self.card.unknown
        if unknown is None or unknown.score == "energy":
            score = energy(logits)
        else:
            score = 1 - nearest_cosine(self._units(features), self._w["space.exemplars"])
        rejected = score > unknown.threshold if unknown else np.zeros(len(score), bool)
        return ClassAnswers(logits, softmax(logits / temperature), score, rejected)

    def _units(self, features: np.ndarray) -> np.ndarray:
        return Whitening(self._w["space.center"], self._w["space.matrix"]).units(features)

    def _logits(self, features: np.ndarray) -> np.ndarray:
        if self.card.kind == "ncm":
            return self._units(features) @ self._w["space.means"].T
        x = (features - self._w["mean"]) / self._w["scale"]
        if self.card.kind == "mlp":
            x = gelu(self._linear("hidden", x))
        return self._linear("out", x)

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self._w[f"{name}.weight"].T + self._w[f"{name}.bias"]

    def part_logits(
        self,
        tokens: np.ndarray,
        centers: np.ndarray,
        points: np.ndarray,
        index: np.ndarray,
        weight: np.ndarray,
        category: np.ndarray | None = None,
    ) -> np.ndarray:
        """Part logits float32 [B,N,P], after temperature scaling.

        Args:
            tokens: [B,G,d]; centers: [B,G,3]; points: [B,N,3].
            index, weight: [B,N,3] of :func:`foundry_core.geometry.interpolation`.
            category: int [B] into the card's classes, for a head that is told it.
        """
        rows = np.arange(len(tokens))[:, None]
        centered = tokens - tokens.mean(axis=2, keepdims=True)
        deviation = np.sqrt((centered**2).mean(axis=2, keepdims=True) + np.float32(1e-5))
        tokens = centered / deviation * self._w["norm.weight"] + self._w["norm.bias"]
        local = self._linear("token", tokens)  # (B, G, h)
        x = sum(local[rows, index[:, :, k]] * weight[:, :, k, None] for k in range(index.shape[2]))  # (B, N, h)
        offset = points - centers[rows, index[:, :, 0]]
        x = x + self._linear("cloud", pooled(tokens))[:, None]
        x = x + self._linear("point", np.concatenate([points, offset], axis=2))
        if self.card.category:
            x = x + self._w["category.weight"].T[category][:, None]
        x = gelu(self._linear("mlp.1", gelu(x)))
        temperature = self.card.calibration.temperature if self.card.calibration else 1.0
        return self._linear("mlp.3", x) / np.float32(temperature)
