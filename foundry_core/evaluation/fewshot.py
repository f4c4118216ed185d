# SPDX-License-Identifier: Apache-2.0
"""Few-shot classification of shapes from frozen features, in episodes (Sharma and Kaul, 2020).

An episode draws classes (ways), and from each some shapes to learn from (shots) and 20 queries. All models see the same
episodes, so each is compared with its teacher episode by episode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.progress import Progress
from sklearn.linear_model import LogisticRegression

from foundry_core.data.shapes import ShapeSet
from foundry_core.errors import InputError
from foundry_core.evaluation.features import HISTOGRAM
from foundry_core.evaluation.probe import Split
from foundry_core.evaluation.subjects import Clouds, mean_and_deviation, subjects, with_teacher

#: inverse strength of the logistic regression on standardised features; an episode is too small to choose it
LINEAR_C = 0.1


@dataclass(frozen=True)
class Episode:
    """Rows int64 [ways*shots] to learn from and [ways*queries] to answer, class by class; labels are 0..ways-1."""

    support: np.ndarray
    queries: np.ndarray
    ways: int

    @property
    def support_label(self) -> np.ndarray:
        return np.repeat(np.arange(self.ways), len(self.support) // self.ways)

    @property
    def query_label(self) -> np.ndarray:
        return np.repeat(np.arange(self.ways), len(self.queries) // self.ways)


@dataclass(frozen=True)
class Setting:
    """Classes, shapes to learn from and queries per class, and episodes per seed."""

    ways: int
    shots: int
    queries: int = 20
    folds: int = 10


@dataclass(frozen=True)
class Material:
    """What episodes are drawn from.

    Attributes:
        points: clouds [P,3], sizes may differ.
        label: int [M], their classes.
        support: bool [M], what may be learned from; queries: bool [M], what may be asked. The same, or disjoint.
    """

    points: Sequence[np.ndarray]
    label: np.ndarray
    support: np.ndarray
    queries: np.ndarray

    @classmethod
    def of(cls, data: ShapeSet, train: ShapeSet | None = None) -> Material:
        """A labelled set's shapes, both splits, without near-identical twins; or one set to learn from, and another's
        test split (all of it where it has none) to be asked, classes matched by name."""
        if train is None:
            shapes = data.labelled()
            if shapes.twin_in_train is not None:
                shapes = shapes.select(~shapes.twin_in_train.astype(bool))
            everything = np.ones(len(shapes), bool)
            return cls(shapes.points, shapes.label, everything, everything)
        split = Split.of(data, train)
        learned = np.arange(len(split.train) + len(split.test)) < len(split.train)
        label = np.concatenate([split.train.label, split.test.label])
        return cls([*split.train.points, *split.test.points], label, learned, ~learned)

    def large_classes(self, setting: Setting) -> np.ndarray:
        """The classes that have shots + queries shapes or more, sorted."""
        needed = (
            (self.support, setting.shots),
            (self.queries, setting.queries),
            (self.support | self.queries, setting.shots + setting.queries),
        )
        classes = np.unique(self.label)
        return classes[[all((mask & (self.label == c)).sum() >= least for mask, least in needed) for c in classes]]

    def draw_episodes(self, setting: Setting, seed: int) -> list[Episode]:
        """The episodes of one seed, a pure function of labels, masks, setting and seed.

        Raises:
            InputError: fewer large classes than ways.
        """
        classes = self.large_classes(setting)
        if len(classes) < setting.ways:
            raise InputError(
                f"--ways {setting.ways} --shots {setting.shots}: {len(classes)} classes have the {setting.shots} + "
                f"{setting.queries} shapes that it takes; give smaller numbers"
            )
        episodes = []
        for fold in range(setting.folds):
            rng = np.random.default_rng([seed, fold, setting.ways, setting.shots, setting.queries])
            support, queries = [], []
            for chosen in rng.permutation(classes)[: setting.ways]:
                members = rng.permutation(np.flatnonzero(self.label == chosen))
                support.append(members[self.support[members]][: setting.shots])
                others = members[~np.isin(members, support[-1])]
                queries.append(others[self.queries[others]][: setting.queries])
            episodes.append(Episode(np.concatenate(support), np.concatenate(queries), setting.ways))
        return episodes


def _class_means(features: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.stack([features[label == number].mean(axis=0) for number in range(label.max() + 1)])


def nearest_mean_cosine(support: np.ndarray, label: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The class with the highest cosine to its mean, features centred on the support's mean."""
    center = support.mean(axis=0)
    units = []
    for rows in (_class_means(support, label), query):
        rows = rows - center
        units.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
    return (units[1] @ units[0].T).argmax(axis=1)


def _standardised(support: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = support.mean(axis=0), support.std(axis=0)
    deviation = np.where(deviation > 1e-9, deviation, 1.0)
    return (support - mean) / deviation, (query - mean) / deviation


def nearest_mean_standardised(support: np.ndarray, label: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The class with the nearest mean, features divided by their deviation over the support."""
    support, query = _standardised(support, query)
    means = _class_means(support, label)
    return ((means**2).sum(axis=1) - 2 * query @ means.T).argmin(axis=1)


def linear(support: np.ndarray, label: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Logistic regression on standardised features."""
    support, query = _standardised(support, query)
    return LogisticRegression(C=LINEAR_C, max_iter=1000).fit(support, label).predict(query)


#: features [S,F], labels [S] in 0..ways-1, features [Q,F] to labels [Q]
CLASSIFIERS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "mean_cosine": nearest_mean_cosine,
    "mean_standardised": nearest_mean_standardised,
    "linear": linear,
}


def episode_accuracy(features: np.ndarray, episode: Episode) -> dict[str, float]:
    """Percent of the queries that each classifier answers right, from features [M,F]."""
    support, query = (features[rows].astype(np.float64) for rows in (episode.support, episode.queries))
    return {
        name: 100.0 * float((classify(support, episode.support_label, query) == episode.query_label).mean())
        for name, classify in CLASSIFIERS.items()
    }


def fewshot(
    models: Sequence[str],
    sets: dict[str, Material],
    settings: Sequence[Setting],
    budgets: Sequence[int] = (),
    seeds: Sequence[int] = (0, 1, 2),
    teacher: str | None = None,
    progress: Progress | None = None,
) -> Iterator[dict]:
    """A row for every set, setting, model and budget; the teacher of the models first, where one is known.

    Raises:
        InputError: unknown models or budgets, or too few large classes.
    """
    progress = progress or Progress(disable=True)
    found = subjects(models, budgets, seeds[0], [HISTOGRAM])
    if learned := next((name for name in models if name.startswith("pca:")), None):
        raise InputError(f"{learned}: is fitted on train shapes, and few-shot has none; leave it out")
    found, reference = with_teacher(found, teacher, seeds[0])
    episodes = {
        (name, setting): [material.draw_episodes(setting, seed) for seed in seeds]
        for name, material in sets.items()
        for setting in settings
    }
    for name, material in sets.items():
        clouds = Clouds(material.points)
        against: dict[Setting, dict[str, np.ndarray]] = {}
        for subject in found:
            reached = _accuracies(subject, clouds, [episodes[name, s] for s in settings], seeds, progress, name)
            for setting, accuracy in zip(settings, reached, strict=True):
                if subject.name == reference:
                    against.setdefault(setting, accuracy)
                yield _row(name, material, setting, subject, seeds, reference, accuracy, against.get(setting))


def _accuracies(subject, clouds, episodes, seeds, progress, name) -> list[dict[str, np.ndarray]]:
    """Percent right by classifier, float [seeds*folds], for each of the settings."""
    reached = [{kind: [] for kind in CLASSIFIERS} for _ in episodes]
    features = None
    for number, seed in enumerate(seeds):
        if features is None or subject.seeded:
            title = f"{name}: {subject.name} {subject.budget or ''}"
            features = clouds.features(subject.reseeded(seed), progress, title)
        task = progress.add_task(f"{name}: episodes", total=sum(len(drawn[number]) for drawn in episodes))
        for values, drawn in zip(reached, episodes, strict=True):
            for episode in drawn[number]:
                for kind, value in episode_accuracy(features, episode).items():
                    values[kind].append(value)
                progress.advance(task)
        progress.remove_task(task)
    return [{kind: np.array(row) for kind, row in values.items()} for values in reached]


def _row(name, material, setting, subject, seeds, reference, accuracy, against) -> dict:
    metrics = {f"{kind}_accuracy_percent": mean_and_deviation(values) for kind, values in accuracy.items()}
    if against is not None and subject.name != reference:
        for kind, values in accuracy.items():
            metrics[f"{kind}_minus_teacher_points"] = mean_and_deviation(values - against[kind])
    return {
        "protocol": "fewshot",
        "data": name,
        "ways": setting.ways,
        "shots": setting.shots,
        "queries": setting.queries,
        "folds": setting.folds,
        "classes": len(material.large_classes(setting)),
        "shapes": len(material.label),
        "model": subject.name,
        "teacher": reference,
        "budget": subject.budget,
        "seed": seeds[0],
        "seeds": len(seeds),
        "metrics": metrics,
    }
