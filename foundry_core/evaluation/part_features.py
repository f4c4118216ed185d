# SPDX-License-Identifier: Apache-2.0
"""What part probes read: the points' own geometry, the same for every model, and a model's token features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from foundry_core import geometry
from foundry_core.architecture import Preprocessing
from foundry_core.evaluation.features import Groups
from foundry_core.evaluation.part_head import PartBank
from foundry_core.evaluation.part_task import PartClouds
from foundry_core.evaluation.subjects import Subject
from foundry_core.models.student import Student
from foundry_core.models.teacher import Teacher

#: which token features are read: the last alone, which a head can take from a teacher to its students, or all depths
LEVELS = ("last", "all")
NEIGHBORS = 24
#: without a model the points are placed among as many centres as the shipped models have
DEFAULT_SIZE = Preprocessing(points=1024, groups=64, neighbors=32)


def local_geometry(points: np.ndarray) -> np.ndarray:
    """How the nearest points lie about each of points [P,3]: covariance (6) and mean offset (3), float32 [P,9].

    Scaled by the cloud's mean spacing of neighbours, so about 1 in size whatever the density.
    """
    count = min(NEIGHBORS, len(points))
    near = points[geometry.nearest_neighbors(points, points, count)]  # (P, k, 3)
    offset = near - points[:, None]
    mean = offset.mean(axis=1)
    spread = offset - mean[:, None]
    covariance = spread.transpose(0, 2, 1) @ spread / count  # (P, 3, 3)
    scale = max(float(np.trace(covariance, axis1=1, axis2=2).mean()), 1e-12)
    six = covariance[:, (0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)] / scale
    return np.concatenate([six, mean / np.sqrt(scale)], axis=1)


@dataclass(frozen=True)
class PartInputs:
    """Clouds cut into patches, and their points, for models of one preprocessing."""

    clouds: PartClouds
    groups: Groups
    point: Tensor
    index: Tensor
    weight: Tensor

    @classmethod
    def of(cls, clouds: PartClouds, size: Preprocessing, advance: Callable[[int], None] | None = None) -> PartInputs:
        """Cut the clouds [M,P,3]; all P points are kept, in the frame of those that the model sees."""
        columns: list[tuple] = []
        for cloud in clouds.points:
            points, index = geometry.prepare(cloud, size.points)
            _, center, radius = geometry.normalize(np.asarray(cloud, np.float32)[index])
            every = (np.asarray(cloud, np.float32) - center) / np.float32(radius)  # (P, 3)
            centers, patches = geometry.group(points, size.groups, size.neighbors)
            index, weight = geometry.interpolation(every, centers)
            known = np.concatenate([every, every - centers[index[:, 0]], local_geometry(every)], axis=1)
            columns.append(
                (centers, patches, known.astype(np.float16), index.astype(np.int16), weight.astype(np.float16))
            )
            if advance:
                advance(1)
        centers, patches, point, index, weight = (
            torch.from_numpy(np.stack(column)) for column in zip(*columns, strict=True)
        )
        return cls(clouds, Groups(centers, patches), point, index, weight)

    def bank(self, subject: Subject, levels: str, advance: Callable[[int], None] | None = None) -> PartBank:
        """The points with a subject's token features; without a network the points alone."""
        if subject.source is None:
            tokens = torch.empty(len(self.clouds), self.groups.centers.shape[1], 0, dtype=torch.float16)
            if advance:
                advance(len(self.clouds))
        else:
            tokens = token_levels(subject, self.groups, levels, advance)
        return PartBank(tokens, self.point, self.index, self.weight, self._category, self._part)

    @cached_property
    def _category(self) -> Tensor:
        return torch.from_numpy(self.clouds.category)

    @cached_property
    def _part(self) -> Tensor:
        return torch.from_numpy(self.clouds.part)


@torch.no_grad()
def token_levels(subject: Subject, groups: Groups, levels: str, advance: Callable[[int], None] | None = None) -> Tensor:
    """Token features float16 [M,G,F]: the (rebuilt) ones, behind them with ``all`` those of other depths.

    These are the tokenizer's, and a teacher's from half its depth or a student's supertokens, spread to the tokens.
    """
    rows, every = [], levels == "all"
    network = subject.source.network if every else subject.fused.network
    for centers, neighborhoods, _ in groups.batches():
        found = _levels(network, centers, neighborhoods, subject.budget, every)
        rows.append(torch.cat(found, dim=-1).half())
        if advance:
            advance(len(centers))
    return torch.cat(rows)


def _levels(
    network: nn.Module, centers: Tensor, neighborhoods: Tensor, budget: int | None, every: bool
) -> list[Tensor]:
    if every and isinstance(network, Student):
        (encoded,) = network.encode(centers, neighborhoods, [budget])
        return [network.rebuild(encoded), encoded.tokens, encoded.spread @ encoded.supertokens]
    if every and isinstance(network, Teacher):
        tokens, positions = network.tokenizer(neighborhoods), network.position(centers)
        found, blocks = [tokens], network.encoder.blocks
        for number, block in enumerate(blocks, 1):
            tokens = block(tokens + positions)
            if number == (len(blocks) + 1) // 2:
                found.append(tokens)
        return [network.encoder.norm(tokens), *found]
    return [network(centers, neighborhoods, *([] if budget is None else [budget]))["tokens"]]


def vote_view(clouds: PartClouds, number: int) -> tuple[PartClouds, int]:
    """The clouds as vote ``number`` sees them, and by how many places their points are rolled; 0 is the clouds.

    Others are stretched by up to a fifth along each axis, turned about z by up to 10 degrees, and begin with another
    point, from which sampling starts.
    """
    if number == 0:
        return clouds, 0
    views = []
    for index, cloud in enumerate(clouds.points):
        rng = np.random.default_rng([number, index])
        turn = Rotation.from_rotvec([0, 0, np.radians(rng.uniform(-10, 10))]).as_matrix()
        views.append((np.asarray(cloud, np.float32) * rng.uniform(0.8, 1.25, 3)) @ turn.T)
    roll = 997 * number % clouds.points.shape[1]
    points, part = np.roll(np.asarray(views, np.float32), -roll, axis=1), np.roll(clouds.part, -roll, axis=1)
    return replace(clouds, points=points, part=part), roll
