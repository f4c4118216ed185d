# SPDX-License-Identifier: Apache-2.0
"""The training loop that every task shares: schedule, checkpoints that survive a kill, and what is shown of it."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from foundry_core.card import ModelCard, Training, TrainingData
from foundry_core.errors import InputError
from foundry_core.evaluation.curves import CURVES, draw_curves
from foundry_core.files import remove_torn, replacing, require_writable
from foundry_core.models.heads import Perception
from foundry_core.models.parallel import rank, share_statistics, world
from foundry_core.models.registry import save_model
from foundry_core.schema import Settings
from foundry_core.training.averaging import AveragedWeights
from foundry_core.training.config import LoopConfig
from foundry_core.training.display import Display, say
from foundry_core.training.interrupt import StepwiseInterrupt
from foundry_core.training.precision import mixed_precision
from foundry_core.training.processes import Share, agree, average, from_first, join
from foundry_core.training.run_config import CONFIG, keep_configuration
from foundry_core.training.run_log import Means, RunLog

CHECKPOINT = "checkpoint.pt"
DRAW_SECONDS = 30.0  # between pictures at least: one takes a second


class Task(Protocol):
    """What is learned: a frozen teacher, if any, stays outside ``module``.

    ``losses`` may draw from torch's generators: their state is a function of seed, step and micro-batch, the same in
    every process. Random numbers that belong to rows come from :func:`foundry_core.models.parallel.rand`, so that
    several processes draw what one would.
    """

    module: nn.Module
    # a task may have `rate(name) -> float`: the learning rate of a parameter of the module over the loop's

    def losses(self, batch: Any, progress: float) -> dict[str, Tensor]:
        """Scalars of one batch; ``loss`` is minimised, the others are logged. ``progress`` runs from 0 to 1."""


class Run:
    """One training run in a folder: ``config.yaml``, ``log.jsonl``, ``curves.png`` of it, and ``checkpoint.pt``.

    The position in the data stream and the state of the random generators are functions of the step, so a resumed run
    goes on as an uninterrupted one would, in any number of processes. Only the first process writes.

    Attributes:
        probes: gives more scalars for a row of the log, from its step and whether it is the run's last; asked before
            the first step too. The module then holds the averaged weights, if there are any: what would be written.
    """

    probes: Callable[[int, bool], dict[str, float]] | None = None

    def __init__(self, directory: Path, task: Task, config: LoopConfig, settings: Settings, minutes: float | None):
        self.directory, self.task, self.config, self.minutes = directory, task, config, minutes
        self.step, self.elapsed, self.saved, self.means = 0, 0.0, 0, Means()
        self._drawn, self._drawn_at = 0, time.monotonic()  # length of the log that the curves show, and since when
        torch.set_num_threads(config.threads)
        self.device = join(config.device)
        self.share = Share.of_this_process(config.batch, config.accumulate)
        self.leads = rank() == 0
        task.module.to(self.device)
        if world() > 1:
            share_statistics(task.module)
        groups, self._rates = self._parameter_groups()
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        self.average = AveragedWeights(task.module, config.ema) if config.ema else None
        self._settings = settings.model_dump(mode="json")
        if self.leads:
            directory.mkdir(parents=True, exist_ok=True)
            require_writable(directory / CONFIG, "--out")

    def _parameter_groups(self) -> tuple[list[dict[str, Any]], list[float]]:
        """Groups for the optimiser, and the rate of each over the loop's (of a task without ``rate``: 1)."""
        rate = getattr(self.task, "rate", lambda name: 1.0)
        # BatchNorm, LayerNorm and biases keep their scale: weight decay is for matrices
        groups: dict[tuple[float, float], list[nn.Parameter]] = {(1.0, self.config.weight_decay): [], (1.0, 0.0): []}
        for name, parameter in self.task.module.named_parameters():
            if parameter.requires_grad:
                decay = self.config.weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((rate(name), decay), []).append(parameter)
        filled = {key: members for key, members in groups.items() if members or key[0] == 1.0}
        made = [{"params": members, "weight_decay": decay} for (_, decay), members in filled.items()]
        return made, [rate for rate, _ in filled]

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
        """Write the checkpoint under a temporary name and rename it: the last good one survives a kill or a full disk.

        Raises:
            OSError: it cannot be written; the one before is still there.
        """
        if not self.leads:
            return
        state = self._state()  # in memory first: torch's own writer does not come back from a write that fails
        with replacing(self.directory / CHECKPOINT) as stream:
            stream.write(state)
        self.saved = self.step

    def _state(self) -> memoryview:
        buffer = io.BytesIO()
        state = {
            "module": self.task.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state if self.average else None,
            "means": self.means.state(),
            "step": self.step,
            "elapsed": self.elapsed,
        }
        torch.save(state, buffer)
        return buffer.getbuffer()

    def resume(self) -> None:
        """Go on from the folder's checkpoint, if there is one; every process from the state of the first."""
        path, data = self.directory / CHECKPOINT, None
        if self.leads:
            remove_torn(self.directory)
            data = path.read_bytes() if path.is_file() else None
        if world() > 1:
            data = from_first(bytes(self._state()) if self.leads and data is None else data)
        if data is None:
            return
        try:
            state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        except Exception as error:  # torch raises whatever its reader trips over
            raise InputError(
                f"{path}: torn or no checkpoint ({type(error).__name__}); start anew in another --out"
            ) from None
        try:
            self.task.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average:
                self.average.load(state.get("average") or state["module"])
            if "means" in state:
                self.means.load(state["means"])
            self.step, self.elapsed = state["step"], state["elapsed"]
        except (RuntimeError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(
                f"{path}: is of another run ({reason}); give its own configuration, or start anew in another --out"
            ) from None
        self.saved = self.step

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

    def write(self, network: Perception, card: ModelCard) -> ModelCard:
        """Write the model directory, named as the card, into the folder of the run; the card as it was written."""
        return save_model(self.directory / card.name, network, card) if self.leads else card

    def train(self, batches: Callable[[int], Iterator[Any]], title: str) -> dict[str, float]:
        """Run to the end of the steps or minutes; then the module holds the averaged weights, if there are any.

        Args:
            batches: gives this process's micro-batches, see ``share``, from a step on.
            title: of what is shown.

        Returns:
            mean of the logged scalars over the last stretch of the run.
        """
        with RunLog.sole(self.directory, say) if self.leads else nullcontext() as log:
            self.resume()
            if log:  # a run that this one does not fit, or that goes on beside it, keeps its configuration
                keep_configuration(self.directory, self._settings, self.step)
                log.cut(self.step or -1)
                if self.probes and self.step == 0:
                    log.add({"step": 0, "seconds": 0.0, **self._probed(False)})
            self._train(batches, title, log)
        if self.average:
            self.task.module.load_state_dict(self.average.state)
        self.task.module.to("cpu")
        return self.means.last

    def _train(self, batches: Callable[[int], Iterator[Any]], title: str, log: RunLog | None) -> None:
        last_save, started = time.monotonic(), time.monotonic() - self.elapsed
        self.task.module.train()
        with (
            StepwiseInterrupt(self.save, together=world() > 1) as interrupt,
            Display(title) if log else nullcontext() as display,
        ):
            stream = batches(self.step)
            while self.progress() < 1.0:
                parts = [next(stream) for _ in range(self.config.accumulate)]
                with interrupt.step():
                    scalars = self._update(parts, title)
                    self.step += 1
                    if self.average:
                        self.average.update(self.task.module, self.step)
                    elapsed = time.monotonic() - started
                    self.elapsed, stop = agree(elapsed, interrupt.asked is not None, self.device)
                    self.means.add(scalars)
                    if self.step % self.config.log_steps == 0 or self.progress() >= 1.0:
                        row = self._row()
                        if log:
                            row |= self._probed(self.progress() >= 1.0)
                            log.add(row)
                            display.show(row, self.progress())
                    if time.monotonic() - last_save > self.config.checkpoint_seconds:
                        self._try_to_save()
                        self._draw(log)
                        last_save = time.monotonic()
                if stop and world() > 1:
                    raise KeyboardInterrupt
            self.save()
            self._draw(log)

    def _probed(self, last: bool) -> dict[str, float]:
        averaged = self.average.instead(self.task.module) if self.probes and self.average else nullcontext()
        with averaged:
            return self.probes(self.step, last) if self.probes else {}

    def _draw(self, log: RunLog | None) -> None:
        """Draw the curves anew if the log has grown by a twentieth, or at the end; no training ends for a picture."""
        text, now = log.text() if log else "", time.monotonic()
        early = len(text) < 1.05 * self._drawn or now - self._drawn_at < DRAW_SECONDS
        if len(text) == self._drawn or (early and self.progress() < 1.0):
            return
        self._drawn, self._drawn_at = len(text), now
        try:
            draw_curves(text, self.directory / CURVES, str(self.directory))
        except InputError as error:
            say(str(error))

    def _try_to_save(self) -> None:
        try:
            self.save()
        except OSError as error:
            say(f"{CHECKPOINT}: not written ({error.strerror}), the last one is of step {self.saved}; make room")

    def _row(self) -> dict[str, Any]:
        rate = round(self.step * self.config.batch / max(self.elapsed, 1e-9), 1)
        return {
            "step": self.step,
            "seconds": round(self.elapsed, 1),
            "samples_per_second": rate,
            "learning_rate": self.learning_rate(),
            **self.means.take(),
        }

    def _update(self, parts: list[Any], title: str) -> dict[str, Tensor]:
        """One step of the optimiser on the micro-batches; the means of their scalars, over all processes."""
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        for micro, batch in enumerate(parts):
            seed = np.random.SeedSequence([self.config.seed, self.step, micro]).generate_state(1, np.uint64)[0]
            torch.manual_seed(int(seed))
            with mixed_precision(self.config.precision, self.device):
                losses = self.task.losses(self._moved(batch), self.progress())
            (losses["loss"] / len(parts)).backward()
            for key, value in losses.items():
                totals[key] = totals.get(key, 0) + value.detach() / len(parts)
        totals = average(self.task.module, totals)
        if not torch.isfinite(totals["loss"]):
            raise InputError(f"{title}: the loss is not finite at step {self.step}; lower loop.learning_rate")
        nn.utils.clip_grad_norm_(self.task.module.parameters(), self.config.clip)
        self.optimizer.step()
        return totals

    def _moved(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.device.type == "cpu":
            return batch
        return tuple(tensor.pin_memory().to(self.device, non_blocking=True) for tensor in batch)
