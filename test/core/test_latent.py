# SPDX-License-Identifier: Apache-2.0
"""Latent prediction: sequence, blocks, target and what learns from it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from test_models import TINY, clouds  # noqa: E402

from foundry_core import geometry  # noqa: E402
from foundry_core.card import load_card  # noqa: E402
from foundry_core.data.compositions import compose  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.collapse import cloud_statistics, effective_rank, mean_cosine, token_deviation  # noqa: E402
from foundry_core.models.latent import Jepa, Point2vec, ema_decay  # noqa: E402
from foundry_core.models.objective_config import JepaObjective, Point2vecObjective  # noqa: E402
from foundry_core.models.registry import load_model  # noqa: E402
from foundry_core.models.sequencer import draw_blocks, sequence  # noqa: E402
from foundry_core.models.teacher import Teacher  # noqa: E402
from foundry_core.schema import parse  # noqa: E402
from foundry_core.training.config import PretrainConfig  # noqa: E402
from foundry_core.training.precision import mixed_precision  # noqa: E402
from foundry_core.training.pretrain import pretrain  # noqa: E402

P2V = Point2vecObjective(decoder_depth=1, target_blocks=2, decay=(0.9, 0.99))
JEPA = JepaObjective(predictor_depth=1, decay=(0.9, 1.0))
MAKE = {"point2vec": lambda: Point2vec(Teacher(TINY), P2V), "jepa": lambda: Jepa(Teacher(TINY), JEPA)}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """A small shape set: quicker to draw from than the procedural shapes."""
    path = tmp_path_factory.mktemp("data") / "shapes.npz"
    points = np.stack([geometry.prepare(compose(256, np.random.default_rng(i)), 64)[0] for i in range(24)])
    np.savez(path, points=points)
    return path


def config(shapes: Path, objective: dict, **loop) -> PretrainConfig:
    values = {
        "name": "tiny",
        "architecture": {
            "tokenizer": {"first": 8, "second": 16, "third": 16},
            "encoder": {"width": 24, "depth": 2, "heads": 3, "position_hidden": 8},
        },
        "preprocessing": {"points": 64, "groups": 8, "neighbors": 8},
        "data": {
            "compositions": 0,
            "categories": 0,
            "files": [{"path": str(shapes)}],
            "partial": 0,
            "rotation": "none",
        },
        "objective": objective,
        "loop": {"steps": 20, "batch": 4, "precision": "fp32", "workers": 0, "learning_rate": 2e-3, **loop},
    }
    return parse(PretrainConfig, values, "test")


def naive_sequence(centers: np.ndarray) -> list[int]:
    left = list(range(len(centers)))
    path = [min(left, key=lambda i: (centers[i].sum(), i))]
    left.remove(path[0])
    while left:
        nearest = min(left, key=lambda i: (((centers[i] - centers[path[-1]]) ** 2).sum(), i))
        path.append(nearest)
        left.remove(nearest)
    return path


def test_the_sequence_is_the_greedy_path_from_the_smallest_sum():
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(5, 16, 3, generator=generator)
    centers[1] = torch.randint(-2, 3, (16, 3), generator=generator)  # equal distances and equal centres
    centers[2] = 0.0
    order = sequence(centers)
    for path, points in zip(order.tolist(), centers.numpy()):
        assert path == naive_sequence(points)


@pytest.mark.parametrize("groups", [8, 64])
def test_blocks_are_contiguous_disjoint_from_the_context_and_drawn_for_every_cloud(groups):
    config = JepaObjective()
    torch.manual_seed(0)
    sizes, starts = set(), set()
    for _ in range(20):
        context, targets = draw_blocks(32, groups, config)
        m, n = targets.shape[1:]
        assert m == 4 and max(1, int(0.15 * groups)) <= n <= max(1, int(0.2 * groups))
        assert bool((targets.diff(dim=2) == 1).all()) and 0 <= int(targets.min()) and int(targets.max()) < groups
        for seen, hidden in zip(context.tolist(), targets.flatten(1).tolist()):
            free = sorted(set(range(groups)) - set(hidden))
            first = free.index(seen[0])
            assert seen == free[first : first + len(seen)]  # contiguous once the targets are taken out
            assert max(1, int(0.4 * len(free))) <= len(seen) <= max(1, int(0.75 * len(free)))
        sizes.add(context.shape[1])
        starts.update(targets[:, :, 0].flatten().tolist())
        assert len({tuple(row) for row in context.tolist()}) > 1
        assert len({tuple(row) for row in targets.flatten(1).tolist()}) > 8
    assert len(sizes) > 1 and starts >= set(range(groups - n + 1))  # everywhere in the sequence


def masks_of(model, batch) -> list[tuple]:
    """The patches that the encoder saw of each cloud, told by their positions."""
    seen = []
    hook = model.teacher.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    model(*batch)
    hook.remove()
    positions = model.teacher.position(batch[0])
    (given,) = seen
    distance = torch.cdist(given, positions)
    return [tuple(sorted(row)) for row in distance.argmin(dim=2).tolist()]


@pytest.mark.parametrize("kind", MAKE)
def test_every_cloud_of_a_batch_has_a_mask_of_its_own(kind):
    torch.manual_seed(0)
    model = MAKE[kind]()
    batch = tuple(part.expand(16, *part.shape[1:]).contiguous() for part in clouds(1))  # one cloud, 16 times
    masks = masks_of(model, batch)
    assert len(set(masks)) > 4
    assert masks != masks_of(model, batch)


@pytest.mark.parametrize("kind", MAKE)
def test_predictions_are_made_without_the_patches_that_they_are_of(kind):
    torch.manual_seed(0)
    model = MAKE[kind]().eval()
    last = model.regressor if kind == "point2vec" else model.predictor.widen
    out = []
    last.register_forward_hook(lambda *call: out.append(call[2]))
    centers, neighborhoods = clouds(2)

    def predict(changed):
        torch.manual_seed(1)
        model(centers, changed)
        return out.pop()

    torch.manual_seed(1)
    seen = masks_of(model, (centers, neighborhoods))
    before = out.pop()
    hidden, shown = neighborhoods.clone(), neighborhoods.clone()
    for cloud, patches in enumerate(seen):
        hidden[cloud, [i for i in range(16) if i not in patches]] += 1.0
        shown[cloud, patches[0]] += 1.0
    assert torch.equal(predict(neighborhoods), before)
    assert torch.equal(predict(hidden), before)
    assert not torch.allclose(predict(shown), before)


def test_targets_are_the_mean_of_normalised_outputs_of_the_last_blocks():
    torch.manual_seed(0)
    model = Point2vec(Teacher(TINY), P2V)
    with torch.no_grad():
        for parameter in model.target.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    tokens, positions = torch.randn(2, 16, 24), torch.randn(2, 16, 24)
    x, outputs = tokens, []
    for block in model.target.blocks:
        x = block(x + positions)
        outputs.append(F.layer_norm(x, (24,)))
    assert torch.allclose(model.targets(tokens, positions), (outputs[-1] + outputs[-2]) / 2, atol=1e-6)
    assert not model.targets(tokens.requires_grad_(), positions).requires_grad


def test_the_decay_is_as_scheduled_and_the_target_follows_by_it():
    assert [ema_decay(P2V, p) for p in (0.0, 0.125, 0.25, 1.0)] == pytest.approx([0.9, 0.945, 0.99, 0.99])
    assert [ema_decay(JEPA, p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.9, 0.95, 1.0])
    torch.manual_seed(0)
    model = MAKE["jepa"]()
    first = [parameter.clone() for parameter in model.target.parameters()]
    with torch.no_grad():
        for parameter in model.teacher.encoder.parameters():
            parameter.add_(1.0)
    model.follow(0.5)
    for before, after in zip(first, model.target.parameters()):
        assert torch.allclose(after, before + 0.05, atol=1e-6)


@pytest.mark.parametrize("kind", MAKE)
def test_bfloat16_gives_nearly_the_same_loss(kind):
    torch.manual_seed(0)
    model, batch, losses = MAKE[kind](), clouds(4), []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(1)
        with mixed_precision(precision):
            losses.append(model(*batch)["loss"])
        losses[-1].backward()
    assert losses[1].dtype == torch.float32 and torch.allclose(*losses, rtol=0.03)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def target_and_encoder(folder: Path) -> tuple[list, list]:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)["module"]
    return tuple(
        [value for key, value in state.items() if key.startswith(part)] for part in ("target.", "teacher.encoder.")
    )


@pytest.mark.parametrize("kind", MAKE)
def test_the_target_follows_the_encoder_step_by_step_and_the_encoder_is_what_is_kept(kind, shapes, tmp_path):
    extra = {"target_blocks": 1} if kind == "point2vec" else {}
    for decay in (0.0, 1.0):
        asked = config(shapes, {"kind": kind, "decay": [decay, decay], **extra}, steps=4)
        card = pretrain(asked, tmp_path / str(decay))
        target, encoder = target_and_encoder(tmp_path / str(decay))
        kept = load_model(tmp_path / str(decay) / "tiny")[0].backbone.encoder.state_dict()
        assert all(torch.equal(a, b) for a, b in zip(encoder, kept.values(), strict=True))
        assert "not of its moving average" in card.training[0].task
        assert card == load_card(tmp_path / str(decay) / "tiny")
        same = all(torch.equal(a, b) for a, b in zip(target, encoder, strict=True))
        assert same is (decay == 0.0)
    torch.manual_seed(0)
    untrained = Teacher(asked.architecture).encoder.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(target, untrained.values(), strict=True))


LEARN = {
    "mae": {"decoder_depth": 1},
    "point2vec": {"decoder_depth": 1, "target_blocks": 2, "decay": [0.9, 0.99]},
    "jepa": {"predictor_depth": 1},
}


@pytest.mark.parametrize("kind", LEARN)
def test_the_loss_falls_and_nothing_collapses(kind, shapes, tmp_path):
    pretrain(config(shapes, {"kind": kind, **LEARN[kind]}, steps=200, batch=8), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    first, last = rows[0], rows[-1]
    assert last["loss"] < 0.95 * first["loss"]
    assert last["cloud_rank"] > 2 and last["cloud_cosine"] < 0.98 and last["token_std"] > 0.1
    if kind != "mae":
        assert last["explained"] > first["explained"] + 0.1
        assert last["target_std"] > 0.4 and last["prediction_std"] > 0.1


@pytest.mark.parametrize("kind", ["point2vec", "jepa"])
def test_a_resumed_run_has_the_target_of_an_uninterrupted_one(kind, shapes, tmp_path, monkeypatch):
    asked = config(shapes, {"kind": kind, **LEARN[kind]}, steps=12, checkpoint_seconds=1e-9)
    pretrain(asked, tmp_path / "whole")
    network = {"point2vec": Point2vec, "jepa": Jepa}[kind]
    forward, calls = network.forward, []

    def stop(self, *batch):
        calls.append(1)
        if len(calls) == 7:
            raise RuntimeError("stopped")
        return forward(self, *batch)

    monkeypatch.setattr(network, "forward", stop)
    with pytest.raises(RuntimeError, match="stopped"):
        pretrain(asked, tmp_path / "stopped")
    monkeypatch.setattr(network, "forward", forward)
    assert torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)["step"] == 6
    pretrain(asked, tmp_path / "stopped")
    for whole, resumed in zip(target_and_encoder(tmp_path / "whole"), target_and_encoder(tmp_path / "stopped")):
        assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_a_loss_that_runs_away_is_said_in_one_line(shapes, tmp_path):
    with pytest.raises(InputError, match="the loss is not finite at step .*lower loop.learning_rate"):
        pretrain(config(shapes, {"kind": "mae", "mask_ratio": 0.5}, steps=5, learning_rate=1e12), tmp_path)


def test_collapse_statistics_of_known_cases():
    generator = torch.Generator().manual_seed(0)
    many = torch.randn(32, 24, generator=generator)
    line = torch.randn(32, 1, generator=generator) * torch.ones(24)
    assert effective_rank(many) > 15 and float(effective_rank(line)) == pytest.approx(1.0, abs=0.05)
    assert float(effective_rank(torch.ones(32, 24))) == pytest.approx(1.0)
    assert effective_rank(torch.full((32, 24), torch.inf)).isnan() and effective_rank(many * torch.nan).isnan()
    assert abs(float(mean_cosine(many))) < 0.05 and float(mean_cosine(1 + 0 * many)) == pytest.approx(1.0)
    pair = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert float(mean_cosine(pair)) == pytest.approx(0.0)
    assert float(token_deviation(torch.ones(2, 3, 4))) == 0.0


def test_statistics_of_clouds_are_of_as_many_in_a_larger_batch():
    tokens = torch.randn(64, 5, 24, generator=torch.Generator().manual_seed(0))
    assert cloud_statistics(tokens) == cloud_statistics(tokens[:32]) != cloud_statistics(tokens[:16])


def test_micro_batches_of_one_cloud_log_finite_numbers_only(shapes, tmp_path):
    pretrain(config(shapes, {"kind": "mae", "mask_ratio": 0.5}, steps=2, batch=2, accumulate=2), tmp_path)
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert "cloud_std" not in row and all(math.isfinite(value) for value in row.values())
