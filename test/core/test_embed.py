# SPDX-License-Identifier: Apache-2.0
"""foundry embed: features and tokens as an independent computation finds them, and what is refused."""

import numpy as np
import pytest
from commands import refused
from tiny_model import BUDGETS, PREPROCESSING, WIDTH

from foundry_core import geometry
from foundry_core.card import list_models


def oracle_tokens(points):
    """Tokens [G,6] of the tiny model: the centre and the largest offset in its patch."""
    prepared, _ = geometry.prepare(points, PREPROCESSING.points)
    centers, neighborhoods = geometry.group(prepared, PREPROCESSING.groups, PREPROCESSING.neighbors)
    return np.concatenate([centers, neighborhoods.max(axis=1)], axis=1)


def test_embed_writes_mean_and_max_of_the_tokens(foundry, tiny_model, shapes, tmp_path):
    code, out, err = foundry("embed", "--model", tiny_model, "--data", shapes, "--out", tmp_path / "new" / "f.npz")
    assert code == 0, err
    with np.load(tmp_path / "new" / "f.npz") as archive, np.load(shapes) as data:
        assert archive.files == ["features"]
        features = archive["features"]
        tokens = np.stack([oracle_tokens(points) for points in data["points"]])
    assert features.dtype == np.float32 and features.shape == (21, 2 * WIDTH)
    np.testing.assert_allclose(features, np.hstack([tokens.mean(axis=1), tokens.max(axis=1)]), atol=1e-5)
    assert "features [21, 12]" in out
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["f.npz"]


@pytest.mark.parametrize("budget", BUDGETS)
def test_embed_writes_tokens_on_request_at_every_budget(foundry, tiny_model, shapes, tmp_path, budget):
    arguments = ("--data", shapes, "--out", tmp_path / "f.npz", "--tokens", "--budget", budget)
    code, _, err = foundry("embed", "--model", tiny_model, *arguments)
    assert code == 0, err
    with np.load(tmp_path / "f.npz") as archive, np.load(shapes) as data:
        assert set(archive.files) == {"features", "tokens", "centers", "supertokens"}
        np.testing.assert_allclose(archive["tokens"][20], oracle_tokens(data["points"][20]), atol=1e-5)
        np.testing.assert_array_equal(archive["centers"], archive["tokens"][..., :3])
        np.testing.assert_array_equal(archive["supertokens"], archive["tokens"][:, :budget])


def test_embed_refuses_what_it_cannot_do(foundry, tiny_model, shapes, tmp_path):
    out, bad, missing = (tmp_path / name for name in ("f.npz", "bad.npz", "no.npz"))
    seven = foundry("embed", "--model", tiny_model, "--data", shapes, "--out", out, "--budget", 7)
    refused(seven, "--budget 7", "runs with 1, 2, 4")
    refused(foundry("embed", "--model", tiny_model, "--data", missing, "--out", out), "no.npz", "no such file")
    refused(foundry("embed", "--model", tiny_model, "--data", shapes, "--out", tmp_path / "f.csv"), "f.csv", ".npz")
    refused(foundry("embed", "--model", "no-such-model", "--data", shapes, "--out", out), "no-such-model")
    before = shapes.read_bytes()
    refused(foundry("embed", "--model", tiny_model, "--data", shapes, "--out", shapes), "is what the command reads")
    assert shapes.read_bytes() == before
    np.savez(bad, points=np.full((2, 9, 3), np.inf, np.float32))
    refused(foundry("embed", "--model", tiny_model, "--data", bad, "--out", out), "bad.npz", "infinite")
    assert list(tmp_path.iterdir()) == [bad]


@pytest.mark.parametrize("name", [card.name for card in list_models()] or [None])
def test_shipped_models_embed_the_same_width(foundry, shapes, tmp_path, name):
    if name is None:
        pytest.skip("resource/models is empty")
    code, _, err = foundry("embed", "--model", name, "--data", shapes, "--out", tmp_path / "f.npz")
    assert code == 0, err
    card = next(card for card in list_models() if card.name == name)
    width = card.architecture.output_width or card.architecture.encoder.width
    with np.load(tmp_path / "f.npz") as archive:
        assert archive["features"].shape == (21, 2 * width)
        assert archive["features"].std(axis=0).min() > 0
