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
from commands import refused

from foundry_core.card import list_models
from foundry_core.cli.common import print_table
from foundry_core.errors import InputError
from foundry_core.files import write_atomically

ROOT = Path(__file__).resolve().parents[2]


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


def test_a_pipe_or_device_is_not_replaced_by_an_output(foundry, tiny_model, shapes, pole, tmp_path):
    pipe = tmp_path / "pipe.npz"
    os.mkfifo(pipe)
    refused(foundry("predict", pole, "--model", tiny_model, "--json", pipe), "no regular file", "--json")
    refused(foundry("embed", "--model", tiny_model, "--data", shapes, "--out", pipe), "no regular file")
    with pytest.raises(InputError, match="no regular file"):
        write_atomically(pipe, b"")
    assert pipe.is_fifo()


def test_an_output_that_is_a_link_stays_one(foundry, tiny_model, shapes, tmp_path):
    for name, arguments in {
        "l.json": ("models", "--json"),
        "l.npz": ("embed", "--model", tiny_model, "--data", shapes, "--out"),
    }.items():
        (tmp_path / name).symlink_to(tmp_path / f"target_{name}")
        assert foundry(*arguments, tmp_path / name)[0] == 0
        assert (tmp_path / name).is_symlink() and (tmp_path / f"target_{name}").stat().st_size


def test_names_that_the_system_refuses(foundry, tiny_model, shapes, pole, tmp_path):
    long = tmp_path / ("n" * 300)
    refused(foundry("predict", pole, "--model", long), "too long", "give another")
    refused(foundry("predict", pole, "--model", tiny_model, "--json", long), "too long")
    refused(foundry("world", "--out", long, "--seconds", "0.1"), "too long")


def test_brackets_and_colons_in_a_name_are_printed_as_they_are(foundry, tiny_model, shapes, tmp_path):
    out = tmp_path / "[b]:car:[" / "]f.npz"
    code, text, _ = foundry("embed", "--model", tiny_model, "--data", shapes, "--out", out)
    assert code == 0 and str(out) in text and out.is_file()
    cloud = tmp_path / "[red]:car:.npy"
    np.save(cloud, np.random.default_rng(0).normal(size=(90, 3)))
    code, text, _ = foundry("predict", cloud, "--model", tiny_model)
    assert code == 0 and cloud.name in text


def test_a_name_that_is_no_utf8_comes_back_from_the_json(foundry, tiny_model, pole, tmp_path):
    odd = tmp_path / os.fsdecode(b"\xff\xfe.npy")
    try:
        shutil.copy(pole, odd)
    except OSError:
        pytest.skip("this file system wants UTF-8")
    code, _, err = foundry("predict", odd, "--model", tiny_model, "--json", tmp_path / "r.json")
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
def test_damaged_model_directories_are_refused(foundry, tiny_model, shapes, pole, tmp_path, how):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    damage(broken, how)
    before = sorted(tmp_path.iterdir())
    refused(foundry("predict", pole, "--model", broken, "--json", tmp_path / "r.json"), broken)
    refused(foundry("embed", "--model", broken, "--data", shapes, "--out", tmp_path / "f.npz"), broken)
    assert sorted(tmp_path.iterdir()) == before


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


# -- replay and demo: what is refused before anything starts ---------------------------------------------------------


def test_replay_and_demo_refuse_before_they_start(foundry, tiny_model, shapes, tmp_path):
    picture = tmp_path / "picture.foo"
    refused(foundry("replay", tmp_path / "bag", "--picture", picture), picture, ".png")
    pytest.importorskip("rclpy")
    out = tmp_path / "demo"
    refused(foundry("demo", "--out", out, "--model", "no-such-model"), "no-such-model: neither a shipped model")
    refused(foundry("demo", "--out", out, "--model", tiny_model, "--budget", 7), "--budget 7", "runs with 1, 2, 4")
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    card = json.loads((bare / "card.json").read_text())
    (bare / "card.json").write_text(json.dumps(card | {"heads": {}}))
    refused(foundry("demo", "--out", out, "--model", bare), "no heads for objects and parts")
    assert not out.exists()
