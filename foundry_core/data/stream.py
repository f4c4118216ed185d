# SPDX-License-Identifier: Apache-2.0
"""The endless training stream: shapes from weighted sources, seen as a sensor or a CAD program would see them.

Sample ``i`` is a pure function of the seed and ``i``: a resumed run goes on where it stopped, and worker processes need
no coordination.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import Field

from foundry_core import geometry
from foundry_core.card import TrainingData
from foundry_core.data.bodies import make_body
from foundry_core.data.compositions import compose
from foundry_core.data.mesh import sample_surface
from foundry_core.data.procedural import CATEGORIES, make_shape
from foundry_core.data.shapes import ShapeSet, data_name, load_shapes
from foundry_core.data.shards import ShardReader, ShardSet
from foundry_core.data.visibility import hidden_point_removal
from foundry_core.errors import InputError
from foundry_core.schema import Settings

DENSE = 2048  # points of a shape before it is reduced to the model's size


class ShapeFile(Settings):
    """A shape set that joins the stream: its train split, optionally only some licences."""

    path: Path = Field(description="the .npz file or data set folder; relative ones start at the working directory")
    weight: float = Field(1.0, gt=0)
    licences: list[str] | None = Field(None, description="keep only shapes whose `licence` entry is in this list")
    licence: str = Field("", description="licence of the whole set, for the model card")
    attribution: str = Field("", description="for the model card")

    def shapes(self) -> ShapeSet:
        """The shapes that join."""
        shapes = load_shapes(self.path).train()
        return shapes if self.licences is None else shapes.with_licences(self.licences)


class StreamConfig(Settings):
    """What the stream is made of and how the shapes are varied."""

    compositions: float = Field(0.5, ge=0, description="weight of the label-free primitive compositions")
    categories: float = Field(0.5, ge=0, description="weight of the parametric categories")
    bodies: float = Field(0.0, ge=0, description="weight of the label-free bodies with limbs")
    files: list[ShapeFile] = []
    shards: list[ShardSet] = []
    partial: float = Field(0.3, ge=0, le=1, description="share of single-view crops")
    rotation: Literal["none", "z", "so3", "mixed"] = Field(
        "mixed", description="mixed: 70 % about z, 30 % any rotation"
    )
    jitter: float = Field(0.01, ge=0, description="largest noise deviation, in radii")

    def has_source(self) -> bool:
        """Whether there is anything to draw from."""
        return bool(any(getattr(self, name) for name in PROCEDURAL) or self.files or self.shards)


class Source(Protocol):
    """One source of shapes."""

    def draw(self, rng: np.random.Generator, index: int) -> np.ndarray:
        """Points float32 [n,3] of one shape, for sample ``index`` of the stream."""


def _partial_view(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What can be seen of a point set from one side, thinned as by distance."""
    centered, _, _ = geometry.normalize(points)
    direction = rng.normal(size=3)
    viewpoint = direction / np.linalg.norm(direction) * rng.uniform(2.0, 5.0)
    visible = hidden_point_removal(centered, viewpoint)
    if len(visible) < 48:
        return points
    keep = int(np.exp(rng.uniform(np.log(48), np.log(len(visible)))))
    return points[rng.permutation(visible)[:keep]]


class Compositions:
    """Random compositions of primitives."""

    def draw(self, rng, index):
        return compose(DENSE, rng)


class Bodies:
    """Random bodies with limbs."""

    def draw(self, rng, index):
        return make_body(DENSE, rng)


class Categories:
    """The parametric categories, without their labels."""

    def draw(self, rng, index):
        mesh = make_shape(CATEGORIES[int(rng.integers(len(CATEGORIES)))], rng)
        return sample_surface(mesh, DENSE, rng)[0]


class ShardSource:
    """Shapes of tar shards, one shard after the other."""

    def __init__(self, config: ShardSet, seed: int, share: float):
        self.config, self.reader = config, ShardReader(config, seed, share)

    def draw(self, rng, index):
        points = np.asarray(self.reader.shape(index), np.float32)
        return points[rng.permutation(len(points))]


class ShapeSetSource:
    """The train split of a shape set in memory."""

    def __init__(self, config: ShapeFile):
        shapes = config.shapes()
        self.points = shapes.points
        self.licences = [] if shapes.licence is None else sorted(set(shapes.licence.tolist()))
        self.config = config

    def draw(self, rng, index):
        points = np.asarray(self.points[int(rng.integers(len(self.points)))], np.float32)
        return points[rng.permutation(len(points))]


#: what has a weight of its own in the configuration
PROCEDURAL = {"compositions": Compositions, "categories": Categories, "bodies": Bodies}


def random_rotation(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Rotation matrix float32 [3,3]: none, about z, or uniform in SO(3)."""
    if kind == "none":
        return np.eye(3, dtype=np.float32)
    if kind == "mixed":
        kind = "z" if rng.random() < 0.7 else "so3"
    if kind == "z":
        angle = rng.uniform(0, 2 * np.pi)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)
    matrix, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = matrix * np.sign(np.diag(triangle))
    if np.linalg.det(matrix) < 0:
        matrix[:, 0] = -matrix[:, 0]
    return matrix.astype(np.float32)


def augment(points: np.ndarray, rng: np.random.Generator, config: StreamConfig) -> np.ndarray:
    """Rotate, stretch and jitter points [n,3]; float32 [n,3], of about unit radius."""
    points, _, _ = geometry.normalize(points)
    points = points @ random_rotation(rng, config.rotation).T
    points = points * rng.uniform(0.8, 1.25, 3).astype(np.float32)
    if config.jitter and rng.random() < 0.5:
        points = points + rng.normal(0, rng.uniform(0, config.jitter), points.shape).astype(np.float32)
    return points


def to_size(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The model's input [count,3] from points [n,3]: half the time thinned at random first."""
    if len(points) > count and rng.random() < 0.5:
        points = points[rng.permutation(len(points))[:count]]
    return geometry.prepare(points, count)[0]


class ShapeStream:
    """Random-access stream of training clouds.

    ``stream[i]`` is float32 [count,3], normalised; the same seed and ``i`` give the same cloud in any process.
    """

    def __init__(self, config: StreamConfig, count: int, seed: int):
        if not config.has_source():
            raise InputError("data: all procedural shapes weigh 0 and there are no files; give one a weight")
        weighted: list[tuple[Source, float]] = [
            (source(), weight) for name, source in PROCEDURAL.items() if (weight := getattr(config, name))
        ]
        self.file_sources = [ShapeSetSource(file) for file in config.files]
        weighted += [(source, source.config.weight) for source in self.file_sources]
        total = sum(weight for _, weight in weighted) + sum(shards.weight for shards in config.shards)
        self.shard_sources = [ShardSource(shards, seed, shards.weight / total) for shards in config.shards]
        weighted += [(source, source.config.weight) for source in self.shard_sources]
        self.sources = [source for source, _ in weighted]
        self.shares = np.array([weight / total for _, weight in weighted])
        self.config, self.count, self.seed = config, count, seed

    def __getitem__(self, index: int) -> np.ndarray:
        return self.views(index, 1)[0]

    def views(self, index: int, count: int) -> list[np.ndarray]:
        """Sample ``index`` as so many clouds of one shape, each varied by itself; the first is ``stream[index]``."""
        rng = np.random.default_rng([self.seed, index])
        source = self.sources[int(rng.choice(len(self.sources), p=self.shares))]
        partial = rng.random() < self.config.partial
        shape, views = source.draw(rng, index), []
        for _ in range(count):
            points = _partial_view(shape, rng) if partial else shape
            views.append(to_size(augment(points, rng, self.config), self.count, rng))
            partial = rng.random() < self.config.partial
        return views

    def provenance(self) -> list[TrainingData]:
        """What the model card says about the data."""
        seen = [
            TrainingData(name=f"procedural {name}", licence="Apache-2.0 (generated by this project)")
            for name in PROCEDURAL
            if getattr(self.config, name)
        ]
        for source in self.file_sources:
            file = source.config
            licence = file.licence or ", ".join(file.licences or source.licences) or "not stated"
            seen.append(
                TrainingData(
                    name=f"{data_name(file.path)} (train split)",
                    licence=licence,
                    attribution=file.attribution,
                    shapes=len(source.points),
                )
            )
        for shards in self.config.shards:
            licence = shards.licence or "not stated"
            seen.append(TrainingData(name=f"shards {shards.urls}", licence=licence, attribution=shards.attribution))
        return seen
