# SPDX-License-Identifier: Apache-2.0
"""Kernels are compiled ahead, once for each version of them, and never at the cost of a start."""

import os
import sys

import foundry_core
from foundry_core.runtime import precompile as module


def test_a_child_compiles_once_and_again_when_the_sources_change(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert module.precompile() and not module.precompile()
    (stamp,) = (tmp_path / "cache" / "foundry").iterdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text("")
    monkeypatch.setattr(foundry_core, "__file__", str(tmp_path / "other" / "__init__.py"))
    assert module._stamp() != stamp


def test_a_child_that_fails_is_no_error_and_leaves_no_stamp(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = tmp_path / "python"
    broken.write_text(f"#!{sys.executable}\nraise SystemExit(1)\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    assert module.precompile()
    assert not (tmp_path / "foundry").exists()


def test_a_home_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(module, "compile_kernels", lambda: None)
    monkeypatch.setattr(module, "end_with_parent", lambda: None)
    module.main()
    assert os.listdir(tmp_path) == ["file"]
