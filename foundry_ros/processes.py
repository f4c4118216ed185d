# SPDX-License-Identifier: Apache-2.0
"""Nodes as operating-system processes without the ros2 command line: environment, start, watch, stop."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_core.card import share_directory
from foundry_core.children import end_with_parent
from foundry_core.errors import InputError
from foundry_ros.parameters import write_parameters
from foundry_ros.signals import uninterrupted

_PARENT = "FOUNDRY_PARENT_PID"
#: domains whose ports lie outside Linux's ephemeral range; the low ones are left to people
_DOMAINS = (*range(215, 233), *range(60, 102))


class NodeFailed(RuntimeError):
    """A node ended on its own; the message names it and quotes the end of its output."""


def require_ros() -> None:
    """Raise InputError where rclpy is missing."""
    if importlib.util.find_spec("rclpy") is None:
        raise InputError("needs ROS 2 (rclpy): pip install 'foundry_ros[ros]' or source a ROS 2 installation")


class Domain:
    """A ROS domain of one's own, as a context manager: ``number`` is nobody else's while it is open.

    The user's ROS_DOMAIN_ID is respected, and then shared.
    """

    def __enter__(self) -> Domain:
        self._lock = None
        chosen = os.environ.get("ROS_DOMAIN_ID", "")
        if chosen:
            if not chosen.isdigit() or int(chosen) > 232:
                raise InputError(f"ROS_DOMAIN_ID={chosen}: must be a number from 0 to 232; correct or unset it")
            self.number = int(chosen)
            return self
        for number in _DOMAINS:
            path = Path(tempfile.gettempdir()) / f"foundry_ros_domain_{number}.lock"
            try:
                lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
            except OSError:  # another user's
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            self._lock, self.number = lock, number
            return self
        raise InputError("no free ROS domain: all are taken by running replays; set ROS_DOMAIN_ID")

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)


def open_environment() -> dict[str, str]:
    """The user's own environment and domain plus the Fast DDS profile for large clouds, unless one is set."""
    package_root = str(Path(__file__).resolve().parent.parent)
    path = [package_root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(share_directory() / "config" / "fastdds.xml"),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
        "PYTHONUNBUFFERED": "1",
        _PARENT: str(os.getpid()),
    }


def local_environment(domain: int) -> dict[str, str]:
    """:func:`open_environment`, closed to this machine and to one domain."""
    return {**open_environment(), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": str(domain)}


def identity() -> str:
    """This process, among all that share a ROS domain."""
    return f"{socket.gethostname()}:{os.getpid()}"


def resident_mb() -> float:
    """Resident memory of this process in MB; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def follow_parent() -> None:
    """Called by a node: when it was started by a :class:`NodeProcess`, it gets SIGINT once that parent is gone.

    Raises:
        KeyboardInterrupt: it is gone already.
    """
    parent = os.environ.get(_PARENT)
    if not parent or sys.platform != "linux":
        return
    end_with_parent(signal.SIGINT)
    if os.getppid() != int(parent):  # gone before the call, or a grandchild
        try:
            os.kill(int(parent), 0)
        except ProcessLookupError:
            raise KeyboardInterrupt from None
        except PermissionError:
            pass
        del os.environ[_PARENT]
        end_with_parent(0)


def remove_dead_segments(folder: str | Path = "/dev/shm") -> list[str]:
    """Remove Fast DDS segments whose process is gone (it was killed and could not); returns their names.

    A living process holds a lock on ``<segment>_el``; segments of other users are left alone.
    """
    removed = []
    for lock in sorted(Path(folder).glob("fastrtps_*_el")):
        segment = lock.with_name(lock.name.removesuffix("_el"))
        if "port" in segment.name:  # ports outlive processes, and are taken over by the next one
            continue
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if os.fstat(handle).st_uid == os.getuid():
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                segment.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
                removed.append(segment.name)
        except OSError:  # in use
            pass
        finally:
            os.close(handle)
    return removed


class NodeProcess:
    """One node of this package in a process of its own, as a context manager that leaves nothing running.

    Args:
        node: name of the node and of its module.
        parameters: dotted parameters.
        remappings: topic -> topic.
        environment: see :func:`local_environment`.
        quiet: keep the output (the last lines serve a complaint) instead of passing it on.
    """

    def __init__(
        self,
        node: str,
        parameters: Mapping[str, Any],
        environment: Mapping[str, str],
        remappings: Mapping[str, str] | None = None,
        quiet: bool = True,
    ) -> None:
        self.node = node
        self._parameters, self._environment = parameters, environment
        self._remappings, self._quiet = remappings or {}, quiet
        self._tail: deque[str] = deque(maxlen=40)
        self._lines: deque[str] = deque()
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> NodeProcess:
        self._file = write_parameters(self.node, self._parameters)
        arguments = ["--ros-args", "--disable-external-lib-logs", "--params-file", str(self._file)]
        for source, target in self._remappings.items():
            arguments += ["-r", f"{source}:={target}"]
        pipe = subprocess.PIPE if self._quiet else None
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"foundry_ros.{self.node}", *arguments],
            env=dict(self._environment), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe,
            text=True, errors="replace",
            start_new_session=True,  # Ctrl-C reaches the parent, which stops its nodes in order
        )  # fmt: skip
        if self._quiet:
            for stream, lines in ((self.process.stdout, self._lines), (self.process.stderr, self._tail)):
                reader = threading.Thread(target=self._read, args=(stream, lines), daemon=True)
                reader.start()
                self._readers.append(reader)
        return self

    def _read(self, stream: Any, lines: deque[str]) -> None:
        for line in stream:
            lines.append(line.rstrip("\n"))

    def lines(self) -> list[str]:
        """Lines of the standard output that were not returned yet."""
        out = []
        while self._lines:
            out.append(self._lines.popleft())
        return out

    def running(self) -> bool:
        """Whether the process is alive."""
        return self.process.poll() is None

    def check(self) -> None:
        """Complain if the process has ended with an error.

        Raises:
            InputError: exit code 2, with the node's own line.
            NodeFailed: any other, with the end of its output.
        """
        code = self.process.poll()
        if code in (None, 0):
            return
        for reader in self._readers:
            reader.join(2.0)
        last = [line for line in self._tail if line.startswith("error: ")]
        if code in (1, 2) and last:
            raise (InputError if code == 2 else NodeFailed)(last[-1].removeprefix("error: "))
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise NodeFailed("\n".join([f"{self.node} ended with {how}; its last output:", *self._tail]))

    def stop(self, patience: float = 5.0) -> int:
        """SIGINT, then SIGTERM, then SIGKILL, each after ``patience`` seconds; returns the exit code."""
        for step in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                break
            self.process.send_signal(step)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        return self.process.wait()

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            self._file.unlink(missing_ok=True)
            if self.stop() < 0:
                remove_dead_segments()
            for reader in self._readers:
                reader.join(2.0)
