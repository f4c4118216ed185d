# SPDX-License-Identifier: Apache-2.0
"""Malformed messages through a real perception_node over DDS, one after the other, each one's arrival confirmed."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from observer import Ros
from station import Station, cloud, diagnostics
from street_scene import street
from tiny_model import write_tiny_model

from foundry_ros.processes import Domain
from fuzz import clouds, guard

#: s of the node's CPU time, and by the wall clock, for the diagnostics to count what was sent
_PATIENCE, _BACKSTOP = 60.0, guard.BACKSTOP


class Lost(AssertionError):
    """The node has ended, or has not counted what it was sent."""


def _figures(station: Any) -> dict[str, str]:
    found = diagnostics(station.diagnostics)
    del station.diagnostics[:-4]
    return found


def _judged(figures: dict[str, str]) -> int:
    return sum(int(figures.get(key, 0)) for key in ("processed", "rejected"))


def _cpu_seconds(node: psutil.Process) -> float:
    try:
        times = node.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def _settled(station: Any, process: Any, sent: int) -> dict[str, str]:
    """Wait until the node has received all that was sent, and has nothing left to do."""
    node = psutil.Process(process.process.pid)
    deadline, enough, figures = time.monotonic() + _BACKSTOP, _cpu_seconds(node) + _PATIENCE, {}
    while time.monotonic() < deadline and _cpu_seconds(node) < enough:
        if not process.running():
            raise Lost(f"perception_node ended with {process.process.returncode}: {list(process._tail)}")
        figures = _figures(station)
        if int(figures.get("received", 0)) == sent == _judged(figures) + int(figures["dropped"]):
            return figures
        time.sleep(0.01)
    if process.running():  # its threads' stacks go to its output
        process.process.send_signal(signal.SIGABRT)
        time.sleep(2.0)
    raise Lost(f"stuck: {figures.get('received')} of {sent} messages were received, {_judged(figures)} judged")


def run(count: int, seed: int, batch: int = 25, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Send cases of :func:`fuzz.clouds.case` until ``count`` of them were judged by decoding, then a good cloud.

    The input is made reliable and deep, so that every message arrives; after each ``batch`` the diagnostics must have
    counted all of it. A message that the node drops, because a newer one came while it was at work, is not among
    ``count``.

    Returns:
        messages sent, the node's own counts, its RSS before and after (MB), and faults [text].
    """
    with tempfile.TemporaryDirectory(prefix="foundry_fuzz_") as folder, Domain() as domain:
        model = write_tiny_model(Path(folder) / "tiny")
        parameters = {"model": str(model), "diagnostics_period": 0.1}
        parameters |= {f"qos_overrides./points.subscription.{key}": value
                       for key, value in (("reliability", "reliable"), ("depth", 2 * batch))}  # fmt: skip
        os.environ["PYTHONFAULTHANDLER"] = "1"
        ros = Ros(domain.number)
        report: dict[str, Any] = {"seed": seed, "faults": []}
        try:
            with ros.start("perception_node", parameters, {"~/input": "/points"}) as process:
                station = Station(ros, depth=2 * batch).connect()
                memory = psutil.Process(process.process.pid).memory_info
                before, sent, figures = memory().rss, 0, {}
                # behind a sample without a byte Fast DDS delivers nothing more of a reliable writer
                wires = (wire for number in itertools.count() if (wire := clouds.case(seed, number).wire))
                while _judged(figures) < count:
                    for wire in itertools.islice(wires, batch):
                        station.publisher.publish(wire)
                        sent += 1
                        time.sleep(0.002)
                    figures = _settled(station, process, sent)
                    if sent % (10 * batch) == 0:
                        tell(f"{_judged(figures)} of {count} judged, {figures['rejected']} rejected")
                if station.ask(cloud(street(), 77)).width < 2:
                    report["faults"].append("the good cloud behind the malformed ones was not answered well")
                figures = _settled(station, process, sent + 1)
                keys = ("received", "processed", "dropped", "rejected", "repaired")
                report |= {
                    "messages": sent,
                    "rss_mb": [round(size / 2**20, 1) for size in (before, memory().rss)],
                    "counts": {key: int(value) for key, value in figures.items() if key.split(".")[0] in keys},
                }
                if process.stop() != 0:
                    report["faults"].append(f"the node ended with {process.process.returncode}")
        except AssertionError as error:
            report["faults"].append("\n".join([str(error), *process._tail]))
        finally:
            ros.close()
    return report
