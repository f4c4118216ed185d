# SPDX-License-Identifier: Apache-2.0
"""Class probabilities of a track, from those of its sightings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foundry_core.scene.tracks import TracksConfig


class ClassFusion:
    """A running, forgetful sum of log probabilities for each track.

    With sightings p_1 ... p_n and weights w_i = memory^(n-i), W = sum w_i, the fused probabilities are proportional to
    ``exp(W^independence * sum(w_i log p_i) / W)``: the weighted geometric mean, sharpened as W grows. A single sighting
    is passed on as it is, but for the floor under each class, which bounds what one frame can say for or against it.
    """

    def __init__(self, config: TracksConfig) -> None:
        self.config = config
        # key of a track -> sum of logs (C), W, and the number of the frame of the last sighting
        self._beliefs: dict[int, tuple[np.ndarray, float, int]] = {}
        self._frame = 0

    def __len__(self) -> int:
        return len(self._beliefs)

    def clear(self) -> None:
        """Forget all tracks."""
        self._beliefs.clear()

    def begin(self, keys) -> None:
        """A frame begins: forget the tracks that are not among ``keys``."""
        self._frame += 1
        alive = {int(key) for key in keys}
        self._beliefs = {key: belief for key, belief in self._beliefs.items() if key in alive}

    def longest_without(self, keys: Sequence[int]) -> list[int]:
        """Positions in ``keys``: tracks without a sighting first, then those whose last one is longest ago."""
        last = [self._beliefs[key][2] if key in self._beliefs else -1 for key in map(int, keys)]
        return sorted(range(len(last)), key=last.__getitem__)

    def add(self, key: int, probabilities: np.ndarray) -> np.ndarray:
        """The fused probabilities float64 [C] of a track that is seen with ``probabilities`` [C].

        A track whose number of classes has changed starts anew.
        """
        probabilities = np.asarray(probabilities, float)
        logs = np.log(np.maximum(probabilities, self.config.floor))
        past, weight, _ = self._beliefs.get(key, (np.zeros(len(logs)), 0.0, -1))
        if len(past) != len(logs):
            past, weight = np.zeros(len(logs)), 0.0
        past, weight = self.config.memory * past + logs, self.config.memory * weight + 1.0
        self._beliefs[key] = past, weight, self._frame
        return probabilities if weight == 1.0 else self._fused(past, weight)

    def held(self, key: int) -> np.ndarray | None:
        """The fused probabilities float64 [C] of a track as they stand; None when nothing was added."""
        belief = self._beliefs.get(key)
        return None if belief is None else self._fused(*belief[:2])

    def _fused(self, past: np.ndarray, weight: float) -> np.ndarray:
        fused = past * weight ** (self.config.independence - 1.0)
        fused = np.exp(fused - fused.max())
        return fused / fused.sum()
