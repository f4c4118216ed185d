# SPDX-License-Identifier: Apache-2.0
"""From the logits of the network's points to the part of every point of an object."""

from __future__ import annotations

import numpy as np

from foundry_core import geometry
from foundry_core.kernels import jit


@jit
def _choose(logits, allowed, part, probability):
    # softmax over the allowed parts of each row: its largest value is 1 / sum(exp(logit - largest logit))
    for row in range(part.shape[0]):
        best = 0
        for k in range(1, allowed.shape[0]):
            if logits[row, allowed[k]] > logits[row, allowed[best]]:
                best = k
        total = np.float32(0.0)
        for k in range(allowed.shape[0]):
            total += np.exp(logits[row, allowed[k]] - logits[row, allowed[best]])
        part[row], probability[row] = allowed[best], np.float32(1.0) / total


def part_labels(
    points: np.ndarray, sampled: np.ndarray, logits: np.ndarray, allowed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The part of each point of an object, which is that of the nearest point that the network saw.

    Args:
        points: float32 [n,3] of the object.
        sampled: int64 [N], indices of the points that the network saw; all of them, repeated in order, if n <= N.
        logits: float32 [N,P].
        allowed: int64 [A], the parts that the object can have.

    Returns:
        part int16 [n], among ``allowed``, and its probability float32 [n] among these.
    """
    n = min(len(points), len(sampled))
    part, probability = np.empty(n, np.int16), np.empty(n, np.float32)
    _choose(logits, allowed, part, probability)
    if len(points) <= len(sampled):
        return part, probability
    source = geometry.nearest_samples(points, sampled)
    return part[source], probability[source]


def warm_up() -> None:
    """Compile (or load from numba's cache) what the first frame needs."""
    part_labels(np.zeros((2, 3), np.float32), np.zeros(1, np.int64), np.zeros((1, 2), np.float32), np.arange(2))
