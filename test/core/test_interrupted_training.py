# SPDX-License-Identifier: Apache-2.0
"""SIGINT ends a training between two steps: its checkpoint is there, and going on changes nothing in the result."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from observer import stopped, wait_for

torch = pytest.importorskip("torch")

from foundry_core.models.registry import load_model  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {
    "name": "tiny",
    "architecture": {
        "tokenizer": {"first": 8, "second": 16, "third": 16},
        "encoder": {"width": 24, "depth": 1, "heads": 3, "position_hidden": 8},
    },
    "preprocessing": {"points": 64, "groups": 8, "neighbors": 8},
    "objective": {"kind": "mae", "decoder_depth": 1},
    "loop": {"steps": 150, "batch": 4, "precision": "fp32", "workers": 1, "checkpoint_seconds": 1e6},
}


def train(folder: Path, option: str, **loop) -> subprocess.Popen:
    config = folder.parent / "config.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, "loop": {**CONFIG["loop"], **loop}}))
    command = [sys.executable, "-m", "foundry_core.cli.main", "pretrain", "--config", str(config), option, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(tmp_path):
    assert train(tmp_path / "whole", "--out").wait(200) == 0
    folder = tmp_path / "interrupted"
    process = train(folder, "--out")
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not (folder / "checkpoint.pt").exists(), "saved before it was interrupted"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode not in (0, -signal.SIGINT) and "Traceback" not in output, output
    step = torch.load(folder / "checkpoint.pt", weights_only=True)["step"]
    assert 50 <= step < 150, "the interruption came too late to test anything"
    assert train(folder, "--resume").wait(200) == 0
    expected = load_model(tmp_path / "whole" / "tiny")[0].state_dict()
    resumed = load_model(folder / "tiny")[0].state_dict()
    for name, value in expected.items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_no_worker_outlives_a_killed_trainer(tmp_path):
    # batches wait in a pipe that is full: a worker that writes into it never comes to ask for its parent
    with train(tmp_path / "killed", "--out", batch=48, steps=100_000) as process:
        log = tmp_path / "killed" / "log.jsonl"
        deadline = time.monotonic() + 120
        while not (log.is_file() and log.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii")
        workers = [int(pid) for pid in children.split()]
        process.kill()
        process.stdout.close()
    assert workers
    wait_for(lambda: all(map(stopped, workers)), 20, "the workers to end")
