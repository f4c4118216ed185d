# SPDX-License-Identifier: Apache-2.0
"""What heads learn from: the frozen backbone's features of many sightings, computed once and kept in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from foundry_core import geometry
from foundry_core.card import Preprocessing
from foundry_core.data.world.config import WorldConfig
from foundry_core.scene.config import SceneConfig, room_config, street_config
from foundry_core.training.config import HeadConfig
from foundry_core.training.sightings import Sighting, scene_sightings, shape_sighting

#: what is simulated for the training: kind of scene, sensor and settings, by turns
WORLDS = (
    {"kind": "street", "sensor": "lidar", "beams": 64},
    {"kind": "room", "sensor": "rgbd"},
    {"kind": "street", "sensor": "lidar", "beams": 32},
    {"kind": "street", "sensor": "lidar", "beams": 64},
    {"kind": "room", "sensor": "lidar", "beams": 64},
)


def scene_config(world: dict) -> SceneConfig:
    """The settings with which the robot cuts such a scene."""
    return street_config() if world["kind"] == "street" else room_config()


class _Shapes(Dataset):
    def __init__(self, count: int, seed: int, size: int):
        self.count, self.seed, self.size = count, seed, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> list[Sighting]:
        return [shape_sighting(index, self.seed, self.size)]


class _Scenes(Dataset):
    def __init__(self, count: int, frames: int, seed: int, size: int):
        self.count, self.frames, self.seed, self.size = count, frames, seed, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> list[Sighting]:
        world = WORLDS[index % len(WORLDS)]
        # one sweep a second: neighbouring sweeps would show the same again
        config = WorldConfig(**world, seed=self.seed + index, seconds=float(self.frames), rate_hz=1.0)
        return list(scene_sightings(config, scene_config(world), self.size))


@dataclass
class FeatureBank:
    """Frozen features of all sightings: tokens float16 [M,G,d], centres [M,G,3], points [M,N,3], labels and parts."""

    tokens: Tensor
    centers: Tensor
    points: Tensor
    label: Tensor
    part: Tensor
    source: np.ndarray  # int [M]: 0 single shapes and views, 1 segments of simulated sweeps

    @classmethod
    def extract(
        cls, backbone: nn.Module, datasets: dict[int, Dataset], size: Preprocessing, workers: int
    ) -> FeatureBank:
        """Draw every sighting once and run the backbone on it."""
        rows: dict[str, list] = {"tokens": [], "centers": [], "points": [], "label": [], "part": [], "source": []}
        for source, dataset in datasets.items():
            loader = DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=8 if workers else None)
            pending: list[Sighting] = []
            for sightings in track(loader, description=f"features, source {source}", total=len(dataset)):
                pending += sightings
                while len(pending) >= 64:
                    cls._add(rows, backbone, pending[:64], source, size)
                    pending = pending[64:]
            if pending:
                cls._add(rows, backbone, pending, source, size)
        joined = {key: torch.cat(value) for key, value in rows.items() if key != "source"}
        return cls(**joined, source=np.concatenate(rows["source"]))

    @staticmethod
    def _add(rows: dict[str, list], backbone, sightings: list[Sighting], source: int, size: Preprocessing) -> None:
        points = np.stack([sighting.points for sighting in sightings])
        centers, neighborhoods = map(torch.from_numpy, geometry.group_batch(points, size.groups, size.neighbors))
        with torch.no_grad():
            rows["tokens"].append(backbone(centers, neighborhoods)["tokens"].half())
        rows["centers"].append(centers)
        rows["points"].append(torch.from_numpy(points))
        rows["label"].append(torch.tensor([sighting.label for sighting in sightings]))
        rows["part"].append(torch.from_numpy(np.stack([sighting.part for sighting in sightings])))
        rows["source"].append(np.full(len(sightings), source))

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


def datasets(config: HeadConfig, size: int, held_out: bool) -> dict[str, Dataset]:
    """The sources of sightings; held-out ones come from other seeds, a sixth as many."""
    seed = config.loop.seed + (900_000 if held_out else 100_000)
    share = 6 if held_out else 1
    scenes = max(config.scenes // share, len(WORLDS)) if config.scenes else 0
    made: dict[str, Dataset] = {"shapes": _Shapes(max(config.samples // share, 1), seed, size)}
    if scenes:
        made["scenes"] = _Scenes(scenes, config.frames, seed, size)
    return made
