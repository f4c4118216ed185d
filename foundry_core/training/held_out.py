# SPDX-License-Identifier: Apache-2.0
"""Fidelity on the way: how well a student in training rebuilds its teacher on clouds that it does not learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from foundry_core.architecture import Preprocessing
from foundry_core.card import Metric
from foundry_core.data.shapes import data_name, load_shapes
from foundry_core.evaluation.answers import ask_teacher
from foundry_core.evaluation.curves import HELD_OUT
from foundry_core.evaluation.features import BATCH, group_clouds
from foundry_core.evaluation.measures import TokenAgreement
from foundry_core.models.student import Student
from foundry_core.models.teacher import Teacher
from foundry_core.training.probing import Every

#: clouds that are measured on, at most, evenly over the set
CLOUDS = 512


class HeldOutFidelity:
    """Token fidelity on the test split of a shape set, on the way.

    The figures are those of `foundry evaluate fidelity` on these clouds. The student is left as it was, and no random
    number that a training draws is used up.

    Args:
        student, teacher: networks; the teacher is asked once, where it is now.
        path: a shape set with a split, with or without labels.
        budget: supertokens to be measured with.
        due: when a row of the log gets them.

    Raises:
        InputError: no shape set, or one without a test split.
    """

    def __init__(
        self, student: Student, teacher: Teacher, path: Path, size: Preprocessing, budget: int, due: Every
    ) -> None:
        self.student, self.budget, self.path, self._due = student, budget, path, due
        test = load_shapes(path).test().points
        chosen = np.linspace(0, len(test) - 1, min(CLOUDS, len(test))).round().astype(int)
        self.groups, self.features = ask_teacher(teacher, group_clouds(test[chosen], size))

    def __call__(self, step: int, last: bool) -> dict[str, float]:
        """R² and cosine at a row of the log, as scalars for it; nothing where none is due."""
        if not self._due(step, last):
            return {}
        return {HELD_OUT + name: round(value, 4) for name, value in self.measure().items()}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """R² and cosine of the student as it is now."""
        training, device = self.student.training, next(self.student.parameters()).device
        self.student.eval()
        agreement = TokenAgreement()
        for (centers, neighborhoods, _), target in zip(self.groups.batches(), self.features.split(BATCH), strict=True):
            encoded = self.student.encode(centers.to(device), neighborhoods.to(device), [self.budget])[0]
            agreement.add(self.student.rebuild(encoded).float().cpu(), target)
        self.student.train(training)
        return {"r2": agreement.r2, "cosine": agreement.mean_cosine}

    def metrics(self) -> list[Metric]:
        """The figures of the finished student, for its card."""
        note = f"token features against the teacher's, s={self.budget}, {len(self.groups)} clouds"
        return [
            Metric(name=name, value=round(value, 4), unit="", data=data_name(self.path), split="test", note=note)
            for name, value in self.measure().items()
        ]
