# SPDX-License-Identifier: Apache-2.0
"""Token features of a shape set, computed once for every head that is trained on a frozen backbone."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from foundry_core import geometry
from foundry_core.architecture import Preprocessing
from foundry_core.data.shapes import ShapeSet, content_sha256
from foundry_core.errors import InputError
from foundry_core.files import replacing

FORMAT = 1
_BATCH = 64


@dataclass(frozen=True)
class ShapeFeatures:
    """What a frozen backbone says of M shapes.

    Attributes:
        tokens: float16 [M,G,D]; centers: float32 [M,G,3]; points: float32 [M,N,3], the network's.
        index: int32 [M,N], of each of these into the points of the set.
    """

    tokens: np.ndarray
    centers: np.ndarray
    points: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, rows: np.ndarray) -> ShapeFeatures:
        """Those of some shapes."""
        return ShapeFeatures(*(getattr(self, field.name)[rows] for field in fields(self)))

    def pooled(self) -> np.ndarray:
        """Mean and maximum over the tokens: float32 [M,2D]."""
        batches = (self.tokens[start : start + _BATCH].astype(np.float32) for start in range(0, len(self), _BATCH))
        return np.concatenate([np.concatenate([x.mean(axis=1), x.max(axis=1)], axis=1) for x in batches])

    def part_inputs(self, rows: np.ndarray, chosen: np.ndarray) -> tuple[Tensor, ...]:
        """What a part head reads: tokens [B,G,D], centers [B,G,3], points [B,n,3] that ``chosen`` [B,n] picks, and
        interpolation index and weight [B,n,3]."""
        points = np.take_along_axis(self.points[rows], chosen[..., None], axis=1)
        centers = self.centers[rows]
        pairs = [geometry.interpolation(*pair) for pair in zip(points, centers, strict=True)]
        index, weight = (np.stack(column) for column in zip(*pairs, strict=True))
        tokens = self.tokens[rows].astype(np.float32)
        return tuple(map(torch.from_numpy, (tokens, centers, points, index, weight)))


@torch.no_grad()
def extract(features: nn.Module, shapes: ShapeSet, size: Preprocessing, title: str = "features") -> ShapeFeatures:
    """Run the backbone once over every shape; ``features`` gives tokens [B,G,D] from centers and neighborhoods."""
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for start in track(range(0, len(shapes), _BATCH), description=title):
        clouds = [np.asarray(points, np.float32) for points in shapes.points[start : start + _BATCH]]
        batch = geometry.prepare_batch(
            clouds, size.points, size.groups, size.neighbors, max(size.points, *map(len, clouds)), upsample=False
        )
        tokens = features(torch.from_numpy(batch.centers), torch.from_numpy(batch.neighborhoods))
        made = (tokens.numpy().astype(np.float16), batch.centers, batch.points, batch.index.astype(np.int32))
        for column, value in zip(columns, made, strict=True):
            column.append(value)
    return ShapeFeatures(*map(np.concatenate, columns))


def cached(
    features: nn.Module, shapes: ShapeSet, size: Preprocessing, cache: Path, model: str, reading: list
) -> ShapeFeatures:
    """:func:`extract` for the train split of a shape set, from the cache where it was done before.

    Args:
        cache: folder of the files.
        model: SHA-256 of the backbone's weights; reading: what else determines the features, as plain values.

    Raises:
        InputError: a file of the cache is torn, or cannot be written.
    """
    data = content_sha256(shapes.name, shapes.points)
    content = [FORMAT, model, data, len(shapes), size.model_dump(mode="json"), reading]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    path = cache / f"features-{key}.npz"
    names = [field.name for field in fields(ShapeFeatures)]
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as archive:
                return ShapeFeatures(**{name: archive[name] for name in names})
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            raise InputError(f"{path}: torn or no file of features; remove it and start again") from None
    made = extract(features, shapes, size)
    try:
        with replacing(path) as file:
            np.savez(file, **{name: getattr(made, name) for name in names})
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --cache") from None
    return made
