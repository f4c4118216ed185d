# SPDX-License-Identifier: Apache-2.0
"""A model's graph with transfer heads in place of its own: answers of the same form as the perceiver's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from foundry_core import geometry
from foundry_core.card import ModelCard, find_model, load_card
from foundry_core.clouds import Cloud
from foundry_core.errors import InputError
from foundry_core.runtime.objects import UNKNOWN, Object, Perception, Prediction
from foundry_core.runtime.parts import part_labels
from foundry_core.runtime.session import Precision, Runtime, Session, check_budget, open_session
from foundry_core.runtime.transfer import ClassAnswers, TransferHead
from foundry_core.scene.config import SceneConfig
from foundry_core.scene.segment import find_segments

#: points of an object that a part head is asked about; of more, every so many-th, and the nearest one counts
MAX_PART_POINTS = 4096

#: centers [B,G,3] and neighborhoods [B,G,K,3] to token features [B,G,D]
Tokens = Callable[[np.ndarray, np.ndarray], np.ndarray]


class HeadPerceiver:
    """Names objects, and the parts of their points, with heads that are files of their own.

    Attributes:
        card: the model's; budget: supertokens in use, None for a teacher.
        classes, parts: the heads, at most one of each.

    Args:
        model: name of a shipped model or path of a model directory.
        heads: head directories: one of classes, one of parts, or one of each. The class then tells the parts head the
            category.
        budget: supertokens; by default the card's own number.
        category: of every object, for a parts head alone.
        tokens: computes the features; by default the model's graph does. A head that reads inner features needs it.

    Raises:
        InputError: a directory is not in order, a head is of another family, or the heads do not fit each other.
    """

    def __init__(
        self,
        model: str | Path,
        heads: Sequence[str | Path],
        budget: int | None = None,
        category: str | None = None,
        tokens: Tokens | None = None,
        threads: int = 1,
        runtime: Runtime = "onnxruntime",
        precision: Precision = "fp32",
    ) -> None:
        directory = find_model(model)
        self.card: ModelCard = load_card(directory)
        check_budget(self.card, budget, "--budget")
        self.budget = budget or self.card.budget
        self.classes: TransferHead | None = None
        self.parts: TransferHead | None = None
        for place in heads:
            self._take(TransferHead(place), tokens is not None)
        self.category = category
        self._check_category()
        self._tokens = tokens or self._graph(open_session(directory, runtime, precision, threads, ["tokens"]))

    def _take(self, head: TransferHead, inner: bool) -> None:
        head.card.require_fit(self.card, head.directory)
        role = "parts" if head.card.kind == "parts" else "classes"
        if getattr(self, role) is not None:
            raise InputError(f"{head.directory}: a second head of {role}; give one of classes and one of parts at most")
        if head.card.own_backbone_only and not inner:
            raise InputError(f"{head.directory}: reads inner features, which the graph does not give; this needs torch")
        setattr(self, role, head)

    def _check_category(self) -> None:
        if self.classes is None and self.parts is None:
            raise InputError("--head: give a head directory; `foundry head` makes one")
        if self.category is None:
            return
        if self.parts is None or self.classes is not None:
            raise InputError("--category: is for a parts head alone; leave it out")
        if self.category not in self.parts.card.classes:
            known = ", ".join(self.parts.card.classes) or "none"
            raise InputError(f"--category {self.category}: not known to {self.parts.directory}; it has {known}")

    def _graph(self, session: Session) -> Tokens:
        session.check(self.card)
        budget = self.budget if self.card.budgets else None
        return lambda centers, neighborhoods: session.run(
            {"centers": centers, "neighborhoods": neighborhoods}, ["tokens"], budget
        )["tokens"]

    def read(self, clouds: Sequence[np.ndarray]) -> tuple[geometry.Batch, np.ndarray]:
        """The network's input for clouds [n,3], and token features [B,G,D]."""
        size = self.card.preprocessing
        limit = max(MAX_PART_POINTS, size.points)
        batch = geometry.prepare_batch(clouds, size.points, size.groups, size.neighbors, limit, upsample=False)
        return batch, self._tokens(batch.centers, batch.neighborhoods)

    def class_answers(self, tokens: np.ndarray) -> ClassAnswers:
        """What the head of classes says of token features [B,G,D]."""
        return self.classes.classify(tokens[..., : self.classes.card.width])  # the last features come first

    def part_answers(
        self, points: np.ndarray, index: np.ndarray, tokens: np.ndarray, centers: np.ndarray, category: str | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The part int16 [n] of every point [n,3] of one object, and its probability float32 [n].

        Args:
            index: int64 [N], the network's points among these; tokens: [G,D]; centers: [G,3].
            category: restricts the parts to those seen on it, where the head knows it.
        """
        card, classes = self.parts.card, self.parts.card.classes
        if card.category and category not in classes:
            return np.full(len(points), -1, np.int16), np.zeros(len(points), np.float32)
        points = np.asarray(points, np.float32)
        _, middle, radius = geometry.normalize(points[index])
        sampled = np.arange(0, len(points), -(-len(points) // MAX_PART_POINTS))
        asked = (points[sampled] - middle) / np.float32(radius)
        upsampling = geometry.interpolation(asked, centers)
        told = np.array([classes.index(category)]) if card.category else None
        inputs = (tokens[..., : card.width], centers, asked, *upsampling)
        logits = self.parts.part_logits(*(np.asarray(value)[None] for value in inputs), told)[0]  # (n, P)
        names = card.class_parts.get(category or "", card.parts)
        allowed = np.array([card.parts.index(name) for name in names], np.int64)
        return part_labels(points, sampled, np.ascontiguousarray(logits, np.float32), allowed)

    def classify(self, clouds: Sequence[np.ndarray], batch: int = 4) -> list[Prediction]:
        """Name objects, each given by points [n,3] in any unit, z up, n >= 1; finite.

        Without a head of classes the label is the category that was given, or unknown.

        Raises:
            InputError: the parts head must be told the category, and nothing tells it.
        """
        if self.parts and self.parts.card.category and self.classes is None and self.category is None:
            raise InputError(f"{self.parts.directory}: is told the category; give --category or a head of classes")
        answers = []
        for start in range(0, len(clouds), batch):
            chosen = [np.asarray(points, np.float32) for points in clouds[start : start + batch]]
            made, tokens = self.read(chosen)
            said = self.class_answers(tokens) if self.classes else None
            for row, points in enumerate(chosen):
                label, best, probabilities = self._label(said, row)
                category = label if self.category is None and said is not None else self.category
                if self.parts is None or (said is not None and best < 0):
                    parts = np.full(len(points), -1, np.int16), np.zeros(len(points), np.float32)
                else:
                    parts = self.part_answers(points, made.index[row], tokens[row], made.centers[row], category)
                ranking = np.argsort(-probabilities, kind="stable")[:5].tolist()
                names = self.classes.card.classes if self.classes else []
                answers.append(
                    Prediction(
                        label,
                        best,
                        float(probabilities.max()) if said else float(best >= 0),
                        [(names[k], float(probabilities[k])) for k in ranking],
                        best < 0,
                        *parts,
                        probabilities=probabilities,
                    )
                )
        return answers

    def _label(self, said: ClassAnswers | None, row: int) -> tuple[str, int, np.ndarray]:
        """Label, class index (-1: unknown) and probabilities [C] of one object."""
        if said is None:
            if self.category is None:
                return UNKNOWN, -1, np.empty(0)
            return self.category, self.parts.card.classes.index(self.category), np.empty(0)
        best = int(said.probabilities[row].argmax())
        if said.unknown[row]:
            return UNKNOWN, -1, said.probabilities[row]
        return self.classes.card.classes[best], best, said.probabilities[row]

    def perceive(self, cloud: Cloud) -> Perception:
        """Find the objects of a cloud (sensor axes: x forward, y left, z up; metres) and name them."""
        scene = find_segments(cloud, SceneConfig())
        start = time.perf_counter()
        predictions = self.classify([segment.points for segment in scene.segments])
        phases = {**scene.phases_ms, "heads": 1e3 * (time.perf_counter() - start)}
        objects = [Object(*pair) for pair in zip(scene.segments, predictions, strict=True)]
        return Perception(objects, phases, scene, [self.budget or 0] * len(objects))
