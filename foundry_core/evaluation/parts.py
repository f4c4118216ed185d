# SPDX-License-Identifier: Apache-2.0
"""Part segmentation from frozen token features: one small head for each model and seed, scored as ShapeNetPart is.

The head knows the shape's category, as there, and answers with parts of that category only. All models have the same
head, the same points and the same batches; two floors have no model: ``coordinates``, the same head on the points
alone, and ``majority``, the most frequent part of each category.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import Progress

from foundry_core.architecture import Preprocessing
from foundry_core.evaluation.part_features import DEFAULT_SIZE, PartInputs, vote_view
from foundry_core.evaluation.part_head import PartProbeConfig, fit_part_probe, part_probabilities
from foundry_core.evaluation.part_metrics import PartScores, part_scores
from foundry_core.evaluation.part_task import PartTask
from foundry_core.evaluation.subjects import Subject, mean_and_deviation, subjects, with_teacher

COORDINATES, MAJORITY = "coordinates", "majority"


@dataclass(frozen=True)
class PartSettings:
    """How models are compared.

    Attributes:
        levels: of ``part_features.LEVELS``.
        votes: views of every test cloud, the cloud itself first; 1 is no voting.
        split: ``test`` or ``validation``, for the rows.
    """

    levels: str = "last"
    votes: int = 1
    split: str = "test"
    head: PartProbeConfig = PartProbeConfig()


class _Bench:
    """One task, its clouds cut into patches once for all models of the same preprocessing."""

    def __init__(self, task: PartTask, settings: PartSettings, progress: Progress) -> None:
        self.task, self.settings, self.progress = task, settings, progress
        self.allowed = torch.from_numpy(task.allowed)
        self._inputs: dict[Preprocessing, tuple[PartInputs, list[tuple[PartInputs, int]]]] = {}

    def inputs(self, size: Preprocessing) -> tuple[PartInputs, list[tuple[PartInputs, int]]]:
        """Train clouds, and the views of the test clouds with the places by which they are rolled."""
        if size not in self._inputs:
            views = [vote_view(self.task.test, number) for number in range(self.settings.votes)]
            bar = self.progress.add_task("patches", total=len(self.task.train) + len(views) * len(self.task.test))
            sides = [
                PartInputs.of(clouds, size, lambda n: self.progress.advance(bar, n))
                for clouds in (self.task.train, *(clouds for clouds, _ in views))
            ]
            self.progress.remove_task(bar)
            self._inputs[size] = sides[0], [(side, roll) for side, (_, roll) in zip(sides[1:], views, strict=True)]
        return self._inputs[size]

    def scores(self, subject: Subject, seeds: Sequence[int]) -> dict[str, list[PartScores]]:
        """For each seed the scores, under ``""``, and with voting under ``"voted_"``."""
        if subject.name == MAJORITY:
            return {"": [self._score(self._majority())] * len(seeds)}
        train, views = self.inputs(subject.source.size if subject.source else DEFAULT_SIZE)
        reached: dict[str, list[PartScores]] = {"": []}
        banks = None
        for seed in seeds:
            title = f"{subject.name} {subject.budget or ''}"
            if banks is None or subject.seeded:
                drawn = subject.reseeded(seed)
                if drawn.source:
                    drawn.source.fit(train.groups)
                sides = [train, *(view for view, _ in views)]
                bar = self.progress.add_task(title, total=sum(len(side.clouds) for side in sides))
                banks = [
                    side.bank(drawn, self.settings.levels, lambda n, bar=bar: self.progress.advance(bar, n))
                    for side in sides
                ]
                self.progress.remove_task(bar)
            bar = self.progress.add_task(f"{title}, head {seed}", total=self.settings.head.steps)
            probe = fit_part_probe(
                banks[0], self.allowed, self.settings.head, seed, lambda bar=bar: self.progress.advance(bar)
            )
            self.progress.remove_task(bar)
            total = None
            for bank, (_, roll) in zip(banks[1:], views, strict=True):
                probabilities = torch.roll(part_probabilities(probe, bank), roll, dims=1)
                if total is None:
                    reached[""].append(self._score(probabilities.argmax(-1).numpy()))
                total = probabilities if total is None else total + probabilities
            if self.settings.votes > 1:
                reached.setdefault("voted_", []).append(self._score(total.argmax(-1).numpy()))
        return reached

    def _score(self, found: np.ndarray) -> PartScores:
        return part_scores(self.task.test.part, found, self.task.test.category, self.task.allowed)

    def _majority(self) -> np.ndarray:
        train, test = self.task.train, self.task.test
        kinds = len(self.task.parts)
        most = [
            np.bincount(train.part[train.category == c].ravel() + 1, minlength=kinds + 1)[1:].argmax()
            for c in range(len(self.task.categories))
        ]
        return np.repeat(np.array(most)[test.category][:, None], test.part.shape[1], axis=1)


def parts(
    models: Sequence[str],
    tasks: dict[str, PartTask],
    budgets: Sequence[int] = (),
    seeds: Sequence[int] = (0, 1, 2),
    teacher: str | None = None,
    settings: PartSettings | None = None,
    progress: Progress | None = None,
) -> Iterator[dict]:
    """A row for every task, model and budget; the teacher of the models first, where one is known.

    Raises:
        InputError: an unknown model, or a student that runs with none of the budgets.
    """
    settings, progress = settings or PartSettings(), progress or Progress(disable=True)
    found = subjects(models, budgets, seeds[0], (COORDINATES, MAJORITY))
    found, reference = with_teacher(found, teacher, seeds[0])
    for name, task in tasks.items():
        bench = _Bench(task, settings, progress)
        against = None
        for subject in found:
            scores = bench.scores(subject, seeds)
            if against is None and subject.name == reference:
                against = scores
            yield _row(name, task, subject, seeds, reference, settings, scores, against)


def _row(name, task, subject, seeds, reference, settings, scores, against) -> dict:
    metrics: dict[str, dict[str, float]] = {}
    for prefix, runs in scores.items():
        values = [run.metrics() for run in runs]
        for metric in values[0]:
            metrics[prefix + metric] = mean_and_deviation([value[metric] for value in values])
        if against is not None and subject.name != reference and prefix in against:
            theirs = [run.metrics() for run in against[prefix]]
            for kind in ("instance", "category"):
                metric = f"{kind}_miou_percent"
                lost = [a[metric] - b[metric] for a, b in zip(values, theirs, strict=True)]
                metrics[f"{prefix}{kind}_minus_teacher_points"] = mean_and_deviation(lost)
    categories = [run.by_category() for run in scores[""]]
    return {
        "protocol": "parts",
        "data": name,
        "split": settings.split,
        "levels": settings.levels,
        "steps": settings.head.steps,
        "votes": settings.votes,
        "train_shapes": len(task.train),
        "test_shapes": len(task.test),
        "unknown_points_percent": round(task.unknown_percent(), 2),
        "model": subject.name,
        "teacher": reference,
        "budget": subject.budget,
        "seed": seeds[0],
        "seeds": len(seeds),
        "metrics": metrics,
        "categories": {
            task.categories[number]: {
                "parts": [part for part, has in zip(task.parts, task.allowed[number], strict=True) if has],
                "shapes": int((task.test.category == number).sum()),
                "miou_percent": mean_and_deviation([run[number] for run in categories]),
            }
            for number in categories[0]
        },
    }
