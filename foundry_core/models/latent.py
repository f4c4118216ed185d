# SPDX-License-Identifier: Apache-2.0
"""Latent prediction: a teacher learns to predict the features that a moving average of itself gives to hidden patches.

As published, target and encoder share tokenizer and position embedding, only the blocks are averaged; and what is kept
for use is the encoder, not the target (the downstream code of point2vec and Point-JEPA loads ``student.*``). Not taken
over: drop path and dropout, and the one mask that all clouds of a batch had.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry_core.models.collapse import cloud_statistics, token_deviation
from foundry_core.models.masked import random_masks
from foundry_core.models.objective_config import JepaObjective, LatentObjective, Point2vecObjective
from foundry_core.models.pretext import PretextTask
from foundry_core.models.sequencer import draw_blocks, sequence
from foundry_core.models.teacher import Teacher
from foundry_core.models.tokenizer import PositionEmbedding
from foundry_core.models.transformer import Encoder, init_weights


def ema_decay(config: LatentObjective, progress: float) -> float:
    """Decay of the target at a share of the run: linear, then constant."""
    first, last = config.decay
    return first + (last - first) * min(1.0, progress / config.decay_share)


def _explained(prediction: Tensor, wanted: Tensor) -> Tensor:
    """Share of the variance of what is wanted [...,d] that a prediction explains; the loss moves with the target."""
    spread = (wanted - wanted.flatten(0, -2).mean(dim=0)).square().sum()
    return 1 - (prediction - wanted).square().sum() / spread.clamp(min=1e-12)


class LatentPrediction(PretextTask):
    """What the latent objectives share: the target, how it follows, and the loss.

    ``teacher`` is the network that learns and is kept; ``target`` has its blocks, averaged over the steps, and is part
    of the module's state, so that a run goes on from a checkpoint as if it had not stopped.
    """

    def __init__(self, teacher: Teacher, config: LatentObjective, target_blocks: int):
        super().__init__(teacher)
        self.config, self.target_blocks = config, target_blocks
        self.target = copy.deepcopy(teacher.encoder).requires_grad_(False)

    @torch.no_grad()
    def follow(self, progress: float) -> None:
        """Move the target towards the encoder; once after every step of the optimiser."""
        decay = ema_decay(self.config, progress)
        for average, online in zip(self.target.parameters(), self.teacher.encoder.parameters(), strict=True):
            average.lerp_(online, 1 - decay)

    @torch.no_grad()
    def targets(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The target's features float32 [B,G,d]: outputs of its last blocks, each layer-normalised, averaged."""
        outputs = list(self.target.outputs(tokens.detach(), positions.detach()))[-self.target_blocks :]
        normed = [F.layer_norm(output.float(), output.shape[-1:]) for output in outputs]
        return torch.stack(normed).mean(dim=0)

    def losses(self, prediction: Tensor, wanted: Tensor, targets: Tensor, features: Tensor) -> dict[str, Tensor]:
        """``loss`` of a prediction [...,d], and statistics of it, the targets [B,G,d] and the encoder's features."""
        return {
            "loss": F.smooth_l1_loss(prediction.float(), wanted, beta=self.config.beta),
            "explained": _explained(prediction.detach().float(), wanted),
            "prediction_std": token_deviation(prediction),
            "target_std": token_deviation(targets),
            "token_std": token_deviation(features),
            **cloud_statistics(targets[:: self.views]),
        }


class Point2vec(LatentPrediction):
    """A decoder predicts the target's features of masked patches from the encoder's of the visible ones."""

    def __init__(self, teacher: Teacher, config: Point2vecObjective):
        super().__init__(teacher, config, config.target_blocks)
        encoder = teacher.architecture.encoder
        self.mask_token = nn.Parameter(torch.zeros(encoder.width))
        self.decoder = Encoder(encoder.width, config.decoder_depth, encoder.heads, encoder.mlp_ratio)
        self.regressor = nn.Linear(encoder.width, encoder.width)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for part in (self.decoder, self.regressor):
            part.apply(init_weights)

    def solve(self, centers: Tensor, neighborhoods: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        b, g, _ = centers.shape
        visible, masked = (index.to(centers.device) for index in random_masks(b, g, self.config.mask_ratio))
        rows = torch.arange(b, device=centers.device)[:, None]
        tokens, positions = self.teacher.tokenizer(neighborhoods), self.teacher.position(centers)  # (B, G, d)
        features = self.teacher.encoder(tokens[rows, visible], positions[rows, visible])  # (B, V, d)
        hidden = self.mask_token.expand(b, masked.shape[1], -1).to(features.dtype)
        order = torch.cat([visible, masked], dim=1)
        decoded = self.decoder(torch.cat([features, hidden], dim=1), positions[rows, order])[:, visible.shape[1] :]
        targets = self.targets(tokens, positions)
        return self.losses(self.regressor(decoded), targets[rows, masked], targets, features), features


class Predictor(nn.Module):
    """A narrow transformer: features [B,V,d] at places [B,V,3] to features [B,n,d] at other places [B,n,3]."""

    def __init__(self, teacher: Teacher, config: JepaObjective):
        super().__init__()
        encoder = teacher.architecture.encoder
        width = config.predictor_width or encoder.width // 2
        self.narrow = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.position = PositionEmbedding(encoder.position_hidden, width)
        self.encoder = Encoder(width, config.predictor_depth, encoder.heads, encoder.mlp_ratio)
        self.widen = nn.Linear(width, encoder.width)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, features: Tensor, seen: Tensor, asked: Tensor) -> Tensor:
        context = self.narrow(features)
        hidden = self.mask_token.expand(len(asked), asked.shape[1], -1).to(context.dtype)
        positions = self.position(torch.cat([seen, asked], dim=1))
        return self.widen(self.encoder(torch.cat([context, hidden], dim=1), positions)[:, seen.shape[1] :])


class Jepa(LatentPrediction):
    """A predictor gives the target's features of contiguous blocks from the encoder's of another block."""

    def __init__(self, teacher: Teacher, config: JepaObjective):
        super().__init__(teacher, config, target_blocks=1)
        self.predictor = Predictor(teacher, config)

    def solve(self, centers: Tensor, neighborhoods: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        b, g, _ = centers.shape
        order = sequence(centers)
        context, blocks = (places.to(centers.device) for places in draw_blocks(b, g, self.config))
        m, n = blocks.shape[1:]
        context, blocks = order.gather(1, context), order.gather(1, blocks.flatten(1))  # (B, V), (B, M*n): patches
        rows = torch.arange(b, device=centers.device)[:, None]
        tokens, positions = self.teacher.tokenizer(neighborhoods), self.teacher.position(centers)  # (B, G, d)
        features = self.teacher.encoder(tokens[rows, context], positions[rows, context])  # (B, V, d)
        # each block by itself: the mask tokens of one must not see those of another
        predicted = self.predictor(
            features.repeat_interleave(m, dim=0),
            centers[rows, context].repeat_interleave(m, dim=0),
            centers[rows, blocks].view(b * m, n, 3),
        )  # (B*M, n, d)
        targets = self.targets(tokens, positions)
        return self.losses(predicted.view(b, m * n, -1), targets[rows, blocks], targets, features), features
