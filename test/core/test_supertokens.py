# SPDX-License-Identifier: Apache-2.0
"""Which supertoken a token goes to, and what a supertoken is."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_models import clouds, tiny_student  # noqa: E402

from foundry_core.architecture import SupertokenConfig  # noqa: E402
from foundry_core.models.student import Student  # noqa: E402
from foundry_core.models.supertokens import SupertokenAssignment, sinkhorn, usage_shortfall  # noqa: E402


def test_sinkhorn_balances_what_softmax_would_collapse():
    logits = torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(0))
    logits[..., 0] += 6.0  # one supertoken would take everything
    assert (logits.argmax(dim=-1) == 0).float().mean() > 0.95
    shares = sinkhorn(logits, 4).exp()
    assert torch.allclose(shares.sum(dim=2), torch.ones(2, 64), atol=1e-5)
    assert (shares.sum(dim=1) - 8.0).abs().max() < 2.0
    assert len(sinkhorn(logits, 4).argmax(dim=-1).unique()) == 8


@pytest.mark.parametrize("assignment", ["sinkhorn", "gumbel"])
def test_supertokens_are_means_of_their_tokens_and_empty_ones_stay_finite(assignment):
    torch.manual_seed(0)
    module = SupertokenAssignment(SupertokenConfig(count=8, assignment=assignment), 24).eval()
    with torch.no_grad():
        module.queries[1:4] = module.queries[0]  # ties go to the first, so some stay empty under argmax
        module.supertokens.zero_()
    tokens, centers = torch.randn(2, 16, 24), torch.randn(2, 16, 3)
    assignment = module.assign(tokens, centers, 8)
    hard = assignment.hard
    merged, merged_centers = module.merge(tokens, centers, assignment)
    assert torch.isfinite(merged).all() and torch.equal(hard.sum(dim=2), torch.ones(2, 16))
    for cloud in range(2):
        for slot in range(8):
            mine = hard[cloud, :, slot] > 0
            expected = tokens[cloud, mine].mean(dim=0) if mine.any() else torch.zeros(24)
            assert torch.allclose(merged[cloud, slot], expected, atol=1e-5)
            if mine.any():
                assert torch.allclose(merged_centers[cloud, slot], centers[cloud, mine].mean(dim=0), atol=1e-5)


def test_the_usage_shortfall_is_zero_exactly_when_every_supertoken_leads_somewhere():
    logits = torch.full((1, 4, 3), -4.0)
    logits[0, [0, 1, 2, 3], [0, 1, 2, 0]] = 4.0
    assert usage_shortfall(logits.softmax(dim=-1)) == 0
    logits[0, 2] = torch.tensor([4.0, -4.0, 3.0])  # the third supertoken now comes second everywhere
    logits.requires_grad_()
    shortfall = usage_shortfall(logits.softmax(dim=-1))
    assert shortfall.item() == pytest.approx((0.1 + 1.0) / 3, abs=1e-3)
    shortfall.backward()
    assert logits.grad[0, 2, 2] < 0  # descent raises its share


def test_soft_merging_weighs_every_token_and_balanced_supertokens_average_to_the_mean():
    torch.manual_seed(0)
    config = SupertokenConfig(count=4, merge="soft", sinkhorn_iterations=200)
    module = SupertokenAssignment(config, 24).eval()
    with torch.no_grad():
        module.supertokens.zero_()
    tokens, centers = torch.randn(2, 16, 24), torch.randn(2, 16, 3)
    merged, _ = module.merge(tokens, centers, module.assign(tokens, centers, 4))
    # every column holds G/s tokens, so the supertokens' mean is that of the tokens
    assert torch.allclose(merged.mean(dim=1), tokens.mean(dim=1), atol=1e-4)
    assert not torch.allclose(merged[:, 0], merged[:, 1], atol=1e-3)


def test_fps_assignment_is_the_nearest_of_the_first_centres():
    module = SupertokenAssignment(SupertokenConfig(count=4, assignment="fps"), 24).eval()
    tokens, centers = torch.randn(2, 16, 24), torch.randn(2, 16, 3)
    hard = module.assign(tokens, centers, 3).hard
    expected = np.linalg.norm(centers.numpy()[:, :, None] - centers.numpy()[:, None, :3], axis=-1).argmin(axis=2)
    assert np.array_equal(hard.argmax(dim=2).numpy(), expected)
    assert not hasattr(module, "queries")


@pytest.mark.parametrize("assignment", ["fps", "kmeans", "tome"])
def test_cells_that_are_not_learned_leave_no_supertoken_empty(assignment):
    torch.manual_seed(0)
    student = Student(tiny_student(assignment=assignment)).train()
    for budget in (1, 3, 4):
        (encoded,) = student.encode(*clouds(), [budget])
        hard = encoded.assignment.hard
        assert torch.equal(hard.sum(dim=2), torch.ones(3, 16)) and (hard.sum(dim=1) > 0).all()
    student.rebuild(encoded).square().mean().backward()  # it still learns what it does with them
    assert student.assignment.value.weight.grad.abs().sum() > 0
