# SPDX-License-Identifier: Apache-2.0
"""``log.jsonl``: one row of means for every stretch of steps; the file is also the lock of the run's folder."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from foundry_core.errors import InputError

LOG = "log.jsonl"


class Means:
    """Running means of logged scalars since the last row, each over the steps that had it; part of the checkpoint, so
    that a row survives a kill."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.last: dict[str, float] = {}

    def add(self, scalars: dict[str, Tensor]) -> None:
        for key, value in scalars.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value.detach())
            self.counts[key] = self.counts.get(key, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        self.last = {key: value / self.counts[key] for key, value in self.sums.items()}
        self.sums, self.counts = {}, {}
        return self.last

    def state(self) -> dict[str, Any]:
        return {"sums": self.sums, "counts": self.counts, "last": self.last}

    def load(self, state: dict[str, Any]) -> None:
        self.sums, self.last = state["sums"], state["last"]
        # a checkpoint of an older version has one count for all
        self.counts = state["counts"] if "counts" in state else dict.fromkeys(self.sums, state["count"])


class RunLog:
    """Rows of a run, each written whole or not at all."""

    def __init__(self, file, warn: Callable[[str], None]):
        self._file, self._warn = file, warn

    @classmethod
    @contextmanager
    def sole(cls, directory: Path, warn: Callable[[str], None]) -> Iterator[RunLog]:
        """The folder's log, to append to. Inside, no other process trains there; the lock ends with this process.

        Args:
            warn: is told of a row that could not be written.

        Raises:
            InputError: another process holds the folder.
        """
        with open(directory / LOG, "ab+", buffering=0) as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a record lock: data workers do not inherit it
            except OSError:
                raise InputError(
                    f"{directory}: another process trains in this folder; wait for it or stop it"
                ) from None
            yield cls(file, warn)

    def cut(self, step: int) -> None:
        """Drop what was written after ``step``, and a torn row: the run goes on from there."""
        self._file.seek(0)
        end = 0
        for line in self._file.readall().splitlines(keepends=True):
            try:
                whole = line.endswith(b"\n") and json.loads(line)["step"] <= step
            except (ValueError, KeyError, TypeError):
                whole = False
            if not whole:
                break
            end += len(line)
        self._file.truncate(end)

    def text(self) -> str:
        """The log so far, through this handle: to close any other one would end the lock on the file."""
        self._file.seek(0)
        return self._file.readall().decode("utf-8", errors="replace")

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; one that the disk has no room for is lost, and the run goes on."""
        line = (json.dumps(row) + "\n").encode()
        end = self._file.seek(0, 2)
        try:
            if self._file.write(line) == len(line):
                return
            reason = "no room for it"
        except OSError as error:
            reason = str(error.strerror)
        self._file.truncate(end)
        self._warn(f"{LOG}: the row of step {row['step']} is lost ({reason}); make room")
