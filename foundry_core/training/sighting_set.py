# SPDX-License-Identifier: Apache-2.0
"""Sightings drawn once and kept on disk: the same objects teach and judge the heads of every model."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from foundry_core.data.world.config import WorldConfig
from foundry_core.errors import InputError
from foundry_core.files import replacing
from foundry_core.scene.config import SceneConfig, room_config, street_config
from foundry_core.training.config import HeadConfig
from foundry_core.training.loader import start_worker
from foundry_core.training.sightings import Sighting, scene_sightings, shape_sighting

#: what is simulated for the training: kind of scene, sensor and settings, by turns
WORLDS = (
    {"kind": "street", "sensor": "lidar", "beams": 64},
    {"kind": "room", "sensor": "rgbd"},
    {"kind": "street", "sensor": "lidar", "beams": 32},
    {"kind": "street", "sensor": "lidar", "beams": 64},
    {"kind": "room", "sensor": "lidar", "beams": 64},
)
SHAPES, SCENES = 0, 1  # sources
FORMAT = 2  # rises when the sightings of a seed change


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


@dataclass(frozen=True)
class SightingSet:
    """M sightings of N points.

    Attributes:
        points: float16 [M,N,3], normalised.
        label: int16 [M]; part: int16 [M,N], -1 unknown.
        diagonal: float32 [M], of the box around what was seen, metres; NaN where the shape has no true size.
        source: int8 [M], :data:`SHAPES` (single shapes and views) or :data:`SCENES` (segments of simulated sweeps).
    """

    points: np.ndarray
    label: np.ndarray
    part: np.ndarray
    diagonal: np.ndarray
    source: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


def _drawn(datasets: dict[int, Dataset], workers: int) -> Iterator[tuple[int, Sighting]]:
    for source, dataset in datasets.items():
        loader = DataLoader(
            dataset,
            batch_size=None,
            num_workers=workers,
            worker_init_fn=start_worker,
            prefetch_factor=8 if workers else None,
        )
        title = "single shapes and views" if source == SHAPES else "simulated scenes"
        for sightings in track(loader, description=title, total=len(dataset)):
            yield from ((source, sighting) for sighting in sightings)


def draw(config: HeadConfig, size: int, held_out: bool, cache: Path) -> SightingSet:
    """The sightings that a configuration asks for, from the cache where they were drawn before.

    Args:
        size: points N of each.
        held_out: those that judge the heads: other seeds, a sixth as many.
        cache: folder of the files.

    Raises:
        InputError: a file of the cache is torn, or cannot be written.
    """
    seed = config.loop.seed + (900_000 if held_out else 100_000)
    share = 6 if held_out else 1
    scenes = max(config.scenes // share, len(WORLDS)) if config.scenes else 0
    samples = max(config.samples // share, 1)
    content = {"format": FORMAT, "seed": seed, "samples": samples, "scenes": [scenes, config.frames, WORLDS]}
    key = hashlib.sha256(json.dumps([content, size], sort_keys=True).encode()).hexdigest()[:16]
    path = cache / f"sightings-{key}.npz"
    names = [field.name for field in fields(SightingSet)]
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as archive:
                return SightingSet(**{name: archive[name] for name in names})
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            raise InputError(f"{path}: torn or no set of sightings; remove it and start again") from None
    datasets: dict[int, Dataset] = {SHAPES: _Shapes(samples, seed, size)}
    if scenes:
        datasets[SCENES] = _Scenes(scenes, config.frames, seed, size)
    rows = list(_drawn(datasets, config.loop.workers))
    columns = {
        "points": np.stack([sighting.points.astype(np.float16) for _, sighting in rows]),
        "label": np.array([sighting.label for _, sighting in rows], np.int16),
        "part": np.stack([sighting.part for _, sighting in rows]),
        "diagonal": np.array([sighting.diagonal for _, sighting in rows], np.float32),
        "source": np.array([source for source, _ in rows], np.int8),
    }
    try:
        with replacing(path) as file:
            np.savez(file, **columns)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --cache") from None
    return SightingSet(**columns)
