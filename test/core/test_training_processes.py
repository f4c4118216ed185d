# SPDX-License-Identifier: Apache-2.0
"""Several processes (torchrun, gloo) take the steps of one; a lost one is replaced and the run goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")
psutil = pytest.importorskip("psutil")

from two_processes import in_two_processes  # noqa: E402

from foundry_core.models.parallel import SharedBatchNorm1d, rand, share_statistics  # noqa: E402
from foundry_core.models.registry import load_model  # noqa: E402
from foundry_core.schema import parse  # noqa: E402
from foundry_core.training.config import PretrainConfig  # noqa: E402
from foundry_core.training.pretrain import pretrain  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
STEPS = 60
SETTINGS = {
    "name": "tiny",
    "architecture": {
        "tokenizer": {"first": 8, "second": 16, "third": 16},
        "encoder": {"width": 24, "depth": 1, "heads": 3, "position_hidden": 8},
    },
    "preprocessing": {"points": 64, "groups": 8, "neighbors": 8},
    "loop": {
        **{"steps": STEPS, "batch": 8, "learning_rate": 3e-4, "precision": "fp32", "device": "cpu", "workers": 1},
        **{"checkpoint_seconds": 0.1, "log_steps": 5},
    },
}


def losses(folder: Path) -> dict[int, dict]:
    rows = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {row["step"]: row for row in rows}


def second_process(torchrun: subprocess.Popen) -> int | None:
    for child in psutil.Process(torchrun.pid).children():
        try:
            if child.environ().get("RANK") == "1":
                return child.pid
        except psutil.Error:
            continue
    return None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_one_of_which_is_lost_give_the_loss_curve_of_one(tmp_path):
    shapes, config = tmp_path / "shapes.npz", tmp_path / "config.yaml"
    np.savez(shapes, points=np.random.default_rng(0).normal(size=(40, 64, 3)))
    data = {"compositions": 0, "categories": 0, "partial": 0, "files": [{"path": str(shapes)}]}
    settings = {**SETTINGS, "data": data}
    config.write_text(yaml.safe_dump(settings))
    pretrain(parse(PretrainConfig, settings, "test"), tmp_path / "one")
    folder = tmp_path / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command += ["-m", "foundry_core.cli.main", "pretrain", "--config", str(config), "--out", str(folder)]
    with open(tmp_path / "output", "w") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        while (second := second_process(process)) is None and process.poll() is None:
            time.sleep(0.05)
        while not (folder / "checkpoint.pt").exists() and process.poll() is None:
            time.sleep(0.005)
        os.kill(second, signal.SIGKILL)
        step = torch.load(folder / "checkpoint.pt", weights_only=True)["step"]
        status, text = process.wait(), (tmp_path / "output").read_text()
    finally:
        process.terminate()  # torchrun ends its processes
    assert status == 0, text
    assert 0 < step < STEPS, "the kill came too late to test anything"
    assert text.count("wrote ") == 1  # the first process alone
    one, two = losses(tmp_path / "one"), losses(folder)
    assert one.keys() == two.keys() and len(one) == STEPS / 5
    for step in one:
        assert two[step]["loss"] == pytest.approx(one[step]["loss"], rel=1e-5 if step <= 10 else 2e-3), step
    expected, weights = (load_model(run / "tiny")[0].state_dict() for run in (tmp_path / "one", folder))
    for name, value in expected.items():
        if "running" in name:  # batch statistics are those of both processes
            assert torch.allclose(weights[name], value, rtol=1e-2, atol=1e-3), name


def _statistics(rank: int, folder: Path) -> dict:
    x = torch.load(folder / "x.pt")[rank * 6 : rank * 6 + 6].requires_grad_()
    norm = torch.nn.BatchNorm1d(5)
    norm.load_state_dict(torch.load(folder / "norm.pt"))
    share_statistics(norm)
    assert type(norm) is SharedBatchNorm1d
    out = norm(x)
    out.pow(3).mean().backward()
    torch.distributed.all_reduce(norm.weight.grad)
    torch.manual_seed(3)
    result = {"out": out.detach(), "x": x.grad / 2, "weight": norm.weight.grad / 2, "state": norm.state_dict()}
    return {**result, "rand": rand(4, 3), "after": torch.rand(1)}


def test_batch_norm_and_random_rows_are_those_of_the_whole_batch(tmp_path):
    torch.manual_seed(0)
    x, norm = torch.randn(12, 5, 7) * 3 + 5, torch.nn.BatchNorm1d(5)
    torch.nn.init.normal_(norm.weight)
    torch.save(x, tmp_path / "x.pt")
    torch.save(norm.state_dict(), tmp_path / "norm.pt")
    both = in_two_processes(_statistics, tmp_path)
    x.requires_grad_()
    out = norm(x)
    out.pow(3).mean().backward()
    assert torch.allclose(torch.cat([part["out"] for part in both]), out, atol=1e-5)
    assert torch.allclose(torch.cat([part["x"] for part in both]), x.grad, atol=1e-6)
    torch.manual_seed(3)
    rows, after = rand(8, 3), torch.rand(1)
    assert torch.equal(torch.cat([part["rand"] for part in both]), rows)
    for part in both:
        assert torch.allclose(part["weight"], norm.weight.grad, atol=1e-5) and torch.equal(part["after"], after)
        for name, value in norm.state_dict().items():
            assert torch.allclose(part["state"][name].float(), value.float(), rtol=1e-5), name
