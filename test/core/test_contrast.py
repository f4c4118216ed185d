# SPDX-License-Identifier: Apache-2.0
"""Contrast: two clouds of a shape are told from those of other shapes, in one process and in several."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_latent import LEARN, config, shapes  # noqa: E402, F401
from two_processes import in_two_processes  # noqa: E402

from foundry_core.card import load_card  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.contrast import nt_xent  # noqa: E402
from foundry_core.training.config import PretrainConfig  # noqa: E402
from foundry_core.training.pretrain import Pretraining, pretrain  # noqa: E402


def with_contrast(asked: PretrainConfig, **contrast) -> PretrainConfig:
    return PretrainConfig.model_validate(asked.model_dump() | {"contrast": contrast})


def by_definition(embedded: torch.Tensor, temperature: float) -> float:
    """NT-Xent written out, one pair after the other."""
    flat = [row / row.norm() for row in embedded.flatten(0, 1)]
    losses = []
    for i, anchor in enumerate(flat):
        similar = {k: math.exp(float(anchor @ other) / temperature) for k, other in enumerate(flat) if k != i}
        losses.append(-math.log(similar[i + 1 if i % 2 == 0 else i - 1] / sum(similar.values())))
    return sum(losses) / len(losses)


def test_the_loss_is_that_of_the_definition():
    embedded = torch.randn(5, 2, 7, generator=torch.Generator().manual_seed(0))
    for temperature in (0.1, 0.5):
        assert float(nt_xent(embedded, temperature)[0]) == pytest.approx(by_definition(embedded, temperature), rel=1e-5)


def test_pairs_are_found_where_they_are_alike():
    apart = torch.eye(4)[:, None].expand(4, 2, 4)
    loss, found = nt_xent(apart, 0.1)
    assert float(found) == 1.0 and float(loss) < 1e-3
    crossed = torch.stack([torch.eye(4), torch.eye(4).roll(1, dims=0)], dim=1)  # each is like a cloud of another shape
    loss, found = nt_xent(crossed, 0.1)
    assert float(found) == 0.0 and float(loss) > 5


@pytest.mark.parametrize("kind", LEARN)
def test_contrast_stands_beside_each_objective(kind, shapes, tmp_path):  # noqa: F811
    asked = with_contrast(config(shapes, {"kind": kind, **LEARN[kind]}, steps=3), weight=0.1)
    card = pretrain(asked, tmp_path)
    (row,) = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert row["loss"] == pytest.approx(row["objective"] + 0.1 * row["contrast"], rel=1e-4)
    assert 0 < row["contrast"] < 10 and row["objective"] > 0
    assert "telling two clouds of a shape" in card.training[0].task
    assert load_card(tmp_path / "tiny") == card


@pytest.mark.parametrize("kind", LEARN)
def test_statistics_of_clouds_take_one_of_each_pair(kind, shapes):  # noqa: F811
    task = Pretraining(with_contrast(config(shapes, {"kind": kind, **LEARN[kind]}, steps=1)))
    batch = torch.randn(1, 2, 8, 3), torch.randn(1, 2, 8, 8, 3)
    assert "cloud_rank" not in task.losses(batch, 0.0)  # a single shape
    assert "cloud_rank" in task.losses([torch.cat([each, each]) for each in batch], 0.0)


def test_shapes_become_recognisable(shapes, tmp_path):  # noqa: F811
    objective = {"kind": "mae", **LEARN["mae"], "mask_ratio": 0.3}
    pretrain(with_contrast(config(shapes, objective, steps=200, batch=8), weight=0.1), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    first, last = rows[0], rows[-1]
    assert last["pairs_found"] > first["pairs_found"] + 0.02 and last["contrast"] < 0.95 * first["contrast"]
    assert last["objective"] < first["objective"]


def test_a_run_without_contrast_does_not_go_on_with_it(shapes, tmp_path):  # noqa: F811
    asked = config(shapes, {"kind": "mae", "decoder_depth": 1}, steps=2)
    pretrain(asked, tmp_path)
    with pytest.raises(InputError, match="is of another run"):
        pretrain(with_contrast(asked), tmp_path)


def _one_of_two(rank: int, folder: Path) -> dict:
    embedded = torch.load(folder / "embedded.pt")[rank * 3 : rank * 3 + 3].requires_grad_()
    loss, found = nt_xent(embedded, 0.2)
    loss.backward()
    return {"loss": loss.detach(), "found": found, "gradient": embedded.grad / 2}


def test_two_processes_tell_the_clouds_of_both_apart(tmp_path):
    embedded = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(1))
    torch.save(embedded, tmp_path / "embedded.pt")
    both = in_two_processes(_one_of_two, tmp_path)
    embedded.requires_grad_()
    loss, found = nt_xent(embedded, 0.2)
    loss.backward()
    assert torch.allclose(torch.stack([part["loss"] for part in both]).mean(), loss.detach(), atol=1e-6)
    assert np.isclose(np.mean([float(part["found"]) for part in both]), float(found))
    assert torch.allclose(torch.cat([part["gradient"] for part in both]), embedded.grad, atol=1e-6)
