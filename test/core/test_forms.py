# SPDX-License-Identifier: Apache-2.0
"""Runtimes and precisions where a user chooses them, and the table of every form of a model against torch."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tiny_model import write_tiny_model

from foundry_core.card import load_card, write_card
from foundry_core.errors import InputError
from foundry_core.runtime import openvino_session
from foundry_core.runtime.session import find_graph


@pytest.fixture
def model(tmp_path):
    """The tiny model with an int8 form, which is the same graph."""
    directory = write_tiny_model(tmp_path / "tiny")
    shutil.copy(directory / "model.onnx", directory / "model.int8.onnx")
    write_card(directory, load_card(directory))
    return directory


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "shapes.npz", points=rng.normal(size=(5, 300, 3)).astype(np.float32))
    np.save(tmp_path / "pole.npy", rng.uniform(-1, 1, (500, 3)).astype(np.float32) * [0.1, 0.1, 3.0])
    return tmp_path


def test_embed_and_predict_run_the_form_that_is_asked_for(model, files, foundry):
    features = {}
    for precision in ("fp32", "int8"):
        out = files / f"{precision}.npz"
        code, _, err = foundry(
            "embed", "--model", model, "--data", files / "shapes.npz", "--out", out, "--precision", precision
        )
        assert code == 0, err
        with np.load(out) as archive:
            features[precision] = archive["features"]
    assert np.array_equal(features["fp32"], features["int8"])
    (model / "model.onnx").unlink()
    write_card(model, load_card(model, verify=False))
    answer = files / "answer.json"
    code, _, err = foundry("predict", files / "pole.npy", "--model", model, "--precision", "int8", "--json", answer)
    assert code == 0, err
    assert json.loads(answer.read_text())[0]["label"] == "pole"
    code, _, err = foundry("predict", files / "pole.npy", "--model", model)
    words = "export it with `foundry export --model MODEL --precision fp32 --out DIR` and give that DIR; the directory "
    words += "holds model.int8.onnx, and no weights: MODEL is one with model.safetensors"
    assert code == 2 and f"model.onnx: missing; {words}" in err


def test_a_form_that_is_not_there_is_named_in_one_line(tiny_model, files, foundry, monkeypatch):
    embed = ("embed", "--model", tiny_model, "--data", files / "shapes.npz", "--out", files / "f.npz")
    predict = ("predict", files / "pole.npy", "--model", tiny_model)
    monkeypatch.setattr(openvino_session, "openvino", None)
    for command in (embed, predict):
        for options, words in (
            (
                ("--precision", "int8"),
                "model.int8.onnx: missing; export it with `foundry export --model MODEL --precision int8 --out DIR`",
            ),
            (("--precision", "bf16"), "bf16: onnxruntime has no bfloat16 kernels on a CPU; take openvino"),
            (("--runtime", "openvino"), "runtime openvino is not installed: pip install 'foundry_ros[openvino]'"),
        ):
            code, out, err = foundry(*command, *options)
            assert (code, out, err.count("\n")) == (2, "", 1) and words in err
    assert not (files / "f.npz").exists()


def test_a_missing_graph_is_made_by_the_command_that_the_line_names(model, tmp_path):
    whole = shutil.copytree(model, tmp_path / "a model")
    (whole / "model.safetensors").touch()
    for name in ("model.onnx", "model.int8.onnx"):
        (whole / name).unlink()
        how = f"{name}: missing; export it with `foundry export --model '{whole}' --precision"
        with pytest.raises(InputError, match=f"{how} (fp32|int8) --out DIR` and give that DIR; the directory holds"):
            find_graph(whole, "onnxruntime", "int8" if "int8" in name else "fp32")
    with pytest.raises(InputError, match="--format openvino --precision fp32 --out DIR` .* holds no graph$"):
        find_graph(whole, "openvino", "fp32")


def test_openvino_gives_what_onnxruntime_gives(model, files):
    """In a process of its own, as every OpenVINO test: see test_session.py."""
    pytest.importorskip("openvino")
    for runtime in ("onnxruntime", "openvino"):
        command = ["embed", "--model", model, "--data", files / "shapes.npz", "--out", files / f"{runtime}.npz",
                   "--runtime", runtime]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "foundry_core.cli.main", *map(str, command)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    with np.load(files / "onnxruntime.npz") as one, np.load(files / "openvino.npz") as other:
        assert np.allclose(one["features"], other["features"], atol=1e-5)


# -- round trips -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from test_export import elastic

    from foundry_core.models.registry import save_model

    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("student") / "tiny"
    save_model(directory, *elastic())
    return directory


def test_every_form_is_a_row_and_what_is_refused_is_one_too(student, files, foundry, monkeypatch):
    from foundry_core.export import quantize, write

    monkeypatch.setattr(openvino_session, "openvino", None)
    monkeypatch.setattr(write, "MIN_COSINE", 0.9)  # random weights of width 24 quantise badly
    monkeypatch.setattr(quantize, "CALIBRATION_CLOUDS", 8)
    before = sorted(path.name for path in student.iterdir())
    rng = np.random.default_rng(0)
    points = rng.normal(size=(32, 128, 3)) * np.where(np.arange(32) % 2, 1.0, [[0.1], [0.1], [1.0]]).T[:, None]
    shapes = {"points": points.astype(np.float32), "label": np.arange(32) % 2, "split": np.arange(32) // 16}
    np.savez(files / "labelled.npz", **shapes, class_names=["rod", "ball"])
    code, out, err = foundry(
        "export", "--all", "--model", student, "--check", files / "labelled.npz", "--json", files / "rows.json"
    )
    assert code == 0, err
    rows = {(row["format"], row["precision"]): row for row in json.loads((files / "rows.json").read_text())}
    assert len(rows) == 6 and {row["model"] for row in rows.values()} == {"tiny"}
    assert {key for key, row in rows.items() if row["status"] == "ok"} == {("onnx", "fp32"), ("onnx", "int8")}
    exact = rows["onnx", "fp32"]
    assert exact["max_difference"] < 1e-4 and exact["drop"] == 0 and exact["accuracy"] == exact["accuracy_torch"]
    assert exact["data"] == "labelled" and exact["megabytes"] > rows["onnx", "int8"]["megabytes"] > 0
    assert 0.9 < rows["onnx", "int8"]["token_cosine"] <= 1 and rows["onnx", "int8"]["max_difference"] > 1e-4
    assert "no bfloat16" in rows["onnx", "bf16"]["reason"] and rows["onnx", "bf16"]["drop"] is None
    assert "openvino is not installed" in rows["openvino", "fp32"]["reason"]
    assert "refused: tiny, onnx, bf16: bf16: onnxruntime has no bfloat16" in out
    assert sorted(path.name for path in student.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--model: name the model to export, or give --all"),
        (("--all", "--out", "x"), "--all: keeps no files"),
        (("--all", "--format", "onnx"), "--all: keeps no files"),
        (("--model", "foundry-edge", "--json", "x.json"), "--json: is for the rows of --all"),
    ],
)
def test_options_that_contradict_are_refused(foundry, arguments, words):
    pytest.importorskip("torch")
    code, _, err = foundry("export", *arguments)
    assert code == 2 and words in err


def test_products_that_lose_too_much_stay_float(student, monkeypatch):
    import onnx

    from foundry_core.export import quantize
    from foundry_core.export.graph import convert
    from foundry_core.models.registry import load_model

    network, card = load_model(student)
    graph = convert(network, card)

    monkeypatch.setattr(quantize, "CALIBRATION_CLOUDS", 8)

    def int8_weights(bound):
        monkeypatch.setattr(quantize, "MAX_ERROR", bound)
        made = quantize.quantize(graph, card)
        return sum(tensor.data_type == onnx.TensorProto.INT8 for tensor in made.graph.initializer)

    every, some, least = (int8_weights(bound) for bound in (1e9, 5e-3, 0.0))
    assert every > some > least == 0
