# SPDX-License-Identifier: Apache-2.0
"""The gate of arXiv 2511.20721 (Foundry-Gate): tokens that merging would hurt by-pass it, as far as a budget allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foundry_core.architecture import SupertokenConfig
from foundry_core.models.parallel import rand
from foundry_core.models.transformer import Encoder, Mlp


@dataclass(frozen=True)
class Gated:
    """Which tokens by-pass, and what the blocks made of them.

    Attributes:
        open: 1 for a token that by-passes, 0 for one that is merged, [B,G]; in training drawn, see ``BypassGate``.
        decided: the same without noise: what by-passes in evaluation, [B,G].
        features: after the blocks, [B,G,d]; of merged tokens they mean nothing.
    """

    open: Tensor
    decided: Tensor
    features: Tensor | None = None


def _straight_through(logits: Tensor, temperature: float) -> Tensor:
    """1 where the logit is positive, else 0; the gradient is that of the sigmoid of the logit over the temperature."""
    soft = (logits / temperature).sigmoid()
    return (logits > 0).to(logits.dtype) + soft - soft.detach()


class BypassGate(nn.Module):
    """Two layers decide for every token [B,G,d], with its position added, whether it by-passes."""

    def __init__(self, config: SupertokenConfig, width: int, out: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, config.gate, 1)
        self.out_norm = nn.LayerNorm(width)
        self.out = Mlp(width, 2 * width, out)
        nn.init.constant_(self.mlp.layers[-1].bias, math.log(config.bypass / (1 - config.bypass)))

    def forward(self, embedded: Tensor, temperature: float = 1.0) -> Gated:
        """Decide; in training with logistic noise of this temperature, which is the two-class Gumbel noise.

        In training the gradient of a decision is that of the sigmoid of its logit over the temperature (straight
        through), with the noise where there is some.
        """
        logits = self.mlp(self.norm(embedded)).squeeze(-1).float()  # (B, G)
        if not self.training:
            hard = (logits > 0).to(logits.dtype)
            return Gated(hard, hard)
        uniform = rand(*logits.shape, device=logits.device).clamp_(1e-6, 1 - 1e-6)
        noisy = logits + temperature * torch.logit(uniform)
        return Gated(_straight_through(noisy, temperature), _straight_through(logits, temperature))

    def rebuilt(self, gated: Gated, merged: Tensor) -> Tensor:
        """Token features [B,G,out]: those of by-passing tokens from themselves, the others as ``merged`` has them."""
        return merged + gated.open[..., None] * (self.out(self.out_norm(gated.features)) - merged)


def encode_both(
    encoder: Encoder, merged: Tensor, merged_positions: Tensor, tokens: Tensor, positions: Tensor, open: Tensor
) -> tuple[Tensor, Tensor]:
    """The blocks on supertokens [B,s,d] and on those tokens [B,G,d] that by-pass; each sees all of them.

    In evaluation no other token enters the blocks: their work grows with the largest number that by-passes in a cloud.

    Args:
        open: [B,G], more than 0.5 for tokens that by-pass.

    Returns:
        supertokens [B,s,d], and features [B,G,d], zero for tokens that were left out.
    """
    s, (b, g, d) = merged.shape[1], tokens.shape
    chosen = open.detach() > 0.5
    kept = g if encoder.training else int(chosen.sum(dim=1).max())
    order = chosen.float().argsort(dim=1, descending=True, stable=True)[:, :kept]  # (B, kept)
    rows = order[..., None].expand(-1, -1, d)
    hidden = torch.cat([chosen.new_zeros(b, s), ~chosen.gather(1, order)], dim=1)  # (B, s + kept)
    features = encoder(
        torch.cat([merged.to(tokens.dtype), tokens.gather(1, rows)], dim=1),
        torch.cat([merged_positions.to(positions.dtype), positions.gather(1, rows)], dim=1),
        hidden,
    )
    return features[:, :s], features.new_zeros(b, g, d).scatter(1, rows, features[:, s:])


def off_budget(decided: Tensor, share: float) -> Tensor:
    """The budget loss: square of how far the part of the tokens [B,G] that evaluation lets by is from ``share``."""
    return (decided.mean() - share).square()
