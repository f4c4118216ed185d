# SPDX-License-Identifier: Apache-2.0
"""The gate: tokens that by-pass the merging, and the budget that holds them."""

import pytest

torch = pytest.importorskip("torch")

from test_models import card, tiny_student  # noqa: E402

from foundry_core.errors import InputError  # noqa: E402
from foundry_core.export.graph import convert  # noqa: E402
from foundry_core.export.rewrite import fused_backbone  # noqa: E402
from foundry_core.models.gate import encode_both, off_budget  # noqa: E402
from foundry_core.models.registry import create_perception  # noqa: E402
from foundry_core.models.student import Student  # noqa: E402
from foundry_core.models.transformer import Encoder  # noqa: E402
from foundry_core.runtime.macs import macs  # noqa: E402


def gated(architecture, **values):
    supertokens = architecture.supertokens.model_copy(update={"gate": 8, "bypass": 0.25, "noise": False} | values)
    return architecture.model_copy(update={"supertokens": supertokens})


@pytest.fixture
def pair():
    """A student without a gate, one with the same weights and a gate, and clouds."""
    torch.manual_seed(0)
    plain = Student(tiny_student()).eval()
    other = Student(gated(tiny_student())).eval()
    missing, unexpected = other.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("gate.") for name in missing)
    centers = torch.randn(3, 16, 3)
    return plain, other, (centers, torch.randn(3, 16, 8, 3))


def let_by(student, bias: float) -> None:
    torch.nn.init.zeros_(student.gate.mlp.layers[-1].weight)
    torch.nn.init.constant_(student.gate.mlp.layers[-1].bias, bias)


def test_a_closed_gate_changes_nothing(pair):
    plain, other, clouds = pair
    let_by(other, -5.0)
    expected, found = plain(*clouds), other(*clouds)
    for name in ("tokens", "supertokens"):
        assert torch.allclose(found[name], expected[name], atol=1e-6), name


def test_an_open_gate_leaves_nothing_to_merge(pair):
    _, other, (centers, neighborhoods) = pair
    let_by(other, 5.0)
    (encoded,) = other.encode(centers, neighborhoods, [2])
    assert (encoded.gated.open == 1).all()
    merged, merged_centers = other.assignment.merge(encoded.tokens, centers, encoded.assignment, 1 - encoded.gated.open)
    assert torch.equal(merged, other.assignment.supertokens[:2].expand(3, -1, -1))
    assert (merged_centers == 0).all()


def test_only_the_chosen_tokens_are_seen():
    """What the masked blocks give a cloud is what the blocks give its supertokens and chosen tokens alone."""
    torch.manual_seed(0)
    encoder = Encoder(24, 2, 3, 2.0).eval()
    merged, merged_positions, tokens, positions = (torch.randn(2, n, 24) for n in (3, 3, 10, 10))
    chosen = torch.zeros(2, 10)
    chosen[0, [1, 4, 7]] = 1.0
    chosen[1, 9] = 1.0
    for encoder.training in (False, True):
        supertokens, features = encode_both(encoder, merged, merged_positions, tokens, positions, chosen)
        for cloud in range(2):
            rows = torch.nonzero(chosen[cloud]).flatten()
            alone = encoder(
                torch.cat([merged[cloud], tokens[cloud, rows]])[None],
                torch.cat([merged_positions[cloud], positions[cloud, rows]])[None],
            )[0]
            assert torch.allclose(supertokens[cloud], alone[:3], atol=1e-5)
            assert torch.allclose(features[cloud, rows], alone[3:], atol=1e-5)


def test_the_gate_learns_from_the_features_and_from_its_budget(pair):
    _, other, clouds = pair
    other.train()
    (encoded,) = other.encode(*clouds, [2])
    other.rebuild(encoded).square().mean().backward()
    assert other.gate.mlp.layers[0].weight.grad.abs().sum() > 0
    assert off_budget(torch.full((2, 4), 0.25), 0.25) == 0
    for value in (0.5, 0.1):  # above it is held down, below it is drawn up
        decided = torch.full((2, 4), value, requires_grad=True)
        off_budget(decided, 0.25).backward()
        assert (torch.sign(decided.grad) == (1 if value > 0.25 else -1)).all()


def test_the_gradient_of_a_draw_is_that_of_the_noisy_sigmoid(pair):
    _, other, _ = pair
    let_by(other, 0.3)
    other.gate.train()
    embedded = torch.randn(3, 16, 24)
    torch.manual_seed(1)
    noise = torch.logit(torch.rand(3, 16).clamp(1e-6, 1 - 1e-6))
    torch.manual_seed(1)
    gated = other.gate(embedded, 0.5)
    assert torch.equal(gated.open.detach().round(), (0.3 + 0.5 * noise > 0).float())
    assert (gated.decided.detach().round() == 1).all()
    bias = other.gate.mlp.layers[-1].bias
    for decision, soft in ((gated.open, 0.6 + noise), (gated.decided, torch.full((3, 16), 0.6))):
        (found,) = torch.autograd.grad(decision.sum(), bias, retain_graph=True)
        slope = soft.sigmoid() * (1 - soft.sigmoid()) / 0.5
        assert float(found) == pytest.approx(float(slope.sum()), rel=1e-4)


def test_a_trained_gate_lets_about_its_share_by_in_evaluation(pair):
    other = pair[1].train()
    centers, neighborhoods = torch.randn(8, 16, 3), torch.randn(8, 16, 8, 3)
    target = torch.randn(8, 16, other.architecture.token_width)
    optimizer = torch.optim.Adam(other.parameters(), lr=3e-3)
    for step in range(100):
        (encoded,) = other.encode(centers, neighborhoods, [2], 1 - 0.5 * step / 100)
        loss = (other.rebuild(encoded) - target).square().mean() + 10 * off_budget(encoded.gated.decided, 0.25)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (encoded,) = other.eval().encode(centers, neighborhoods, [2])
    assert 0.15 < float(encoded.gated.open.mean()) < 0.35


def test_a_gated_student_is_counted_runs_in_torch_and_has_no_graph(pair):
    plain, other, clouds = pair
    let_by(other, 0.0)
    fused = fused_backbone(other)
    assert torch.equal(fused(*clouds)["tokens"], other(*clouds)["tokens"])
    base, with_gate = card(plain.architecture), card(other.architecture)
    assert macs(with_gate, 2, ("tokens",)) > macs(base, 2, ("tokens",))
    with pytest.raises(InputError, match="a gate lets by"):
        convert(create_perception(with_gate), with_gate)
