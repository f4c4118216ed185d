# SPDX-License-Identifier: Apache-2.0
"""`foundry convert`: the originals' numbers from their checkpoints, and the model directory that it writes."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from original_checkpoints import (  # noqa: E402
    KEYS,
    POINT2VEC,
    POINT_JEPA,
    POINT_MAE,
    SEEDS,
    checkpoint,
    layout,
    save,
    small,
)

from foundry_core import geometry  # noqa: E402
from foundry_core.card import load_card  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.registry import load_model  # noqa: E402

ORIGINAL = Path(__file__).with_name("original_features.npz")  # see test/make_original_features.py

#: SHA-256 of the released files' sorted "key shape" lines
LAYOUTS = {
    POINT_MAE: "013b0f2aac1d1394aebb11459f332c1d29bca60bbdec1a84a9bb5522a06a0c2e",
    POINT2VEC: "89bb8cb3bf80c13d97ab09e9715274a711d78cc225ee5ae9e6e0a3278062bed9",
    POINT_JEPA: "351b87cc481266b1afa4c665ee9ff33c43aa535e875ccb01bc019abf92893564",
}


@pytest.mark.parametrize("arch", KEYS)
def test_the_layouts_of_these_tests_are_the_released_ones(arch):
    lines = [f"{key} {shape}" for key, shape in sorted(layout(arch).items())]
    assert len(lines) == KEYS[arch]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == LAYOUTS[arch]


@pytest.mark.slow
@pytest.mark.timeout(900)  # the exporter takes a minute for twelve blocks, more on a busy machine
@pytest.mark.parametrize("arch", KEYS)
def test_a_converted_checkpoint_gives_the_numbers_of_the_original_code(arch, foundry, tmp_path):
    original = np.load(ORIGINAL)
    shapes, features, model, report = (tmp_path / name for name in ("s.npz", "f.npz", "model", "r.json"))
    np.savez(shapes, points=original["clouds"])
    file = save(tmp_path / "c.pth", checkpoint(arch, SEEDS[arch]))
    code, out, err = foundry("convert", file, "--arch", arch, "--out", model, "--json", report)
    assert code == 0, err
    file.unlink()  # some 200 MB

    keys = json.loads(report.read_text())
    assert sorted(keys["used"] + keys["left_out"]) == sorted(layout(arch)), "every key once"
    assert f"{len(keys['used'])} keys used, {len(keys['left_out'])} left out" in out

    code, _, err = foundry("embed", "--tokens", "--model", model, "--data", shapes, "--out", features)
    assert code == 0, err
    found = np.load(features)
    clouds = np.stack([geometry.prepare(cloud, 1024)[0] for cloud in original["clouds"]])
    index = original[f"{arch}/centers"].astype(np.int64)
    assert np.array_equal(found["centers"], np.take_along_axis(clouds, index[:, :, None], axis=1))
    assert np.abs(found["tokens"][:, :, ::24] - original[f"{arch}/tokens"]).max() < 5e-5
    assert np.abs(found["features"] - original[f"{arch}/features"]).max() < 5e-5

    network, _ = load_model(model)
    _, neighborhoods = geometry.group_batch(clouds, 64, 32)
    with torch.no_grad():
        tokens = network.backbone.tokenizer(torch.from_numpy(neighborhoods)).numpy()
    assert np.abs(tokens[:, :, ::48] - original[f"{arch}/tokenizer"]).max() < 1e-5


def test_the_model_directory_of_a_small_checkpoint(foundry, tmp_path):
    file = save(tmp_path / "pretrain.pth", small(POINT_MAE))
    out = tmp_path / "models" / "mae"
    code, text, err = foundry("convert", file, "--arch", "point-mae", "--out", out, "--depth", 2, "--heads", 3)
    assert code == 0, err
    assert sorted(path.name for path in out.iterdir()) == ["card.json", "model.onnx", "model.safetensors"]
    assert [path.name for path in out.parent.iterdir()] == ["mae"]
    card = load_card(out)
    assert card.name == "mae" and card.kind == "teacher" and card.architecture.encoder.heads == 3
    assert card.training[0].parent == "pretrain.pth"
    assert card.training[0].parent_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    code, _, err = foundry("convert", file, "--arch", "point-mae", "--out", out, "--depth", 2)
    assert code == 2 and err.count("\n") == 1 and "exists already" in err and str(out) in err


def test_bad_input_is_one_line_and_leaves_nothing_behind(foundry, tmp_path):
    file = save(tmp_path / "c.pth", small(POINT2VEC))
    for arguments in (
        [tmp_path / "no.pth", "--arch", "point2vec"],
        [tmp_path, "--arch", "point2vec"],
        [file, "--arch", "point-jepa"],
        [file, "--arch", "point2vec", "--heads", 5],
        [file, "--arch", "point2vec", "--groups", 4096],
    ):
        code, out, err = foundry("convert", *arguments, "--out", tmp_path / "m")
        assert code == 2 and out == "" and err.count("\n") == 1 and "Traceback" not in err, err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c.pth"]


def test_a_failing_export_leaves_nothing_behind(foundry, tmp_path, monkeypatch):
    import foundry_core.export.write as write

    def fail(directory):
        raise InputError(f"{directory}: no")

    monkeypatch.setattr(write, "export_graph", fail)
    file = save(tmp_path / "c.pth", small(POINT2VEC))
    assert foundry("convert", file, "--arch", "point2vec", "--out", tmp_path / "m")[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]
