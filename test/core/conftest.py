# SPDX-License-Identifier: Apache-2.0
"""What commands are given to read."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    path = tmp_path_factory.mktemp("shapes") / "shapes.npz"
    rng = np.random.default_rng(1)
    np.savez(path, points=rng.normal(size=(21, 300, 3)).astype(np.float16), label=np.arange(21) % 3)
    return path


@pytest.fixture
def pole(tmp_path):
    """A tall box of 500 points, NaN in two of them."""
    points = np.random.default_rng(2).uniform(-1, 1, (500, 3)).astype(np.float32) * [0.1, 0.1, 3.0]
    points[[3, 40], [0, 2]] = np.nan
    np.save(tmp_path / "pole.npy", points)
    return tmp_path / "pole.npy"
