# SPDX-License-Identifier: Apache-2.0
"""Clouds as a robot meets them: seven corruptions at five severities, a pure function of a seed.

The kinds are those of ModelNet40-C (Sun et al., Benchmarking robustness of 3D point cloud recognition against common
corruptions, 2022) and PointCloud-C (Ren et al., 2022). Occlusion is by hidden-point removal, since shape sets have no
surface, and rotation reaches any orientation. Every function takes points [n,3] centred in the unit sphere, a severity
1 to 5 and a generator, and returns float32 [m,3]; at least ``MIN_POINTS`` of the points stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from scipy.spatial.transform import Rotation

from foundry_core import geometry
from foundry_core.data.visibility import hidden_point_removal
from foundry_core.errors import InputError

#: kind and severity of a corruption
Shift = tuple[str, int]

SEVERITIES = (1, 2, 3, 4, 5)
MIN_POINTS = 32


def _direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def jitter(points: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of deviation 0.01 to 0.05 radii on every coordinate."""
    return points + rng.normal(0, 0.01 * severity, points.shape)


def outliers(points: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """1 to 5 % more points, uniform in the cube of half-side one radius."""
    count = max(1, round(len(points) * 0.01 * severity))
    return np.concatenate([points, rng.uniform(-1, 1, (count, 3))])


def dropout_global(points: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A share of the points is lost at random: 1/4, 1/2, 3/4, 7/8, 15/16."""
    lost = (0.25, 0.5, 0.75, 0.875, 0.9375)[severity - 1]
    keep = max(MIN_POINTS, round(len(points) * (1 - lost)))
    return points[rng.permutation(len(points))[:keep]]


def dropout_local(points: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """10 to 50 % of the points are lost in holes: 1 to 8 spots, each with its nearest points."""
    spots = int(rng.integers(1, 9))
    lost = round(len(points) * 0.1 * severity)
    for share in np.diff(np.linspace(0, lost, spots + 1).round().astype(int)):
        share = min(int(share), len(points) - MIN_POINTS)
        if share > 0:
            center = points[rng.integers(len(points))]
            points = points[np.argsort(((points - center) ** 2).sum(axis=1), kind="stable")[share:]]
    return points


def occlusion(points: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Only what can be seen stays: from 4, 3, 2 random sides, from 1, and from 1 with a third hidden by something."""
    views = max(1, 5 - severity)
    seen = [hidden_point_removal(points, _direction(rng) * rng.uniform(2.0, 4.0)) for _ in range(views)]
    visible = points[np.unique(np.concatenate(seen))]
    if severity == 5:
        along = visible @ _direction(rng)
        visible = visible[along <= np.quantile(along, 2 / 3)]
    return visible if len(visible) >= MIN_POINTS else points


def density(points: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Half the points stay, drawn with probability 1/r^p of their distance to a near sensor, p = 1, 2, 3, 4, 6."""
    power = (1, 2, 3, 4, 6)[severity - 1]
    weight = np.linalg.norm(points - 1.25 * _direction(rng), axis=1) ** -float(power)
    keep = min(len(points), max(MIN_POINTS, len(points) // 2))
    # exponential keys give draws without replacement in proportion to the weights (Efraimidis and Spirakis, 2006)
    return points[np.sort(np.argsort(rng.exponential(size=len(points)) / weight)[:keep])]


def rotation(points: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Turned about a random axis by up to 15, 30, 60 and 90 degrees; at 5 by any rotation, uniform in SO(3)."""
    if severity == 5:
        return points @ Rotation.random(random_state=rng).as_matrix().T
    angle = np.radians((15, 30, 60, 90)[severity - 1]) * rng.uniform(-1, 1)
    return points @ Rotation.from_rotvec(angle * _direction(rng)).as_matrix().T


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "jitter": jitter,
    "outliers": outliers,
    "dropout-global": dropout_global,
    "dropout-local": dropout_local,
    "occlusion": occlusion,
    "density": density,
    "rotation": rotation,
}


def corrupt(points: np.ndarray, kind: str, severity: int, seed: int, index: int) -> np.ndarray:
    """Points float32 [m,3] of cloud number ``index``, corrupted; the input [n,3] is normalised first."""
    centered, _, _ = geometry.normalize(points)
    rng = np.random.default_rng([seed, list(CORRUPTIONS).index(kind), severity, index])
    return CORRUPTIONS[kind](centered, severity, rng).astype(np.float32)


def corrupt_all(clouds: Iterable[np.ndarray], kind: str, severity: int, seed: int) -> list[np.ndarray]:
    """:func:`corrupt` for every cloud; their sizes may differ afterwards."""
    return [corrupt(cloud, kind, severity, seed, index) for index, cloud in enumerate(clouds)]


def parse_shifts(texts: Iterable[str]) -> list[Shift]:
    """:func:`parse_shift` of all texts, each pair once, in their order."""
    return list(dict.fromkeys(pair for text in texts for pair in parse_shift(text)))


def parse_shift(text: str) -> list[Shift]:
    """``kind`` or ``kind:severity`` to (kind, severity) pairs; without a severity all five.

    Raises:
        InputError: an unknown kind or severity, by name.
    """
    kind, _, severity = text.partition(":")
    if kind not in CORRUPTIONS:
        raise InputError(f"--shift {text}: unknown corruption; use one of {', '.join(CORRUPTIONS)}")
    if not severity:
        return [(kind, number) for number in SEVERITIES]
    if severity not in map(str, SEVERITIES):
        raise InputError(f"--shift {text}: unknown severity; use 1 to 5")
    return [(kind, int(severity))]
