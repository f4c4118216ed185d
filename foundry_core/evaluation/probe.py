# SPDX-License-Identifier: Apache-2.0
"""The probe: how well a linear classifier, or an RBF-SVM, reads the classes of a shape set from frozen features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from foundry_core.data.shapes import ShapeSet
from foundry_core.errors import InputError
from foundry_core.evaluation.features import RANDOM, features

#: the one free parameter of each probe, chosen on a quarter of the train split
GRIDS = {
    "linear": (lambda c: LogisticRegression(C=c, max_iter=2000), (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
    "rbf": (lambda c: SVC(C=c, gamma="scale"), (1.0, 3.0, 10.0, 30.0)),
}


@dataclass(frozen=True)
class Split:
    """Labelled clouds to learn from and to be judged on."""

    train: ShapeSet
    test: ShapeSet

    @classmethod
    def of(cls, data: ShapeSet, train: ShapeSet | None = None) -> Split:
        """The set's own split, twins left out; or all of ``train`` against all of ``data``."""
        split = cls(data.train(), data.test()) if train is None else cls(train, data)
        for part in (split.train, split.test):
            if part.label is None:
                raise InputError(f"{part.name}: label: missing; a probe needs labelled shapes")
            if not len(part):
                raise InputError(f"{part.name}: split: no shapes on one side; a probe needs train and test shapes")
        if len(split.train) < 4 or len(np.unique(split.train.label)) < 2:
            raise InputError(
                f"{split.train.name}: label: a probe learns from 4 shapes of 2 classes or more; add shapes"
            )
        if train is not None and train.class_names != data.class_names:
            raise InputError(f"{data.name}: class_names: differ from those of {train.name}; use one class list")
        return split


def probe_accuracy(kind: str, train, train_label, test, test_label, seed: int) -> float:
    """Percent of test shapes classified correctly; the probe's strength is chosen inside the train split."""
    make, grid = GRIDS[kind]
    counts = np.bincount(train_label)
    stratify = train_label if counts[counts > 0].min() >= 2 and len(train_label) // 4 >= (counts > 0).sum() else None
    inner, held = train_test_split(np.arange(len(train)), test_size=0.25, random_state=seed, stratify=stratify)
    scores = []
    for value in grid:
        model = make_pipeline(StandardScaler(), make(value)).fit(train[inner], train_label[inner])
        scores.append(model.score(train[held], train_label[held]))
    best = make_pipeline(StandardScaler(), make(grid[int(np.argmax(scores))])).fit(train, train_label)
    return 100.0 * float(best.score(test, test_label))


def probe(
    model: str, split: Split, seeds: list[int], kinds: list[str]
) -> tuple[dict[str, dict[str, float]], int | None]:
    """Metrics {kind accuracy: {mean, std}} in percent over the seeds, and the budget.

    The seed draws the inner split and, for ``random:<model>``, the weights.
    """
    values: dict[str, list[float]] = {kind: [] for kind in kinds}
    drawn = None
    for seed in seeds:
        if drawn is None or model.startswith(RANDOM):
            train, budget = features(model, split.train.points, seed)
            test, _ = features(model, split.test.points, seed)
            drawn = train, test
        for kind in kinds:
            values[kind].append(probe_accuracy(kind, drawn[0], split.train.label, drawn[1], split.test.label, seed))
    metrics = {
        f"{kind}_accuracy_percent": {"mean": round(float(np.mean(v)), 2), "std": round(float(np.std(v)), 2)}
        for kind, v in values.items()
    }
    return metrics, budget
