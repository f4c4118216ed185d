# SPDX-License-Identifier: Apache-2.0
"""A program that is signalled while it starts."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def signalled(
    command: Sequence[str], environment: Mapping[str, str], number: signal.Signals, delay: float = 0.0
) -> tuple[int, str]:
    """Start it and send the signal ``delay`` s after it has begun to take care of signals: exit code and stderr."""
    process = subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        while process.poll() is None and not _catches(process.pid, signal.SIGTERM):
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(number)
        _, text = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, text


def _catches(process: int, number: int) -> bool:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    mask = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(mask, 16) >> (number - 1) & 1)
