# SPDX-License-Identifier: Apache-2.0
"""What a command writes: never over what it reads, and by the name that its form has."""

import errno
import os

import numpy as np
import pytest

from foundry_core.cli.main import _installed
from foundry_core.runtime import teach
from foundry_core.runtime.teach import ordinary_objects

#: command with IN for a file that it reads and would write; those that need torch are refused before it is asked for
OVER_INPUTS = (
    "predict IN --json IN",
    "predict other.npz --taught IN --json IN",
    "predict IN --json link.npz",
    "predict IN --json sub/../in.npz",
    "embed --model foundry-edge --data IN --out IN",
    "teach thing IN --file IN",
    "shapes convert IN --out IN",
    "shapes draw --mount IN --out IN",
    "evaluate probe --model histogram --data IN --json IN",
    "evaluate probe --model histogram --data other.npz --train IN --json IN",
    "evaluate fidelity --model foundry-edge --data IN --json IN",
    "evaluate fewshot --model histogram --data IN --json IN",
    "evaluate parts --model majority --data IN --json IN",
    "evaluate head --model foundry-edge --head none --data IN --json IN",
    "evaluate teach --data IN --old other.npz --json IN",
    "evaluate teach --data other.npz --old IN --json IN",
    "evaluate ownership --model foundry-edge --data in.png --out in.png",
    "evaluate tradeoff --fidelity in.png --bench other.npz --out in.png",
    "report in.html --results in.html",
    "report in.html --bench in.html",
    "export --all --check IN --json IN",
    "convert IN --arch point-mae --out new --json IN",
    "throughput --config IN --json IN",
    "replay IN --json IN",
    "replay other.npz --params IN --results IN",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points = np.random.default_rng(0).normal(size=(4, 100, 3))
    np.savez("in.npz", points=points, label=np.arange(4) % 2)
    np.savez("other.npz", points=points, label=np.arange(4) % 2)
    for name in ("in.png", "in.html"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.npz").symlink_to("in.npz")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "predict cloud.npy --model MODEL --json out.json",
        "embed --model MODEL --data other.npz --out out.npz",
        "teach thing cloud.npy --model MODEL --file out.npz",
        "models --json out.json",
    ],
)
def test_a_full_disk_is_one_line_that_names_the_file_and_exit_code_1(foundry, folder, tiny_model, monkeypatch, command):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    np.save("cloud.npy", np.random.default_rng(0).normal(size=(100, 3)))
    monkeypatch.setattr(teach, "ordinary_objects", lambda perceiver: ordinary_objects(perceiver, per_class=2))
    monkeypatch.setattr(os, "fsync", full)
    before = sorted(folder.iterdir())
    code, _, err = foundry(*command.replace("MODEL", str(tiny_model)).split())
    assert code == 1 and err == f"foundry: {folder / command.split()[-1]}: No space left on device\n"
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("command", OVER_INPUTS)
def test_no_output_replaces_an_input(foundry, folder, command):
    if command.startswith(("export", "convert", "throughput")):
        pytest.importorskip("torch")
    if command.startswith("replay") and not _installed():
        pytest.skip("foundry_ros is not installed")
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    code, out, err = foundry(*command.replace("IN", "in.npz").split())
    assert code == 2 and out == "" and err.count("\n") == 1, err
    assert "is what the command reads" in err
    assert {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()} == before


@pytest.mark.parametrize(
    "command",
    [
        "bench --plot x.jpg",
        "evaluate ownership --model foundry-edge --data in.npz --out x.jpg",
        "evaluate tradeoff --fidelity in.html --bench in.html --out x",
    ],
)
def test_a_picture_is_png(foundry, folder, command):
    code, _, err = foundry(*command.split())
    assert code == 2 and "pictures are written as .png" in err and err.count("\n") == 1
