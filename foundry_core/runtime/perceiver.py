# SPDX-License-Identifier: Apache-2.0
"""From a point cloud to labelled objects, on numpy, numba and onnxruntime alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from foundry_core import geometry
from foundry_core.card import ModelCard, find_model, load_card
from foundry_core.clouds import Cloud
from foundry_core.errors import InputError
from foundry_core.runtime.answers import Answers
from foundry_core.runtime.budget import BudgetController
from foundry_core.runtime.deadline import answer_in_time, measured_cost_ms
from foundry_core.runtime.objects import Evidence, Object, Perception, Prediction, no_answer
from foundry_core.runtime.parts import warm_up as warm_up_parts
from foundry_core.runtime.session import check_budget, open_session
from foundry_core.scene.config import SceneConfig
from foundry_core.scene.segment import SceneResult, find_segments
from foundry_core.schema import Settings

__all__ = ["Object", "Perceiver", "PerceiverConfig", "Perception", "Prediction"]


#: the phases of naming objects
NAMING = ("group", "network", "labels")


class PerceiverConfig(Settings):
    """Settings of the perceiver."""

    runtime: Literal["onnxruntime", "openvino"] = Field("onnxruntime", description="what runs the network")
    precision: Literal["fp32", "bf16", "int8"] = Field(
        "fp32", description="of the network; int8 needs a graph that `foundry export` wrote, bf16 needs openvino"
    )
    threads: int = Field(1, ge=1, le=256, description="threads of the network's runtime")
    max_batch: int = Field(4, ge=1, le=1024, description="objects that go through the network together")
    max_object_points: int = Field(
        4096, ge=64, description="points of an object that are sampled from; more are thinned evenly first"
    )
    unknown_threshold: float | None = Field(
        None, ge=0, le=1, description="below this probability the answer is unknown; not set: the model's own threshold"
    )
    classes: str = Field("", description="classes that can occur here, separated by commas; empty: all of the model's")
    deadline_ms: float | None = Field(
        None, gt=0, description="ms to answer a cloud in: it decides each object's supertokens, and who must wait"
    )
    scene: SceneConfig = SceneConfig()


def pooled(tokens: np.ndarray) -> np.ndarray:
    """Mean and max over token features [B,G,d]: float32 [B,2d]."""
    return np.concatenate([tokens.mean(axis=1), tokens.max(axis=1)], axis=1).astype(np.float32, copy=False)


class Perceiver:
    """A model that finds and names the objects of a cloud.

    Attributes:
        card: the model's card.
        budget: supertokens in use; None for a teacher. It can be set to any of the card's budgets between clouds.
        answers: makes answers of logits, and of other probabilities; the settings' own, between two changes of them.

    Args:
        model: name of a shipped model or path of a model directory.
        budget: supertokens to run with, one of the card's budgets; by default the card's own choice. With the setting
            ``deadline_ms``, the most that an object gets; by default the largest.

    Raises:
        InputError: the directory, its card, a hash or the graph is not in order, or it has no object head.
    """

    def __init__(self, model: str | Path, config: PerceiverConfig | None = None, budget: int | None = None) -> None:
        self.config = config or PerceiverConfig()
        directory = find_model(model)
        self.card: ModelCard = load_card(directory)
        if self.card.heads.objects is None:
            raise InputError(f"{directory}: the model has no head for objects; train one with `foundry head`")
        check_budget(self.card, budget)
        self.budget: int | None = budget or self.card.budget
        self._most = budget or max(self.card.budgets, default=1)
        self._cost_ms: dict[int, float] = {}  # of an object at each budget, once measured
        self._controller: BudgetController | None = None
        self._outputs = ["tokens", "class_logits", *(["part_logits"] if self.card.heads.parts else [])]
        self.session = open_session(
            directory, self.config.runtime, self.config.precision, self.config.threads, self._outputs
        )
        self.session.check(self.card)
        self.answers = self._answers_of(self.config)
        geometry.warm_up()
        warm_up_parts()

    def _answers_of(self, config: PerceiverConfig) -> Answers:
        return Answers(self.card, config.unknown_threshold, config.classes, self.session.path.parent)

    def check(self, config: PerceiverConfig, budget: int | None = None) -> None:
        """Whether :meth:`reconfigure` would take these settings.

        Raises:
            InputError: another session (runtime, precision, threads) would be needed, or the card does not have the
                budget or a class.
        """
        for name in ("runtime", "precision", "threads"):
            if getattr(config, name) != getattr(self.config, name):
                raise InputError(f"{name}: is fixed for a loaded model; load it again")
        check_budget(self.card, budget)
        self._answers_of(config)

    def reconfigure(self, config: PerceiverConfig, budget: int | None = None) -> None:
        """Take other settings over, between two clouds; InputError where :meth:`check` raises it."""
        self.check(config, budget)
        most = budget or max(self.card.budgets, default=1)
        self.config, self._most, self.answers = config, most, self._answers_of(config)
        self.budget = budget or self.card.budget

    def warm_up(self) -> None:
        """Compile every kernel, run the network and time the budgets, so that no frame has to: not the first one, nor
        the first with other settings."""
        rng = np.random.default_rng(0)
        floor = rng.uniform([-5, -5, -1], [5, 5, -0.98], (4000, 3))
        block = rng.uniform([2, 0, -1], [3, 1, 0.2], (600, 3))
        self.perceive(Cloud.from_points(np.concatenate([floor, block])))
        self._measured()  # of objects that are resampled

    def _measured(self) -> BudgetController:
        """The controller for a deadline: the setting may give an object any budget, a caller keeps the one in use."""
        if not self._cost_ms:
            self._cost_ms = self._measure(self.card.budgets or [1])
        budgets = [item for item in self._cost_ms if item <= self._most]
        if self.config.deadline_ms is None:
            budgets = [self.budget or 1]
        if self._controller is None or self._controller.budgets != sorted(budgets):
            self._controller = BudgetController({item: self._cost_ms[item] for item in budgets})
        return self._controller

    def _measure(self, budgets: Sequence[int], objects: int = 4) -> dict[int, float]:
        points = np.random.default_rng(0).normal(size=(objects, self.card.preprocessing.points + 1, 3))
        batch, phases = list(points.astype(np.float32)), dict.fromkeys(NAMING, 0.0)
        return measured_cost_ms(lambda budget: self._classify(batch, phases, budget=budget), budgets, objects)

    def perceive(self, cloud: Cloud) -> Perception:
        """Find and name the objects of a cloud, in the cloud's frame (sensor axes: x forward, y left, z up)."""
        start = time.perf_counter()
        return self.name(self.find(cloud), start)

    def find(self, cloud: Cloud) -> SceneResult:
        """The segments of a cloud, which may be objects."""
        return find_segments(cloud, self.config.scene)

    def name(
        self,
        scene: SceneResult,
        start: float,
        order: Sequence[int] | None = None,
        due: Callable[[], float] | None = None,
    ) -> Perception:
        """Name the segments of a cloud.

        Args:
            start: moment, on :func:`time.perf_counter`, from which a deadline counts.
            order: numbers of the segments, those first that must not wait where the deadline leaves no time for all:
                then some wait rather than that all get fewer supertokens than the model's own number. By default they
                are in the scene's order, and fewer supertokens for all come first.
            due: moment, on that clock, when the answer is due, where the settings have no deadline; asked before
                every batch. Every object that there is time for gets the budget in use.
        """
        phases = {**scene.phases_ms, **dict.fromkeys(NAMING, 0.0)}
        limit = self.config.deadline_ms
        due = due if limit is None else (lambda: start + 1e-3 * limit)
        diagonals = [float(np.linalg.norm(segment.size)) for segment in scene.segments]
        points = [segment.points for segment in scene.segments]
        if due is None:
            predictions = self._classify(points, phases, diagonals)
            budgets = [self.budget or 0] * len(points)
        else:
            predictions, budgets = self._classify_in_time(points, phases, diagonals, order, due)
        objects = [Object(*pair) for pair in zip(scene.segments, predictions, strict=True)]
        return Perception(objects, phases, scene, budgets)

    def _classify_in_time(
        self,
        clouds: Sequence[np.ndarray],
        phases: dict[str, float],
        diagonals: Sequence[float],
        order: Sequence[int] | None,
        due: Callable[[], float],
    ) -> tuple[list[Prediction], list[int]]:
        """As :meth:`_classify`, in ``order``, until the answer is due; and each object's budget."""

        def answer(numbers: list[int], budget: int) -> list[Prediction]:
            chosen = [clouds[number] for number in numbers]
            return self._classify(chosen, phases, [diagonals[number] for number in numbers], budget)

        answers, budgets = answer_in_time(
            self._measured(),
            [len(points) for points in clouds],
            answer,
            lambda: 1e3 * due(),
            lambda: 1e3 * time.perf_counter(),
            self.config.max_batch,
            order,
            1 if order is None else self.budget or 1,
        )
        pairs = zip(answers, clouds, strict=True)
        predictions = [no_answer(len(points)) if found is None else found for found, points in pairs]
        return predictions, budgets if self.card.budgets else [0] * len(budgets)

    def classify(self, clouds: Sequence[np.ndarray]) -> list[Prediction]:
        """Name objects, each given by points [n,3] in any unit, z up, n >= 1.

        Raises:
            InputError: another shape, or a point that is not finite.
        """
        checked = []
        for number, points in enumerate(clouds):
            points = np.asarray(points, np.float32)
            if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
                raise InputError(f"object {number}: expected finite points [n,3] with n >= 1, got {points.shape}")
            checked.append(points)
        return self._classify(checked, dict.fromkeys(NAMING, 0.0))

    def _classify(
        self,
        clouds: Sequence[np.ndarray],
        phases: dict[str, float],
        diagonals: Sequence[float] | None = None,
        budget: int | None = None,
    ) -> list[Prediction]:
        """Answers for points [n,3] each; with ``diagonals`` in metres, classes that are never so large are out."""
        predictions = []
        budget = (budget or self.budget) if self.card.budgets else None
        size = self.config.max_batch  # once: another thread may change the settings meanwhile
        for start in range(0, len(clouds), size):
            batch = clouds[start : start + size]
            marks = [time.perf_counter()]
            inputs, sampled = self._group(batch)
            marks.append(time.perf_counter())
            outputs = self.session.run(inputs, self._outputs, budget)
            marks.append(time.perf_counter())
            sizes = None if diagonals is None else diagonals[start : start + len(batch)]
            probabilities = self.answers.probabilities(outputs["class_logits"], sizes)
            features = pooled(outputs["tokens"])
            for row, points in enumerate(batch):
                part_logits = outputs["part_logits"][row] if self.card.heads.parts else None  # (N, P)
                evidence = Evidence(probabilities[row], features[row], sampled[row], part_logits)
                predictions.append(self.answers.answer(points, evidence, evidence.probabilities))
            marks.append(time.perf_counter())
            for k, phase in enumerate(NAMING):
                phases[phase] += 1e3 * (marks[k + 1] - marks[k])
        return predictions

    def _group(self, batch: Sequence[np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Graph inputs, and for each object the index int64 [B,N] of the network's points into its own."""
        size = self.card.preprocessing
        limit = max(self.config.max_object_points, size.points)
        upsample = "interpolation_index" in self.session.inputs
        made = geometry.prepare_batch(batch, size.points, size.groups, size.neighbors, limit, upsample)._asdict()
        return made, made.pop("index")
