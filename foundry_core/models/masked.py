# SPDX-License-Identifier: Apache-2.0
"""Masked autoencoding of local patches (Point-MAE, Pang et al., 2022): the label-free pre-training of a teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foundry_core.models.collapse import cloud_statistics, token_deviation
from foundry_core.models.objective_config import MaeObjective
from foundry_core.models.parallel import rand
from foundry_core.models.pretext import PretextTask
from foundry_core.models.teacher import Teacher
from foundry_core.models.tokenizer import PositionEmbedding
from foundry_core.models.transformer import Encoder, init_weights


def chamfer(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean symmetric squared Chamfer distance between point sets [...,P,3] and [...,Q,3]; a scalar."""
    # |a - b|^2 = |a|^2 + |b|^2 - 2ab: one small matrix product instead of a tensor [...,P,Q,3]
    distance = predicted.square().sum(dim=-1)[..., :, None] + target.square().sum(dim=-1)[..., None, :]
    distance = distance - 2 * predicted @ target.transpose(-1, -2)  # (..., P, Q)
    return distance.min(dim=-1).values.mean() + distance.min(dim=-2).values.mean()


def random_masks(
    batch: int, groups: int, ratio: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Visible int64 [B,V] and masked int64 [B,M] patch indices, drawn anew for every sample."""
    order = rand(batch, groups, generator=generator).argsort(dim=1)
    masked = int(round(groups * ratio))
    return order[:, masked:], order[:, :masked]


class MaskedAutoencoder(PretextTask):
    """The teacher sees a share of the patches; a light decoder rebuilds the points of the others."""

    def __init__(self, teacher: Teacher, neighbors: int, config: MaeObjective):
        super().__init__(teacher)
        encoder = teacher.architecture.encoder
        self.config = config
        self.mask_token = nn.Parameter(torch.zeros(encoder.width))
        self.position = PositionEmbedding(encoder.position_hidden, encoder.width)
        self.decoder = Encoder(encoder.width, config.decoder_depth, encoder.heads, encoder.mlp_ratio)
        self.points = nn.Linear(encoder.width, neighbors * 3)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for part in (self.position, self.decoder, self.points):
            part.apply(init_weights)

    def solve(self, centers: Tensor, neighborhoods: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        b, g, k, _ = neighborhoods.shape
        visible, masked = (index.to(centers.device) for index in random_masks(b, g, self.config.mask_ratio))
        rows = torch.arange(b, device=centers.device)[:, None]
        features = self.teacher.encode_visible(centers, neighborhoods, visible)  # (B, V, d)
        positions = self.position(torch.cat([centers[rows, visible], centers[rows, masked]], dim=1))
        tokens = torch.cat([features, self.mask_token.expand(b, masked.shape[1], -1).to(features.dtype)], dim=1)
        decoded = self.decoder(tokens, positions)[:, visible.shape[1] :]  # (B, M, d)
        rebuilt = self.points(decoded).view(b, -1, k, 3)
        with torch.autocast(centers.device.type, enabled=False):
            loss = chamfer(rebuilt.float(), neighborhoods[rows, masked].float())
        return {
            "loss": loss,
            "token_std": token_deviation(features),
            **cloud_statistics(features[:: self.views]),
        }, features
