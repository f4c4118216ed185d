# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at random moments, while files are written again and again: the old one or the new one is there, whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from foundry_core import files
from foundry_core.card import GRAPH_FILE, load_card, write_card
from foundry_ros.saved import save_copy

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

#: the last lines of bag_replay's replay()
REPORTS = """
import itertools, json, sys
from foundry_core.files import write_atomically
for number in itertools.count():
    report = {"frames_sent": number, "timeline": {"sent_s": [number] * 20_000}}
    write_atomically(sys.argv[1], (json.dumps(report, indent=2) + "\\n").encode())
    print(number, flush=True)
"""

MODELS = """
import itertools, sys
from pathlib import Path
from foundry_ros.saved import save_copy
for number in itertools.count():
    save_copy(Path(sys.argv[1 + number % 2]), Path(sys.argv[3]))
    print(number, flush=True)
"""


def killed(code: str, *arguments: Path, patience: float) -> int:
    """Run the loop, kill it up to ``patience`` s after its first round; how many rounds it has told of."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        process.stdout.readline()
        time.sleep(patience)
        process.send_signal(signal.SIGKILL)
        return 1 + len(process.stdout.read().split())


def test_a_report_is_never_torn(tmp_path):
    path = tmp_path / "report.json"
    for patience in np.random.default_rng(0).uniform(0, 0.1, 5):
        rounds = killed(REPORTS, path, patience=patience)
        report = json.loads(path.read_text())
        assert report["frames_sent"] in (rounds - 1, rounds)
        assert report["timeline"]["sent_s"] == [report["frames_sent"]] * 20_000


@pytest.fixture
def models(tiny_model, tmp_path) -> list[Path]:
    """Two that differ in every file."""
    made = []
    for name in ("one", "two"):
        shutil.copytree(tiny_model, tmp_path / name)
        with open(tmp_path / name / GRAPH_FILE, "ab") as stream:
            stream.write(name.encode() * 500_000)
        write_card(tmp_path / name, load_card(tiny_model).model_copy(update={"name": name}))
        made.append(tmp_path / name)
    return made


def test_a_saved_model_is_never_torn_nor_missing(models, tmp_path):
    saved = tmp_path / "run" / "saved"
    saved.parent.mkdir()
    for patience in np.random.default_rng(1).uniform(0, 0.05, 5):
        killed(MODELS, *models, saved, patience=patience)
        assert load_card(saved).name in ("one", "two")  # hashes included
        assert sorted(path.name for path in saved.iterdir()) == sorted(path.name for path in models[0].iterdir())
    save_copy(models[0], saved)
    assert [path.name for path in saved.parent.iterdir()] == ["saved"], "litter of the killed ones"


def test_a_folder_is_replaced_where_names_cannot_be_exchanged(tmp_path, monkeypatch):
    for exchange in (files._exchange, lambda one, other: False):
        monkeypatch.setattr(files, "_exchange", exchange)
        for round in ("first", "second"):
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / round).touch()
            files.replace_folder(tmp_path / "new", tmp_path / "target", tmp_path / "aside")
            assert [path.name for path in (tmp_path / "target").iterdir()] == [round]
            assert not (tmp_path / "new").exists()
        assert [path.name for path in (tmp_path / "aside").iterdir()] == ["first"]
        shutil.rmtree(tmp_path / "target")
        shutil.rmtree(tmp_path / "aside")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux exchanges two names")
def test_there_is_no_moment_without_the_folder(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert files._exchange(tmp_path / "one", tmp_path / "two")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["two"]
    assert not files._exchange(tmp_path / "one", tmp_path / "nothing")
