# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests; its place puts this folder, with its helper modules, on the import path."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# a shell that runs the suite in the background has SIGINT ignored, and what a test starts would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A model directory whose answers are known, see tiny_model.py."""
    from tiny_model import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def foundry(capsys):
    """Run the command; gives exit code, stdout, stderr."""

    from foundry_core.cli.main import main

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
