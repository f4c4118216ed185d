# SPDX-License-Identifier: Apache-2.0
"""The command and signals while it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from starting import signalled

from foundry_core import startup
from foundry_core.cli import main as command

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
MODULE = [sys.executable, "-m", "foundry_core.cli.main", "models"]
SCRIPT = [sys.executable, "-c", "import sys; from foundry_core.startup import foundry; sys.exit(foundry())", "models"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("program", [MODULE, SCRIPT], ids=["module", "script"])
def test_a_signal_while_modules_are_imported_ends_it_without_a_word(program, number):
    assert signalled(program, ENVIRONMENT, number) == (128 + number, "")


def test_a_signal_at_any_moment_leaves_no_traceback():
    for delay in np.random.default_rng(0).uniform(0, 1.0, 4):
        code, text = signalled(MODULE, ENVIRONMENT, signal.SIGINT, delay)
        # the interpreter gives signals back to the system as its very last act
        assert code in (0, 130, -signal.SIGINT) and "Traceback" not in text, (delay, text)


def test_a_signal_that_is_ignored_stays_ignored():
    """As in a job that a shell script has put into the background."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from foundry_core import startup\n"
    code += (
        "startup.quiet(); signal.raise_signal(signal.SIGINT); startup.finished(); signal.raise_signal(signal.SIGINT)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, timeout=60).returncode == 0


LIBRARY = """
import signal
from foundry_core.cli import main
main.build()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""


def test_as_a_library_it_leaves_signals_alone():
    subprocess.run([sys.executable, "-c", LIBRARY], env=ENVIRONMENT, timeout=60, check=True)


def test_what_an_import_makes_of_an_interrupt_is_no_error(monkeypatch):
    def broken():
        raise ImportError("an extension was interrupted")

    monkeypatch.setattr(command, "build", broken)
    with pytest.raises(ImportError):
        command.main(["models"])
    monkeypatch.setattr(startup, "interrupted", lambda: True)
    assert command.main(["models"]) == 130
