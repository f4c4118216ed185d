# SPDX-License-Identifier: Apache-2.0
"""How faithfully a student stands in for its teacher: tokens, pooled features, heads, and what its supertokens carry.

A teacher's classifier (standardised logistic regression on the pooled train features, strength chosen inside train) is
applied unchanged to the student's rebuilt features: head swap. The controls say whether the supertokens do the work:
R^2 with the supertokens of other clouds, and with none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.progress import Progress
from sklearn.pipeline import Pipeline

from foundry_core.data.shapes import ShapeSet
from foundry_core.errors import InputError
from foundry_core.evaluation.answers import Answers, ask_teacher, collect, same_tokenizer
from foundry_core.evaluation.corruptions import Shift, corrupt_all
from foundry_core.evaluation.features import (
    HISTOGRAM,
    Groups,
    Source,
    choose_budgets,
    group_clouds,
    require_teachers,
    resolve,
)
from foundry_core.evaluation.measures import linear_cka, neighbor_agreement
from foundry_core.evaluation.probe import Split, fit_probe
from foundry_core.models.heads import pool


@dataclass(frozen=True)
class Row:
    """Figures of one model at one budget on one data set, clean or shifted; each value is for one seed, or for all."""

    data: str
    part: str
    shift: Shift | None
    model: str
    teacher: str
    budget: int | None
    shapes: tuple[int, int]  # train, test
    seeds: tuple[int, ...]
    values: dict[str, list[float]]

    def metrics(self) -> dict[str, dict[str, float]]:
        """Mean and deviation over the seeds, by name."""
        return {
            name: {"mean": round(float(np.mean(values)), 4), "std": round(float(np.std(values)), 4)}
            for name, values in self.values.items()
        }

    def json(self) -> dict:
        """The row as it is written."""
        return {
            "protocol": "fidelity",
            "data": self.data,
            "split": self.part,
            "shift": self.shift[0] if self.shift else None,
            "severity": self.shift[1] if self.shift else None,
            "train_shapes": self.shapes[0],
            "test_shapes": self.shapes[1],
            "model": self.model,
            "teacher": self.teacher,
            "budget": self.budget,
            "seed": self.seeds[0],
            "seeds": len(self.seeds),
            "metrics": self.metrics(),
        }


@dataclass
class _Candidate:
    """A model under test, and the probes on its own train features, for each budget and seed."""

    source: Source
    budgets: list[int | None]
    probes: list[list[Pipeline]]
    supertoken_probes: list[list[Pipeline]]


def split_of(data: ShapeSet, validation: bool, train: ShapeSet | None = None) -> Split:
    """The parts of a shape set, or of two; a set without any label is judged by what needs none."""
    labelled = data.label is not None and bool((data.label >= 0).any())
    return (Split.of if labelled else Split.without_labels)(data, train, validation)


def choose_teacher(sources: Sequence[Source], named: str | None) -> Source:
    """The teacher named, or the one that all sources were made from.

    Raises:
        InputError: none is known or it is not found, they differ, its weights are not those that a student was made
            from, it is a student, or a model sees other patches than it does.
    """
    name = named or next((source.teacher for source in sources if source.teacher), None)
    if name is None:
        raise InputError(f"{sources[0].name}: its card names no teacher; give --teacher")
    for source in sources:
        if named is None and source.teacher not in (None, name):
            raise InputError(f"{source.name}: its teacher is {source.teacher}, not {name}; give --teacher")
    if named is None:
        require_teachers(sources)
    teacher = resolve(name)
    if teacher.budgets:
        raise InputError(f"{name}: is a student; give a teacher to --teacher")
    for source in sources:
        if source.size != teacher.size:
            raise InputError(f"{source.name}: sees other patches than {name}; its tokens cannot be compared")
    return teacher


def load_sources(models: Sequence[str], seed: int) -> list[Source]:
    """The models to be judged; InputError for one that has no token features."""
    if HISTOGRAM in models:
        raise InputError(f"{HISTOGRAM}: has no token features; name it to `foundry evaluate probe`")
    return [resolve(name, seed) for name in models]


class Judge:
    """Judges models against one teacher on one split of a shape set.

    Args:
        part: ``test`` or ``validation``, for the rows.
        seeds: each draws the inner split of every probe and the permutation of the shuffle control.
    """

    def __init__(
        self, name: str, part: str, split: Split, teacher: Source, seeds: Sequence[int], progress: Progress
    ) -> None:
        self.name, self.part, self.split, self.teacher, self.seeds = name, part, split, teacher, tuple(seeds)
        self.progress = progress
        train = group_clouds(split.train.points, teacher.size)
        with self._task(f"{name}: {teacher.name}", len(train)) as advance:
            self.train, features = ask_teacher(teacher.network, train, advance)
        self.heads = self._fit(pool(features).numpy())

    def _for(self, source: Source, groups: Groups) -> Groups:
        """The clouds with the teacher's tokens only where the model would compute the same."""
        return groups if same_tokenizer(source.network, self.teacher.network) else replace(groups, tokens=None)

    def _task(self, title: str, total: int) -> _Advance:
        return _Advance(self.progress, title, total)

    def _fit(self, features: np.ndarray | None) -> list[Pipeline]:
        if features is None or not self.split.labelled:
            return []
        return [fit_probe("linear", features, self.split.train.label, seed) for seed in self.seeds]

    def prepare(self, source: Source, budgets: list[int | None]) -> _Candidate:
        """Fit what is fitted on a model's own train features."""
        train = self._for(source, self.train)
        source.fit(train)
        with self._task(f"{self.name}: {source.name}, train", len(self.train)) as advance:
            answers = collect(source.network, train, budgets, advance=advance)
        probes = [self._fit(answer.pooled) for answer in answers]
        return _Candidate(source, budgets, probes, [self._fit(answer.supertokens_pooled) for answer in answers])

    def judge(self, candidates: Sequence[_Candidate], shift: Shift | None) -> Iterator[Row]:
        """A row for each candidate and budget on the test clouds, as they are or corrupted (seeded by the first)."""
        test: ShapeSet = self.split.test
        clouds = test.points if shift is None else corrupt_all(test.points, *shift, seed=self.seeds[0])
        groups = group_clouds(clouds, self.teacher.size)
        title = self.name if shift is None else f"{self.name}, {shift[0]} {shift[1]}"
        with self._task(f"{title}: {self.teacher.name}", len(groups)) as advance:
            groups, target = ask_teacher(self.teacher.network, groups, advance)  # (M, G, d)
        pooled = pool(target).numpy()
        for candidate in candidates:
            with self._task(f"{title}: {candidate.source.name}", len(groups)) as advance:
                own = self._for(candidate.source, groups)
                found = collect(candidate.source.network, own, candidate.budgets, target, self.seeds, advance)
            for number, (budget, answers) in enumerate(zip(candidate.budgets, found, strict=True)):
                values = answers.values | self._compare(answers, pooled, candidate, number)
                yield Row(
                    self.name, self.part, shift, candidate.source.name, self.teacher.name, budget,
                    (len(self.train), len(groups)), self.seeds, values,
                )  # fmt: skip

    def _compare(
        self, answers: Answers, teacher: np.ndarray, candidate: _Candidate, number: int
    ) -> dict[str, list[float]]:
        same, overlap = neighbor_agreement(answers.pooled, teacher)
        values = {
            "cka": [linear_cka(answers.pooled, teacher)],
            "neighbor_same_percent": [same],
            "neighbor_overlap_percent": [overlap],
        }
        return values | self._accuracies(answers, teacher, candidate, number) if self.split.labelled else values

    def _accuracies(
        self, answers: Answers, teacher: np.ndarray, candidate: _Candidate, number: int
    ) -> dict[str, list[float]]:
        label, values = self.split.test.label, {}
        told = [head.predict(teacher) for head in self.heads]
        swapped = [head.predict(answers.pooled) for head in self.heads]
        reference = [100.0 * float((answer == label).mean()) for answer in told]
        accuracy = {"swap": [100.0 * float((answer == label).mean()) for answer in swapped]}
        accuracy["probe"] = [100.0 * probe.score(answers.pooled, label) for probe in candidate.probes[number]]
        if supertoken_probes := candidate.supertoken_probes[number]:
            accuracy["supertoken"] = [
                100.0 * probe.score(answers.supertokens_pooled, label) for probe in supertoken_probes
            ]
        values["teacher_accuracy_percent"] = reference
        for name, reached in accuracy.items():
            values[f"{name}_accuracy_percent"] = reached
            values[f"{name}_loss_points"] = [a - b for a, b in zip(reference, reached, strict=True)]
        values["swap_same_answer_percent"] = [
            100.0 * float((a == b).mean()) for a, b in zip(told, swapped, strict=True)
        ]
        return values


class _Advance:
    """One line of the progress bar."""

    def __init__(self, progress: Progress, title: str, total: int) -> None:
        self._progress, self._title, self._total = progress, title, total

    def __enter__(self):
        self._task = self._progress.add_task(self._title, total=self._total)
        return lambda done: self._progress.advance(self._task, done)

    def __exit__(self, *error) -> None:
        self._progress.remove_task(self._task)


def fidelity(
    sources: Sequence[Source],
    teacher: Source,
    splits: dict[str, Split],
    budgets: Sequence[int] = (),
    seeds: Sequence[int] = (0, 1, 2),
    shifts: Sequence[Shift] = (),
    part: str = "test",
    progress: Progress | None = None,
) -> Iterator[Row]:
    """Rows for every data set, clean and shifted, model and budget, as they are done; then averages over the sets.

    Raises:
        InputError: a budget that a model lacks, or token features of another width than the teacher's.
    """
    chosen = [choose_budgets(source, budgets) for source in sources]
    rows = []
    for name, split in splits.items():
        judge = Judge(name, part, split, teacher, seeds, progress or Progress(disable=True))
        for source in sources:
            require_same_width(source, teacher, judge.train)
        candidates = [judge.prepare(source, own) for source, own in zip(sources, chosen, strict=True)]
        for shift in (None, *shifts):
            for row in judge.judge(candidates, shift):
                rows.append(row)
                yield row
    yield from averages(rows)


@torch.no_grad()
def require_same_width(source: Source, teacher: Source, groups: Groups) -> None:
    """Raise InputError if a model's token features are not as wide as the teacher's."""
    one = groups.centers[:1], groups.neighborhoods[:1]
    source.fit(Groups(*one))
    ours, theirs = (network(*one)["tokens"].shape[-1] for network in (source.network, teacher.network))
    if ours != theirs:
        raise InputError(f"{source.name}: rebuilds features of width {ours}, {teacher.name} has {theirs}")


def averages(rows: Sequence[Row]) -> Iterator[Row]:
    """The unweighted mean over the data sets of rows that are alike in all else; none for a single data set."""
    alike: dict[tuple, list[Row]] = {}
    for row in rows:
        alike.setdefault((row.shift, row.model, row.budget), []).append(row)
    if len({row.data for row in rows}) < 2:
        return
    for (shift, model, budget), group in alike.items():
        names = [name for name in group[0].values if all(name in row.values for row in group)]
        values = {name: np.mean([row.values[name] for row in group], axis=0).tolist() for name in names}
        shapes = sum(row.shapes[0] for row in group), sum(row.shapes[1] for row in group)
        yield Row("average", group[0].part, shift, model, group[0].teacher, budget, shapes, group[0].seeds, values)
