# SPDX-License-Identifier: Apache-2.0
"""Probes on the way: what a linear classifier reads off a network that is being trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from foundry_core.architecture import Preprocessing
from foundry_core.data.shapes import data_name, load_shapes
from foundry_core.errors import InputError
from foundry_core.evaluation.curves import PROBE
from foundry_core.evaluation.features import Groups, group_clouds
from foundry_core.evaluation.probe import Split, probe_accuracy
from foundry_core.models.heads import pool


@dataclass(frozen=True)
class Every:
    """Whether a measurement is due at a row of the log: at step 0, past each multiple of ``steps``, and at the last.

    A function of the step, so that a resumed run measures when one that never stopped does; ``rows`` is the number of
    steps from one row to the next.
    """

    steps: int
    rows: int

    def __call__(self, step: int, last: bool) -> bool:
        return last or step // self.steps != (step - self.rows) // self.steps


class Probes:
    """Linear probes on the way, on the validation part of each set's train split; test splits are not seen.

    The figure is that of `foundry evaluate probe --split validation` with seed 0. The network is left as it was, and
    no random number that a training draws is used up.

    Args:
        network: (centers, neighborhoods) to a dict with ``tokens`` [B,G,d]; the one that is being trained.
        paths: labelled shape sets.
        due: when a row of the log gets one.

    Raises:
        InputError: a set without labels, with too few shapes, or named as another.
    """

    def __init__(self, network: nn.Module, size: Preprocessing, paths: Sequence[Path], due: Every, threads: int = 1):
        self.network, self.threads, self._due = network, threads, due
        self.sets: dict[str, tuple[Split, Groups, Groups]] = {}
        for path in paths:
            if (name := data_name(path)) in self.sets:
                raise InputError(f"{path}: a second probe named {name}; rename the file")
            split = Split.of(load_shapes(path), validation=True)
            self.sets[name] = split, group_clouds(split.train.points, size), group_clouds(split.test.points, size)

    def __call__(self, step: int, last: bool) -> dict[str, float]:
        """Percent right by set at a row of the log, as scalars for it; nothing where no probe is due."""
        if not self._due(step, last):
            return {}
        training = self.network.training
        self.network.eval()
        with threadpool_limits(self.threads):
            scores = {
                PROBE + name: round(
                    probe_accuracy(
                        "linear", self._features(train), split.train.label, self._features(test), split.test.label, 0
                    ),
                    2,
                )
                for name, (split, train, test) in self.sets.items()
            }
        self.network.train(training)
        return scores

    @torch.no_grad()
    def _features(self, groups: Groups) -> np.ndarray:
        device = next(self.network.parameters()).device
        rows = [
            pool(self.network(centers.to(device), neighborhoods.to(device))["tokens"]).float().cpu().numpy()
            for centers, neighborhoods, _ in groups.batches()
        ]
        return np.concatenate(rows)
