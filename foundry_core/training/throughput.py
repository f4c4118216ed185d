# SPDX-License-Identifier: Apache-2.0
"""Does the stream of shapes keep up with the trainer? Both alone, by turns, on the same machine."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foundry_core.data.stream import ShapeStream
from foundry_core.training.config import PretrainConfig
from foundry_core.training.loader import batches_from
from foundry_core.training.loop import Run
from foundry_core.training.pretrain import Pretraining, clouds_of
from foundry_core.training.processes import Share


@dataclass(frozen=True)
class Throughput:
    """Medians over the rounds.

    Attributes:
        workers: data processes of the stream.
        stream_per_second, trainer_per_second: clouds per second of wall clock, each running alone.
        ratio: how many times what the trainer consumes the stream gives.
        stream_cpu_ms, trainer_cpu_ms: processor time of one cloud in one process; on a busy machine the wall clock
            says little and these do. The trainer's is that of the CPU side where it runs on a GPU.
        cpu_ratio: ``trainer_cpu_ms / stream_cpu_ms``, for one data process with a core of its own.
    """

    workers: int
    stream_per_second: float
    trainer_per_second: float
    ratio: float
    stream_cpu_ms: float
    trainer_cpu_ms: float
    cpu_ratio: float

    def row(self) -> dict[str, float]:
        """All of it, rounded."""
        return {key: round(value, 2) for key, value in asdict(self).items()}


def _marked(kept: list[Any], marks: list[tuple[float, float]]) -> Iterator[Any]:
    """The batches in turn; ``marks`` gets the wall clock and the processor time at which each is asked for."""
    for batch in itertools.cycle(kept):
        marks.append((time.perf_counter(), time.process_time()))
        yield batch


def measure(config: PretrainConfig, workers: int, rounds: int = 5, batches: int = 8) -> Throughput:
    """Measure the stream and the trainer of a pre-training configuration by turns.

    Args:
        workers: data processes of the stream, at least 1.
        rounds: of both; a round is ``batches`` batches.
    """
    # a step more than is measured: the run's last one is followed by its checkpoint and curves
    loop = config.loop.model_copy(update={"steps": batches + 1, "accumulate": 1, "checkpoint_seconds": 1e9})
    dataset = clouds_of(config, ShapeStream(config.data, config.preprocessing.points, loop.seed))
    share, task = Share(loop.batch), Pretraining(config)
    torch.set_num_threads(loop.threads)
    alone = batches_from(dataset, share, 0, 0)
    kept = [next(alone) for _ in range(4)]  # in memory, for the trainer; compiles what is compiled
    ahead, rows = 4 * workers + 1, []
    with tempfile.TemporaryDirectory() as folder:
        Run(Path(folder) / "warm", task, loop, config, None).train(lambda _: itertools.cycle(kept), "warm up")
        for number in range(rounds):
            stream = batches_from(dataset, share, number * (ahead + batches), workers)
            for _ in range(ahead):  # what is fetched ahead was drawn before the clock starts
                next(stream)
            began = time.perf_counter()
            for _ in range(batches):
                next(stream)
            drawn = time.perf_counter() - began
            del stream
            cpu = time.process_time()
            next(alone)
            drawn_cpu = (time.process_time() - cpu) * batches
            marks: list[tuple[float, float]] = []
            run = Run(Path(folder) / str(number), task, loop, config, None)
            run.train(lambda _, marks=marks: _marked(kept, marks), f"round {number + 1} of {rounds}")
            rows.append((drawn, marks[-1][0] - marks[0][0], drawn_cpu, marks[-1][1] - marks[0][1]))
    clouds = batches * loop.batch
    drawn, trained, drawn_cpu, trained_cpu = np.median(np.array(rows), axis=0)
    return Throughput(
        workers=workers,
        stream_per_second=clouds / drawn,
        trainer_per_second=clouds / trained,
        ratio=trained / drawn,
        stream_cpu_ms=1e3 * drawn_cpu / clouds,
        trainer_cpu_ms=1e3 * trained_cpu / clouds,
        cpu_ratio=trained_cpu / drawn_cpu,
    )
