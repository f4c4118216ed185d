# SPDX-License-Identifier: Apache-2.0
"""What the loop minimises for transfer heads: classes or parts, on features of a frozen backbone or end to end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from foundry_core import geometry
from foundry_core.architecture import Preprocessing
from foundry_core.data.shapes import ShapeSet
from foundry_core.data.stream import StreamConfig, augment
from foundry_core.models.heads import PartHead, pool
from foundry_core.models.transfer import Classifiers, InnerFeatures
from foundry_core.training.config import TransferConfig
from foundry_core.training.processes import Share
from foundry_core.training.shape_features import ShapeFeatures

SUPERVISED = 256  # points per cloud on which a part head is trained in one step
_VARIATION = StreamConfig(rotation="z")


def _part_loss(logits: Tensor, part: Tensor, allowed: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of part logits [B,n,P] where the part [B,n] is known, among the ``allowed`` bool [B,P]."""
    logits = logits.float().masked_fill(~allowed[:, None], -1e4)
    known = part >= 0
    loss = F.cross_entropy(logits[known], part[known]) if known.any() else logits.sum() * 0
    return {"loss": loss, "accuracy": (logits.argmax(dim=-1) == part)[known].float().mean().nan_to_num()}


class ClassTraining:
    """Classifiers on pooled features of a frozen backbone: the first learns from all shapes, each of the others from
    those outside a fold of its own."""

    def __init__(self, config: TransferConfig, features: np.ndarray, label: np.ndarray, fold: np.ndarray):
        self.config = config
        self.features, self.label = torch.from_numpy(features), torch.from_numpy(label)
        learned = [np.ones(len(label), bool), *(fold != number for number in range(config.folds))]
        self.learned = torch.from_numpy(np.stack(learned)).float()  # (K, M)
        mean, scale = standardisation(features)
        hidden = config.hidden if config.kind == "mlp" else None
        self.module = Classifiers(mean, scale, int(label.max()) + 1, len(learned), hidden, config.dropout)

    def losses(self, batch: Tensor, progress: float) -> dict[str, Tensor]:
        logits = self.module(self.features[batch]).float()  # (K, B, C)
        label, learned = self.label[batch], self.learned[:, batch]
        every = F.cross_entropy(logits.transpose(1, 2), label.expand(len(logits), -1), reduction="none")  # (K, B)
        unseen = (logits.argmax(dim=2) == label)[1:][learned[1:] == 0]
        return {
            "loss": (every * learned).sum(dim=1).div(learned.sum(dim=1).clamp(min=1)).sum(),
            "class_loss": every[0].mean(),
            "unseen_accuracy": unseen.float().mean().nan_to_num(),
        }

    def batches(self, share: Share, step: int) -> Iterator[Tensor]:
        """Endless rows of the features, the micro-batches of a share."""
        while True:
            generator = torch.Generator().manual_seed(self.config.loop.seed * 1_000_003 + step)
            drawn = torch.randint(len(self.label), (share.batch,), generator=generator)
            for micro in range(share.accumulate):
                yield drawn[list(share.rows(micro))]
            step += 1

    @torch.no_grad()
    def unseen_logits(self, fold: np.ndarray) -> np.ndarray:
        """Logits [M,C] of each shape by the classifier that did not learn it."""
        self.module.eval()
        logits = self.module(self.features).numpy()
        return logits[1 + fold, np.arange(len(fold))]


def standardisation(features: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and deviation [F] of features [M,F]; a constant one is left as large as it is."""
    scale = features.std(axis=0)
    return torch.from_numpy(features.mean(axis=0)), torch.from_numpy(
        np.where(scale > 1e-6, scale, 1).astype(np.float32)
    )


class PartTraining:
    """A part head on token features of a frozen backbone, on the rows of the shapes that are learned from."""

    def __init__(
        self,
        config: TransferConfig,
        features: ShapeFeatures,
        part: np.ndarray,
        label: np.ndarray,
        allowed: np.ndarray,
        rows: np.ndarray,
    ):
        self.config, self.features, self.rows = config, features, rows
        self.part, self.label, self.allowed = torch.from_numpy(part), torch.from_numpy(label), torch.from_numpy(allowed)
        self.module = PartHead(
            features.tokens.shape[2], allowed.shape[1], config.hidden, len(allowed) if config.category else 0
        )

    def losses(self, batch: tuple[Tensor, ...], progress: float) -> dict[str, Tensor]:
        *inputs, label, part = batch
        return _part_loss(self.module(*inputs, one_hot(label, len(self.allowed))), part, self.allowed[label])

    def batches(self, share: Share, step: int) -> Iterator[tuple[Tensor, ...]]:
        """Endless micro-batches of a share, a few random points of each cloud."""
        while True:
            rng = np.random.default_rng([self.config.loop.seed, step])
            drawn = rng.choice(self.rows, share.batch)
            every = rng.integers(0, self.features.points.shape[1], (share.batch, SUPERVISED))
            for micro in range(share.accumulate):
                own = list(share.rows(micro))
                rows, chosen = drawn[own], every[own]
                part = torch.gather(self.part[rows], 1, torch.from_numpy(chosen)).long()
                yield (*self.features.part_inputs(rows, chosen), self.label[rows], part)
            step += 1


def one_hot(label: Tensor, classes: int) -> Tensor:
    """float [B,C]."""
    return F.one_hot(label, classes).float()


class VariedShapes(Dataset):
    """Endless access to training shapes, turned about z, stretched and jittered; each epoch in an order of its own.

    Item ``i``, a pure function of the seed and ``i``: centers [G,3], neighborhoods [G,K,3], row int64 [], and with
    parts points [n,3], interpolation index and weight [n,3], part int64 [n].
    """

    def __init__(self, shapes: ShapeSet, size: Preprocessing, rows: np.ndarray, seed: int, part: np.ndarray | None):
        self.shapes, self.size, self.rows, self.seed, self.part = shapes, size, rows, seed, part
        self._order = lru_cache(maxsize=2)(self._permutation)

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        epoch, position = divmod(number, len(self.rows))
        row = int(self._order(epoch)[position])
        rng = np.random.default_rng([self.seed, number])
        points = augment(np.asarray(self.shapes.points[row], np.float32), rng, _VARIATION)
        order = rng.permutation(len(points))  # FPS starts at the first
        points, index = geometry.prepare(points[order], self.size.points)
        centers, neighborhoods = geometry.group(points, self.size.groups, self.size.neighbors)
        found = (centers, neighborhoods, np.int64(row))
        if self.part is None:
            return found
        chosen = rng.integers(0, len(points), SUPERVISED)
        part = self.part[row][order[index[chosen]]].astype(np.int64)
        return (*found, points[chosen], *geometry.interpolation(points[chosen], centers), part)


class FineTuning:
    """A backbone and its head, end to end; early blocks learn more slowly than late ones, and these than the head."""

    def __init__(
        self, config: TransferConfig, backbone: InnerFeatures, head: nn.Module, label: np.ndarray, allowed: np.ndarray
    ):
        self.config, self.parts = config, isinstance(head, PartHead)
        self.label, self.allowed = torch.from_numpy(label), torch.from_numpy(allowed)
        self.module = nn.ModuleDict({"backbone": backbone, "head": head})
        self.blocks = len(backbone.backbone.encoder.blocks)

    def rate(self, name: str) -> float:
        """Learning rate of a parameter over the head's."""
        if name.startswith("head."):
            return 1.0
        block = re.search(r"\.encoder\.blocks\.(\d+)\.", name)
        before = self.blocks if re.search(r"\.(tokenizer|position)\.", name) else 0
        below = self.blocks - 1 - int(block.group(1)) if block else before
        return self.config.backbone_rate * self.config.layer_decay**below

    def losses(self, batch: tuple[Tensor, ...], progress: float) -> dict[str, Tensor]:
        centers, neighborhoods, row, *points = batch
        tokens, label = self.module["backbone"](centers, neighborhoods), self.label.to(row.device)[row]
        if self.parts:
            *inputs, part = points
            logits = self.module["head"](tokens.float(), centers, *inputs, one_hot(label, len(self.allowed)))
            return _part_loss(logits, part, self.allowed.to(row.device)[label])
        logits = self.module["head"](pool(tokens).float())[0].float()
        return {
            "loss": F.cross_entropy(logits, label),
            "accuracy": (logits.argmax(dim=1) == label).float().mean(),
        }
