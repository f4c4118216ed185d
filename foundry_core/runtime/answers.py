# SPDX-License-Identifier: Apache-2.0
"""From what the network says of an object to the answer: classes that can occur, sizes, the unknown, allowed parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foundry_core.card import ModelCard
from foundry_core.errors import InputError
from foundry_core.runtime.objects import OTHER, UNKNOWN, Evidence, Prediction
from foundry_core.runtime.parts import part_labels
from foundry_core.runtime.sizes import log_likelihood


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64 [...,C] of logits [...,C]."""
    shifted = np.exp(np.asarray(logits, np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


class Answers:
    """What the card of a model with an object head, and the settings, make of logits.

    Attributes:
        possible: bool [C], the head's classes that can occur.

    Args:
        unknown_threshold: below this probability the answer is unknown; None: the card's.
        classes: those that can occur, separated by commas; empty: all of the card's. ``other`` always can.
        source: of the card, for errors.

    Raises:
        InputError: a class that the card does not have, or a part of a class that is none of its parts.
    """

    def __init__(
        self, card: ModelCard, unknown_threshold: float | None = None, classes: str = "", source: str | Path = ""
    ) -> None:
        self._head = head = card.heads.objects
        self._threshold = head.unknown_threshold if unknown_threshold is None else unknown_threshold
        named = {name.strip() for name in classes.split(",")} - {""}
        if strange := sorted(named - set(head.classes)):
            raise InputError(f"classes: '{strange[0]}' is none of the model's: {', '.join(head.classes)}")
        self.possible = np.array([not named or name in named or name == OTHER for name in head.classes])  # (C,)
        self._largest = np.array([head.largest_m.get(name, np.inf) for name in head.classes])  # (C,)
        self._allowed = _allowed_parts(card, source or card.name)

    def probabilities(self, logits: np.ndarray, diagonals: Sequence[float] | None = None) -> np.ndarray:
        """Calibrated probabilities float64 [B,C] from logits [B,C], for objects of these diagonals in metres, if known.

        With them, probabilities are weighed with how often each class is seen at such a size, and classes that the
        objects are too large for are out. That is only an upper bound: what a sensor sees of an object can be any
        smaller.
        """
        scaled = np.where(self.possible, logits.astype(np.float64) / self._head.temperature, -np.inf)
        probabilities = softmax(scaled)
        if diagonals is None:
            return probabilities
        if self._head.sizes is not None:
            probabilities = probabilities * np.exp(log_likelihood(self._head.sizes, diagonals, self._head.classes))
            probabilities /= probabilities.sum(axis=1, keepdims=True)
        kept = np.where(np.asarray(diagonals)[:, None] <= self._largest, probabilities, 0.0)
        total = kept.sum(axis=1, keepdims=True)
        return np.where(total > 0, kept / np.maximum(total, 1e-300), probabilities)

    def answer(
        self,
        points: np.ndarray,
        evidence: Evidence | None,
        probabilities: np.ndarray,
        taught: Sequence[str] = (),
        before: Prediction | None = None,
    ) -> Prediction:
        """The answer for an object's points [n,3], given probabilities [C] of the head's and then the taught classes.

        What they give to classes that cannot occur (as the floor under fused ones does) goes to the others. Parts are
        those of the class; they are taken from ``before``, an answer for the same points, where it has them. Without
        evidence there are none.
        """
        classes = [*self._head.classes, *taught]
        if not self.possible.all():
            probabilities = np.where([*self.possible, *[True] * len(taught)], probabilities, 0.0)
            probabilities = probabilities / probabilities.sum()
        ranking = np.argsort(-probabilities, kind="stable")
        best = int(ranking[0])
        probability = float(probabilities[best])
        unknown = classes[best] == OTHER or probability < self._threshold
        allowed = self._allowed[best] if best < len(self._allowed) else ()
        if unknown or evidence is None or evidence.part_logits is None or not len(allowed):
            part_ids, part_probability = np.full(len(points), -1, np.int16), np.zeros(len(points), np.float32)
        elif before is not None and before.class_id == best:
            part_ids, part_probability = before.part_ids, before.part_probability
        else:
            part_ids, part_probability = part_labels(points, evidence.sampled, evidence.part_logits, allowed)
        return Prediction(
            UNKNOWN if unknown else classes[best],
            -1 if unknown else best,
            probability,
            [(classes[k], float(probabilities[k])) for k in ranking[:5].tolist()],
            unknown,
            part_ids,
            part_probability,
            evidence,
            probabilities,
        )


def _allowed_parts(card: ModelCard, source: str | Path) -> list[np.ndarray]:
    """For each class the indices of the parts that it can have."""
    classes, parts = card.heads.objects.classes, card.heads.parts
    if parts is None:
        return [np.empty(0, np.int64) for _ in classes]
    position = {name: index for index, name in enumerate(parts.parts)}
    unknown = {part for names in parts.class_parts.values() for part in names} - position.keys()
    if unknown:
        raise InputError(f"{source}: class_parts names '{min(unknown)}', which is none of the parts; fix the card")
    allowed = [sorted(position[part] for part in parts.class_parts.get(name, [])) for name in classes]
    return [np.array(indices, np.int64) for indices in allowed]
