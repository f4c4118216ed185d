# SPDX-License-Identifier: Apache-2.0
"""Mini-PointNet: one token from each local patch (Point-MAE, Pang et al., 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foundry_core.architecture import TokenizerConfig


class Tokenizer(nn.Module):
    """Patches [B,G,K,3], centre-subtracted, to tokens [B,G,d].

    3 -> first -> second per point, maximum over the patch beside each point's own features, -> third -> d, maximum.
    The maximum is the same for all points of a patch, so its half of the third layer is computed once per patch.

    A slim student reads every ``stride``-th neighbour, which keeps the extent of the patch, and may take the last
    maximum before the last linear map, which is then applied once per patch.
    """

    def __init__(self, config: TokenizerConfig, width: int):
        super().__init__()
        self.config = config
        self.point = nn.Linear(3, config.first)
        self.point_norm = nn.BatchNorm1d(config.first)
        self.local = nn.Linear(config.first, config.second)
        self.from_patch = nn.Linear(config.second, config.third, bias=False)
        self.from_point = nn.Linear(config.second, config.third)
        self.joint_norm = nn.BatchNorm1d(config.third)
        self.token = nn.Linear(config.third, width)

    def forward(self, neighborhoods: Tensor) -> Tensor:
        neighborhoods = neighborhoods[:, :, :: self.config.stride]
        b, g, k, _ = neighborhoods.shape
        x = self.point_norm(self.point(neighborhoods.reshape(b * g * k, 3)))  # (B*G*K, first)
        x = self.local(torch.relu(x)).view(b * g, k, -1)  # (B*G, K, second)
        patch = self.from_patch(x.amax(dim=1))  # (B*G, third)
        x = self.from_point(x) + patch[:, None]  # (B*G, K, third)
        x = torch.relu(self.joint_norm(x.reshape(b * g * k, -1))).view(b * g, k, -1)
        if self.config.pool == "before":
            return self.token(x.amax(dim=1)).view(b, g, -1)
        return self.token(x).amax(dim=1).view(b, g, -1)  # (B, G, d)


class PositionEmbedding(nn.Module):
    """Centres [...,3] to position vectors [...,d]."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, centers: Tensor) -> Tensor:
        return self.layers(centers)
