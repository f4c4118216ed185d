# SPDX-License-Identifier: Apache-2.0
"""Parts of points against a plain numpy softmax."""

import numpy as np
import pytest

from foundry_core.runtime.parts import part_labels


@pytest.mark.parametrize(("count", "seen"), [(20, 64), (64, 64), (300, 64)])
@pytest.mark.parametrize("allowed", [[3], [0, 4], [1, 2, 5]])
def test_parts_are_those_of_the_nearest_seen_point_among_the_allowed(count, seen, allowed):
    rng = np.random.default_rng(count)
    points = rng.normal(size=(count, 3)).astype(np.float32)
    sampled = rng.permutation(count)[:seen] if count > seen else np.arange(seen) % count
    logits = rng.normal(scale=4, size=(seen, 6)).astype(np.float32)
    logits[5, :] = 1.0  # equal: the first of the allowed
    part, probability = part_labels(points, sampled, logits, np.array(allowed))
    source = ((points[:, None] - points[sampled]) ** 2).sum(axis=2).argmin(axis=1)
    powers = np.exp(logits[:, allowed].astype(np.float64))
    softmax = (powers / powers.sum(axis=1, keepdims=True))[source]
    assert part.dtype == np.int16 and probability.dtype == np.float32
    np.testing.assert_array_equal(part, np.array(allowed)[softmax.argmax(axis=1)])
    np.testing.assert_allclose(probability, softmax.max(axis=1), rtol=1e-5)
