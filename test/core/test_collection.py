# SPDX-License-Identifier: Apache-2.0
"""The collection of segments: bounded, a fair sample, no repeated sightings, never torn on disk."""

from __future__ import annotations

import os

import numpy as np
import pytest

from foundry_core.data.collection import SegmentCollection
from foundry_core.data.shapes import load_shapes
from foundry_core.data.stream import ShapeFile, ShapeStream, StreamConfig
from foundry_core.errors import InputError

CENTER = np.array([5.0, 1.0, 0.0])


def box(rng, edges=(1.0, 1.0, 1.0), center=CENTER, count=600, noise=0.01) -> np.ndarray:
    """Points [count,3] on the surface of a box, as a noisy sensor sees them."""
    points = rng.uniform(-0.5, 0.5, (count, 3))
    points[np.arange(count), rng.integers(0, 3, count)] = rng.choice([-0.5, 0.5], count)
    return (points * edges + center + rng.normal(0, noise, (count, 3))).astype(np.float32)


def ball(rng, count=600) -> np.ndarray:
    direction = rng.normal(size=(count, 3))
    return (0.5 * direction / np.linalg.norm(direction, axis=1, keepdims=True) + CENTER).astype(np.float32)


def test_a_thing_that_stands_still_is_collected_once():
    rng = np.random.default_rng(0)
    collection = SegmentCollection(50, points=256)
    taken = [collection.offer(box(rng), CENTER + rng.normal(0, 0.02, 3)) for _ in range(30)]
    assert taken == [True] + 29 * [False]
    assert (len(collection), collection.repeated) == (1, 29)


@pytest.mark.parametrize("change", ["place", "size", "shape"])
def test_another_place_size_or_shape_is_collected(change):
    rng = np.random.default_rng(1)
    collection = SegmentCollection(50, points=256)
    assert collection.offer(box(rng), CENTER)
    center = CENTER + [0.5, 0, 0] if change == "place" else CENTER
    other = {"place": box(rng, center=center), "size": box(rng, (1.0, 1.0, 1.6)), "shape": ball(rng)}[change]
    assert collection.offer(other, center)
    assert not collection.offer(box(rng), CENTER)  # the first is still remembered


def test_the_collection_is_bounded_and_a_fair_sample():
    shares = np.zeros(40)
    for seed in range(60):
        collection = SegmentCollection(10, points=16, seed=seed)
        for k in range(40):  # a line of k + 1 different points, told apart by their number
            line = np.column_stack([np.arange(k + 1), np.zeros(k + 1), np.zeros(k + 1)]).astype(np.float32)
            assert collection.offer(line, [k, 0, 0])
        kept = collection.array()
        assert kept.shape == (10, 16, 3) and collection.accepted == 40
        # repeated in order, a line of k + 1 <= 16 points has k + 1 different ones; longer ones count as late
        different = np.array([len(np.unique(points[:, 0])) for points in kept])
        shares[different[different < 16] - 1] += 1
    early = shares[:15].sum() / (60 * 15)
    assert abs(early - 10 / 40) < 0.05  # 900 draws: a standard deviation of 0.014


def test_segments_are_normalised_float16_and_feed_the_stream(tmp_path):
    rng = np.random.default_rng(2)
    collection = SegmentCollection(8, points=128)
    collection.offer(box(rng, count=20_000), CENTER)
    collection.offer(box(rng, (0.5, 2.0, 1.0), CENTER + 3, count=50), CENTER + 3)
    assert collection.save(tmp_path / "run" / "segments.npz") == 2
    shapes = load_shapes(tmp_path / "run" / "segments.npz")
    assert shapes.points.dtype == np.float16 and shapes.points.shape == (2, 128, 3) and shapes.label is None
    radius = np.linalg.norm(shapes.points.astype(np.float64), axis=2).max(axis=1)
    np.testing.assert_allclose(radius, 1, atol=2e-3)
    files = [ShapeFile(path=tmp_path / "run" / "segments.npz")]
    stream = ShapeStream(StreamConfig(compositions=0, categories=0, files=files), 64, seed=0)
    assert stream[0].shape == (64, 3) and np.isfinite(stream[0]).all()


def test_held_out_segments_are_a_sample_of_their_own_that_repeats_nothing(tmp_path):
    rng = np.random.default_rng(5)
    collection = SegmentCollection(10, points=128)
    for k in range(30):
        assert collection.offer(box(rng, center=CENTER + k), CENTER + k, held_out=k % 3 == 2)
        assert not collection.offer(box(rng, center=CENTER + k), CENTER + k, held_out=k % 3 != 2)  # seen on either side
    assert (len(collection), collection.held_out, collection.accepted) == (10, 2, 30)
    assert collection.save(tmp_path / "segments.npz") == 10
    shapes = load_shapes(tmp_path / "segments.npz")
    assert len(shapes.train()) == 10 and len(shapes.test()) == 2
    learned = {points.tobytes() for points in shapes.train().points}
    assert not learned & {points.tobytes() for points in shapes.test().points}


def test_a_restored_collection_goes_on(tmp_path):
    rng = np.random.default_rng(3)
    first = SegmentCollection(5, points=128)
    for k in range(20):
        first.offer(box(rng, center=CENTER + k), CENTER + k, held_out=k >= 17)
    first.save(tmp_path / "segments.npz")
    second = SegmentCollection(5, points=128)
    second.restore(tmp_path / "segments.npz")
    assert (len(second), second.held_out, second.accepted) == (5, 1, 20)
    np.testing.assert_array_equal(second.array(), first.array())
    smaller = SegmentCollection(3, points=128)
    smaller.restore(tmp_path / "segments.npz")
    assert len(smaller) == 3 and smaller.accepted == 20
    with pytest.raises(InputError, match="segments.npz: 128 points per segment, expected 64"):
        SegmentCollection(5, points=64).restore(tmp_path / "segments.npz")


def test_a_failed_write_leaves_the_last_good_file(tmp_path, monkeypatch):
    rng = np.random.default_rng(4)
    collection = SegmentCollection(5, points=128)
    with pytest.raises(InputError, match="no segments"):
        collection.save(tmp_path / "segments.npz")
    collection.offer(box(rng), CENTER)
    collection.save(tmp_path / "segments.npz")
    collection.offer(ball(rng), CENTER)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        collection.save(tmp_path / "segments.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["segments.npz"]
    assert len(load_shapes(tmp_path / "segments.npz")) == 1
