# SPDX-License-Identifier: Apache-2.0
"""Teacher and student, masked pretraining, and the files of a model."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from foundry_core import geometry  # noqa: E402
from foundry_core.architecture import (  # noqa: E402
    Architecture,
    EncoderConfig,
    SupertokenConfig,
    TokenizerConfig,
)
from foundry_core.card import Heads, ModelCard, ObjectHead, PartHead, load_card, write_card  # noqa: E402
from foundry_core.data.compositions import compose  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.masked import MaskedAutoencoder, chamfer, random_masks  # noqa: E402
from foundry_core.models.objective_config import MaeObjective  # noqa: E402
from foundry_core.models.registry import create_perception, load_model, save_model  # noqa: E402
from foundry_core.models.student import Student  # noqa: E402
from foundry_core.models.teacher import Teacher  # noqa: E402

TINY = Architecture(
    tokenizer=TokenizerConfig(first=8, second=16, third=16),
    encoder=EncoderConfig(width=24, depth=2, heads=3, position_hidden=8),
)


def tiny_student(**supertokens) -> Architecture:
    return TINY.model_copy(update={"supertokens": SupertokenConfig(**{"count": 4, **supertokens})})


def clouds(batch: int = 3, points: int = 128) -> tuple:
    shapes = np.stack([geometry.prepare(compose(256, np.random.default_rng(i)), points)[0] for i in range(batch)])
    return tuple(map(torch.from_numpy, geometry.group_batch(shapes, 16, 8)))


def test_tokens_do_not_depend_on_the_order_of_points_or_patches():
    torch.manual_seed(0)
    teacher = Teacher(TINY).eval()
    centers, neighborhoods = clouds()
    tokens = teacher(centers, neighborhoods)["tokens"]
    assert tokens.shape == (3, 16, 24)
    order = torch.randperm(8)
    assert torch.allclose(teacher(centers, neighborhoods[:, :, order])["tokens"], tokens, atol=1e-6)
    patches = torch.randperm(16)
    moved = teacher(centers[:, patches], neighborhoods[:, patches])["tokens"]
    assert torch.allclose(moved, tokens[:, patches], atol=1e-5)


def test_masks_differ_from_sample_to_sample_and_have_exact_counts():
    visible, masked = random_masks(64, 16, 0.6)
    assert visible.shape == (64, 6) and masked.shape == (64, 10)
    for seen, hidden in zip(visible.tolist(), masked.tolist()):
        assert sorted(seen + hidden) == list(range(16))
    assert len({tuple(sorted(row)) for row in visible.tolist()}) > 32


def test_masked_patches_cannot_leak_into_the_encoder():
    torch.manual_seed(0)
    teacher = Teacher(TINY).eval()
    centers, neighborhoods = clouds()
    visible = torch.tensor([[0, 3, 5]] * 3)
    before = teacher.encode_visible(centers, neighborhoods, visible)
    changed = neighborhoods.clone()
    changed[:, [1, 2, 4, *range(6, 16)]] += 1.0
    assert torch.equal(teacher.encode_visible(centers, changed, visible), before)
    changed[:, 3] += 1.0
    assert not torch.allclose(teacher.encode_visible(centers, changed, visible), before)


def test_chamfer_equals_the_definition():
    a, b = torch.randn(5, 7, 3), torch.randn(5, 9, 3)
    distance = torch.cdist(a, b).square()
    expected = distance.min(dim=2).values.mean() + distance.min(dim=1).values.mean()
    assert torch.allclose(chamfer(a, b), expected, atol=1e-5)
    assert chamfer(a, a[:, torch.randperm(7)]).abs() < 1e-5


def test_masked_autoencoding_learns():
    torch.manual_seed(0)
    model = MaskedAutoencoder(Teacher(TINY), 8, MaeObjective(decoder_depth=1, mask_ratio=0.5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = clouds(8)
    losses = []
    for _ in range(80):
        loss = model(*batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


def test_a_budget_is_that_student_with_only_its_first_supertokens():
    torch.manual_seed(0)
    large, batch = Student(tiny_student(count=4)).eval(), clouds()
    small = Student(tiny_student(count=2)).eval()
    state = large.state_dict()
    for name in ("assignment.supertokens", "assignment.queries"):
        state[name] = state[name][:2]
    small.load_state_dict(state)
    assert torch.equal(large(*batch, budget=2)["tokens"], small(*batch)["tokens"])
    together = large.encode(*batch, [4, 2])
    assert torch.equal(large.rebuild(together[1]), small(*batch)["tokens"])


def test_the_control_reads_nothing_but_the_supertokens():
    torch.manual_seed(0)
    student, (centers, neighborhoods) = Student(tiny_student(alone=True)).eval(), clouds()
    (encoded,) = student.encode(centers, neighborhoods, [4])
    rebuilt = student.from_supertokens(encoded.spread, encoded.supertokens)
    owner = encoded.assignment.hard.argmax(dim=2)
    for cloud in range(len(rebuilt)):
        for slot in owner[cloud].unique():  # what shares a supertoken is rebuilt alike
            mine = rebuilt[cloud, owner[cloud] == slot]
            assert torch.allclose(mine, mine[:1].expand_as(mine), atol=1e-5)


def test_the_hard_assignment_passes_a_gradient_to_the_queries():
    torch.manual_seed(0)
    student = Student(tiny_student()).train()
    student(*clouds())["tokens"].square().mean().backward()
    assert student.assignment.queries.grad.abs().sum() > 0


@pytest.mark.parametrize("upsampling", ["residual", "cross-attention", "residual+cross-attention"])
def test_student_shapes_at_every_budget_and_dependence_on_the_supertokens(upsampling):
    torch.manual_seed(0)
    student = Student(tiny_student(upsampling=upsampling)).eval()
    batch = clouds()
    for budget in (1, 2, 4):
        out = student(*batch, budget=budget)
        assert out["tokens"].shape == (3, 16, 24) and out["supertokens"].shape == (3, budget, 24)
    before = student(*batch)["tokens"]
    with torch.no_grad():
        for block in student.encoder.blocks:
            block.mlp.layers[2].bias.add_(1.0)
    student.encoder.norm.weight.data.mul_(2.0)
    assert not torch.allclose(student(*batch)["tokens"], before, atol=1e-3)


def test_without_residual_equal_supertokens_and_positions_give_equal_tokens():
    torch.manual_seed(0)
    student = Student(tiny_student(count=1)).eval()  # one supertoken: attention has nothing to choose from
    tokens = student(*clouds())["tokens"]
    assert torch.allclose(tokens, tokens[:, :1].expand_as(tokens), atol=1e-5)


def test_initialisation_from_a_teacher_copies_what_fits():
    torch.manual_seed(0)
    teacher, student = Teacher(TINY), Student(tiny_student())
    assert student.initialize_from_teacher(teacher) == ["tokenizer", "position", "encoder"]
    for name, value in teacher.encoder.state_dict().items():
        assert torch.equal(student.encoder.state_dict()[name], value)
    slim = tiny_student().model_copy(update={"tokenizer": TokenizerConfig(first=4, second=8, third=8)})
    assert Student(slim).initialize_from_teacher(teacher) == ["position", "encoder"]


def test_a_wider_teacher_is_rebuilt_at_its_own_width():
    student = Student(tiny_student().model_copy(update={"output_width": 40})).eval()
    assert student(*clouds())["tokens"].shape == (3, 16, 40)


def card(architecture: Architecture) -> ModelCard:
    return ModelCard(
        name="tiny",
        kind="student" if architecture.supertokens else "teacher",
        architecture=architecture,
        preprocessing={"points": 128, "groups": 16, "neighbors": 8},
        heads=Heads(
            objects=ObjectHead(classes=["a", "b", "other"]),
            parts=PartHead(parts=["x", "y"], class_parts={"a": ["x"], "b": ["x", "y"]}),
        ),
    )


@pytest.mark.parametrize("architecture", [TINY, tiny_student()], ids=["teacher", "student"])
def test_save_and_load_give_the_same_numbers(tmp_path, architecture):
    torch.manual_seed(0)
    network = create_perception(card(architecture)).eval()
    save_model(tmp_path / "tiny", network, card(architecture))
    loaded, loaded_card = load_model(tmp_path / "tiny")
    centers, neighborhoods = clouds()
    points = centers
    index, weight = (
        torch.from_numpy(np.stack(c)) for c in zip(*(geometry.interpolation(p, p) for p in points.numpy()))
    )
    before = network(centers, neighborhoods, points, index, weight)
    after = loaded(centers, neighborhoods, points, index, weight)
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name], after[name])
    assert after["class_logits"].shape == (3, 3) and after["part_logits"].shape == (3, 16, 2)
    assert loaded_card.parameters == sum(p.numel() for p in network.parameters())


def test_damaged_model_directories_are_named(tmp_path):
    directory = tmp_path / "tiny"
    save_model(directory, create_perception(card(TINY)), card(TINY))
    weights = directory / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match="model.safetensors: wrong SHA-256"):
        load_model(directory)
    weights.unlink()
    with pytest.raises(InputError, match="model.safetensors: missing"):
        load_model(directory)
    (directory / "model.int8.onnx").touch()
    write_card(directory, load_card(directory, verify=False))
    with pytest.raises(InputError, match=r"safetensors: missing; .* exported graphs alone \(model.int8.onnx\); give"):
        load_model(directory)
    (directory / "card.json").write_text("{")
    with pytest.raises(InputError, match="card.json: not valid JSON"):
        load_model(directory)
    with pytest.raises(InputError, match="neither a shipped model"):
        load_model("no-such-model")


def test_weights_that_do_not_fit_the_card_are_named(tmp_path):
    directory = tmp_path / "tiny"
    saved = save_model(directory, create_perception(card(TINY)), card(TINY))
    wider = TINY.model_copy(update={"tokenizer": TokenizerConfig(first=9, second=16, third=16)})
    write_card(directory, saved.model_copy(update={"architecture": wider}))
    with pytest.raises(InputError, match=r"tensor 'backbone.tokenizer.*' is \("):
        load_model(directory)
