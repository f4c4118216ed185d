# SPDX-License-Identifier: Apache-2.0
"""One model from the weights of several: a model soup (Wortsman et al., 2022, arXiv 2203.05482)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from foundry_core.card import ModelCard, Training
from foundry_core.errors import InputError
from foundry_core.models.registry import load_model, save_model

#: what the models must have in common
ALIKE = ("kind", "architecture", "preprocessing", "budgets")


def average_models(models: Sequence[str], shares: Sequence[float], out: Path) -> ModelCard:
    """Write the model directory ``out`` with the weighted mean of the backbones' weights and batch statistics.

    The models should be of one course of training, an earlier and a later student, say: means of weights that were
    trained apart are worth nothing. Name, heads and description are the first model's.

    Args:
        models: names or paths.
        shares: weight of each, positive; their sum need not be one.

    Raises:
        InputError: fewer than two models, another number of shares, a share that is not positive and finite, or models
            that differ in more than weights.
    """
    if len(models) < 2 or len(shares) != len(models):
        raise InputError(f"--share: give one for each of two models or more; here are {len(models)} and {len(shares)}")
    for share in shares:
        if not 0 < share < math.inf:  # NaN is neither
            raise InputError(f"--share {share:g}: no share of a mean; give a positive number")
    loaded = [load_model(name) for name in models]
    network, card = loaded[0]
    for name, (_, other) in zip(models[1:], loaded[1:], strict=True):
        for key in ALIKE:
            if getattr(other, key) != getattr(card, key):
                raise InputError(f"{name}: its {key} is not that of {models[0]}; their weights have no mean")
    whole = sum(shares)
    parts = [share / whole for share in shares]
    network.backbone.load_state_dict(_mean([other.backbone for other, _ in loaded], parts))
    record = Training(
        task="weights averaged: " + " + ".join(f"{part:.3g} {name}" for part, name in zip(parts, models, strict=True)),
        data=[],
        seed=0,
        steps=0,
        batch=0,
        minutes=0.0,
    )
    history: list[Training] = []
    for _, each in loaded:
        history += [run for run in each.training if run not in history]
    return save_model(out, network, card.model_copy(update={"training": [*history, record], "metrics": []}))


def _mean(backbones: Sequence[torch.nn.Module], parts: Sequence[float]) -> dict[str, torch.Tensor]:
    states = [backbone.state_dict() for backbone in backbones]
    mean = {}
    for key, first in states[0].items():
        if first.is_floating_point():
            total = sum(part * state[key].double() for part, state in zip(parts, states, strict=True))
            mean[key] = total.to(first.dtype)
        else:
            mean[key] = first  # counts of batches
    return mean
