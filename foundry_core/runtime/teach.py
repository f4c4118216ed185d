# SPDX-License-Identifier: Apache-2.0
"""Classes taught on the robot: exemplars, their file, and the objects that are recognised by them. Nothing is trained.

A teach file (.npz, plain arrays, written whole under a temporary name): ``format`` 1, ``model`` and ``fingerprint``
(SHA-256 of the weights that made the features), ``labels`` text [E], ``features`` float32 [E,F] and
``probabilities`` float32 [E] (of the model's best class) of the exemplars in the order in which they were taught, and
``ordinary`` [R,F], ``ordinary_class`` int16 [R] and ``ordinary_probability`` [R] of what they are told apart from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foundry_core.card import ModelCard
from foundry_core.errors import InputError
from foundry_core.files import replacing
from foundry_core.head_card import fingerprint
from foundry_core.runtime.fewshot import FewShotHead, Space
from foundry_core.runtime.objects import OTHER, UNKNOWN

FORMAT = 1
MAX_EXEMPLARS, MAX_LABEL = 2000, 64
_ARRAYS = ("labels", "features", "probabilities", "ordinary", "ordinary_class", "ordinary_probability")
_KEYS = ("format", "model", "fingerprint", *_ARRAYS)


class Ordinary(NamedTuple):
    """Ordinary objects: features float32 [R,F], classes int16 [R], and the model's best probability float32 [R]."""

    features: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray


class TaughtClasses:
    """Exemplars of classes that the model does not have; one writer, any number of readers in other threads.

    Attributes:
        head: judges objects; None as long as nothing is taught or ordinary objects are not known. It is replaced as a
            whole by every change.

    Args:
        card: of the model whose features the exemplars are.
    """

    def __init__(self, card: ModelCard) -> None:
        self.card = card
        self.head: FewShotHead | None = None
        self._labels: list[str] = []
        self._features = np.empty((0, 2 * card.architecture.token_width), np.float32)
        self._probabilities = np.empty(0, np.float32)
        self._ordinary: Ordinary | None = None
        self._space: Space | None = None

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> list[str]:
        """Taught classes in the order in which they were first taught; their ids follow those of the model."""
        return list(dict.fromkeys(self._labels))

    @property
    def ready(self) -> bool:
        """Ordinary objects are known, so taught classes are recognised."""
        return self._space is not None

    def set_ordinary(self, ordinary: Ordinary) -> None:
        """Say what the exemplars are told apart from, see :func:`ordinary_objects`.

        Raises:
            InputError: arrays that do not fit, fewer than two objects, or values that are not finite.
        """
        kinds = (np.float32, np.int16, np.float32)
        made = Ordinary(*(np.asarray(column).astype(kind) for column, kind in zip(ordinary, kinds, strict=True)))
        shape = (len(made.classes), self._features.shape[1])
        if made.features.shape != shape or not made.classes.shape == made.probabilities.shape == shape[:1]:
            raise InputError(f"ordinary objects: features {made.features.shape} do not fit model {self.card.name}")
        if shape[0] < 2 or not (np.isfinite(made.features).all() and np.isfinite(made.probabilities).all()):
            raise InputError("ordinary objects: at least two with finite features are needed")
        self._ordinary, self._space = made, Space(*made)
        self._fit()

    def check_label(self, label: str) -> str:
        """The label, trimmed.

        Raises:
            InputError: empty, too long, not printable, or a class that the model has.
        """
        label = label.strip()
        if not label or len(label) > MAX_LABEL or not label.isprintable():
            raise InputError(f"label {label[:MAX_LABEL]!r}: give a name of 1 to {MAX_LABEL} printable characters")
        heads = self.card.heads
        if label in (UNKNOWN, OTHER) or (heads.objects and label in heads.objects.classes):
            raise InputError(f"label '{label}': {self.card.name} has this class; give a new name")
        return label

    def add(self, label: str, features: np.ndarray, probability: float) -> int:
        """Add one exemplar: its features [F] and the model's best probability for it; returns how many its class has.

        Raises:
            InputError: see :meth:`check_label`; or features that do not fit, or too many exemplars.
        """
        label = self.check_label(label)
        features = np.asarray(features, np.float32)
        if features.shape != self._features.shape[1:] or not np.isfinite([*features, probability]).all():
            raise InputError(f"label '{label}': features {features.shape} do not fit model {self.card.name}")
        if len(self) >= MAX_EXEMPLARS:
            raise InputError(f"label '{label}': {MAX_EXEMPLARS} exemplars are the limit; forget some")
        self._labels, self._features = [*self._labels, label], np.vstack([self._features, features])
        self._probabilities = np.append(self._probabilities, np.float32(probability))
        self._fit()
        return self._labels.count(label)

    def forget(self, label: str = "") -> str:
        """Remove a class with all its exemplars, or the exemplar that was taught last when ``label`` is empty.

        Returns:
            what was removed, in words.

        Raises:
            InputError: there is no such class, or nothing to forget.
        """
        label = label.strip()
        if not self._labels:
            raise InputError("nothing has been taught")
        if label and label not in self._labels:
            raise InputError(f"label '{label}': not taught; taught are {', '.join(self.labels)}")
        if label:
            kept = np.array([name != label for name in self._labels])
            said = f"forgot '{label}' with {int((~kept).sum())} exemplars"
        else:
            kept = np.arange(len(self)) < len(self) - 1
            said = f"forgot the last exemplar, of '{self._labels[-1]}'"
        self._labels = [name for name, stays in zip(self._labels, kept, strict=True) if stays]
        self._features, self._probabilities = self._features[kept], self._probabilities[kept]
        self._fit()
        return said

    def _fit(self) -> None:
        names = self.labels
        if self._space is None or not names:
            self.head = None
            return
        rows = [np.array(self._labels) == name for name in names]
        features, probabilities = ([column[own] for own in rows] for column in (self._features, self._probabilities))
        self.head = FewShotHead.fit(self._space, names, features, probabilities)

    def save(self, path: str | Path) -> None:
        """Write the teach file; what was there stays until the new one is complete.

        Raises:
            InputError: the card does not say which weights made the features, or the path is no file.
            OSError: it cannot be written.
        """
        path = Path(path)
        ordinary = self._ordinary or Ordinary(self._features[:0], np.empty(0, np.int16), np.empty(0, np.float32))
        with replacing(path) as stream:
            np.savez(
                stream,
                format=np.int64(FORMAT),
                model=np.array(self.card.name),
                fingerprint=np.array(fingerprint(self.card)),
                labels=np.array(self._labels, dtype=f"<U{MAX_LABEL}"),
                features=self._features,
                probabilities=self._probabilities,
                ordinary=ordinary.features,
                ordinary_class=ordinary.classes,
                ordinary_probability=ordinary.probabilities,
            )

    @classmethod
    def load(cls, path: str | Path, card: ModelCard) -> TaughtClasses:
        """Read a teach file.

        Raises:
            InputError: missing, damaged, of another format, or made with another model.
        """
        path = Path(path)
        values = _read(path)
        if values["format"].shape != () or values["format"].item() != FORMAT:
            raise InputError(f"{path}: format: this version reads format {FORMAT}; teach the classes again")
        if str(values["fingerprint"]) != fingerprint(card):
            name = "".join(c if c.isprintable() else "?" for c in str(values["model"])[:MAX_LABEL])
            raise InputError(f"{path}: was taught with another model ('{name}'), not this {card.name}; teach it again")
        taught = cls(card)
        labels, features, probabilities, *ordinary = (values[key] for key in _ARRAYS)
        fits = features.ndim == 2 and features.shape[:1] == probabilities.shape == labels.shape
        if not fits or labels.dtype.kind != "U" or ordinary[0].ndim != 2:
            raise InputError(f"{path}: labels {labels.shape} and features {features.shape} do not fit; teach it again")
        try:
            for label, row, probability in zip(labels.tolist(), features, probabilities.tolist(), strict=True):
                taught.add(label, row, probability)
            if len(ordinary[0]):
                taught.set_ordinary(Ordinary(*ordinary))
        except (InputError, TypeError, ValueError) as error:
            raise InputError(f"{path}: {error}") from None
        return taught


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in _KEYS if key not in archive.files]
            if missing:
                raise InputError(f"{path}: no array '{missing[0]}'; is it a file of `foundry teach`?")
            return {key: archive[key] for key in _KEYS}
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it with `foundry teach` or the service ~/teach/save") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); give another teach file") from None
    except Exception:  # numpy, its header's parser, zipfile and zlib raise what they meet
        raise InputError(f"{path}: not a teach file, or a damaged one; teach the classes again") from None


def ordinary_objects(
    perceiver, per_class: int = 14, seed: int = 0, between: Callable[[], object] = lambda: None
) -> Ordinary:
    """Simulated sensor views of the objects that the model knows, as the model sees them.

    Compositions of primitives are one more class, clutter. Takes some seconds.

    Args:
        between: is called before every object; what it raises ends the work.
    """
    from foundry_core.data.compositions import compose
    from foundry_core.data.procedural import CATEGORIES, make_shape
    from foundry_core.data.views import sensor_view

    heads = perceiver.card.heads
    known = [name for name in CATEGORIES if heads.objects and name in heads.objects.classes] or CATEGORIES
    answers, classes = [], []
    for number, name in enumerate([*known, OTHER]):
        clouds = []
        for member in range(per_class):
            between()
            rng = np.random.default_rng([seed, number, member])
            if name == OTHER:
                points = compose(1024, rng)
            else:
                mesh = make_shape(name, rng)
                points, _ = sensor_view(mesh, rng, ground_cut=rng.choice([0.0, 0.1]) * float(mesh.bounds[1][2]))
                points = points[points[:, 2] < perceiver.config.scene.max_height]
            if len(points) >= 2:
                clouds.append(np.asarray(points, np.float32))
        answers += perceiver.classify(clouds)
        classes += [number] * len(clouds)
    best = np.array([answer.probabilities.max() for answer in answers], np.float32)
    return Ordinary(np.stack([answer.evidence.features for answer in answers]), np.array(classes, np.int16), best)


def extend(
    head: FewShotHead | None, probabilities: Sequence[np.ndarray], features: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Probabilities [C+T] of objects from those of the model's own classes [C] and features [F]; as they are without
    a head."""
    if head is None or not len(probabilities):
        return list(probabilities)
    return list(head.extend(np.stack(probabilities), np.stack(features)))
