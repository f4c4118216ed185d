# SPDX-License-Identifier: Apache-2.0
"""A small share of ``make fuzz``, and that it sees a fault where there is one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from fuzz import atheris_clouds, clouds, files, guard

from foundry_core import pointcloud2


def test_malformed_messages_are_refused_or_read_right():
    report = clouds.run(1500, seed=1)
    assert report["faults"] == []
    assert sum(report["outcomes"].values()) == 1500
    kinds = Counter(key.split(":")[0] for key in report["outcomes"])
    assert (
        kinds["refused"] >= 6 and report["outcomes"]["accepted"] > 100
    )  # every kind of lie is told, and some are true


def test_the_same_seed_gives_the_same_message():
    assert clouds.case(3, 17) == clouds.case(3, 17) != clouds.case(4, 17)


def test_one_line_where_atheris_is_not_installed():
    code = "import sys; sys.modules['atheris'] = None; from fuzz.atheris_clouds import main; sys.exit(main())"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ended.returncode == 2 and not ended.stdout
    assert ended.stderr.count("\n") == 1 and "pip install atheris" in ended.stderr


def test_a_run_of_atheris_is_bounded_whatever_is_given():
    assert "-max_total_time=60" in atheris_clouds.arguments([])
    assert atheris_clouds.arguments([])[-1] == str(atheris_clouds.CORPUS)
    given = atheris_clouds.arguments(["-runs=10", "-timeout=1", "corpus"])
    assert given[-1] == "corpus" and "-timeout=10" not in given and "-max_total_time=60" not in given


@pytest.mark.parametrize("name", files.FORMATS)
def test_damaged_files_are_read_or_refused_in_one_line(name):
    if name == "safetensors":
        pytest.importorskip("torch")
    outcomes = files.check(name, examples=12)
    assert outcomes["refused"] > 0


def _crashing(message, name="point cloud"):
    raise IndexError("beyond the end")


def _hungry(message, name="point cloud"):
    return np.ones(2**28)  # 2 GB


def _hanging(message, name="point cloud"):
    while True:
        pass


@pytest.mark.parametrize("fault", [_crashing, _hungry, _hanging])
def test_a_fault_is_found(monkeypatch, fault):
    monkeypatch.setattr(pointcloud2, "decode", fault)
    report = clouds.run(12, seed=0, seconds_each=0.05)
    assert report["outcomes"]["FAULT"] >= 3 and "case (0, 0)" in report["faults"][0]


def test_wrong_values_are_found(monkeypatch):
    xyz = pointcloud2.xyz
    monkeypatch.setattr(pointcloud2, "xyz", lambda points, name: xyz(points, name)[:, ::-1])
    report = clouds.run(100, seed=0)
    assert any("AssertionError" in fault for fault in report["faults"])


def test_a_file_fault_is_found_and_made_small(monkeypatch):
    def read(path):
        if b"{" in path.read_bytes():
            raise KeyError("brace")

    text = files.FORMATS["text"]
    monkeypatch.setitem(files.FORMATS, "text", text._replace(read=read))
    with pytest.raises(KeyError) as caught:
        files.check("text", examples=200)
    assert "{" in "".join(caught.value.__notes__)


def test_the_guard_bounds_memory_and_time():
    with pytest.raises(MemoryError), guard.strict(64):
        np.ones(2**26)  # 512 MB
    with pytest.raises(guard.Hang, match="CPU"), guard.time_limit(0.05):
        while True:
            pass


def test_a_wait_for_the_processor_is_no_hang_but_one_for_ever_is():
    with guard.time_limit(0.05):
        time.sleep(0.3)  # as it is when others have the processor
    with pytest.raises(guard.Hang, match="longer than 0.1 s"), guard.time_limit(60, wall=0.1):
        time.sleep(60)
    assert signal.getitimer(signal.ITIMER_PROF) == signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


CLOUD_OF_FIVE_MILLION = """
import resource
import numpy as np
from foundry_core import cdr, pointcloud2
from foundry_core.scene.config import SceneConfig
from foundry_core.scene.segment import find_segments
from fuzz.clouds import serialise
points = np.random.default_rng(0).uniform([-60, -60, -1.75], [60, 60, -1.65], (5_000_000, 3)).astype(np.float32)
layout = pointcloud2.encode(dict(zip("xyz", points.T)))
header = cdr.Header(cdr.Stamp(1, 0), "lidar")
wire = serialise(cdr.StampedCloud(header, *layout[:6], bytes(layout.data), True))
find_segments(pointcloud2.to_cloud(pointcloud2.encode(dict(zip("xyz", points[:1000].T)))), SceneConfig())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cloud = pointcloud2.to_cloud(cdr.read_point_cloud(wire))
found = find_segments(cloud, SceneConfig())
assert len(cloud) == len(found.segment_id) == 5_000_000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_a_cloud_of_five_million_points_takes_bounded_memory():
    ended = subprocess.run(
        [sys.executable, "-c", CLOUD_OF_FIVE_MILLION], capture_output=True, text=True, timeout=280,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 400  # MB; the message itself has 57
