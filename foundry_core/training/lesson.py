# SPDX-License-Identifier: Apache-2.0
"""What a transfer head learns from: the train split of a shape set, its classes, its parts and its folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foundry_core.card import TrainingData
from foundry_core.data.shapes import ShapeSet, data_name, load_shapes
from foundry_core.errors import InputError
from foundry_core.evaluation.uncertainty import stratified_folds
from foundry_core.training.config import TransferConfig


@dataclass(frozen=True)
class Lesson:
    """The train split of a shape set, as a head learns it.

    Attributes:
        train: the whole split.
        rows: int64 [M], those of its shapes whose classes are shown.
        label: int64 [M] into ``classes``; zeros where the set has no labels.
        classes, left_out: names of the classes that are shown (none without labels), and of those that are not.
        parts: names; seen: bool [C or 1,P], which part was seen on which class; allowed: the same where the head is
            told the class, else all.
        fold: int [M], which part of the split a shape belongs to.
    """

    train: ShapeSet
    rows: np.ndarray
    label: np.ndarray
    classes: list[str]
    left_out: list[str]
    parts: list[str]
    seen: np.ndarray
    allowed: np.ndarray
    fold: np.ndarray

    @classmethod
    def of(cls, config: TransferConfig) -> Lesson:
        """Read the data of a configuration.

        Raises:
            InputError: labels or parts that the kind of head needs are missing, or too few shapes or classes.
        """
        train = load_shapes(config.data).train()
        train = train if train.label is None else train.labelled()
        if train.label is None and (config.kind != "parts" or config.category):
            raise InputError(f"{config.data}: label: missing; a head of kind {config.kind} learns from labelled shapes")
        label = np.zeros(len(train), int) if train.label is None else train.label.astype(int)
        present = np.unique(label)
        drawn = np.random.default_rng(config.loop.seed).permutation(present)
        left_out, shown = np.sort(drawn[: config.leave_out]), np.sort(drawn[config.leave_out :])
        if config.kind != "parts" and len(shown) < 2:
            raise InputError(f"{config.data}: label: {len(shown)} classes to learn; two are needed at least")
        rows = np.flatnonzero(np.isin(label, shown))
        if len(rows) < 2 * config.folds:
            raise InputError(f"{config.data}: {len(rows)} train shapes are too few for {config.folds} folds; add some")
        label = np.searchsorted(shown, label[rows]).astype(np.int64)
        names = train.class_names or tuple(map(str, range(int(present.max()) + 1)))
        parts, seen = cls._parts(config, train, rows, label) if config.kind == "parts" else ([], np.ones((1, 0), bool))
        return cls(
            train=train,
            rows=rows,
            label=label,
            classes=[] if train.label is None else [names[number] for number in shown],
            left_out=[names[number] for number in left_out],
            parts=parts,
            seen=seen,
            allowed=seen if config.category else np.ones_like(seen),
            fold=stratified_folds(label, config.folds, config.loop.seed),
        )

    @staticmethod
    def _parts(config: TransferConfig, train: ShapeSet, rows: np.ndarray, label: np.ndarray):
        if train.part_label is None or not (train.part_label >= 0).any():
            raise InputError(f"{config.data}: part_label: missing; a parts head learns from labelled points")
        part = train.part_label[rows]
        names = list(train.part_names) or [str(number) for number in range(int(part.max()) + 1)]
        seen = np.zeros((int(label.max()) + 1, len(names)), bool)
        for number, own in enumerate(seen):
            found = np.unique(part[label == number])
            own[found[found >= 0]] = True
        return names, seen | ~seen.any(axis=1, keepdims=True)  # of a class without any known part, all

    @property
    def class_parts(self) -> dict[str, list[str]]:
        """Category -> the parts that were seen on it."""
        if not self.parts:
            return {}
        pairs = zip(self.classes, self.seen, strict=False)
        return {name: [self.parts[k] for k in np.flatnonzero(own)] for name, own in pairs}

    def provenance(self, config: TransferConfig) -> TrainingData:
        """What the card says of the data."""
        stated = [] if self.train.licence is None else sorted(set(self.train.licence[self.rows].tolist()))
        return TrainingData(
            name=f"{data_name(config.data)} (train split)",
            licence=", ".join(stated) or "not stated",
            shapes=len(self.rows),
        )
