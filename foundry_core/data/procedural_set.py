# SPDX-License-Identifier: Apache-2.0
"""The parametric categories as a shape set with exact parts, drawn anew from a seed: no file, no download."""

from __future__ import annotations

import numpy as np

from foundry_core.data.mesh import sample_surface
from foundry_core.data.procedural import CATEGORIES, PART_NAMES, make_shape
from foundry_core.data.shapes import ShapeSet
from foundry_core.data.stream import random_rotation

#: the name that commands take in the place of a file
PROCEDURAL = "procedural"


def procedural_shapes(train: int = 40, test: int = 15, points: int = 2048, seed: int = 0) -> ShapeSet:
    """A shape set of ``train`` and ``test`` shapes of every category, each turned about z by a random angle.

    A shape is a pure function of seed, split, category and number: other counts give the same first shapes.
    """
    clouds, labels, parts, split = [], [], [], []
    for side, count in ((0, train), (1, test)):
        for label, category in enumerate(CATEGORIES):
            for number in range(count):
                rng = np.random.default_rng([seed, side, label, number])
                cloud, part = sample_surface(make_shape(category, rng), points, rng)
                clouds.append(cloud @ random_rotation(rng, "z").T)
                parts.append(part)
                labels.append(label)
                split.append(side)
    return ShapeSet(
        name=PROCEDURAL,
        points=np.stack(clouds),
        label=np.array(labels),
        class_names=CATEGORIES,
        part_label=np.stack(parts),
        part_names=PART_NAMES,
        split=np.array(split, np.int8),
    )
