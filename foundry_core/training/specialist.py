# SPDX-License-Identifier: Apache-2.0
"""Ordinary knowledge distillation for one task (Hinton et al., 2015): the baseline that gives up generality."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from foundry_core import geometry
from foundry_core.architecture import Preprocessing
from foundry_core.data.shapes import data_name
from foundry_core.data.stream import ShapeFile
from foundry_core.errors import InputError
from foundry_core.models.heads import pool

TEMPERATURE = 2.0  # of both answers
STRENGTH = 0.03  # inverse L2 strength of the teacher's classifier, of standardised features
_BATCH = 64


def task_file(files: list[ShapeFile], name: str, source: str) -> ShapeFile:
    """The shape set of this name among those that the student sees.

    Raises:
        InputError: there is none.
    """
    for file in files:
        if data_name(file.path) == name:
            return file
    known = ", ".join(data_name(file.path) for file in files) or "none"
    raise InputError(f"{source}: task: {name} is none of the shape sets of data.files ({known}); add it with --data")


@torch.no_grad()
def _pooled_features(teacher: nn.Module, points: np.ndarray, size: Preprocessing) -> np.ndarray:
    found = []
    for start in range(0, len(points), _BATCH):
        clouds = [geometry.prepare(cloud, size.points)[0] for cloud in points[start : start + _BATCH]]
        groups = [geometry.group(cloud, size.groups, size.neighbors) for cloud in clouds]
        centers, neighborhoods = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*groups, strict=True))
        found.append(pool(teacher(centers, neighborhoods)["tokens"]).float().numpy())
    return np.concatenate(found)


def teacher_classifier(teacher: nn.Module, file: ShapeFile, size: Preprocessing) -> nn.Linear:
    """The teacher's frozen classifier of the labelled shapes that the stream takes from a set, on pooled token features
    [B,2d].

    Raises:
        InputError: the set has no labels.
    """
    shapes = file.shapes().labelled()
    features = _pooled_features(teacher, shapes.points, size)
    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression(C=STRENGTH, max_iter=2000).fit(scaler.transform(features), shapes.label)
    weight = fitted.coef_ / scaler.scale_
    bias = fitted.intercept_ - weight @ scaler.mean_
    if len(fitted.classes_) == 2:  # the library then keeps the second class's row alone
        weight, bias = np.vstack([np.zeros_like(weight), weight]), np.concatenate([[0.0], bias])
    linear = nn.Linear(features.shape[1], len(fitted.classes_))
    linear.load_state_dict({"weight": torch.from_numpy(weight).float(), "bias": torch.from_numpy(bias).float()})
    return linear.requires_grad_(False)


def answer_distance(logits: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of softened answers [B,C], scaled as in Hinton et al."""
    ours, theirs = (F.log_softmax(x.float() / TEMPERATURE, dim=-1) for x in (logits, target))
    return TEMPERATURE**2 * F.kl_div(ours, theirs, log_target=True, reduction="batchmean")
