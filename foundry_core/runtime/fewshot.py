# SPDX-License-Identifier: Apache-2.0
"""Taught classes beside a model's own: nearest neighbours among a few exemplars, in whitened features.

Features are centred and whitened with the statistics of ordinary objects (the pooled covariance within their classes,
shrunk), then scaled to length 1; classes are compared by cosine, to each exemplar and to their mean, as in nearest-mean
few-shot learning with whitened features (SimpleCNAPS, Bateni et al., 2020; FeCAM, Goswami et al., 2023).
An object is of a taught class when it is nearer to it than to ordinary objects by a margin that ordinary objects
themselves do not reach, and the surer the model is of a class of its own, the larger that margin: so those stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: share of the identity in the covariance
SHRINKAGE = 0.2
#: ordinary objects that an object is compared with, the nearest ones
NEAREST = 3
#: margin that the model's own probability p takes away, times log(p / (1 - p))
DOUBT = 0.03
#: share of the ordinary objects that stay below a taught class's threshold
QUANTILE = 0.997
#: where the threshold lies between the ordinary objects and the exemplars, each of which is judged by the others
BETWEEN = 0.25
#: least threshold, for classes that no ordinary object comes near
LEAST = 0.03
#: margin over the threshold at which the odds of a taught class grow by e
SOFTNESS = 0.04


def _doubt(probability: np.ndarray) -> np.ndarray:
    probability = np.clip(probability, 1e-3, 1 - 1e-3)
    return DOUBT * np.log(probability / (1 - probability))


@dataclass(frozen=True)
class Whitening:
    """Features centred and whitened by the pooled covariance within classes, and scaled to length 1.

    Attributes:
        center: float [F].
        matrix: float [F,F].
    """

    center: np.ndarray
    matrix: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, classes: np.ndarray, shrinkage: float = SHRINKAGE) -> Whitening:
        """From features [R,F] and their classes int [R]; a share ``shrinkage`` of the covariance is the identity's."""
        features = np.asarray(features, np.float64)
        center = features.mean(axis=0)
        _, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
        sums = np.zeros((len(counts), features.shape[1]))
        np.add.at(sums, inverse, features)
        within = features - (sums / counts[:, None])[inverse]
        covariance = within.T @ within / max(len(features) - len(counts), 1)
        scale = max(float(np.trace(covariance)) / len(covariance), 1e-12)
        covariance = (1 - shrinkage) * covariance + shrinkage * scale * np.eye(len(covariance))
        values, vectors = np.linalg.eigh(covariance)
        return cls(center, vectors / np.sqrt(values))

    def units(self, features: np.ndarray) -> np.ndarray:
        """Unit vectors float64 [n,F] of features [n,F]."""
        white = (np.asarray(features, np.float64) - self.center) @ self.matrix
        return white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)


def class_means(units: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Mean directions, unit vectors [count,F], of the classes of unit vectors [R,F]; each of them has a member."""
    sums = np.zeros((count, units.shape[1]))
    np.add.at(sums, classes, units)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def nearest_cosine(units: np.ndarray, others: np.ndarray, own: bool = False) -> np.ndarray:
    """Mean cosine [n] of unit vectors [n,F] to the :data:`NEAREST` of ``others`` [R,F]; with ``own`` the vectors are
    these, each compared without itself."""
    cosine = units @ others.T
    if own:
        np.fill_diagonal(cosine, -1.0)
    count = min(NEAREST, cosine.shape[1] - own)
    return np.partition(cosine, -count, axis=1)[:, -count:].mean(axis=1)


class Space:
    """Whitened features, and the ordinary objects in them.

    Args:
        features: float [R,F] of ordinary objects.
        classes: int [R], their classes.
        probabilities: float [R], what the model gives its best class for each.
    """

    def __init__(self, features: np.ndarray, classes: np.ndarray, probabilities: np.ndarray) -> None:
        self._whitening = Whitening.fit(features, classes)
        self.ordinary = self.embed(features)
        #: what each ordinary object's similarity to a taught class is held against
        self.bar = self._nearest(self.ordinary, own=True) + _doubt(np.asarray(probabilities, np.float64))

    def embed(self, features: np.ndarray) -> np.ndarray:
        """Unit vectors float64 [n,F] of features [n,F]."""
        return self._whitening.units(features)

    def _nearest(self, units: np.ndarray, own: bool = False) -> np.ndarray:
        """Mean cosine [n] to the nearest ordinary objects; with ``own`` the units are these, each without itself."""
        return nearest_cosine(units, self.ordinary, own)

    def bar_of(self, units: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """What the similarity [n] of units [n,F] is held against, given the model's best probabilities [n]."""
        return self._nearest(units) + _doubt(probabilities)


def _similarity(units: np.ndarray, exemplars: np.ndarray) -> np.ndarray:
    """Largest cosine [n] of units [n,F] to the exemplars [E,F] and to their mean."""
    mean = exemplars.mean(axis=0)
    centers = np.vstack([exemplars, mean / max(float(np.linalg.norm(mean)), 1e-12)])
    return (units @ centers.T).max(axis=1)


@dataclass(frozen=True)
class FewShotHead:
    """Taught classes, ready to judge.

    Attributes:
        labels: their names.
        exemplars: of each, unit vectors [E,F].
        thresholds: of each, the margin above which it wins.
    """

    space: Space
    labels: tuple[str, ...]
    exemplars: tuple[np.ndarray, ...]
    thresholds: np.ndarray

    @classmethod
    def fit(
        cls, space: Space, labels: Sequence[str], features: Sequence[np.ndarray], probabilities: Sequence[np.ndarray]
    ) -> FewShotHead:
        """A head for classes that are given by features [E,F], and the model's best probabilities [E], each; E >= 1."""
        exemplars = tuple(space.embed(rows) for rows in features)
        thresholds = []
        for units, own in zip(exemplars, probabilities, strict=True):
            ordinary = float(np.quantile(_similarity(space.ordinary, units) - space.bar, QUANTILE))
            threshold = ordinary
            if len(units) > 1:
                others = [_similarity(units[k : k + 1], np.delete(units, k, axis=0))[0] for k in range(len(units))]
                spread = float(np.median(np.array(others) - space.bar_of(units, own)))
                threshold += BETWEEN * max(spread - ordinary, 0.0)
            thresholds.append(max(threshold, LEAST))
        return cls(space, tuple(labels), exemplars, np.array(thresholds))

    def margins(self, probabilities: np.ndarray, features: np.ndarray) -> np.ndarray:
        """How much nearer [n,T] objects are to each taught class than to ordinary objects; arguments as extend."""
        units = self.space.embed(features)
        similarity = np.stack([_similarity(units, rows) for rows in self.exemplars], axis=1)
        return similarity - self.space.bar_of(units, probabilities.max(axis=1))[:, None]

    def extend(self, probabilities: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Probabilities [n,C+T] from those of the model's own classes [n,C] and features [n,F].

        The odds of a taught class grow with its margin over its threshold, where they are even. Below the threshold
        they never reach those of the best class of the model.
        """
        over = self.margins(probabilities, features) - self.thresholds  # (n, T)
        odds = np.exp(np.clip(over / SOFTNESS, -40.0, 40.0))
        odds = np.where(over > 0, odds, np.minimum(odds, 0.9 * probabilities.max(axis=1, keepdims=True)))
        extended = np.concatenate([probabilities, odds], axis=1)
        return extended / extended.sum(axis=1, keepdims=True)
