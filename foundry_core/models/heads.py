# SPDX-License-Identifier: Apache-2.0
"""Heads on token features: classification of a cloud, part segmentation of its points.

Both read the [B,G,d] token features only, so a head trained on a teacher's features fits the features that its students
rebuild.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pool(tokens: Tensor) -> Tensor:
    """Mean and maximum over the tokens [B,G,d]: the cloud's feature [B,2d]."""
    return torch.cat([tokens.mean(dim=1), tokens.amax(dim=1)], dim=-1)


class ObjectHead(nn.Module):
    """Token features [B,G,d] to class logits [B,C].

    Beside mean and maximum, a few learned queries attend to the tokens, which finds the small thing that names an
    object (a wheel, a handle) among many plain patches.
    """

    def __init__(self, width: int, classes: int, queries: int = 8, hidden: int = 384, dropout: float = 0.2):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Linear(width, queries)
        self.values = nn.Linear(width, 64)
        self.mlp = nn.Sequential(
            nn.Linear(2 * width + queries * 64, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.norm(tokens)
        weights = self.scores(tokens).softmax(dim=1).transpose(1, 2)  # (B, Q, G)
        attended = torch.bmm(weights, self.values(tokens)).flatten(1)  # (B, Q*64)
        return self.mlp(torch.cat([pool(tokens), attended], dim=-1))


class PartHead(nn.Module):
    """Token features [B,G,d] and points [B,N,3] to part logits [B,N,P].

    The first layer is applied to the tokens and its result interpolated to the points by inverse distance (PointNet++,
    Qi et al., 2017); interpolation is linear, so this equals interpolating first at a tenth of the cost.
    """

    def __init__(self, width: int, parts: int, hidden: int = 192, categories: int = 0):
        """``categories``: of so many it is told one, as a one-hot vector beside each point."""
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.category = nn.Linear(categories, hidden, bias=False) if categories else None
        self.token = nn.Linear(width, hidden)
        self.cloud = nn.Linear(2 * width, hidden)
        self.point = nn.Linear(6, hidden)
        self.mlp = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, parts))

    def forward(
        self, tokens: Tensor, centers: Tensor, points: Tensor, index: Tensor, weight: Tensor, category=None
    ) -> Tensor:
        """``index`` int64 [B,N,k] and ``weight`` [B,N,k] are :func:`foundry_core.geometry.interpolation`; ``category``
        float [B,C] is one-hot."""
        # as matrix products with a mostly empty [B,N,G] matrix: on a CPU several times faster than gathering rows
        slots = torch.arange(tokens.shape[1], device=tokens.device)
        hits = [(index[:, :, k, None] == slots).to(weight.dtype) for k in range(index.shape[2])]  # (B, N, G) each
        spread = sum(hit * weight[:, :, k, None] for k, hit in enumerate(hits))
        tokens = self.norm(tokens)
        x = torch.bmm(spread, self.token(tokens).to(spread.dtype))  # (B, N, hidden)
        offset = points - torch.bmm(hits[0], centers)  # (B, N, 3), to the nearest centre
        x = x + self.cloud(pool(tokens))[:, None] + self.point(torch.cat([points, offset], dim=-1))
        if self.category is not None:
            x = x + self.category(category)[:, None]
        return self.mlp(x)


class Perception(nn.Module):
    """A backbone with its heads: what is exported for the robot."""

    def __init__(self, backbone: nn.Module, width: int, classes: int = 0, parts: int = 0, part_hidden: int = 192):
        super().__init__()
        self.backbone = backbone
        self.objects = ObjectHead(width, classes) if classes else None
        self.parts = PartHead(width, parts, part_hidden) if parts else None

    def forward(
        self, centers: Tensor, neighborhoods: Tensor, points=None, index=None, weight=None
    ) -> dict[str, Tensor]:
        out = self.backbone(centers, neighborhoods)
        if self.objects is not None:
            out["class_logits"] = self.objects(out["tokens"])
        if self.parts is not None:
            out["part_logits"] = self.parts(out["tokens"], centers, points, index, weight)
        return out
