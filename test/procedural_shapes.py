# SPDX-License-Identifier: Apache-2.0
"""What every generator of procedural shapes owes to the training stream."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def seeded_and_varied(make: Callable[[int, np.random.Generator], np.ndarray]) -> np.ndarray:
    """Check sixty shapes of a generator; the shares of variance [60,3] along their own axes, rising."""
    shapes = [make(512, np.random.default_rng(seed)) for seed in range(60)]
    assert all(shape.shape == (512, 3) and shape.dtype == np.float32 and np.isfinite(shape).all() for shape in shapes)
    assert np.array_equal(shapes[7], make(512, np.random.default_rng(7)))
    spreads = np.array([np.sort(np.linalg.eigvalsh(np.cov(shape.T))) / np.trace(np.cov(shape.T)) for shape in shapes])
    assert len(np.unique(spreads.round(3), axis=0)) > 55  # no two alike
    return spreads
