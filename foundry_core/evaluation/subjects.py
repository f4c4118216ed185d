# SPDX-License-Identifier: Apache-2.0
"""The models that a protocol compares: each at each of its budgets, on clouds that are cut into patches once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.progress import Progress

from foundry_core.architecture import Preprocessing
from foundry_core.errors import InputError
from foundry_core.evaluation.features import (
    RANDOM,
    Groups,
    Source,
    choose_budgets,
    group_clouds,
    histogram_features,
    pooled_features,
    require_teachers,
    resolve,
)
from foundry_core.export.rewrite import fused_backbone


@dataclass(frozen=True)
class Subject:
    """A model at one budget; without a source it is something that needs no network, such as ``histogram``."""

    name: str
    source: Source | None = None
    seed: int = 0  # that drew the weights, where they are random

    @property
    def budget(self) -> int | None:
        """Supertokens in use; None where there are none."""
        return self.source.budget if self.source else None

    @property
    def fused(self) -> Source:
        """The source with its network rewritten for inference: the same numbers to 1e-5, in half to two thirds of the
        time. Fit it first.
        """
        return replace(self.source, network=fused_backbone(self.source.network))

    @property
    def seeded(self) -> bool:
        """Whether every seed means other weights."""
        return self.name.startswith(RANDOM)

    def reseeded(self, seed: int) -> Subject:
        """The same with the weights that this seed draws."""
        drawn_already = not self.seeded or seed == self.seed
        return self if drawn_already else replace(self, source=resolve(self.name, seed), seed=seed)


def subjects(models: Sequence[str], budgets: Sequence[int], seed: int, without_network: Sequence[str]) -> list[Subject]:
    """The models, students once for each of the budgets that they have, with their own budget where none is wanted.

    Raises:
        InputError: an unknown model, or a student that runs with none of the budgets.
    """
    found = []
    for name in dict.fromkeys(models):
        if name in without_network:
            found.append(Subject(name))
            continue
        source = resolve(name, seed)
        chosen = choose_budgets(source, budgets) if budgets else [source.budget]
        found += [Subject(name, replace(source, budget=budget), seed) for budget in chosen]
    return found


def with_teacher(found: Sequence[Subject], named: str | None, seed: int) -> tuple[list[Subject], str | None]:
    """The subjects with their teacher in front, and its name: the one named, else the one of the students' cards.

    Without either there is no teacher.

    Raises:
        InputError: students of several teachers, an unknown one, or one of other weights than theirs.
    """
    teachers = {subject.source.teacher for subject in found if subject.source and subject.source.teacher}
    if named is None and len(teachers) > 1:
        raise InputError(f"--teacher: the models have several, {', '.join(sorted(teachers))}; name one")
    if named is None:
        require_teachers(subject.source for subject in found if subject.source)
    named = named or next(iter(teachers), None)
    if named is None:
        return list(found), None
    own = [subject for subject in found if subject.name == named][:1] or [Subject(named, resolve(named, seed), seed)]
    return own + [subject for subject in found if subject is not own[0]], named


class Clouds:
    """Clouds [P,3], sizes may differ; patches are kept for the next model that sees the same."""

    def __init__(self, clouds: Sequence[np.ndarray]) -> None:
        self.clouds = clouds
        self._groups: dict[Preprocessing, Groups] = {}

    def __len__(self) -> int:
        return len(self.clouds)

    def groups(self, size: Preprocessing) -> Groups:
        """The clouds as a model with this preprocessing takes them."""
        if size not in self._groups:
            self._groups[size] = group_clouds(self.clouds, size)
        return self._groups[size]

    def features(self, subject: Subject, progress: Progress, title: str) -> np.ndarray:
        """Pooled features float32 [M,F] of a subject."""
        if subject.source is None:
            return histogram_features(self.clouds)
        task = progress.add_task(title, total=len(self))
        features = pooled_features(subject.fused, self.groups(subject.source.size), lambda n: progress.advance(task, n))
        progress.remove_task(task)
        return features


def mean_and_deviation(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """``{mean, std}`` of one or more values, as every row holds them."""
    return {"mean": round(float(np.mean(values)), digits), "std": round(float(np.std(values)), digits)}
