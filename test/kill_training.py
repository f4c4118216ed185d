# SPDX-License-Identifier: Apache-2.0
"""Kill a tiny training at random moments, resume it each time, and compare it with one that nobody disturbed.

python test/kill_training.py --kills 20
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from foundry_core.schema import parse  # noqa: E402
from foundry_core.training.config import PretrainConfig  # noqa: E402
from foundry_core.training.pretrain import pretrain  # noqa: E402

STEPS_PER_LIFE = 20


def config(shapes: Path, steps: int, checkpoint_seconds: float) -> PretrainConfig:
    """A tiny run that has everything a checkpoint must keep: averaged weights, micro-batches, data workers."""
    values = {
        "name": "tiny",
        "architecture": {
            "tokenizer": {"first": 8, "second": 16, "third": 16},
            "encoder": {"width": 24, "depth": 1, "heads": 3, "position_hidden": 8},
        },
        "preprocessing": {"points": 64, "groups": 8, "neighbors": 8},
        "data": {"compositions": 0, "categories": 0, "partial": 0, "files": [{"path": str(shapes)}]},
        "loop": {
            **{"steps": steps, "batch": 8, "accumulate": 2, "ema": 0.95, "precision": "fp32", "device": "cpu"},
            **{"workers": 1, "checkpoint_seconds": checkpoint_seconds, "log_steps": 7},
        },
    }
    return parse(PretrainConfig, values, "kill_training")


def start(settings: PretrainConfig, folder: Path) -> int:
    """Train, or go on, in a process of its own; its number."""
    child = os.fork()  # not a new interpreter: a life is short beside the import of torch
    if child:
        return child
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        pretrain(settings, folder)
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def changed(file: Path) -> int:
    """When a file was last written, ns; 0 while there is none."""
    return file.stat().st_mtime_ns if file.exists() else 0


def finished(child: int, seconds: float, since: Path | None = None) -> bool:
    """Wait for the end of the process, but kill it after ``seconds``; whether it came to its end.

    The seconds count from the next time that ``since`` is written, if it is given.
    """
    deadline, before = time.monotonic() + seconds, since and changed(since)
    while True:
        if since and changed(since) == before:
            deadline = time.monotonic() + seconds
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                sys.exit(f"a training ended with status {status}")
            return True
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.001)


def losses(folder: Path) -> list[dict]:
    """The rows of the log without its clock."""
    rows = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in ("seconds", "samples_per_second")} for row in rows]


def compare(whole: Path, folder: Path) -> None:
    """Exit unless both runs left the same rows and the same weights, bit for bit, and nothing else."""
    if losses(whole) != losses(folder):
        sys.exit(f"{folder}: other losses than the undisturbed run's")
    weights = [(run / "tiny" / "model.safetensors").read_bytes() for run in (whole, folder)]
    if weights[0] != weights[1]:
        sys.exit(f"{folder}: other weights than the undisturbed run's")
    if torn := list(folder.glob(".*.tmp")):
        sys.exit(f"{folder}: a torn {torn[0].name} was left behind")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: another one each time")
    arguments = parser.parse_args()
    steps, draw = STEPS_PER_LIFE * (arguments.kills + 1), random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as root:
        whole, shapes = Path(root) / "whole", Path(root) / "shapes.npz"
        np.savez(shapes, points=np.random.default_rng(0).normal(size=(40, 64, 3)))
        began = time.monotonic()
        finished(start(config(shapes, steps, 1e6), whole), 1e6)
        life = (time.monotonic() - began) / (arguments.kills + 1)
        settings = config(shapes, steps, life / 10)
        kills, runs, resumed = 0, 0, []
        while kills < arguments.kills:  # one run, unless it ends before it was killed often enough
            folder, runs = Path(root) / f"killed-{runs}", runs + 1
            checkpoint = folder / "checkpoint.pt"
            while kills < arguments.kills:
                # every other kill comes some time after a checkpoint, the rest at any moment of a life
                since, most = (checkpoint, life) if kills % 2 == 0 else (None, 2 * life)
                if finished(start(settings, folder), draw.uniform(0, most), since):
                    break
                kills += 1
                resumed.append(torch.load(checkpoint, weights_only=True)["step"] if checkpoint.exists() else 0)
            finished(start(settings, folder), 1e6)
            compare(whole, folder)
        rows = len(losses(whole))
    if not any(0 < step < steps for step in resumed):
        sys.exit("no kill came between the first checkpoint and the end: nothing was tested")
    print(f"{kills} kills in {runs} run(s) of {steps} steps, resumed from steps {resumed}: {rows} rows and all weights")
    print("equal those of the undisturbed run, bit for bit")


if __name__ == "__main__":
    main()
