# SPDX-License-Identifier: Apache-2.0
"""One token from each local patch: the mini-PointNet (Point-MAE, Pang et al., 2022), or a cheaper one for students."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry_core.architecture import ShallowTokenizerConfig, TokenizerConfig


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


class ShallowTokenizer(nn.Module):
    """Patches [B,G,K,3], centre-subtracted, to tokens [B,G,d], with no layer between the points and the patch.

    A patch is scaled to its extent and described by what its points are along a few learned directions: the maximum,
    which traces its hull, and the mean of the positive part, which weighs it; and by the logarithm of the extent. Two
    hidden layers, once for each patch, make the token of it. All points are read, for a third of the products that the
    slim mini-PointNet before it needed (config/train/legs).
    """

    def __init__(self, config: ShallowTokenizerConfig, width: int):
        super().__init__()
        self.config = config
        self.point = nn.Linear(3, config.directions)
        nn.init.normal_(self.point.weight)
        nn.init.uniform_(self.point.bias, -1, 1)
        described = 2 * config.directions + 1
        self.norm = nn.BatchNorm1d(described)
        self.first, self.second = nn.Linear(described, config.hidden), nn.Linear(config.hidden, config.hidden)
        self.token = nn.Linear(config.hidden, width)

    def forward(self, neighborhoods: Tensor) -> Tensor:
        b, g, _, _ = neighborhoods.shape
        x = self.norm(describe(self.point, neighborhoods))
        x = F.gelu(self.second(F.gelu(self.first(x))))
        return self.token(x).view(b, g, -1)


def describe(point: nn.Linear, neighborhoods: Tensor) -> Tensor:
    """What a shallow tokenizer knows of patches [B,G,K,3] by its map ``point`` of 3 to F: [B*G,2F+1]."""
    b, g, k, _ = neighborhoods.shape
    patches = neighborhoods.reshape(b * g, k, 3)
    extent = patches.square().sum(dim=-1).amax(dim=1, keepdim=True).sqrt().clamp(min=1e-6)  # (B*G, 1)
    along = point((patches / extent[..., None]).view(b * g * k, 3)).view(b * g, k, -1)
    return torch.cat([along.amax(dim=1), torch.relu(along).mean(dim=1), extent.log()], dim=1)


def make_tokenizer(config: TokenizerConfig | ShallowTokenizerConfig, width: int) -> nn.Module:
    """The tokenizer of a configuration, tokens [B,G,width]."""
    return (ShallowTokenizer if config.kind == "shallow" else Tokenizer)(config, width)


class PositionEmbedding(nn.Module):
    """Centres [...,3] to position vectors [...,d]."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, centers: Tensor) -> Tensor:
        return self.layers(centers)
