# SPDX-License-Identifier: Apache-2.0
"""`foundry distill` as a process of its own: at low priority, without torch in the node, never outliving the node.

``python -m foundry_ros.training_process PARENT NICE COMMAND...`` becomes ``COMMAND`` with that niceness; it gets SIGINT
when the process PARENT is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundry_core.children import end_with_parent
from foundry_core.files import remove_torn

#: bytes at the end of a log that hold its newest rows, those with measurements among them
_TAIL = 65536


def _rows(lines: bytes) -> list[dict[str, Any]]:
    """The complete rows among lines of a log; the first and the last may be torn."""
    rows = []
    for line in lines.splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


class TrainingProcess:
    """At most one run of the ``foundry`` command, whose output goes to ``folder/train.log``.

    Start it from the main thread: the operating system ends it with the thread that started it.

    Args:
        folder: the run folder, where ``log.jsonl`` is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen | None = None

    @property
    def pid(self) -> int | None:
        """Process id of a run that is under way."""
        return self._process.pid if self.running() else None

    def start(self, arguments: Sequence[str], nice: int) -> int:
        """Start ``foundry ARGUMENTS`` and return its process id."""
        if self.running():
            raise RuntimeError("a run is under way")
        root = str(Path(__file__).resolve().parent.parent)
        path = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        environment = {
            "OMP_NUM_THREADS": "1",  # the configuration's loop.threads is the only say in threads
            **os.environ,
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
        }
        before = [sys.executable, "-m", __name__, str(os.getpid()), str(nice)]
        command = [sys.executable, "-m", "foundry_core.cli.main", *arguments]
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "train.log", "w", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                [*before, *command], env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return self._process.pid

    def running(self) -> bool:
        """Whether a run is under way."""
        return self._process is not None and self._process.poll() is None

    def ended(self) -> int | None:
        """The exit code of a run that has ended, once; None otherwise."""
        if self._process is None or self._process.poll() is None:
            return None
        code, self._process = self._process.returncode, None
        return code

    def stop(self, patience: float) -> bool:
        """SIGINT, upon which the training saves its checkpoint; after ``patience`` (s) SIGKILL to it and its helpers.

        Returns:
            whether it ended in time.
        """
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return True
        process.send_signal(signal.SIGINT)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                remove_torn(self.folder)  # what it was writing
        return True

    def progress(self) -> dict[str, Any]:
        """The newest row of ``log.jsonl``; empty before there is one.

        What is measured only now and then has its newest value, and as ``<name>_before`` that of before the first step.
        """
        try:
            with open(self.folder / "log.jsonl", "rb") as stream:
                first = _rows(stream.readline())
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
                rows = [*first, *_rows(stream.read())]
        except OSError:
            return {}
        if not rows:
            return {}
        measured = {key: value for row in rows[:1] if row.get("step") == 0 for key, value in row.items()}
        newest = {key: row[key] for row in rows for key in row.keys() & measured.keys()}
        before = {f"{key}_before": value for key, value in measured.items() if key not in ("step", "seconds")}
        return before | newest | rows[-1]

    def last_words(self) -> str:
        """The last line of the output."""
        try:
            text = (self.folder / "train.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _become(parent: int, nice: int, command: Sequence[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a node in the background of a shell may have inherited "ignore"
    os.nice(max(0, nice - os.nice(0)))
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as group:
        # where Linux groups processes by session, niceness counts within a group only, and this session is a new one
        group.write(str(nice))
    end_with_parent(signal.SIGINT)
    if os.getppid() == parent:
        os.execv(command[0], list(command))


if __name__ == "__main__":
    _become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
