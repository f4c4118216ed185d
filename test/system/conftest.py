# SPDX-License-Identifier: Apache-2.0
"""The model and the recording that the tests of `foundry replay` and `foundry up` share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def street_bag(tmp_path_factory) -> Path:
    """A short recording; not to be written to."""
    from street_bag import write_street_bag

    return write_street_bag(tmp_path_factory.mktemp("bags") / "street")


@pytest.fixture
def model(tiny_model) -> Path:
    """A model whose answers are known."""
    return tiny_model
