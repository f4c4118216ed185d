# SPDX-License-Identifier: Apache-2.0
"""The training loop that every task shares: schedule, checkpoints that survive a kill, and a live table."""

from __future__ import annotations

import fcntl
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch
import yaml
from rich.live import Live
from rich.table import Table
from torch import Tensor, nn

from foundry_core.card import Training, TrainingData
from foundry_core.errors import InputError
from foundry_core.files import replacing, write_atomically
from foundry_core.schema import Settings
from foundry_core.training.config import LoopConfig
from foundry_core.training.precision import mixed_precision

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


class Task(Protocol):
    """What is learned: a frozen teacher, if any, stays outside ``module``."""

    module: nn.Module

    def losses(self, batch: Any, progress: float) -> dict[str, Tensor]:
        """Scalars of one batch; ``loss`` is minimised, the others are logged. ``progress`` runs from 0 to 1."""


class _StepwiseInterrupt:
    """Inside, SIGINT waits for the end of the step under way, then saves and raises KeyboardInterrupt.

    A wait for data is ended at once, and another SIGINT, a second or more later, waits for nothing. Only the main
    thread can do this.

    Args:
        save: keeps the state between two steps.
    """

    def __init__(self, save: Callable[[], None]):
        self.save = save
        self.in_step = False
        self.asked: float | None = None

    def __enter__(self) -> Callable[[], AbstractContextManager]:
        self.previous = None
        heeded = signal.getsignal(signal.SIGINT) != signal.SIG_IGN  # a job in the background may ignore it
        if heeded and threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGINT, self._on_sigint)
        return self._step

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        try:
            if kind is KeyboardInterrupt and not self.in_step:
                self.save()
        finally:
            if self.previous is not None:
                signal.signal(signal.SIGINT, self.previous)

    def _on_sigint(self, *_: Any) -> None:
        now = time.monotonic()
        if self.asked is not None and now - self.asked < 1.0:
            return  # the same event: when a parent dies, the system sends the signal for each of its threads
        again, self.asked = self.asked is not None, now
        if again or not self.in_step:
            raise KeyboardInterrupt

    @contextmanager
    def _step(self) -> Iterator[None]:
        self.in_step = True
        yield
        self.in_step = False  # not after an error: what a broken step leaves is not saved
        if self.asked is not None:
            raise KeyboardInterrupt


@contextmanager
def _sole_log(directory: Path) -> Iterator[TextIO]:
    """The folder's log, to append to. Inside, no other process trains there; the lock ends with this process.

    Raises:
        InputError: another process holds the folder.
    """
    with open(directory / LOG, "a", encoding="utf-8") as log:
        try:
            fcntl.lockf(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a record lock: data workers do not inherit it
        except OSError:
            raise InputError(f"{directory}: another process trains in this folder; wait for it or stop it") from None
        yield log


class Run:
    """One training run in a folder of its own: ``config.yaml``, ``log.jsonl`` and ``checkpoint.pt``.

    The position in the data stream is the step, so a resumed run sees the data that an uninterrupted one would.
    """

    def __init__(self, directory: Path, task: Task, config: LoopConfig, settings: Settings, minutes: float | None):
        self.directory, self.task, self.config, self.minutes = directory, task, config, minutes
        self.step, self.elapsed = 0, 0.0
        torch.set_num_threads(config.threads)
        # BatchNorm, LayerNorm and biases keep their scale: weight decay is for matrices
        matrices = [p for p in task.module.parameters() if p.requires_grad and p.ndim > 1]
        others = [p for p in task.module.parameters() if p.requires_grad and p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
        )
        directory.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
        write_atomically(directory / "config.yaml", text.encode())

    def progress(self) -> float:
        """Share of the run that is done: of the steps, or of the minutes when they are given."""
        if self.minutes is not None:
            return min(1.0, max(self.elapsed / (60 * self.minutes), self.step / self.config.steps))
        return min(1.0, self.step / self.config.steps)

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to one hundredth."""
        progress, warmup = self.progress(), self.config.warmup
        if progress < warmup:
            return self.config.learning_rate * max(progress / warmup, 1e-3)
        cosine = 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
        return self.config.learning_rate * (0.01 + 0.99 * cosine)

    def save(self) -> None:
        """Write the checkpoint under a temporary name and rename it: the last good one survives any kill."""
        state = {
            "module": self.task.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "step": self.step,
            "elapsed": self.elapsed,
        }
        with replacing(self.directory / CHECKPOINT) as stream:
            torch.save(state, stream)

    def resume(self) -> None:
        """Go on from the folder's checkpoint, if there is one."""
        path = self.directory / CHECKPOINT
        if not path.is_file():
            return
        try:
            state = torch.load(path, weights_only=True)
        except Exception as error:  # torch raises whatever its reader trips over
            raise InputError(
                f"{path}: torn or no checkpoint ({type(error).__name__}); start anew in another --out"
            ) from None
        try:
            self.task.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
            self.step, self.elapsed = state["step"], state["elapsed"]
        except (RuntimeError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: does not fit this run ({reason}); start anew in another --out") from None

    def record(self, task: str, data: list[TrainingData], source: str, **parent: str) -> Training:
        """What the model card says of this run; ``parent`` and ``parent_sha256`` where it built on another model."""
        return Training(
            task=task,
            data=data,
            seed=self.config.seed,
            steps=self.step,
            batch=self.config.batch,
            minutes=round(self.elapsed / 60, 1),
            config=source,
            **parent,
        )

    def train(self, batches: Callable[[int], Iterator[Any]], title: str) -> dict[str, float]:
        """Run to the end of the steps or minutes.

        Args:
            batches: gives the batches from a step on.
            title: of the live table.

        Returns:
            mean of the logged scalars over the last stretch of the run.
        """
        with _sole_log(self.directory) as log:
            self.resume()
            return self._train(batches, title, log)

    def _train(self, batches: Callable[[int], Iterator[Any]], title: str, log: TextIO) -> dict[str, float]:
        sums: dict[str, float] = {}
        recent: dict[str, float] = {}
        counted, last_save, started = 0, time.monotonic(), time.monotonic() - self.elapsed
        self.task.module.train()
        with (
            _StepwiseInterrupt(self.save) as whole_step,
            Live(refresh_per_second=1) as live,
        ):
            stream = batches(self.step)
            while self.progress() < 1.0:
                batch = next(stream)
                with whole_step():
                    losses = self._update(batch, title)
                    self.step += 1
                    self.elapsed = time.monotonic() - started
                    for key, value in losses.items():
                        sums[key] = sums.get(key, 0.0) + float(value.detach())
                    counted += 1
                    if self.step % 50 == 0 or self.progress() >= 1.0:
                        recent = {key: value / counted for key, value in sums.items()}
                        rate = round(self.step * self.config.batch / max(self.elapsed, 1e-9), 1)
                        row = {"step": self.step, "seconds": round(self.elapsed, 1), "samples_per_second": rate}
                        log.write(json.dumps({**row, "learning_rate": self.learning_rate(), **recent}) + "\n")
                        log.flush()
                        live.update(_table(title, {**row, "done": f"{100 * self.progress():.0f} %", **recent}))
                        sums, counted = {}, 0
                    if time.monotonic() - last_save > self.config.checkpoint_seconds:
                        self.save()
                        last_save = time.monotonic()
        self.save()
        return recent

    def _update(self, batch: Any, title: str) -> dict[str, Tensor]:
        """One step of the optimiser; the scalars of the batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        with mixed_precision(self.config.precision):
            losses = self.task.losses(batch, self.progress())
        if not torch.isfinite(losses["loss"]):
            raise InputError(f"{title}: the loss is not finite at step {self.step}; lower loop.learning_rate")
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(self.task.module.parameters(), self.config.clip)
        self.optimizer.step()
        return losses


def _table(title: str, row: dict[str, Any]) -> Table:
    table = Table(title=title)
    for key in row:
        table.add_column(key, justify="right")
    table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))
    return table
