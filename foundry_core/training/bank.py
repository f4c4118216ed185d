# SPDX-License-Identifier: Apache-2.0
"""What heads learn from: the frozen backbone's features of many sightings, computed once and kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from foundry_core import geometry
from foundry_core.architecture import Preprocessing
from foundry_core.training.sighting_set import SightingSet

_BATCH = 64


@dataclass
class FeatureBank:
    """Frozen features of all sightings: tokens float16 [M,G,d], centres [M,G,3], points [M,N,3], labels and parts."""

    tokens: Tensor
    centers: Tensor
    points: Tensor
    label: Tensor
    part: Tensor
    sightings: SightingSet

    @classmethod
    @torch.no_grad()
    def extract(
        cls, backbone: nn.Module, sightings: SightingSet, size: Preprocessing, budgets: Sequence[int] = ()
    ) -> FeatureBank:
        """Run the backbone once on every sighting; a student with each of the ``budgets`` by turns."""
        tokens, centers = [], []
        for number, start in enumerate(track(range(0, len(sightings), _BATCH), description="features")):
            points = sightings.points[start : start + _BATCH].astype(np.float32)
            batch = tuple(map(torch.from_numpy, geometry.group_batch(points, size.groups, size.neighbors)))
            chosen = {"budget": budgets[number % len(budgets)]} if budgets else {}
            tokens.append(backbone(*batch, **chosen)["tokens"].half())
            centers.append(batch[0])
        return cls(
            torch.cat(tokens),
            torch.cat(centers),
            torch.from_numpy(sightings.points.astype(np.float32)),
            torch.from_numpy(sightings.label.astype(np.int64)),
            torch.from_numpy(sightings.part),
            sightings,
        )

    def __len__(self) -> int:
        return len(self.label)

    def part_inputs(self, rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points [B,n,3] that ``chosen`` [B,n] picks, with interpolation index and weight [B,n,3] onto the centres."""
        points = torch.gather(self.points[rows], 1, chosen[..., None].expand(-1, -1, 3))
        pairs = [
            geometry.interpolation(cloud, centers)
            for cloud, centers in zip(points.numpy(), self.centers[rows].numpy(), strict=True)
        ]
        index, weight = (torch.from_numpy(np.stack(column)) for column in zip(*pairs, strict=True))
        return points, index, weight
