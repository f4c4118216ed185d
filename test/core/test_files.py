# SPDX-License-Identifier: Apache-2.0
"""Where a file could not be written, that is said before any work is done."""

from __future__ import annotations

import os
import sys

import pytest

from foundry_core.errors import InputError
from foundry_core.files import require_writable, write_atomically


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize("name", ["a.json", "new/deep/a.json", "file"])
def test_what_can_be_written_leaves_no_trace(folder, name):
    before = sorted(folder.rglob("*"))
    require_writable(folder / name, "--json")
    assert sorted(folder.rglob("*")) == before
    write_atomically(folder / name, b"new")


@pytest.mark.parametrize("name", ["folder", "pipe", "file/a.json", "file/new/a.json", "n" * 300, "n" * 300 + "/a.json"])
def test_what_cannot_is_named(folder, name):
    refused(folder / name)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_permissions_are_not_believed():
    """Root may write into /proc by its permissions, and cannot."""
    refused("/proc/x/y.json")
    refused("/proc/y.json")


def refused(path) -> None:
    with pytest.raises(InputError, match="--json") as caught:
        require_writable(path, "--json")
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    with pytest.raises((InputError, OSError)):
        write_atomically(path, b"new")
