# SPDX-License-Identifier: Apache-2.0
"""`foundry head --data`, `foundry evaluate head` and `foundry predict --head`, on the shipped teacher and a student."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from head_family import write_models, write_solids  # noqa: E402

from foundry_core.data.shapes import load_shapes  # noqa: E402


def test_the_commands_train_measure_and_predict(tmp_path, foundry):
    data = write_solids(tmp_path / "solids.npz")
    write_models(tmp_path / "models")
    teacher = ("--model", "teacher-small")  # shipped, with its graph
    (tmp_path / "quick.yaml").write_text("loop: {steps: 40, batch: 16}\nhidden: 8\n")
    common = (*teacher, "--data", data, "--config", tmp_path / "quick.yaml", "--cache", tmp_path / "cache")
    heads = {}
    for kind in ("mlp", "parts"):
        told = ["--category"] if kind == "parts" else []
        code, out, error = foundry("head", *common, "--kind", kind, "--out", tmp_path / kind, *told)
        assert code == 0 and "ECE" in out, error
        heads[kind] = tmp_path / kind / f"{kind}-solids"
    judged = (*teacher, "--data", data, "--json", tmp_path / "rows.json")
    code, out, error = foundry(
        "evaluate", "head", *judged, "--model", "foundry-edge", "--head", heads["mlp"], "--head", heads["parts"]
    )
    assert code == 0, error
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["model"], row["kind"]) for row in rows] == [
        (model, kind) for model in ("teacher-small", "foundry-edge") for kind in ("mlp", "parts")
    ] and {row["protocol"] for row in rows} == {"head"}
    assert set(rows[0]["metrics"]["ece"]) == {"mean", "std"} and "instance_miou_percent" in rows[1]["metrics"]

    shapes = load_shapes(data)
    cloud = tmp_path / "box.npy"
    np.save(cloud, 3 + 7 * shapes.points[shapes.label == 1][0])  # other units, elsewhere
    both = ("--head", heads["mlp"], "--head", heads["parts"])
    result = tmp_path / "out.json"
    assert foundry("predict", cloud, *teacher, *both, "--json", result)[0] == 0
    (row,) = json.loads(result.read_text())
    assert row["unknown"] or sum(row["parts"].values()) == 200
    assert sum(p for _, p in row["top5"]) == pytest.approx(1)
    alone = ("--head", heads["parts"], "--category", "box")
    assert foundry("predict", cloud, *teacher, *alone, "--json", result)[0] == 0
    (row,) = json.loads(result.read_text())
    assert row["label"] == "box" and row["probability"] == 1 and set(row["parts"]) <= {"bottom", "top"}

    for arguments, message in (
        (("predict", cloud, *teacher, "--head", heads["parts"]), "is told the category; give"),
        (
            ("predict", cloud, *teacher, "--head", heads["parts"], "--category", "x"),
            "not known to",
        ),
        (
            ("predict", cloud, *teacher, "--head", heads["mlp"], "--head", heads["mlp"]),
            "a second head",
        ),
        (("predict", cloud, "--model", tmp_path / "models" / "stranger", "--head", heads["mlp"]), "is of family"),
        (("predict", cloud, "--category", "x"), "is for a parts head"),
        (("head", "--model", "teacher-small"), "give --model and --data"),
        (("head", *common, "--kind", "svm", "--out", tmp_path / "x"), "kind: Input should be"),
        (("head", *common, "--out", tmp_path / "mlp"), "holds a run already"),
    ):
        code, _, error = foundry(*arguments)
        assert code == 2 and error.count("\n") == 1 and message in error, error
