# SPDX-License-Identifier: Apache-2.0
"""The foundry command through its entry point: results, exit codes, one-line errors, nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import BUDGETS, PARTS, PREPROCESSING, WIDTH, write_tiny_model

from foundry_core import geometry
from foundry_core.card import list_models
from foundry_core.cli.common import print_table
from foundry_core.clouds import Cloud, write_ply
from foundry_core.errors import InputError
from foundry_core.files import write_atomically

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    path = tmp_path_factory.mktemp("shapes") / "shapes.npz"
    rng = np.random.default_rng(1)
    np.savez(path, points=rng.normal(size=(21, 300, 3)).astype(np.float16), label=np.arange(21) % 3)
    return path


@pytest.fixture
def pole(tmp_path):
    """A tall box of 500 points, NaN in two of them."""
    points = np.random.default_rng(2).uniform(-1, 1, (500, 3)).astype(np.float32) * [0.1, 0.1, 3.0]
    points[[3, 40], [0, 2]] = np.nan
    np.save(tmp_path / "pole.npy", points)
    return tmp_path / "pole.npy"


def refused(result, *words):
    """The result is exit code 2 and one line that holds every word."""
    code, out, err = result
    assert code == 2 and out == "", (code, out, err)
    assert err.count("\n") == 1 and "Traceback" not in err, err
    for word in words:
        assert str(word) in err, err


# -- the command itself ----------------------------------------------------------------------------------------------


def test_help_lists_what_is_there_and_every_command_has_an_example(foundry):
    code, out, _ = foundry("--help")
    assert code == 0
    commands = [
        line.split()[1] for line in out.split("Commands")[1].splitlines() if line.startswith("│ ") and line[2] != " "
    ]
    assert {"predict", "models", "embed"} <= set(commands)
    for command in commands:
        code, out, _ = foundry(command, "--help")
        assert code == 0 and f"foundry {command}" in out.split("Options")[0].split("Usage")[1], command
        assert "Example" in out, f"{command} has no example"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-command"], ["no-such-command", "`foundry --help`"]),
        (["evaluate", "nothing"], ["nothing", "`foundry evaluate --help`"]),
        (["predict"], ["PATH", "`foundry predict --help`"]),
        (["models", "--no-such-option"], ["--no-such-option", "`foundry models --help`"]),
        (["embed", "--model", "x"], ["--data"]),
        (["predict", "x.ply", "--budget", "0"], ["--budget", ": should be greater than or equal to 1; see"]),
        (["predict", "x.ply", "--runtime", "tvm"], ["--runtime", "'tvm' is not one of"]),
    ],
)
def test_a_usage_error_is_one_line_that_names_the_help_page(foundry, arguments, words):
    refused(foundry(*arguments), "foundry: ", *words)


def test_a_group_without_a_command_shows_its_help_page(foundry):
    for group in ([], ["evaluate"], ["shapes"]):
        code, out, err = foundry(*group)
        assert code == 2 and "Commands" in out and err == ""


def test_help_keeps_the_brackets_of_an_extra(foundry):
    assert "foundry_ros[openvino]" in foundry("predict", "--help")[1].replace("\n", "")


def test_the_installed_program_exits_with_2_and_one_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "foundry_core.cli.main",
        "embed",
        "--model",
        "none",
        "--data",
        "x.npz",
        "--out",
        "y.npz",
    ]
    result = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    refused((result.returncode, result.stdout, result.stderr), "foundry: none: neither a shipped model")
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_needs_torch_says_so_where_it_is_missing(foundry, monkeypatch, tmp_path):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest)
    )
    config = tmp_path / "config.yaml"
    config.write_text("name: x\n")
    refused(foundry("pretrain", "--config", config), "pip install 'foundry_ros[train]'")


def test_a_pipe_or_device_is_not_replaced_by_an_output(foundry, model, shapes, pole, tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    refused(foundry("predict", pole, "--model", model, "--json", tmp_path / "pipe.npz"), "no regular file", "--json")
    refused(foundry("embed", "--model", model, "--data", shapes, "--out", tmp_path / "pipe.npz"), "no regular file")
    with pytest.raises(InputError, match="no regular file"):
        write_atomically(tmp_path / "pipe.npz", b"")
    assert (tmp_path / "pipe.npz").is_fifo()


def test_an_output_that_is_a_link_stays_one(foundry, model, shapes, tmp_path):
    for name, arguments in {
        "l.json": ("models", "--json"),
        "l.npz": ("embed", "--model", model, "--data", shapes, "--out"),
    }.items():
        (tmp_path / name).symlink_to(tmp_path / f"target_{name}")
        assert foundry(*arguments, tmp_path / name)[0] == 0
        assert (tmp_path / name).is_symlink() and (tmp_path / f"target_{name}").stat().st_size


def test_names_that_the_system_refuses(foundry, model, shapes, pole, tmp_path):
    long = tmp_path / ("n" * 300)
    refused(foundry("predict", pole, "--model", long), "too long", "give another")
    refused(foundry("predict", pole, "--model", model, "--json", long), "too long")
    refused(foundry("world", "--out", long, "--seconds", "0.1"), "too long")


def test_brackets_and_colons_in_a_name_are_printed_as_they_are(foundry, model, shapes, tmp_path):
    out = tmp_path / "[b]:car:[" / "]f.npz"
    code, text, _ = foundry("embed", "--model", model, "--data", shapes, "--out", out)
    assert code == 0 and str(out) in text and out.is_file()
    cloud = tmp_path / "[red]:car:.npy"
    np.save(cloud, np.random.default_rng(0).normal(size=(90, 3)))
    code, text, _ = foundry("predict", cloud, "--model", model)
    assert code == 0 and cloud.name in text


def test_a_name_that_is_no_utf8_comes_back_from_the_json(foundry, model, pole, tmp_path):
    odd = tmp_path / os.fsdecode(b"\xff\xfe.npy")
    try:
        shutil.copy(pole, odd)
    except OSError:
        pytest.skip("this file system wants UTF-8")
    code, _, err = foundry("predict", odd, "--model", model, "--json", tmp_path / "r.json")
    assert code == 0, err
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))[0]["file"] == str(odd)


def test_a_table_in_a_pipe_is_as_wide_as_it_needs(capsys):
    from rich.table import Table

    table = Table(*(f"heading number {number}" for number in range(20)))
    table.add_row(*(f"cell number {number}" for number in range(20)))
    print_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and len(lines[0]) > 300
    assert all(f"heading number {number} " in lines[1] and f"cell number {number} " in lines[3] for number in range(20))


def test_a_run_is_written_to_a_folder_of_its_own(foundry, tmp_path):
    pytest.importorskip("torch")
    config = tmp_path / "config.yaml"
    config.write_text("name: ../x\n")
    refused(foundry("pretrain", "--config", config, "--out", tmp_path / "run"), "name: '../x'")
    config.write_text("name: x\n")
    refused(foundry("pretrain", "--config", config, "--out", config), config, "is a file")
    assert list(tmp_path.iterdir()) == [config]


# -- models ----------------------------------------------------------------------------------------------------------


def test_models_writes_the_cards(foundry, tmp_path):
    code, out, _ = foundry("models", "--json", tmp_path / "models.json")
    cards = json.loads((tmp_path / "models.json").read_text())
    assert code == 0 and [card["name"] for card in cards] == [card.name for card in list_models()]
    if not cards:
        pytest.skip("resource/models is empty")
    for card in cards:
        assert card["name"] in out and f"{card['parameters']:,}" in out and card["licence"] in out
        assert all(f"{data['name']} ({data['licence']})" in out for run in card["training"] for data in run["data"])
        assert card["licence"] and card["parameters"] > 0 and card["files"] and card["training"]


def test_models_with_an_output_that_cannot_be_written(foundry, tmp_path):
    refused(foundry("models", "--json", tmp_path), tmp_path, "--json")
    (tmp_path / "file").write_text("")
    refused(foundry("models", "--json", tmp_path / "file" / "x.json"), "cannot be written")


# -- predict ---------------------------------------------------------------------------------------------------------


def test_predict_gives_label_probability_top5_and_parts(foundry, model, pole, tmp_path):
    code, out, err = foundry("predict", pole, "--model", model, "--json", tmp_path / "out" / "result.json")
    assert code == 0, err
    (row,) = json.loads((tmp_path / "out" / "result.json").read_text())
    assert row["label"] == "pole" and row["unknown"] is False and 0.9 < row["probability"] <= 1
    assert [name for name, _ in row["top5"]] == ["pole", "box"]
    assert sum(probability for _, probability in row["top5"]) == pytest.approx(1, abs=1e-5)
    assert set(row["parts"]) == set(PARTS) and sum(row["parts"].values()) == row["points"] == 498
    assert row["dropped_nonfinite"] == 2 and row["file"] == str(pole)
    assert "pole.npy" in out and "pole" in out


def test_predict_leaves_stray_points_out_where_it_is_asked_to(foundry, model, pole, tmp_path):
    spoiled = np.concatenate([np.load(pole), np.float32([[40, 0, 0], [0, -35, 9]])])
    np.save(tmp_path / "spoiled.npy", spoiled)
    rows = []
    for cloud, options in ((pole, []), (tmp_path / "spoiled.npy", []), (tmp_path / "spoiled.npy", ["--denoise"])):
        code, _, err = foundry("predict", cloud, *options, "--model", model, "--json", tmp_path / "r.json")
        assert code == 0, err
        rows += json.loads((tmp_path / "r.json").read_text())
    clean, without, denoised = rows
    assert denoised["strays"] >= 2 and denoised["points"] == without["points"] == clean["points"] + 2
    assert sum(denoised["parts"].values()) == denoised["points"] - denoised["strays"]
    assert denoised["label"] == "pole" and "strays" not in without
    assert abs(denoised["probability"] - clean["probability"]) < abs(without["probability"] - clean["probability"])
    refused(foundry("predict", pole, "--scene", "--denoise", "--model", model), "--denoise")


def test_predict_reads_every_kind_of_file_alike(foundry, model, tmp_path):
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
    code, _, err = foundry("predict", *files, "--model", model, "--json", tmp_path / "r.json")
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


def test_predict_finds_the_objects_of_a_scene(foundry, model, tmp_path):
    rng = np.random.default_rng(4)
    ground = np.column_stack([rng.uniform(-12, 12, (20000, 2)), rng.normal(0, 0.01, 20000)])
    posts = [rng.uniform(-1, 1, (600, 3)) * [0.12, 0.12, 1.0] + [x, y, 1.15] for x, y in ((5, 2), (6, -4))]
    np.save(tmp_path / "scene.npy", np.concatenate([ground, *posts]).astype(np.float32))
    code, out, err = foundry(
        "predict", tmp_path / "scene.npy", "--scene", "--model", model, "--json", tmp_path / "r.json"
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
def test_predict_refuses_bad_files(foundry, model, pole, tmp_path, name):
    if BAD_CLOUDS[name] is not None:
        (tmp_path / name).write_bytes(BAD_CLOUDS[name])
    # a good file before the bad one must not leave a partial result
    result = foundry("predict", pole, tmp_path / name, "--model", model, "--json", tmp_path / "r.json")
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
def test_predict_refuses_bad_clouds(foundry, model, tmp_path, case):
    np.save(tmp_path / "cloud.npy", BAD_ARRAYS[case], allow_pickle=True)
    before = sorted(tmp_path.iterdir())
    refused(foundry("predict", tmp_path / "cloud.npy", "--model", model, "--json", tmp_path / "r.json"), "cloud.npy")
    assert sorted(tmp_path.iterdir()) == before
    if BAD_ARRAYS[case].dtype == np.float32:  # a sweep has to hold as much
        refused(foundry("predict", tmp_path / "cloud.npy", "--model", model, "--scene"), "cloud.npy")


def damage(directory, how):
    card = json.loads((directory / "card.json").read_text())
    if how == "missing graph":
        (directory / "model.onnx").unlink()
    elif how == "wrong hash":
        data = bytearray((directory / "model.onnx").read_bytes())
        data[len(data) // 2] ^= 1
        (directory / "model.onnx").write_bytes(data)
    elif how == "missing card":
        (directory / "card.json").unlink()
    elif how == "torn card":
        (directory / "card.json").write_text(json.dumps(card)[:100])
    else:
        card |= {"files": {}} if how == "graph without hash" else {"no_such_key": 1}
        (directory / "card.json").write_text(json.dumps(card))


HOWS = ["missing graph", "wrong hash", "graph without hash", "missing card", "torn card", "unknown key"]


@pytest.mark.parametrize("how", HOWS)
def test_damaged_model_directories_are_refused(foundry, model, shapes, pole, tmp_path, how):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    damage(broken, how)
    before = sorted(tmp_path.iterdir())
    refused(foundry("predict", pole, "--model", broken, "--json", tmp_path / "r.json"), broken)
    refused(foundry("embed", "--model", broken, "--data", shapes, "--out", tmp_path / "f.npz"), broken)
    assert sorted(tmp_path.iterdir()) == before


# -- embed -----------------------------------------------------------------------------------------------------------


def oracle_tokens(points):
    """Tokens [G,6] of the tiny model: the centre and the largest offset in its patch."""
    prepared, _ = geometry.prepare(points, PREPROCESSING.points)
    centers, neighborhoods = geometry.group(prepared, PREPROCESSING.groups, PREPROCESSING.neighbors)
    return np.concatenate([centers, neighborhoods.max(axis=1)], axis=1)


def test_embed_writes_mean_and_max_of_the_tokens(foundry, model, shapes, tmp_path):
    code, out, err = foundry("embed", "--model", model, "--data", shapes, "--out", tmp_path / "new" / "f.npz")
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
def test_embed_writes_tokens_on_request_at_every_budget(foundry, model, shapes, tmp_path, budget):
    arguments = ("--data", shapes, "--out", tmp_path / "f.npz", "--tokens", "--budget", budget)
    code, _, err = foundry("embed", "--model", model, *arguments)
    assert code == 0, err
    with np.load(tmp_path / "f.npz") as archive, np.load(shapes) as data:
        assert set(archive.files) == {"features", "tokens", "centers", "supertokens"}
        np.testing.assert_allclose(archive["tokens"][20], oracle_tokens(data["points"][20]), atol=1e-5)
        np.testing.assert_array_equal(archive["centers"], archive["tokens"][..., :3])
        np.testing.assert_array_equal(archive["supertokens"], archive["tokens"][:, :budget])


def test_embed_refuses_what_it_cannot_do(foundry, model, shapes, tmp_path):
    out = tmp_path / "f.npz"
    seven = foundry("embed", "--model", model, "--data", shapes, "--out", out, "--budget", 7)
    refused(seven, "--budget 7", "runs with 1, 2, 4")
    refused(foundry("embed", "--model", model, "--data", tmp_path / "no.npz", "--out", out), "no.npz", "no such file")
    refused(foundry("embed", "--model", model, "--data", shapes, "--out", tmp_path / "f.csv"), "f.csv", ".npz")
    refused(foundry("embed", "--model", "no-such-model", "--data", shapes, "--out", out), "no-such-model")
    before = shapes.read_bytes()
    refused(foundry("embed", "--model", model, "--data", shapes, "--out", shapes), "is what the command reads")
    assert shapes.read_bytes() == before
    np.savez(tmp_path / "bad.npz", points=np.full((2, 9, 3), np.inf, np.float32))
    refused(foundry("embed", "--model", model, "--data", tmp_path / "bad.npz", "--out", out), "bad.npz", "infinite")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npz"]


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


# -- replay and demo: what is refused before anything starts ---------------------------------------------------------


def test_replay_and_demo_refuse_before_they_start(foundry, model, shapes, tmp_path):
    picture = tmp_path / "picture.foo"
    refused(foundry("replay", tmp_path / "bag", "--picture", picture), picture, ".png")
    pytest.importorskip("rclpy")
    out = tmp_path / "demo"
    refused(foundry("demo", "--out", out, "--model", "no-such-model"), "no-such-model: neither a shipped model")
    refused(foundry("demo", "--out", out, "--model", model, "--budget", 7), "--budget 7", "runs with 1, 2, 4")
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    card = json.loads((bare / "card.json").read_text())
    (bare / "card.json").write_text(json.dumps(card | {"heads": {}}))
    refused(foundry("demo", "--out", out, "--model", bare), "no heads for objects and parts")
    assert not out.exists()
