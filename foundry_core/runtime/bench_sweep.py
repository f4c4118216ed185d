# SPDX-License-Identifier: Apache-2.0
"""A whole sweep as a subject of the benchmark: what time and memory grow to with the points of a frame."""

from __future__ import annotations

import numpy as np

from foundry_core.runtime.bench_worker import Spec, Subject
from foundry_core.runtime.macs import macs

BOXES = 60
HEIGHT, REACH = 1.7, 38.0  # metres: of the sensor above the ground, of the boxes around it


def street(points: int, seed: int = 0) -> np.ndarray:
    """float32 [points,3], sensor frame: a flat ground, seven tenths of the points, and boxes of vehicle size on it."""
    rng = np.random.default_rng(seed)
    ground = points * 7 // 10
    at = rng.uniform(-REACH, REACH, (ground, 3))
    at[:, 2] = rng.normal(-HEIGHT, 0.01, ground)
    number = rng.integers(0, BOXES, points - ground)
    corner = rng.uniform(-REACH, REACH, (BOXES, 2))
    size = rng.uniform((1.0, 0.5, 0.8), (4.5, 2.0, 2.0), (BOXES, 3))
    inside = rng.uniform(size=(points - ground, 3))
    axis = rng.integers(0, 2, len(inside))  # a returning ray hits a side
    inside[np.arange(len(inside)), axis] = np.round(inside[np.arange(len(inside)), axis])
    sides = inside * size[number]
    sides[:, :2] += corner[number]
    sides[:, 2] += 0.2 - HEIGHT
    return rng.permutation(np.concatenate([at, sides]).astype(np.float32))


def open_sweep(spec: Spec) -> Subject:
    """The scene as ``prepare``, and naming all its segments, heads included, as ``run``."""
    from foundry_core.clouds import Cloud
    from foundry_core.runtime.perceiver import Perceiver, PerceiverConfig
    from foundry_core.scene.segment import find_segments

    config = PerceiverConfig(runtime=spec.runtime, precision=spec.precision, threads=spec.threads)
    perceiver = Perceiver(spec.directory, config, spec.budget)
    perceiver.warm_up()
    cloud = Cloud.from_points(street(spec.sweep))

    def prepare(_batch) -> dict:
        return {"segments": [segment.points for segment in find_segments(cloud, config.scene).segments]}

    operations = macs(perceiver.card, perceiver.budget, spec.outputs)
    return Subject(
        prepare,
        lambda inputs: perceiver.classify(inputs["segments"]),
        spec.sweep,
        perceiver.card.parameters,
        operations,
    )
