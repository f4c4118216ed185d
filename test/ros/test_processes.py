# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from xml.etree import ElementTree

import pytest
from observer import stopped, wait_for

from foundry_core.card import share_directory
from foundry_core.errors import InputError
from foundry_ros import processes, signals
from foundry_ros.training_process import TrainingProcess


def test_domains_are_exclusive_and_valid(monkeypatch):
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    with processes.Domain() as first, processes.Domain() as second:
        assert first.number != second.number
        assert all(0 <= domain.number <= 232 for domain in (first, second))
    with open(os.path.join(tempfile.gettempdir(), f"foundry_ros_domain_{first.number}.lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back


def test_domain_of_the_user_is_respected_and_checked(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "17")
    with processes.Domain() as domain:
        assert domain.number == 17
    monkeypatch.setenv("ROS_DOMAIN_ID", "233")
    with pytest.raises(InputError, match="ROS_DOMAIN_ID=233"), processes.Domain():
        pass


def test_local_environment_is_local_and_names_the_profile(monkeypatch):
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    environment = processes.local_environment(42)
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST" and environment["ROS_DOMAIN_ID"] == "42"
    profile = ElementTree.parse(environment["FASTRTPS_DEFAULT_PROFILES_FILE"])
    size = int(profile.find(".//{*}segment_size").text)
    assert 3 * 4_000_000 <= size <= 64 * 2**20 // 3, "several large clouds fit, and three nodes into a 64 MB /dev/shm"
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "mine.xml")
    assert processes.local_environment(42)["FASTRTPS_DEFAULT_PROFILES_FILE"] == "mine.xml"
    assert (share_directory() / "config" / "fastdds.xml").is_file()


@pytest.fixture
def impostor(tmp_path, monkeypatch):
    """Makes ``foundry_ros.<name>`` of the started process run other code."""
    monkeypatch.chdir(tmp_path)  # python -m looks here first

    def make(body: str) -> dict[str, str]:
        package = tmp_path / "foundry_ros"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").write_text("")
        (package / "impostor.py").write_text(body)
        return {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1"}

    return make


def test_a_crash_is_reported_with_the_last_lines(impostor):
    environment = impostor("import sys\nprint('first', file=sys.stderr)\nraise RuntimeError('boom')\n")
    with processes.NodeProcess("impostor", {}, environment) as node:
        wait_for(lambda: not node.running())
        with pytest.raises(processes.NodeFailed, match="exit code 1") as caught:
            node.check()
    assert "RuntimeError: boom" in str(caught.value)


def test_a_segmentation_fault_is_named(impostor):
    environment = impostor("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    with processes.NodeProcess("impostor", {}, environment) as node:
        wait_for(lambda: not node.running())
        with pytest.raises(processes.NodeFailed, match="SIGSEGV"):
            node.check()


def test_bad_input_in_a_node_is_bad_input_here(impostor):
    environment = impostor("import sys\nprint('error: model x: missing', file=sys.stderr)\nsys.exit(2)\n")
    with processes.NodeProcess("impostor", {}, environment) as node:
        wait_for(lambda: not node.running())
        with pytest.raises(InputError, match="^model x: missing$"):
            node.check()


def test_a_node_that_ignores_sigint_is_ended_all_the_same(impostor):
    environment = impostor(
        "import signal, time\nfor s in (signal.SIGINT, signal.SIGTERM): signal.signal(s, signal.SIG_IGN)\n"
        "print('ready')\nwhile True: time.sleep(1)\n"
    )
    with processes.NodeProcess("impostor", {}, environment) as node:
        wait_for(node.lines)
        assert node.stop(patience=0.2) == -signal.SIGKILL


def test_an_interrupt_comes_once_and_is_not_lost():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(KeyboardInterrupt), signals.one_interrupt():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            except KeyboardInterrupt:  # as a library might
                os.kill(os.getpid(), signal.SIGINT)  # ignored
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # the process is ending, so far as it knows
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    with signals.one_interrupt():
        assert signal.getsignal(signal.SIGTERM) != handlers[signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == handlers[signal.SIGTERM]


def test_segments_of_dead_processes_are_removed(tmp_path):
    for name in ("fastrtps_dead", "fastrtps_alive", "fastrtps_port7000"):
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / f"{name}_el").touch()
    with open(tmp_path / "fastrtps_alive_el") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert processes.remove_dead_segments(tmp_path) == ["fastrtps_dead"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "fastrtps_alive", "fastrtps_alive_el", "fastrtps_port7000", "fastrtps_port7000_el",
    ]  # fmt: skip


def test_parameter_file_is_removed(impostor):
    with processes.NodeProcess("impostor", {"a": 1}, impostor("")) as node:
        assert node._file.is_file()
    assert not node._file.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_node_ends_when_its_parent_is_killed(impostor, tmp_path):
    root = os.path.dirname(os.path.dirname(processes.__file__))
    environment = impostor("")
    (tmp_path / "child.py").write_text(
        f"import sys; sys.path.insert(0, {root!r})\nfrom foundry_ros import processes\nimport time\n"
        "processes.follow_parent()\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    (tmp_path / "parent.py").write_text(
        f"import os, subprocess, sys, time\nchild = subprocess.Popen([sys.executable, {str(tmp_path / 'child.py')!r}],"
        "env={**os.environ, 'FOUNDRY_PARENT_PID': str(os.getpid())}, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)\n"
    )
    environment["PYTHONPATH"] = root
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        child = int(parent.stdout.readline())
        parent.kill()

    start = time.monotonic()
    wait_for(lambda: stopped(child), 10, "the node to end")
    assert time.monotonic() - start < 10


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_node_ends_when_its_parent_was_killed_before_it_could_follow():
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    environment = {**processes.local_environment(99), "FOUNDRY_PARENT_PID": str(gone.pid)}
    code = "from foundry_ros import processes, signals\n"
    code += "with signals.one_interrupt(): processes.follow_parent(); print('alone')"
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert "KeyboardInterrupt" in ended.stderr and not ended.stdout


STUBBORN = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
pathlib.Path(sys.argv[1], ".curves.png.abcd.tmp").touch()
pathlib.Path(sys.argv[1], "curves.png").touch()
time.sleep(60)
"""


def test_a_training_that_had_to_be_killed_leaves_no_torn_file(tmp_path):
    training = TrainingProcess(tmp_path)
    training._process = subprocess.Popen([sys.executable, "-c", STUBBORN, tmp_path], start_new_session=True)
    while not (tmp_path / "curves.png").exists():
        time.sleep(0.01)
    assert training.running() and not training.stop(patience=0.2)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
    assert training.stop(patience=0.2)
