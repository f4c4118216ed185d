# SPDX-License-Identifier: Apache-2.0
"""Teacher features kept on disk: a distillation that sees each cloud several times computes them once.

A cache is a folder of shards named by what determines their content (teacher weights and their precision,
preprocessing, stream and seed), so a stale one is never read. Each shard is one array file, written whole; a build that
was killed goes on with the next missing shard, and a larger count only adds shards.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import Dataset

from foundry_core.architecture import Preprocessing
from foundry_core.card import WEIGHTS_FILE, find_model, sha256
from foundry_core.data.shapes import content_sha256
from foundry_core.data.shards import expand
from foundry_core.data.stream import ShapeStream
from foundry_core.errors import InputError
from foundry_core.files import replacing
from foundry_core.models.parallel import rank, world
from foundry_core.training.display import say
from foundry_core.training.loader import GroupedClouds, batches_from
from foundry_core.training.precision import mixed_precision
from foundry_core.training.processes import Share, from_first, together

SHARD = 2048  # clouds in one file
FORMAT = 1
_BATCH = 64  # clouds that go through the teacher together


def record_type(size: Preprocessing, width: int) -> np.dtype:
    """One cloud: its groups, the teacher's tokenizer output T and its token features Y."""
    return np.dtype(
        [
            ("centers", np.float32, (size.groups, 3)),
            ("neighborhoods", np.float16, (size.groups, size.neighbors, 3)),
            ("tokens", np.float16, (size.groups, width)),
            ("features", np.float16, (size.groups, width)),
        ]
    )


Precision = Literal["fp32", "bf16"]


def cache_key(teacher: str | Path, stream: ShapeStream, size: Preprocessing, precision: Precision = "fp32") -> str:
    """Hexadecimal name of everything that determines the content."""
    config = stream.config.model_dump(mode="json")
    for file, source in zip(config["files"], stream.file_sources, strict=True):
        file["path"] = content_sha256(source.config.path, source.points)  # the content counts, not the place
    if not config["bodies"]:
        del config["bodies"]  # a stream without them is what it was before there were any
    shards = config.pop("shards")
    if shards:  # too large to read for a name: what can be seen from outside
        sizes = [
            (url, os.stat(url).st_size if os.path.exists(url) else None) for s in shards for url in expand(s["urls"])
        ]
        config["shards"] = [shards, sizes]
    content = {
        "format": FORMAT,
        "teacher": sha256(find_model(teacher) / WEIGHTS_FILE),
        "preprocessing": size.model_dump(mode="json"),
        "stream": config,
        "points": stream.count,
        "seed": stream.seed,
    }
    if precision != "fp32":
        content["precision"] = precision
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@torch.no_grad()
def _teacher_features(
    teacher: nn.Module, centers: Tensor, neighborhoods: Tensor, precision: Precision
) -> tuple[Tensor, Tensor]:
    device = next(teacher.parameters()).device
    centers, neighborhoods = centers.to(device), neighborhoods.to(device)
    with mixed_precision(precision, device):
        tokens = teacher.tokenizer(neighborhoods)
        return tokens, teacher.encoder(tokens, teacher.position(centers))


def _shard(teacher: nn.Module, batches, kind: np.dtype, precision: Precision, advance) -> np.ndarray:
    records = np.empty(SHARD, kind)
    for start in range(0, SHARD, _BATCH):
        centers, neighborhoods = next(batches)
        tokens, features = _teacher_features(teacher, centers, neighborhoods, precision)
        rows = records[start : start + _BATCH]
        rows["centers"], rows["neighborhoods"] = centers.numpy(), neighborhoods.numpy()
        rows["tokens"], rows["features"] = tokens.float().cpu().numpy(), features.float().cpu().numpy()
        advance(_BATCH)
    return records


def build_cache(
    folder: Path,
    teacher: nn.Module,
    stream: ShapeStream,
    size: Preprocessing,
    clouds: int,
    width: int,
    workers: int = 1,
    precision: Precision = "fp32",
) -> list[Path]:
    """Write the shards that are missing for the first ``clouds`` clouds of the stream; processes share the work.

    Args:
        folder: of this cache alone.
        teacher: frozen, in evaluation mode.
        width: dimension d of the teacher's tokens.
        workers: processes that draw and group clouds beside the teacher.
        precision: of the teacher's matrix products.

    Returns:
        the shard files, in the order of the stream.

    Raises:
        InputError: a shard cannot be written.
    """
    paths = [folder / f"{number:05d}.npy" for number in range(-(-clouds // SHARD))]
    missing = from_first([number for number, path in enumerate(paths) if not path.is_file()])[rank() :: world()]
    kind, dataset = record_type(size, width), GroupedClouds(stream, size)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TextColumn("clouds"), TimeRemainingColumn())
    began = time.monotonic()
    quiet = not missing or rank() > 0
    with Progress(*columns, disable=quiet) as progress, together():
        if not quiet:
            what = f"teacher features of {clouds:,} clouds are made first and kept in {folder}"
            say(f"{what}; --minutes counts from the first step")
        task = progress.add_task("teacher features", total=len(missing) * SHARD)
        batches, following = iter(()), -1
        for number in missing:
            if number != following:
                batches = batches_from(dataset, Share(_BATCH), number * SHARD // _BATCH, workers)
            records = _shard(teacher, batches, kind, precision, lambda done: progress.advance(task, done))
            following = number + 1
            try:
                with replacing(paths[number]) as file:
                    np.save(file, records, allow_pickle=False)
            except OSError as error:
                raise InputError(
                    f"{paths[number]}: cannot be written ({error.strerror}); make room or choose another --cache"
                ) from None
        if not quiet:
            took = (time.monotonic() - began) * 1000 / (len(missing) * SHARD)
            say(f"teacher features: {took:.1f} s for 1,000 clouds")
    return paths


class CachedFeatures(Dataset):
    """Endless access to cached clouds, each epoch in an order of its own.

    Item ``i`` is (centers float32 [G,3], neighborhoods float32 [G,K,3], tokens float32 [G,d], features float32 [G,d]),
    a pure function of the seed and ``i``, so that a resumed run goes on where it stopped.
    """

    def __init__(self, paths: list[Path], clouds: int, seed: int):
        self.paths, self.clouds, self.seed = paths, clouds, seed
        self._shards: dict[int, np.ndarray] = {}
        self._order = lru_cache(maxsize=2)(self._permutation)

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.clouds)

    def _records(self, shard: int) -> np.ndarray:
        if shard not in self._shards:
            path = self.paths[shard]
            try:
                self._shards[shard] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError):
                raise InputError(f"{path}: torn or no shard of a feature cache; remove it and start again") from None
        return self._shards[shard]

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        epoch, position = divmod(index, self.clouds)
        shard, row = divmod(int(self._order(epoch)[position]), SHARD)
        record = self._records(shard)[row]
        return tuple(np.asarray(record[name], np.float32) for name in record.dtype.names)
