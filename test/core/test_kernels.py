# SPDX-License-Identifier: Apache-2.0
"""Compiled kernels on disk: they are used again, and not when anything that they call has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CALLED = "from foundry_core.kernels import jit\n@jit\ndef number():\n    return {value}\n"
CALLER = "from called import number\nfrom foundry_core.kernels import jit\n@jit\ndef ask():\n    return number()\n"
ASK = """
import caller
print(caller.ask(), sum(caller.ask.stats.cache_hits.values()))
"""


def ask(folder: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    command = [sys.executable, "-c", ASK]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


def test_a_kernel_is_compiled_anew_when_what_it_calls_has_changed(tmp_path):
    (tmp_path / "called.py").write_text(CALLED.format(value=1))
    (tmp_path / "caller.py").write_text(CALLER)
    assert ask(tmp_path) == ["1", "0"]
    assert ask(tmp_path) == ["1", "1"]
    (tmp_path / "called.py").write_text(CALLED.format(value=22))
    assert ask(tmp_path) == ["22", "0"]
    assert ask(tmp_path) == ["22", "1"]
