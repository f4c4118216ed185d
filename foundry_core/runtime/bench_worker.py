# SPDX-License-Identifier: Apache-2.0
"""One configuration of the benchmark in a process of its own.

``python -m foundry_core.runtime.bench_worker SPEC`` with SPEC the JSON of :class:`Spec` loads, warms up and writes one
JSON line; then, for every number that it reads, it measures so many runs and writes another. Between runs it sleeps.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: what may use threads in this process, told before it starts
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
WARM_UP = 3

Run = Callable[[Mapping[str, np.ndarray]], Any]


@dataclass(frozen=True)
class Spec:
    """A configuration.

    Attributes:
        model: its name in the results; directory: where it lies.
        runtime: onnxruntime or openvino; ``torch`` (our rewritten form, eager) or ``torch, as published`` (eager);
            ``gemm``: nothing but its matrix products, in float32.
        budget: supertokens; None for a teacher.
        outputs: of the graph, for example ("tokens",).
        peer: what it is other than a model directory: ``tome``, a teacher whose tokens merge to ``budget``;
            ``pointnet``; or ``point-mae``, the original code.
        at_once: of the batch's clouds, how many go through the network together; 0: all.
        sweep: points of a whole sweep that is perceived in place of a batch of clouds; 0: none.
        axis, value: what a scaling row is measured along, and where on it.
    """

    model: str
    directory: str
    runtime: str
    precision: str
    budget: int | None
    threads: int
    batch: int
    outputs: tuple[str, ...] = ("tokens",)
    peer: str = ""
    at_once: int = 0
    sweep: int = 0
    axis: str = ""
    value: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Spec:
        values = json.loads(text)
        return cls(**{**values, "outputs": tuple(values["outputs"])})


@dataclass
class Subject:
    """What is timed.

    Attributes:
        prepare: clouds [n,3] to the inputs of the network: its time is that of the geometry.
        run: the network.
        points: that a cloud has, before it is prepared.
        params: weights; macs: multiply-accumulate operations for one cloud.
    """

    prepare: Callable[[list[np.ndarray]], dict[str, np.ndarray]]
    run: Run
    points: int
    params: int
    macs: int


def clouds(count: int, points: int, seed: int = 0) -> list[np.ndarray]:
    """Points float32 [points,3] on ellipsoids of random axes: what is timed does not depend on what they show."""
    rng = np.random.default_rng(seed)
    surfaces = rng.normal(size=(count, points, 3))
    surfaces /= np.linalg.norm(surfaces, axis=2, keepdims=True)
    return list((surfaces * rng.uniform(0.3, 1.0, (count, 1, 3))).astype(np.float32))


def group(card, batch: list[np.ndarray], parts: bool) -> dict[str, np.ndarray]:
    """Graph inputs of a batch of clouds: sampling, neighbours and, for the part head, interpolation."""
    from foundry_core import geometry

    size = card.preprocessing
    made = geometry.prepare_batch(batch, size.points, size.groups, size.neighbors, 4 * size.points, parts)._asdict()
    names = ("points", "interpolation_index", "interpolation_weight") if parts else ()
    return {name: made[name] for name in ("centers", "neighborhoods", *names)}


def open_subject(spec: Spec) -> Subject:
    """The subject of a configuration, loaded and ready."""
    if spec.peer in ("pointnet", "point-mae"):
        module = {"pointnet": "foundry_core.runtime.bench_pointnet", "point-mae": "foundry_core.export.bench_point_mae"}
        return importlib.import_module(module[spec.peer]).open_peer(spec)
    from foundry_core.card import load_card
    from foundry_core.runtime.macs import macs, merging_products, total

    card = load_card(spec.directory, verify=False)
    size, parts = card.preprocessing, "part_logits" in spec.outputs
    merged = spec.peer == "tome"
    operations = total(merging_products(card, spec.budget)) if merged else macs(card, spec.budget, spec.outputs)
    run = _network(spec, card, None if merged else spec.budget)
    return Subject(lambda batch: group(card, batch, parts), run, size.points, card.parameters, operations)


def _network(spec: Spec, card, budget: int | None) -> Run:
    if spec.runtime == "gemm":
        return importlib.import_module("foundry_core.export.bench_gemm").open_products(spec, card)
    if spec.runtime.startswith("torch"):
        return importlib.import_module("foundry_core.export.bench_torch").open_eager(spec)
    from foundry_core.runtime.session import open_session

    session = open_session(spec.directory, spec.runtime, spec.precision, spec.threads, spec.outputs)

    def run(inputs: Mapping[str, np.ndarray]) -> None:
        step = spec.at_once or spec.batch
        for start in range(0, spec.batch, step):
            part = inputs if step == spec.batch else {k: value[start : start + step] for k, value in inputs.items()}
            session.run(part, spec.outputs, budget)

    return run


def measure(subject: Subject, batch: list[np.ndarray], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of sampling and grouping, and of the network, and CPU seconds of both, for every repeat."""
    rows: dict[str, list[float]] = {"geometry_ms": [], "network_ms": [], "cpu_s": []}
    for _ in range(repeats):
        busy, start = time.process_time(), time.perf_counter()
        inputs = subject.prepare(batch)
        middle = time.perf_counter()
        subject.run(inputs)
        end = time.perf_counter()
        rows["geometry_ms"].append(1e3 * (middle - start))
        rows["network_ms"].append(1e3 * (end - middle))
        rows["cpu_s"].append(time.process_time() - busy)
    return rows


def peak_memory_mb() -> float:
    """Peak resident memory of this process; getrusage would also count that of the process that started it."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(text: str) -> None:
    from foundry_core import geometry

    spec = Spec.from_json(text)
    geometry.warm_up()
    start = time.perf_counter()
    if spec.sweep:
        from foundry_core.runtime.bench_sweep import open_sweep

        subject = open_sweep(spec)
        batch = []
    else:
        subject = open_subject(spec)
        batch = clouds(spec.batch, subject.points)
    load = time.perf_counter() - start
    measure(subject, batch, WARM_UP)
    known = {"points": subject.points, "params": subject.params, "macs": subject.macs}
    print(json.dumps({"load_s": load, **known}), flush=True)
    for line in sys.stdin:
        rows = measure(subject, batch, int(line))
        print(json.dumps({**rows, "rss_mb": peak_memory_mb()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
