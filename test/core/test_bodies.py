# SPDX-License-Identifier: Apache-2.0
"""Bodies with limbs: smooth tubes, hollow where they meet, mirrored, and part of the stream when asked for."""

from dataclasses import replace

import numpy as np
import pytest
from procedural_shapes import seeded_and_varied

from foundry_core.data.bodies import NODES, Tube, _tubes, make_body
from foundry_core.data.inside import inside_chains
from foundry_core.data.stream import ShapeStream, StreamConfig


def straight(length: float = 2.0, radius: float = 0.3, flatness: float = 1.0) -> Tube:
    centers = np.linspace(0, length, NODES)[:, None] * [0.0, 0.0, 1.0]
    return Tube(centers, np.tile([1.0, 0.0, 0.0], (NODES, 1)), np.full(NODES, radius), flatness)


def test_samples_of_a_tube_lie_on_its_surface_evenly():
    tube = straight()
    points = tube.sample(20_000, np.random.default_rng(0))
    nearest = np.clip(points[:, 2], 0, 2)[:, None] * [0.0, 0.0, 1.0]
    assert np.allclose(np.linalg.norm(points - nearest, axis=1), 0.3, atol=1e-9)  # a capsule
    side = 2 * np.pi * 0.3 * 2.0
    assert ((points[:, 2] > 0) & (points[:, 2] < 2)).mean() == pytest.approx(side / (side + 4 * np.pi * 0.09), abs=0.02)
    assert np.histogram(points[:, 2], 8, (0, 2))[0].std() < 0.1 * len(points) / 8
    flat = straight(flatness=0.25).sample(5000, np.random.default_rng(1))
    assert np.abs(flat[:, 0]).max() <= 0.25 * 0.3 + 1e-9 < 0.29 < np.abs(flat[:, 1]).max()


def naive_inside(point: np.ndarray, tube: Tube) -> bool:
    for center, normal, radius in zip(tube.centers, tube.normals, tube.radii):
        offset = point - center
        across = offset @ normal
        flattened = offset - across * normal + across / tube.flatness * normal
        if np.linalg.norm(flattened) < 0.97 * radius:
            return True
    return False


def test_what_is_inside_a_chain_is_what_the_definition_says():
    rng = np.random.default_rng(2)
    tubes = _tubes(rng)
    arrays = [np.stack([getattr(tube, name) for tube in tubes]) for name in ("centers", "normals", "radii", "flatness")]
    points = np.concatenate([tube.sample(20, rng) for tube in tubes])
    for without in (-1, 0, len(tubes) - 1):
        others = [tube for i, tube in enumerate(tubes) if i != without]
        expected = [any(naive_inside(point, tube) for tube in others) for point in points]
        assert np.array_equal(inside_chains(points, *arrays, without=without), expected)
        assert 0 < sum(expected) < len(points)


def test_the_image_behind_the_mirror_is_a_tube_like_it():
    tube = next(tube for tube in _tubes(np.random.default_rng(5)) if abs(tube.centers[-1, 1]) > 0.1)
    image = tube.mirrored()
    assert np.array_equal(image.centers, tube.centers * [1, -1, 1]) and np.array_equal(image.radii, tube.radii)
    points = image.sample(500, np.random.default_rng(0)) * [1, -1, 1]
    thinner, thicker = (replace(tube, radii=tube.radii * factor) for factor in (0.95, 1.1))
    assert not any(naive_inside(point, thinner) for point in points)
    assert np.mean([naive_inside(point, thicker) for point in points]) > 0.95


def test_bodies_are_seeded_varied_smooth_and_of_limbs():
    seeded_and_varied(make_body)
    counts = [len(_tubes(np.random.default_rng(seed))) for seed in range(60)]
    assert min(counts) >= 2 and max(counts) > 12


def test_the_stream_draws_bodies_when_asked_and_is_what_it_was_otherwise():
    without, bodies = StreamConfig(), StreamConfig(compositions=0, categories=0, bodies=1.0)
    assert not without.bodies and len(ShapeStream(without, 64, 0).sources) == 2
    stream = ShapeStream(bodies, 64, 0)
    assert stream[3].shape == (64, 3) and not np.array_equal(stream[3], stream[4])
    assert [data.name for data in stream.provenance()] == ["procedural bodies"]
