# SPDX-License-Identifier: Apache-2.0
"""The benchmark: every configuration in a process of its own, measured in turns so that disturbances hit all alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foundry_core.errors import InputError
from foundry_core.runtime.bench_worker import THREAD_VARIABLES, Spec

AT_ONCE = 16  # processes that hold their models in memory together


class _Worker:
    """A running configuration; it sleeps unless it is asked to measure."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(spec.threads))
        root = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "foundry_core.runtime.bench_worker", spec.to_json()]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)
        self.failure = ""
        self.rounds: list[dict[str, Any]] = []
        self.loaded = self._answer() or {}

    def _answer(self) -> dict[str, Any] | None:
        line = self._process.stdout.readline()
        if line.startswith("{"):
            return json.loads(line)
        errors = self._process.stderr.read().strip().splitlines()
        last = errors[-1] if errors else f"ended with code {self._process.wait()}"
        self.failure = last.removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")  # its text is for users
        return None

    def measure(self, repeats: int) -> None:
        if self.failure:
            return
        self._process.stdin.write(f"{repeats}\n")
        self._process.stdin.flush()
        if answer := self._answer():
            self.rounds.append(answer)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._process.stderr.close()

    def row(self) -> dict[str, Any]:
        spec = self.spec
        columns = {
            key: np.concatenate([np.asarray(item[key]) for item in self.rounds])
            for key in ("geometry_ms", "network_ms", "cpu_s")
        }
        total = columns["geometry_ms"] + columns["network_ms"]
        row = {
            "model": spec.model,
            "runtime": spec.runtime,
            "precision": spec.precision,
            "budget": spec.budget,
            "outputs": list(spec.outputs),
            "threads": spec.threads,
            "batch": spec.batch,
            "points": self.loaded["points"],
            "p50_ms": _percentile(total, 50),
            "p95_ms": _percentile(total, 95),
            "network_p50_ms": _percentile(columns["network_ms"], 50),
            "network_p95_ms": _percentile(columns["network_ms"], 95),
            "network_min_ms": round(float(columns["network_ms"].min()), 4),
            "geometry_p50_ms": _percentile(columns["geometry_ms"], 50),
            "rss_mb": round(max(item["rss_mb"] for item in self.rounds), 1),
            "params": self.loaded["params"],
            "macs": self.loaded["macs"],
            "load_s": round(float(self.loaded["load_s"]), 4),
            "cpu_s_per_cloud": round(float(np.median(columns["cpu_s"])) / spec.batch, 6),
            "runs": len(total),
        }
        return row | ({"axis": spec.axis, "value": spec.value} if spec.axis else {})


def _percentile(values: np.ndarray, percent: float) -> float:
    return round(float(np.percentile(values, percent)), 4)


def run_benchmark(
    specs: Sequence[Spec], rounds: int, repeats: int, advance: Callable[[str], None] = lambda name: None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure all configurations, ``rounds`` times ``repeats`` runs each, in turns.

    Args:
        advance: called with the name of a configuration after each of its rounds.

    Returns:
        one row for each configuration that ran, geometry included in ``p50_ms`` and ``p95_ms`` (all times are of a
        whole batch); and one line for each that did not.
    """
    rows, failures = [], []
    for start in range(0, len(specs), AT_ONCE):
        workers: list[_Worker] = []
        try:
            for spec in specs[start : start + AT_ONCE]:
                workers.append(_Worker(spec))
            for _ in range(rounds):
                for worker in workers:
                    worker.measure(repeats)
                    advance(worker.spec.model)
        finally:
            for worker in workers:
                worker.close()
        for worker in workers:
            spec = worker.spec
            if worker.failure:
                where = f"{spec.model}, {spec.runtime}, {spec.precision}, budget {spec.budget}, batch {spec.batch}"
                where += f", {spec.axis} {spec.value}" if spec.axis else ""
                failures.append(f"{where}: {worker.failure}")
            else:
                rows.append(worker.row())
    return rows, failures
