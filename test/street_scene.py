# SPDX-License-Identifier: Apache-2.0
"""A street in a few numbers: ground, a box and a pole, in the frame of a sensor 1.7 m above the ground."""

from __future__ import annotations

import numpy as np

BOX, POLE = (8.0, 3.0), (8.0, -3.0)


def street(seed: int = 0) -> np.ndarray:
    """Points float32 [N,3], metres: a cube of 1.2 m at BOX and a post of 2.4 m x 0.2 m at POLE on flat ground."""
    rng = np.random.default_rng(seed)
    ground = np.stack(np.meshgrid(np.arange(-20, 20, 0.25), np.arange(-20, 20, 0.25)), axis=-1).reshape(-1, 2)
    ground = np.column_stack([ground, -1.7 + rng.normal(0, 0.01, len(ground))])
    faces = rng.uniform(-0.6, 0.6, (1500, 3))
    axis = rng.integers(0, 3, 1500)
    faces[np.arange(1500), axis] = np.where(rng.random(1500) < 0.5, -0.6, 0.6)
    box = faces + [*BOX, -1.7 + 0.6]
    angle = rng.uniform(0, 2 * np.pi, 1200)
    post = np.column_stack([0.1 * np.cos(angle), 0.1 * np.sin(angle), rng.uniform(0, 2.4, 1200)])
    pole = post + [*POLE, -1.7]
    return np.concatenate([ground, box, pole]).astype(np.float32)
