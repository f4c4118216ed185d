# SPDX-License-Identifier: Apache-2.0
"""The probe: how well a linear classifier, or an RBF-SVM, reads the classes of a shape set from frozen features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from rich.progress import Progress
from scipy.spatial import cKDTree
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from foundry_core.data.shapes import ShapeSet, names_of, renumbering
from foundry_core.errors import InputError
from foundry_core.evaluation.corruptions import Shift, corrupt_all
from foundry_core.evaluation.features import histogram_features
from foundry_core.evaluation.subjects import Clouds, Subject, mean_and_deviation
from foundry_core.strays import without_strays

#: the one free parameter of each probe, chosen on a quarter of the train split
GRIDS = {
    "linear": (lambda c: LogisticRegression(C=c, max_iter=2000), (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
    "rbf": (lambda c: SVC(C=c, gamma="scale"), (1.0, 3.0, 10.0, 30.0)),
}

#: shapes whose global descriptors lie closer count as near-identical; on the sets with marked twins (of their test
#: split) nine twins in ten lie below it, and some five in a hundred of the other shapes
TWIN_DISTANCE = 0.1


@dataclass(frozen=True)
class Split:
    """Clouds to learn from and to be judged on, with one class list or both without labels.

    Attributes:
        unlabelled: shapes of a labelled set that were left out because they have none.
    """

    train: ShapeSet
    test: ShapeSet
    unlabelled: int = 0

    @classmethod
    def of(cls, data: ShapeSet, train: ShapeSet | None = None, validation: bool = False) -> Split:
        """The set's own split, twins left out; or the train split of another set against the set's test split.

        Of two sets, one without a split is taken whole. Classes are then matched by name: every class to be judged
        must be among those that are learned. Shapes without a label (-1) are left out, and counted.

        With ``validation`` the test split is never looked at: a quarter of each class of the train split takes its
        place. Which quarter is fixed, so that decisions are all taken on the same shapes.
        """
        sides = cls._sides(data, train, validation)
        known = [None if side is None else side.labelled() for side in sides]
        unlabelled = sum(len(side) - len(kept) for side, kept in zip(sides, known) if side is not None)
        if validation:
            split = cls._validation(known[0])
        else:
            split = cls(*known) if train is None else cls(known[0], _renumbered(known[1], known[0]))
        if len(split.train) < 4 or len(np.unique(split.train.label)) < 2:
            raise InputError(
                f"{split.train.name}: label: a probe learns from 4 shapes of 2 classes or more; add shapes"
            )
        return replace(split, unlabelled=unlabelled)

    @classmethod
    def without_labels(cls, data: ShapeSet, train: ShapeSet | None = None, validation: bool = False) -> Split:
        """The parts that :meth:`of` gives, without their labels: for figures that need none."""
        sides = cls._sides(data, train, validation)
        learned, judged = (None if side is None else replace(side, label=None) for side in sides)
        return cls._validation(learned) if validation else cls(learned, judged)

    @staticmethod
    def _sides(data: ShapeSet, train: ShapeSet | None, validation: bool) -> tuple[ShapeSet, ShapeSet | None]:
        """What may be learned from, and what is judged; no more than the first for a validation part of it."""
        if train is None:
            return data.train(), None if validation else data.test()
        if validation:
            raise InputError(f"{train.name}: a validation part is taken from the train split; leave the other set out")
        return train.train(), data if data.split is None else data.test()

    @property
    def labelled(self) -> bool:
        """Whether the clouds have labels."""
        return self.train.label is not None

    @classmethod
    def _validation(cls, train: ShapeSet) -> Split:
        rng = np.random.default_rng(0)
        held = np.zeros(len(train), bool)
        classes = np.zeros(len(train), int) if train.label is None else train.label
        for label in np.unique(classes):
            members = rng.permutation(np.flatnonzero(classes == label))
            held[members[: round(len(members) / 4)]] = True
        if not held.any() or held.all():
            raise InputError(f"{train.name}: split: too few train shapes to hold a quarter of each class; add shapes")
        described = histogram_features(train.points)
        nearest, _ = cKDTree(described[~held]).query(described[held])
        twin = np.zeros(len(train), bool)
        twin[held] = nearest < TWIN_DISTANCE
        return cls(train.select(~held), train.select(held & ~twin))


def _renumbered(data: ShapeSet, train: ShapeSet) -> ShapeSet:
    """``data`` with the class list of ``train``, which has shapes of each of its classes."""
    names = names_of(data.class_names, data.label)
    if data.class_names != train.class_names:
        present = [names[label] for label in np.unique(data.label)]
        if foreign := [name for name in present if name not in train.class_names]:
            raise InputError(
                f"{data.name}: class_names: {', '.join(foreign)} not among those of {train.name}; "
                f"use its names: {', '.join(train.class_names) or 'it has none'}"
            )
        label = renumbering(names, train.class_names)[data.label]
        data = replace(data, label=label, class_names=train.class_names)
        names = train.class_names
    if unseen := [names[label] for label in np.setdiff1d(data.label, train.label)]:
        raise InputError(
            f"{train.name}: label: no train shape of {', '.join(unseen)}, which {data.name} has; "
            "add some, or leave these classes out"
        )
    return data


def choose_strength(kind: str, train, train_label, seed: int) -> float:
    """The probe's one free parameter for features [M,F] and labels [M], chosen on a quarter of them."""
    make, grid = GRIDS[kind]
    counts = np.bincount(train_label)
    stratify = train_label if counts[counts > 0].min() >= 2 and len(train_label) // 4 >= (counts > 0).sum() else None
    inner, held = train_test_split(np.arange(len(train)), test_size=0.25, random_state=seed, stratify=stratify)
    scores = []
    for value in grid:
        model = make_pipeline(StandardScaler(), make(value)).fit(train[inner], train_label[inner])
        scores.append(model.score(train[held], train_label[held]))
    return grid[int(np.argmax(scores))]


def probe_of_strength(kind: str, train, train_label, strength: float) -> Pipeline:
    """A standardised probe of this strength on features [M,F] and labels [M]."""
    return make_pipeline(StandardScaler(), GRIDS[kind][0](strength)).fit(train, train_label)


def fit_probe(kind: str, train, train_label, seed: int) -> Pipeline:
    """A standardised probe on features [M,F] and labels [M]; its strength is chosen on a quarter of them."""
    return probe_of_strength(kind, train, train_label, choose_strength(kind, train, train_label, seed))


def probe_accuracy(kind: str, train, train_label, test, test_label, seed: int) -> float:
    """Percent of test shapes classified correctly by :func:`fit_probe`."""
    return 100.0 * float(fit_probe(kind, train, train_label, seed).score(test, test_label))


def count_answers(names: Sequence[str], label: np.ndarray, told: np.ndarray) -> dict[str, dict[str, int]]:
    """A confusion matrix without its zeros: true class -> class told -> number, in the order of the class list."""

    def name(index: int) -> str:
        return names[index] if index < len(names) else str(index)

    counts: dict[str, dict[str, int]] = {}
    for (true, answer), number in sorted(Counter(zip(label.tolist(), told.tolist())).items()):
        counts.setdefault(name(true), {})[name(answer)] = number
    return counts


class Probed(NamedTuple):
    """What :func:`probe` found on the test clouds, clean or under one shift.

    Attributes:
        metrics: {"<kind>_accuracy_percent": {mean, std}} over the seeds.
        confusion: kind -> true class -> class told -> test shapes, summed over the seeds; empty for a mean over shifts.
    """

    metrics: dict[str, dict[str, float]]
    confusion: dict[str, dict[str, dict[str, int]]]


class SplitClouds:
    """The clouds of a split, the test clouds as they are and corrupted, cut into patches once for all models.

    Args:
        shifts: corruptions (kind, severity) of the test clouds.
        seed: of the corruptions; every model sees the same clouds.
        denoise: leave stray points out, of train clouds and of test clouds, after their corruption.
    """

    def __init__(self, split: Split, shifts: Sequence[Shift] = (), seed: int = 0, denoise: bool = False) -> None:
        def clouds(points: Sequence[np.ndarray]) -> Clouds:
            return Clouds([without_strays(cloud) for cloud in points] if denoise else points)

        self.split = split
        self.train = clouds(split.train.points)
        self.tests: dict[Shift | None, Clouds] = {None: clouds(split.test.points)}
        for shift in shifts:
            self.tests[shift] = clouds(corrupt_all(split.test.points, *shift, seed=seed))

    def features(self, subject: Subject, progress: Progress) -> tuple[np.ndarray, dict[Shift | None, np.ndarray]]:
        """Features [M,F] of the train clouds, and of the test clouds under each shift."""
        if subject.source:
            subject.source.fit(self.train.groups(subject.source.size))
        title = f"{subject.name} {subject.budget or ''}"
        train = self.train.features(subject, progress, f"{title}, train")
        tests = {
            shift: clouds.features(subject, progress, f"{title}, {' '.join(map(str, shift)) if shift else 'test'}")
            for shift, clouds in self.tests.items()
        }
        return train, tests


def probe(
    subject: Subject, clouds: SplitClouds, seeds: Sequence[int], kinds: Sequence[str], progress: Progress | None = None
) -> dict[Shift | None, Probed]:
    """Metrics {kind accuracy: {mean, std}} in percent over the seeds, on the clean test clouds (None) and each shift.

    The probe is fitted on clean train clouds. The seed draws the inner split and, for ``random:<model>``, the weights.
    Where several kinds of corruption have a severity in common, ``("mean", severity)`` is the mean over them.
    """
    progress = progress or Progress(disable=True)
    labels = clouds.split.train.label, clouds.split.test.label
    told: dict[Shift | None, dict[str, list[np.ndarray]]]
    told = {shift: {kind: [] for kind in kinds} for shift in clouds.tests}
    drawn = None
    for seed in seeds:
        if drawn is None or subject.seeded:
            drawn = clouds.features(subject.reseeded(seed), progress)
        train, tests = drawn
        for kind in kinds:
            fitted = fit_probe(kind, train, labels[0], seed)
            for shift, test in tests.items():
                told[shift][kind].append(fitted.predict(test))
    names, repeated = clouds.split.test.class_names, np.tile(labels[1], len(seeds))
    found = {}
    reached: dict[Shift, dict[str, list[float]]] = {}
    for shift, kindwise in told.items():
        reached[shift] = {kind: [100.0 * float((a == labels[1]).mean()) for a in v] for kind, v in kindwise.items()}
        confusion = {kind: count_answers(names, repeated, np.concatenate(v)) for kind, v in kindwise.items()}
        found[shift] = Probed(_metrics(reached[shift]), confusion)
    for severity in dict.fromkeys(shift[1] for shift in clouds.tests if shift):
        alike = [reached[shift] for shift in clouds.tests if shift and shift[1] == severity]
        if len(alike) > 1:
            mean = {kind: np.mean([each[kind] for each in alike], axis=0).tolist() for kind in kinds}
            found["mean", severity] = Probed(_metrics(mean), {})
    return found


def _metrics(reached: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    return {f"{kind}_accuracy_percent": mean_and_deviation(values) for kind, values in reached.items()}
