# SPDX-License-Identifier: Apache-2.0
"""Figures of fidelity against independent formulas."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from foundry_core.evaluation import measures  # noqa: E402
from foundry_core.training.distill import r_squared  # noqa: E402


def test_r2_over_batches_is_that_of_all_tokens_at_once():
    target = torch.randn(10, 6, 4) * 3 + 5
    rebuilt = target + torch.randn(10, 6, 4)
    agreement = measures.TokenAgreement()
    for part in (slice(0, 7), slice(7, 10)):
        agreement.add(rebuilt[part], target[part])
    assert agreement.r2 == pytest.approx(float(r_squared(rebuilt, target)), abs=1e-5)
    a, b = rebuilt.flatten(0, 1).numpy(), target.flatten(0, 1).numpy()
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert agreement.mean_cosine == pytest.approx(cosine.mean(), abs=1e-5)
    constant = measures.TokenAgreement()
    constant.add(target.mean(dim=(0, 1)).expand_as(target), target)
    assert constant.r2 == pytest.approx(0, abs=1e-6)


def test_cka_is_the_normalised_alignment_of_centred_gram_matrices():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 7))
    center = np.eye(30) - 1 / 30
    k, l = center @ x @ x.T @ center, center @ y @ y.T @ center  # noqa: E741
    assert measures.linear_cka(x, y) == pytest.approx((k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum()))
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert measures.linear_cka(x, 3 * x @ turn + 2) == pytest.approx(1)


def test_neighbours_agree_with_brute_force():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(25, 4))
    y = x + 0.4 * rng.normal(size=x.shape)
    same = overlap = 0
    for i in range(25):
        near = [sorted(set(range(25)) - {i}, key=lambda j: np.linalg.norm(z[i] - z[j]))[:10] for z in (x, y)]  # noqa: B023
        same += near[0][0] == near[1][0]
        overlap += len(set(near[0]) & set(near[1])) / 10
    assert measures.neighbor_agreement(x, y) == pytest.approx((4.0 * same, 4.0 * overlap))
    assert measures.neighbor_agreement(x, 2 * x + 1) == (100.0, 100.0)
    assert measures.neighbor_agreement(x[:4], x[:4]) == (100.0, 100.0)


def test_the_use_of_supertokens_is_counted_per_cloud_and_over_the_set():
    owner = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 2, 3]])
    use = measures.assignment_use(owner, 5)
    assert use["supertokens_used"] == 2.0 and use["supertokens_used_percent"] == 40.0
    assert use["supertokens_used_set_percent"] == 80.0
    assert use["assignment_evenness"] == pytest.approx(np.log(4) / np.log(5) / 3)
    share = np.array([5, 5, 1, 1]) / 12
    assert use["assignment_evenness_set"] == pytest.approx(-(share * np.log(share)).sum() / np.log(5))
    assert measures.assignment_use(np.zeros((2, 4), int), 1)["assignment_evenness"] == 1.0


@pytest.mark.parametrize("count", [2, 3, 50])
def test_nobody_keeps_its_own_in_a_derangement(count):
    other = measures.derangement(count, np.random.default_rng(0))
    assert sorted(other) == list(range(count)) and (other != np.arange(count)).all()
