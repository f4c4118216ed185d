# SPDX-License-Identifier: Apache-2.0
"""What teaching is worth on a labelled shape set: how many later sightings are recognised, and what old classes lose.

The path is that of `foundry teach` and of the node: perceiver, taught classes, pipeline; no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foundry_core.data.shapes import ShapeSet
from foundry_core.errors import InputError
from foundry_core.runtime.objects import UNKNOWN, Prediction
from foundry_core.runtime.perceiver import Perceiver
from foundry_core.runtime.pipeline import Pipeline
from foundry_core.runtime.teach import TaughtClasses, ordinary_objects

#: the rule in words, for reports
RULE = (
    "Each seed draws the exemplars of every class by chance, from the train split, or from all shapes of a set without "
    "one; the questions are the test split, without twins, or what was not drawn. All classes are taught together. "
    "recognised: share of the questions that get their own name; another_taught: that of another taught class; "
    "own_class: one of the model's; unknown: none. Old sightings are the test split of the old set, or all of it: "
    "old_accuracy_before and _after teaching, old_lost their difference in points, old_taken the share that becomes a "
    "taught class. All in percent; mean and deviation over the seeds. recognised_by_class is the same for each class, "
    "confusion counts the answers over all seeds, after teaching."
)


@dataclass(frozen=True)
class Sightings:
    """Labelled clouds: points [M,P,3], label int [M] into ``names``, and what each may be used for, bool [M]."""

    names: tuple[str, ...]
    points: np.ndarray
    label: np.ndarray
    train: np.ndarray
    test: np.ndarray

    def of(self, number: int, mask: np.ndarray) -> np.ndarray:
        """Rows int64 of one class that ``mask`` picks."""
        return np.flatnonzero((self.label == number) & mask)


def choose(shapes: ShapeSet, texts: Sequence[str], option: str, wanted: Collection[str]) -> Sightings:
    """The shapes of some classes of a labelled set.

    Args:
        texts: ``NAME`` or ``NAME=CLASS+CLASS``, a name for classes of the set; empty: the classes that are ``wanted``.
        option: that the texts were given to, for errors.

    Raises:
        InputError: no labels, an unknown class, one that is named twice, or none.
    """
    shapes = shapes.labelled()
    present = [name for number, name in enumerate(shapes.class_names) if (shapes.label == number).any()]
    label = np.full(len(shapes), -1)
    names: list[str] = []
    for text in texts or [name for name in present if name in wanted]:
        name, _, listed = text.partition("=")
        for member in (listed or name).split("+"):
            if member not in present:
                raise InputError(f"{option} {text}: {shapes.name} has no class '{member}'; it has {', '.join(present)}")
            rows = shapes.label == shapes.class_names.index(member)
            if name in names or (label[rows] >= 0).any():
                raise InputError(f"{option} {text}: a class is named twice; join classes with +")
            label[rows] = len(names)
        names.append(name)
    if not names:
        raise InputError(f"{option}: no class of {shapes.name} fits; name some: {', '.join(present)}")
    chosen = label >= 0
    shapes, label = shapes.select(chosen), label[chosen]
    everything = np.ones(len(label), bool)
    if shapes.split is None:
        return Sightings(tuple(names), shapes.points, label, everything, everything)
    test = shapes.split == 1
    if shapes.twin_in_train is not None:
        test &= ~shapes.twin_in_train.astype(bool)
    return Sightings(tuple(names), shapes.points, label, shapes.split == 0, test)


def draw(taught: Sightings, exemplars: int, validation: bool, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rows of the exemplars and of the questions of each class, a pure function of its arguments.

    Raises:
        InputError: too few shapes of a class.
    """
    drawn, asked = [], []
    for number, name in enumerate(taught.names):
        pool = np.random.default_rng([seed, number]).permutation(taught.of(number, taught.train))
        drawn.append(pool[:exemplars])
        questions = taught.of(number, taught.train if validation else taught.test)
        asked.append(np.setdiff1d(questions, drawn[-1]))
        if len(drawn[-1]) < exemplars or not len(asked[-1]):
            raise InputError(f"--exemplars {exemplars}: '{name}' has {len(pool)} shapes to learn from; give fewer")
    return drawn, asked


def evaluate_teaching(
    perceiver: Perceiver,
    taught: Sightings,
    old: Sightings,
    exemplars: int = 5,
    seeds: Sequence[int] = tuple(range(10)),
    validation: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Teach ``exemplars`` of each class, for every seed anew, and ask; see :data:`RULE`.

    Args:
        validation: ask the rest of the train split; the test split stays unseen.
        progress: called with (steps done, steps in all).

    Returns:
        metrics {name: {mean, std}}, recognised_by_class, confusion, questions and old_sightings.

    Raises:
        InputError: a taught class that the model has, an old one that it has not, or too few shapes.
    """
    heads, nothing = perceiver.card.heads.objects, TaughtClasses(perceiver.card)
    for name in taught.names:
        nothing.check_label(name)
    if strange := [name for name in old.names if name not in heads.classes]:
        raise InputError(f"--old-class {strange[0]}: {perceiver.card.name} has no such class; write CLASS={strange[0]}")
    draws = [draw(taught, exemplars, validation, seed) for seed in seeds]
    total = len(seeds) + 3
    asked_old = np.flatnonzero(old.test)
    truth = np.array(old.names)[old.label[asked_old]]
    ordinary = ordinary_objects(perceiver)
    progress(1, total)
    clouds, old_clouds = (list(points.astype(np.float32)) for points in (taught.points, old.points[asked_old]))
    answers = perceiver.classify(clouds)
    progress(2, total)
    old_answers = perceiver.classify(old_clouds)
    progress(3, total)
    before = _labels(old_answers)
    rows: list[dict[str, float]] = []
    confusion, old_confusion = ({name: Counter() for name in part.names} for part in (taught, old))
    for number, (drawn, asked) in enumerate(draws):
        pipeline = Pipeline(perceiver)
        pipeline.taught.set_ordinary(ordinary)
        for name, members in zip(taught.names, drawn, strict=True):
            for row in members.tolist():
                pipeline.taught.add(name, answers[row].evidence.features, answers[row].probabilities.max())

        def ask(clouds: list[np.ndarray], before: list[Prediction], pipeline=pipeline) -> np.ndarray:
            return _labels(pipeline.with_taught(pipeline.taught.head, clouds, before))

        found = [ask([clouds[row] for row in members], [answers[row] for row in members]) for members in asked]
        after = ask(old_clouds, old_answers)
        for name, labels in zip(taught.names, found, strict=True):
            confusion[name].update(labels.tolist())
        for name in old.names:
            old_confusion[name].update(after[truth == name].tolist())
        rows.append(_figures(taught.names, found) | _old_figures(taught.names, truth, before, after))
        progress(4 + number, total)
    return {
        "metrics": {name: _summary([row[name] for row in rows]) for name in rows[0] if "." not in name},
        "recognised_by_class": {name: _summary([row[f"recognised.{name}"] for row in rows]) for name in taught.names},
        "confusion": {
            part: {name: dict(counts.most_common()) for name, counts in answers.items()}
            for part, answers in (("taught", confusion), ("old", old_confusion))
        },
        "questions": {name: len(rows) for name, rows in zip(taught.names, draws[0][1], strict=True)},
        "old_sightings": len(asked_old),
    }


def _labels(answers: Sequence[Prediction]) -> np.ndarray:
    return np.array([answer.label for answer in answers], dtype=object)


def _figures(names: Sequence[str], found: Sequence[np.ndarray]) -> dict[str, float]:
    """Percentages of one seed: the answers [n] to the questions of each class."""
    right = [labels == name for name, labels in zip(names, found, strict=True)]
    everything, right_all = np.concatenate(found), np.concatenate(right)
    taught, unknown = np.isin(everything, names), everything == UNKNOWN
    shares = {
        "recognised_percent": right_all,
        "another_taught_percent": taught & ~right_all,
        "own_class_percent": ~taught & ~unknown,
        "unknown_percent": unknown,
    }
    shares |= {f"recognised.{name}": mask for name, mask in zip(names, right, strict=True)}
    return {name: 100.0 * float(mask.mean()) for name, mask in shares.items()}


def _old_figures(names: Sequence[str], truth: np.ndarray, before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    reached = [100.0 * float((labels == truth).mean()) for labels in (before, after)]
    return {
        "old_accuracy_before_percent": reached[0],
        "old_accuracy_after_percent": reached[1],
        "old_lost_points": reached[0] - reached[1],
        "old_taken_percent": 100.0 * float(np.isin(after, names).mean()),
    }


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"mean": round(float(np.mean(values)), 2), "std": round(float(np.std(values)), 2)}
