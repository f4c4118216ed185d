# SPDX-License-Identifier: Apache-2.0
"""A family of tiny models without graphs, labelled solids, and heads trained on them in a second."""

from __future__ import annotations

import numpy as np
import torch
from test_evaluation import solids
from test_models import TINY, card, tiny_student

from foundry_core.card import Heads, Training
from foundry_core.head_card import fingerprint, load_head_card
from foundry_core.models.registry import create_perception, save_model
from foundry_core.models.transfer import inner_tokens
from foundry_core.runtime.head_perceiver import HeadPerceiver
from foundry_core.schema import parse
from foundry_core.training.config import TransferConfig
from foundry_core.training.transfer import train_transfer_head

LOOP = {"steps": 120, "batch": 16, "workers": 0, "learning_rate": 1e-2}


def save(directory, architecture, seed=0, **changes):
    torch.manual_seed(seed)
    made = card(architecture).model_copy(update={"name": directory.name, "heads": Heads(), **changes})
    return save_model(directory, create_perception(made), made)


def write_models(folder):
    """A teacher, a student of it, a student of that one, a teacher with other weights."""
    teacher = save(folder / "teacher", TINY)
    distilled = {"task": "distillation", "data": [], "seed": 0, "steps": 1, "batch": 1, "minutes": 0.0}
    run = Training(**distilled, parent="teacher", parent_sha256=fingerprint(teacher))
    heads = Training(**{**distilled, "task": "heads on the frozen backbone"})
    student = save(folder / "student", tiny_student(), 1, budgets=[2, 4], training=[run, heads])
    again = Training(**distilled, parent="student", parent_sha256=fingerprint(student))
    save(folder / "grandchild", tiny_student(), 2, budgets=[4], training=[run, heads, again])
    save(folder / "stranger", TINY, 3)
    return folder


def write_solids(path):
    """Three kinds of solids; the upper half of a box or torus is another part, an ellipsoid is one."""
    (points, label), (test_points, test_label) = solids(30, 0), solids(10, 1)
    points, label = np.concatenate([points, test_points]), np.concatenate([label, test_label])
    part = np.where(label[:, None] == 0, 0, 1 + (points[..., 2] > 0))
    part[:, :5] = -1
    np.savez(
        path,
        points=points,
        label=label,
        class_names=np.array(["ellipsoid", "box", "torus"]),
        part_label=part,
        part_names=np.array(["body", "bottom", "top"]),
        split=np.repeat([0, 1], [90, 30]),
        licence=np.array(["CC0", "CC BY"])[label % 2],
    )
    return path


def train(models, data, out, model="teacher", **values):
    loop = {**LOOP, **values.pop("loop", {})}
    config = parse(TransferConfig, {"model": str(models / model), "data": data, "loop": loop, **values}, "test")
    made = train_transfer_head(config, out, cache=models / "cache")
    return out / config.title, made


def perceiver(model, head) -> HeadPerceiver:
    """A head on a model that has no graph."""
    return HeadPerceiver(model, [head], tokens=inner_tokens(model, load_head_card(head), None))
