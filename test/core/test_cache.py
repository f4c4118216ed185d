# SPDX-License-Identifier: Apache-2.0
"""Cached teacher features: they equal the teacher's, survive a kill, and are keyed by what made them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from foundry_core import geometry  # noqa: E402
from foundry_core.architecture import Architecture, EncoderConfig, Preprocessing, TokenizerConfig  # noqa: E402
from foundry_core.card import ModelCard  # noqa: E402
from foundry_core.data.stream import ShapeStream, StreamConfig  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.registry import create_perception, load_model, save_model  # noqa: E402
from foundry_core.training import cache  # noqa: E402

SIZE = Preprocessing(points=64, groups=8, neighbors=8)
ARCHITECTURE = Architecture(
    tokenizer=TokenizerConfig(first=8, second=16, third=16),
    encoder=EncoderConfig(width=24, depth=2, heads=3, position_hidden=8),
)


@pytest.fixture
def teacher(tmp_path):
    torch.manual_seed(0)
    card = ModelCard(name="teacher", kind="teacher", architecture=ARCHITECTURE, preprocessing=SIZE)
    save_model(tmp_path / "teacher", create_perception(card), card)
    return tmp_path / "teacher"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 16)
    monkeypatch.setattr(cache, "_BATCH", 8)


def stream(seed: int = 0, **config) -> ShapeStream:
    return ShapeStream(StreamConfig(**config), SIZE.points, seed)


def build(teacher, folder, clouds, precision="fp32"):
    network = load_model(teacher)[0].backbone
    return cache.build_cache(folder, network, stream(), SIZE, clouds, 24, workers=0, precision=precision)


def test_what_is_made_first_is_said_once(teacher, tmp_path, capsys):
    build(teacher, tmp_path, 20)
    said = capsys.readouterr().out
    assert "20 clouds are made first" in said and "--minutes" in said and "s for 1,000 clouds" in said
    build(teacher, tmp_path, 20)
    assert capsys.readouterr().out == ""


def test_cached_records_are_what_the_stream_and_the_teacher_give(teacher, tmp_path):
    paths = build(teacher, tmp_path / "cache", 20)
    assert [path.name for path in paths] == ["00000.npy", "00001.npy"]
    records = np.concatenate([np.load(path) for path in paths])
    network, clouds = load_model(teacher)[0].backbone, stream()
    for index in (0, 17):
        centers, neighborhoods = geometry.group(clouds[index], SIZE.groups, SIZE.neighbors)
        assert np.array_equal(records["centers"][index], centers)
        assert np.allclose(records["neighborhoods"][index], neighborhoods, atol=1e-3)
        with torch.no_grad():
            expected = network(torch.from_numpy(centers)[None], torch.from_numpy(neighborhoods)[None])["tokens"][0]
        assert np.allclose(records["features"][index], expected.numpy(), atol=0.1)  # bfloat16


def test_a_killed_build_goes_on_with_what_is_missing(teacher, tmp_path):
    whole = [np.load(path) for path in build(teacher, tmp_path / "whole", 40)]
    paths = build(teacher, tmp_path / "part", 40)
    kept = paths[0].stat().st_mtime_ns
    paths[1].unlink()
    (tmp_path / "part" / ".00001.npy.torn.tmp").write_bytes(b"half")
    paths = build(teacher, tmp_path / "part", 40)
    assert paths[0].stat().st_mtime_ns == kept  # not made again
    for path, expected in zip(paths, whole, strict=True):
        assert np.array_equal(np.load(path), expected)


def test_every_epoch_visits_each_cloud_once_in_another_order(teacher, tmp_path):
    paths = build(teacher, tmp_path / "cache", 24)
    records = np.concatenate([np.load(path) for path in paths])[:24]
    dataset = cache.CachedFeatures(paths, 24, seed=3)
    epochs = [np.stack([dataset[24 * epoch + i][0] for i in range(24)]) for epoch in (0, 1)]
    for seen in epochs:
        order = [int(np.flatnonzero((records["centers"] == centers).all(axis=(1, 2)))[0]) for centers in seen]
        assert sorted(order) == list(range(24))
    assert not np.array_equal(*epochs)
    again = cache.CachedFeatures(paths, 24, seed=3)
    assert np.array_equal(again[30][3], dataset[30][3])  # a pure function of the seed and the index


def test_the_key_changes_with_weights_stream_and_content_but_not_with_the_place(teacher, tmp_path):
    shapes = tmp_path / "shapes.npz"
    np.savez(shapes, points=np.random.default_rng(0).normal(size=(4, 64, 3)).astype(np.float32))
    (tmp_path / "copy.npz").write_bytes(shapes.read_bytes())
    files = lambda path: {"files": [{"path": path}]}  # noqa: E731
    key = cache.cache_key(teacher, stream(**files(shapes)), SIZE)
    assert key == cache.cache_key(teacher, stream(**files(tmp_path / "copy.npz")), SIZE)
    others = [
        cache.cache_key(teacher, stream(**files(shapes), partial=0.1), SIZE),
        cache.cache_key(teacher, stream(seed=1, **files(shapes)), SIZE),
        cache.cache_key(teacher, stream(), SIZE),
    ]
    np.savez(shapes, points=np.random.default_rng(1).normal(size=(4, 64, 3)).astype(np.float32))
    others.append(cache.cache_key(teacher, stream(**files(shapes)), SIZE))
    card = ModelCard(name="teacher", kind="teacher", architecture=ARCHITECTURE, preprocessing=SIZE)
    save_model(tmp_path / "other", create_perception(card), card)
    others.append(cache.cache_key(tmp_path / "other", stream(**files(tmp_path / "copy.npz")), SIZE))
    assert len({key, *others}) == 6


def test_a_cache_has_the_precision_of_its_training_and_one_of_bfloat16_another_name(teacher, tmp_path):
    single, half = (np.load(build(teacher, tmp_path / name, 16, name)[0]) for name in ("fp32", "bf16"))
    assert np.array_equal(single["centers"], half["centers"])
    assert not np.array_equal(single["features"], half["features"])
    centers, neighborhoods = (
        torch.from_numpy(single[name][:8].astype(np.float32)) for name in ("centers", "neighborhoods")
    )
    with torch.no_grad():
        expected = load_model(teacher)[0].backbone(centers, neighborhoods)["tokens"].numpy()
    assert np.allclose(single["features"][:8], expected, atol=0.01)
    key = cache.cache_key(teacher, stream(), SIZE)
    assert cache.cache_key(teacher, stream(), SIZE, "fp32") == key != cache.cache_key(teacher, stream(), SIZE, "bf16")


def test_a_torn_shard_is_named(teacher, tmp_path):
    paths = build(teacher, tmp_path / "cache", 16)
    paths[0].write_bytes(paths[0].read_bytes()[:200])
    with pytest.raises(InputError, match="00000.npy: torn or no shard"):
        cache.CachedFeatures(paths, 16, seed=0)[0]
