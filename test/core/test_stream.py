# SPDX-License-Identifier: Apache-2.0
"""The training stream and the label-free compositions."""

import numpy as np
import pytest
from procedural_shapes import seeded_and_varied

from foundry_core.data.compositions import KINDS, Primitive, compose
from foundry_core.data.stream import ShapeFile, ShapeStream, StreamConfig
from foundry_core.data.visibility import hidden_point_removal
from foundry_core.errors import InputError


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_a_primitive_lie_on_its_surface(kind):
    rng = np.random.default_rng(0)
    linear = np.linalg.qr(rng.normal(size=(3, 3)))[0] * [0.3, 0.7, 1.5]
    primitive = Primitive(kind, sides=5, ratio=0.4, linear=linear, offset=np.array([1.0, -2.0, 0.5]))
    points = primitive.sample(2000, rng)
    center = points.mean(axis=0) if kind != "torus" else None
    assert not primitive.contains(points, margin=1e-6).any()
    if center is not None:
        inward = points + 0.01 * (primitive.offset - points)
        assert primitive.contains(inward, margin=1e-6).mean() > 0.99


def test_compositions_are_seeded_endless_and_varied():
    spreads = seeded_and_varied(compose)
    assert spreads[:, 0].min() < 0.05 < 0.2 < spreads[:, 0].max()  # plates as well as blocks


def test_hidden_points_are_those_behind():
    rng = np.random.default_rng(0)
    sphere = rng.normal(size=(2000, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    visible = hidden_point_removal(sphere, np.array([0.0, 0.0, 4.0]))
    assert 300 < len(visible) < 1200
    assert (sphere[visible, 2] > 0.0).mean() > 0.97
    flat = np.zeros((50, 3))
    assert len(hidden_point_removal(flat, np.ones(3))) == 50


def test_a_sample_is_a_function_of_seed_and_index():
    config = StreamConfig(compositions=0.5, categories=0.5, partial=0.5)
    one, two, other = (ShapeStream(config, 128, seed) for seed in (3, 3, 4))
    for index in (0, 5, 123456789):
        assert one[index].shape == (128, 3)
        assert np.array_equal(one[index], two[index])
        assert not np.array_equal(one[index], other[index])
        assert np.linalg.norm(one[index], axis=1).max() == pytest.approx(1.0, abs=1e-4)


def test_two_views_of_a_sample_are_of_one_shape_and_the_first_is_the_sample():
    mixed = ShapeStream(StreamConfig(partial=0.5), 128, 3)
    for index in range(12):
        first, second = mixed.views(index, 2)
        assert np.array_equal(first, mixed[index]) and not np.array_equal(first, second)
        assert second.shape == (128, 3) and np.linalg.norm(second, axis=1).max() == pytest.approx(1.0, abs=1e-4)
    assert np.array_equal(mixed.views(5, 3)[1], mixed.views(5, 2)[1])


def test_views_of_a_set_are_of_the_shape_that_was_drawn(tmp_path):
    scale = np.array([[0.05, 0.05, 1.0], [1.0, 1.0, 0.05], [1.0, 1.0, 1.0]])  # a rod, a plate, a block
    points = np.random.default_rng(0).uniform(-1, 1, (3, 200, 3)) * scale[:, None]
    np.savez(tmp_path / "forms.npz", points=points.astype(np.float32))
    config = StreamConfig(compositions=0, categories=0, files=[{"path": tmp_path / "forms.npz"}], partial=0)
    stream = ShapeStream(config, 128, 0)

    def form(cloud):
        spread = np.sqrt(np.linalg.eigvalsh(np.cov(cloud.T)))
        return int((spread > 0.4 * spread.max()).sum())  # 1, 2 or 3 long sides

    forms = np.array([[form(view) for view in stream.views(index, 2)] for index in range(30)])
    assert np.array_equal(forms[:, 0], forms[:, 1]) and set(forms[:, 0]) == {1, 2, 3}


def shape_set(path, **extra):
    points = np.random.default_rng(0).normal(size=(6, 40, 3)).astype(np.float16)
    np.savez(path, points=points, split=np.array([0, 0, 0, 0, 1, 1]), **extra)
    return points


def test_only_the_train_split_and_the_asked_licences_join(tmp_path):
    shape_set(tmp_path / "set.npz", licence=np.array(["CC0", "GPL", "CC0", "CC0", "CC0", "CC0"]))
    file = ShapeFile(path=tmp_path / "set.npz", licences=["CC0"])
    stream = ShapeStream(StreamConfig(compositions=0, categories=0, files=[file]), 32, 0)
    assert len(stream.sources[0].points) == 3
    seen = stream.provenance()
    assert [(data.name, data.licence, data.shapes) for data in seen] == [("set (train split)", "CC0", 3)]
    assert stream[0].shape == (32, 3)
    whole = ShapeStream(StreamConfig(files=[ShapeFile(path=tmp_path / "set.npz")]), 32, 0).provenance()
    assert "CC0" in whole[-1].licence and "not stated" not in whole[-1].licence  # what the set says of its shapes
    with pytest.raises(InputError, match="no shape is under"):
        ShapeStream(StreamConfig(files=[ShapeFile(path=tmp_path / "set.npz", licences=["MIT"])]), 32, 0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="absent.npz: no such file"):
        ShapeStream(StreamConfig(files=[ShapeFile(path=tmp_path / "absent.npz")]), 32, 0)


def test_a_stream_of_nothing_is_refused():
    with pytest.raises(InputError, match="data: all procedural shapes weigh 0"):
        ShapeStream(StreamConfig(compositions=0, categories=0), 64, 0)


def test_clouds_are_turned_as_asked(tmp_path):
    rod = np.random.default_rng(0).uniform(-1, 1, (1, 64, 3)) * [0.05, 0.05, 1.0]
    np.savez(tmp_path / "rod.npz", points=rod.astype(np.float32))
    upright = {}
    for rotation in ("none", "z", "so3"):
        file = ShapeFile(path=tmp_path / "rod.npz")
        config = StreamConfig(compositions=0, categories=0, files=[file], partial=0, rotation=rotation, jitter=0)
        stream = ShapeStream(config, 64, 0)
        spread = np.stack([stream[i].std(axis=0) for i in range(20)])
        upright[rotation] = np.mean(spread.argmax(axis=1) == 2)
    assert upright["none"] == upright["z"] == 1.0 and upright["so3"] < 0.7
    config = config.model_copy(update={"rotation": "none"})
    stream = ShapeStream(config, 64, 0)
    ratio = np.stack([stream[i].std(axis=0)[:2] for i in range(20)])
    own = rod[0].std(axis=0)[:2]
    assert np.allclose(ratio[:, 0] / ratio[:, 1], own[0] / own[1], rtol=0.6)  # only stretched, 0.8 to 1.25
