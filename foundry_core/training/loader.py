# SPDX-License-Identifier: Apache-2.0
"""Batches from the shape stream: worker processes draw, augment and group; the order is fixed by the step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from foundry_core import geometry
from foundry_core.architecture import Preprocessing
from foundry_core.children import end_with_parent
from foundry_core.errors import InputError
from foundry_core.training.processes import Share


class GroupedClouds(Dataset):
    """Random access to (centers [G,3], neighborhoods [G,K,3]) of a stream of clouds [N,3]."""

    def __init__(self, stream, preprocessing: Preprocessing):
        self.stream, self.preprocessing = stream, preprocessing

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._grouped(self.stream[index])

    def _grouped(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return geometry.group(points, self.preprocessing.groups, self.preprocessing.neighbors)


class GroupedPairs(GroupedClouds):
    """Random access to (centers [2,G,3], neighborhoods [2,G,K,3]) of two clouds of every shape of a stream."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return _stack([self._grouped(points) for points in self.stream.views(index, 2)])


class _BatchesFrom(Sampler):
    def __init__(self, share: Share, step: int):
        self.share, self.step = share, step

    def __iter__(self):
        return self.share.samples(self.step)


def start_worker(_worker: int) -> None:
    """A worker has one thread, and ends with its trainer: blocked in a full pipe it would not notice by itself."""
    end_with_parent()
    torch.set_num_threads(1)


def _stack(samples) -> tuple[np.ndarray, ...]:
    return tuple(np.stack(column) for column in zip(*samples, strict=True))


def _tensors(arrays: tuple[np.ndarray, ...]) -> tuple[Tensor, ...]:
    return tuple(map(torch.from_numpy, arrays))


def _in_one_line(batches: Iterator[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """The batches; the InputError of a worker, which comes with the worker's whole traceback, as it was raised."""
    try:
        yield from batches
    except InputError as error:
        name = f"{InputError.__module__}.{InputError.__name__}: "
        raise InputError(str(error).rpartition(name)[2]) from None


def batches_from(dataset: Dataset, share: Share, step: int, workers: int) -> Iterator[tuple[Tensor, ...]]:
    """Endless micro-batches of one process, starting with the first of ``step``.

    Any number of workers gives the same sequence, and any number of processes shares the same batches.

    Raises:
        InputError: that of the data set.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=_BatchesFrom(share, step),
        num_workers=workers,
        collate_fn=_stack,
        worker_init_fn=start_worker,
        prefetch_factor=4 if workers else None,
        # its own: the loader must not draw from the generator that a checkpoint restores
        generator=torch.Generator(),
    )
    # workers send arrays: a tensor's memory is handed over on request, and an interrupt could come in between
    return _in_one_line(map(_tensors, loader))
