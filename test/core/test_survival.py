# SPDX-License-Identifier: Apache-2.0
"""The loop survives kills, full disks and torn files; averaged weights and micro-batches are what they say."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from foundry_core.errors import InputError  # noqa: E402
from foundry_core.schema import Settings  # noqa: E402
from foundry_core.training.config import LoopConfig  # noqa: E402
from foundry_core.training.loop import Run  # noqa: E402
from foundry_core.training.processes import Share  # noqa: E402
from foundry_core.training.run_log import RunLog  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


class Regression:
    """A task of one linear layer; rows are numbered, so that a batch says where it comes from."""

    def __init__(self):
        torch.manual_seed(0)
        self.module = torch.nn.Linear(64, 8)

    def losses(self, batch, progress):
        noise = torch.rand(1)  # what a checkpoint must bring back
        return {"loss": (self.module(batch[0]) - batch[1]).square().mean() + 0.01 * noise.sum()}


def rows_of(numbers):
    x = torch.stack([torch.randn(64, generator=torch.Generator().manual_seed(number)) for number in numbers])
    return x, x[:, :8] * 2


def run_in(folder: Path, **loop) -> Run:
    values = {"steps": 40, "batch": 4, "device": "cpu", "precision": "fp32", "log_steps": 5, **loop}
    return Run(folder, Regression(), LoopConfig(**values), Settings(), None)


def train(run: Run, before_step=lambda step: None) -> Run:
    def batches(step):
        for number, samples in enumerate(run.share.samples(step)):
            if number % run.share.accumulate == 0:
                before_step(step + number // run.share.accumulate)
            yield rows_of(samples)

    run.train(batches, "regression")
    return run


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_killed_at_random_moments_equals_an_undisturbed_one():
    command = [sys.executable, str(ROOT / "test" / "kill_training.py"), "--kills", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills in" in done.stdout


def test_a_full_disk_costs_neither_the_last_checkpoint_nor_the_run(tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = {}

    def disk(step):
        if step == 20:
            kept["before"] = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"]
            room = (tmp_path / "log.jsonl").stat().st_size + 20  # bytes in a file
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        elif step == 30:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            kept["after"] = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"]
            kept["torn"] = [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")]

    try:
        run = train(run_in(tmp_path, checkpoint_seconds=1e-9), disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert kept == {"before": 20, "after": 20, "torn": []}
    assert run.saved == 40 and torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 40
    assert [row["step"] for row in log_of(tmp_path)] == [5, 10, 15, 20, 35, 40]  # lost rows, no torn ones
    output = capsys.readouterr().out
    assert "checkpoint.pt: not written" in output and "the row of step 25 is lost" in output


def test_a_disk_that_stays_full_ends_the_run_with_the_last_checkpoint(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def disk(step):
        if step == 10:
            resource.setrlimit(resource.RLIMIT_FSIZE, (700, limits[1]))

    try:
        with pytest.raises(OSError):
            train(run_in(tmp_path, checkpoint_seconds=1e-9), disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 10
    train(run_in(tmp_path))
    whole = train(run_in(tmp_path / "whole"))
    resumed = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["module"]
    for name, value in whole.task.module.state_dict().items():
        assert torch.equal(value, resumed[name]), name


def test_a_torn_temporary_file_is_removed_and_never_read(tmp_path):
    train(run_in(tmp_path, steps=10))
    torn = tmp_path / ".checkpoint.pt.abc.tmp"
    torn.write_bytes((tmp_path / "checkpoint.pt").read_bytes()[:500])
    run = train(run_in(tmp_path, steps=12))
    assert run.step == 12 and not torn.exists()


def test_a_failed_step_is_not_saved(tmp_path):
    run = run_in(tmp_path, checkpoint_seconds=1e-9)

    def spoil(step):
        if step == 7:
            run.task.module.weight.data.fill_(float("nan"))

    with pytest.raises(InputError, match="not finite at step 7"):
        train(run, spoil)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["module"]["weight"].isfinite().all()


def test_a_resumed_log_holds_each_row_once(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 5}\n{"step": 10}\n{"step": 15}\n{"st')
    with RunLog.sole(tmp_path, print) as log:
        log.cut(10)
        log.add({"step": 15})
    assert [row["step"] for row in log_of(tmp_path)] == [5, 10, 15]


def test_means_of_a_row_that_a_resume_interrupts_are_those_of_all_its_steps(tmp_path):
    whole = train(run_in(tmp_path / "whole", steps=20, log_steps=10))
    stopped = run_in(tmp_path / "stopped", steps=20, log_steps=10)

    def stop(step):
        if step == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stopped, stop)
    resumed = train(run_in(tmp_path / "stopped", steps=20, log_steps=10))
    assert resumed.means.last == whole.means.last
    assert [row["loss"] for row in log_of(tmp_path / "stopped")] == [row["loss"] for row in log_of(tmp_path / "whole")]


def test_averaged_weights_are_the_moving_average_of_the_steps(tmp_path):
    run, seen = run_in(tmp_path, steps=30, ema=0.8), []
    train(run, lambda step: seen.append(run.task.module.weight.detach().clone()))
    last = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["module"]["weight"]
    average = seen[0]
    for step, weight in enumerate([*seen[1:], last], 1):
        decay = min(0.8, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    assert torch.allclose(run.task.module.weight, average, atol=1e-6)
    assert not torch.allclose(last, average, atol=1e-4)  # the run itself goes on from the last weights
    again = train(run_in(tmp_path, steps=30, ema=0.8))
    assert torch.equal(again.task.module.weight, run.task.module.weight)


def test_micro_batches_make_the_same_step_as_their_batch(tmp_path):
    one = train(run_in(tmp_path / "one", steps=10, batch=8))
    four = train(run_in(tmp_path / "four", steps=10, batch=8, accumulate=4))
    assert torch.allclose(one.task.module.weight, four.task.module.weight, atol=1e-6)


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (1, 4), (2, 1), (4, 3)])
def test_shares_are_disjoint_and_make_the_batch(world, accumulate):
    shares = [Share(24, accumulate, rank, world) for rank in range(world)]
    for step in (0, 5):
        streams = [share.samples(step) for share in shares]
        seen = [number for stream in streams for _ in range(accumulate) for number in next(stream)]
        assert sorted(seen) == list(range(24 * step, 24 * step + 24))


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(InputError, match="loop.batch: 4 is no multiple of 1 processes x 3 micro-batches"):
        Share.of_this_process(4, 3)
