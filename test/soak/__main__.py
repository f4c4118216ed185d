# SPDX-License-Identifier: Apache-2.0
"""``PYTHONPATH=.:test python -m soak``: perception_node at 10 Hz of 120,000 points, for a bounded time.

Exit code 1 when the node's memory grows by 2 % or more after the warm-up, when it holds more file handles at the end
than after the warm-up, when it leaves one of its segments in /dev/shm after a clean stop, or when it does not answer or
ends. Segments of other processes, which come and go on a busy machine, are no concern of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import bounded_run
import numpy as np
import psutil
from observer import Ros, wait_for
from segments import left_behind, own_segments
from station import Station, cloud, diagnostics
from street_scene import street

from foundry_ros.processes import Domain

POINTS, RATE = 120_000, 10.0
GROWTH = 0.02
#: share of the time, and most seconds, that count as warm-up
WARM_UP, LONGEST_WARM_UP = 0.2, 120.0


def sweep(seed: int) -> np.ndarray:
    """A street whose ground is as dense as a large lidar's: float32 [POINTS,3]."""
    rng = np.random.default_rng(seed)
    objects = street(seed)
    ground = rng.uniform(-40, 40, (POINTS - len(objects), 2))
    ground = np.column_stack([ground, rng.normal(-1.7, 0.01, len(ground))])
    return np.concatenate([objects, ground]).astype(np.float32)


def measure(minutes: float, model: str, patience: float) -> dict[str, Any]:
    """Play, and sample the node once a second; see the module for what is judged."""
    segments: set[str] = set()
    samples: list[tuple[float, int, int, int]] = []  # s, bytes, of these its own (neither files nor shared), handles
    with Domain() as domain:
        ros = Ros(domain.number)
        try:
            messages = [cloud(sweep(seed), 1) for seed in range(8)]
            start_parameters = {"model": model, "diagnostics_period": 1.0}
            with ros.start("perception_node", start_parameters, {"~/input": "/points"}) as process:
                station = Station(ros)
                joined = lambda: int(diagnostics(station.diagnostics).get("input_publishers", 0)) > 0  # noqa: E731
                wait_for(joined, patience, "the node to hear the publisher")
                node = psutil.Process(process.process.pid)
                start, sent, answered = time.monotonic(), 0, 0
                print(f"node {node.pid} runs; {minutes:g} minutes", flush=True)
                while (now := time.monotonic() - start) < minutes * 60 and process.running():
                    message = messages[sent % len(messages)]
                    message.header.stamp.sec, part = divmod(sent, int(RATE))
                    message.header.stamp.nanosec = int(part * 1e9 / RATE)
                    station.publisher.publish(message)
                    sent += 1
                    answered += len(station.objects)
                    station.objects.clear()
                    del station.diagnostics[:-3]
                    if len(samples) <= now:
                        memory = node.memory_info()
                        samples.append((now, memory.rss, memory.rss - memory.shared, node.num_fds()))
                        segments |= own_segments(node.pid)
                        if len(samples) % 60 == 0:
                            _, resident, own, handles = samples[-1]
                            sizes = f"{resident / 2**20:.1f} MB, {own / 2**20:.1f} MB of them its own"
                            print(f"{now:.0f} s: {sizes}, {handles} handles", flush=True)
                    time.sleep(max(0.0, start + sent / RATE - time.monotonic()))
                figures = diagnostics(station.diagnostics)
                code = process.stop() if process.running() else process.process.returncode
        finally:
            ros.close()
    warm = min(WARM_UP * minutes * 60, LONGEST_WARM_UP)
    table = np.array([sample for sample in samples if sample[0] >= warm] or samples)
    edge = max(len(table) // 10, 1)
    first, last = np.median(table[:edge], axis=0), np.median(table[-edge:], axis=0)
    return {
        "minutes": minutes, "points": POINTS, "rate_hz": RATE, "model": model, "warm_up_s": warm,
        "sent": sent, "answered": answered, "exit_code": code,
        **{key: int(figures.get(key, 0)) for key in ("received", "processed", "dropped", "rejected")},
        "rss_mb": {"warm": round(first[1] / 2**20, 1), "end": round(last[1] / 2**20, 1),
                   "max": round(float(table[:, 1].max()) / 2**20, 1)},
        "rss_growth": round(float(last[1] / first[1] - 1), 4),
        "own_mb": {"warm": round(first[2] / 2**20, 1), "end": round(last[2] / 2**20, 1)},
        "handles": {"warm": int(first[3]), "end": int(last[3])},
        "shm_segments": {"during": len(segments), "left": left_behind(segments)},
    }  # fmt: skip


def broken(report: dict[str, Any]) -> list[str]:
    """The bounds that were not kept."""
    handles = report["handles"]
    checks = {
        f"memory grew by {report['rss_growth']:.1%}, allowed is less than {GROWTH:.0%}": report["rss_growth"] >= GROWTH,
        f"file handles went from {handles['warm']} to {handles['end']}": handles["end"] > handles["warm"],
        f"left in /dev/shm: {report['shm_segments']['left']}": bool(report["shm_segments"]["left"]),
        f"the node ended with {report['exit_code']}": report["exit_code"] != 0,
        "no cloud was answered": report["answered"] == 0,
        f"{report['rejected']} clouds were rejected": report["rejected"] > 0,
    }
    return [text for text, failed in checks.items() if failed]


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--model", default="foundry-edge")
    parser.add_argument("--patience", type=float, default=300.0, help="s for the node to start (it may compile first)")
    parser.add_argument("--json", type=Path, default=Path("out/soak.json"))
    options = parser.parse_args()
    bounded_run.prepare()
    report = measure(options.minutes, options.model, options.patience)
    report["broken"] = broken(report)
    bounded_run.write(report, options.json)
    return 1 if report["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
