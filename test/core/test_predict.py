# SPDX-License-Identifier: Apache-2.0
"""foundry predict: what it says of objects and scenes, and which clouds it refuses."""

import json
import re

import numpy as np
import pytest
from commands import refused
from tiny_model import PARTS, write_tiny_model

from foundry_core.card import Heads, ObjectHead, load_card, write_card
from foundry_core.clouds import Cloud, write_ply


def test_predict_gives_label_probability_top5_and_parts(foundry, tiny_model, pole, tmp_path):
    code, out, err = foundry("predict", pole, "--model", tiny_model, "--json", tmp_path / "out" / "result.json")
    assert code == 0, err
    (row,) = json.loads((tmp_path / "out" / "result.json").read_text())
    assert row["label"] == "pole" and row["unknown"] is False and 0.9 < row["probability"] <= 1
    assert [name for name, _ in row["top5"]] == ["pole", "box"]
    assert sum(probability for _, probability in row["top5"]) == pytest.approx(1, abs=1e-5)
    assert set(row["parts"]) == set(PARTS) and sum(row["parts"].values()) == row["points"] == 498
    assert row["dropped_nonfinite"] == 2 and row["file"] == str(pole)
    assert "pole.npy" in out and "pole" in out


def test_predict_leaves_stray_points_out_where_it_is_asked_to(foundry, tiny_model, pole, tmp_path):
    spoiled = np.concatenate([np.load(pole), np.float32([[40, 0, 0], [0, -35, 9]])])
    np.save(tmp_path / "spoiled.npy", spoiled)
    rows = []
    for cloud, options in ((pole, []), (tmp_path / "spoiled.npy", []), (tmp_path / "spoiled.npy", ["--denoise"])):
        code, _, err = foundry("predict", cloud, *options, "--model", tiny_model, "--json", tmp_path / "r.json")
        assert code == 0, err
        rows += json.loads((tmp_path / "r.json").read_text())
    clean, without, denoised = rows
    assert denoised["strays"] >= 2 and denoised["points"] == without["points"] == clean["points"] + 2
    assert sum(denoised["parts"].values()) == denoised["points"] - denoised["strays"]
    assert denoised["label"] == "pole" and "strays" not in without
    assert abs(denoised["probability"] - clean["probability"]) < abs(without["probability"] - clean["probability"])
    refused(foundry("predict", pole, "--scene", "--denoise", "--model", tiny_model), "--denoise")


def test_predict_reads_every_kind_of_file_alike(foundry, tiny_model, tmp_path):
    points = np.random.default_rng(3).uniform(-1, 1, (400, 3)).astype(np.float32) * np.float32([0.1, 0.1, 2.0])
    write_ply(tmp_path / "a.ply", Cloud.from_points(points))
    header = (
        "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 400\nHEIGHT 1\nPOINTS 400\nDATA binary\n"
    )
    (tmp_path / "a.pcd").write_bytes(header.encode() + points.tobytes())
    np.save(tmp_path / "a.npy", points)
    np.savez(tmp_path / "a.npz", points=points)
    np.savetxt(tmp_path / "a.xyz", points, fmt="%.9g")
    np.column_stack([points, np.ones(400, np.float32)]).astype("<f4").tofile(tmp_path / "a.bin")
    files = [tmp_path / f"a{suffix}" for suffix in (".ply", ".pcd", ".npy", ".npz", ".xyz", ".bin")]
    code, _, err = foundry("predict", *files, "--model", tiny_model, "--json", tmp_path / "r.json")
    rows = json.loads((tmp_path / "r.json").read_text())
    assert code == 0 and [row["file"] for row in rows] == [str(file) for file in files], err
    for row in rows:
        assert row["label"] == "pole"
        assert {key: value for key, value in row.items() if key != "file"} == {
            key: value for key, value in rows[0].items() if key != "file"
        }


def test_predict_says_unknown_below_the_threshold(foundry, pole, tmp_path):
    undecided = write_tiny_model(tmp_path / "undecided", unknown_threshold=0.6, sharpness=0.0)
    code, out, err = foundry("predict", pole, "--model", undecided, "--json", tmp_path / "r.json")
    assert code == 0, err
    (row,) = json.loads((tmp_path / "r.json").read_text())
    assert row["unknown"] is True and row["label"] == "unknown" and row["parts"] == {}
    assert "unknown" in out


def test_predict_says_unknown_where_the_best_class_is_other(foundry, pole, tmp_path):
    directory = write_tiny_model(tmp_path / "tiny")
    card = load_card(directory)
    heads = Heads(objects=ObjectHead(classes=["box", "other"]), parts=card.heads.parts)
    write_card(directory, card.model_copy(update={"heads": heads}))
    code, out, err = foundry("predict", pole, "--model", directory, "--json", tmp_path / "r.json")
    (row,) = json.loads((tmp_path / "r.json").read_text())
    assert code == 0 and row["unknown"] is True and row["label"] == "unknown" and row["top5"][0][0] == "other", err
    assert "unknown" in out and "other" not in out


def test_predict_help_names_every_key_of_the_json(foundry, tiny_model, pole, tmp_path):
    text = foundry("predict", "--help")[1].split("Options")[0]
    for options in ((), ("--scene",), ("--denoise",)):
        assert foundry("predict", pole, *options, "--model", tiny_model, "--json", tmp_path / "r.json")[0] == 0
        (row,) = json.loads((tmp_path / "r.json").read_text())
        assert not [key for key in row if not re.search(rf"\b{key}\b", text)]


def test_predict_finds_the_objects_of_a_scene(foundry, tiny_model, tmp_path):
    rng = np.random.default_rng(4)
    ground = np.column_stack([rng.uniform(-12, 12, (20000, 2)), rng.normal(0, 0.01, 20000)])
    posts = [rng.uniform(-1, 1, (600, 3)) * [0.12, 0.12, 1.0] + [x, y, 1.15] for x, y in ((5, 2), (6, -4))]
    np.save(tmp_path / "scene.npy", np.concatenate([ground, *posts]).astype(np.float32))
    code, out, err = foundry(
        "predict", tmp_path / "scene.npy", "--scene", "--model", tiny_model, "--json", tmp_path / "r.json"
    )
    assert code == 0, err
    (row,) = json.loads((tmp_path / "r.json").read_text())
    assert set(row["phases_ms"]) >= {"crop", "ground", "clusters"} and row["points"] == 21200
    found = sorted(tuple(round(value) for value in item["center"][:2]) for item in row["objects"])
    assert found == [(5, 2), (6, -4)]
    for item in row["objects"]:
        assert item["label"] == "pole" and 450 <= item["points"] <= 600
        assert item["size"][2] == pytest.approx(2.0, abs=0.3)
    assert "pole" in out


BAD_CLOUDS = {
    "missing.ply": None,
    "empty.ply": b"",
    "empty.npy": b"",
    "wrong.foo": b"1 2 3\n",
    "noise.ply": b"\x00\x01\x02" * 50,
    "noise.npz": b"no archive at all",
    "words.xyz": b"one two three\n",
    "odd.bin": bytes(17),
}


@pytest.mark.parametrize("name", BAD_CLOUDS)
def test_predict_refuses_bad_files(foundry, tiny_model, pole, tmp_path, name):
    if BAD_CLOUDS[name] is not None:
        (tmp_path / name).write_bytes(BAD_CLOUDS[name])
    # a good file before the bad one must not leave a partial result
    result = foundry("predict", pole, tmp_path / name, "--model", tiny_model, "--json", tmp_path / "r.json")
    refused(result, tmp_path / name)
    assert not (tmp_path / "r.json").exists()


BAD_ARRAYS = {
    "pickled": np.array([{"x": 1}], object),
    "nothing finite": np.full((5, 3), np.nan, np.float32),
    "no points": np.zeros((0, 3), np.float32),
    "one point": np.zeros((1, 3), np.float32),
    "identical points": np.ones((64, 3), np.float32),
    "two columns": np.zeros((9, 2), np.float32),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_predict_refuses_bad_clouds(foundry, tiny_model, tmp_path, case):
    cloud = tmp_path / "cloud.npy"
    np.save(cloud, BAD_ARRAYS[case], allow_pickle=True)
    before = sorted(tmp_path.iterdir())
    refused(foundry("predict", cloud, "--model", tiny_model, "--json", tmp_path / "r.json"), "cloud.npy")
    assert sorted(tmp_path.iterdir()) == before
    if BAD_ARRAYS[case].dtype == np.float32:  # a sweep has to hold as much
        refused(foundry("predict", cloud, "--model", tiny_model, "--scene"), "cloud.npy")
