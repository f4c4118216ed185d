# SPDX-License-Identifier: Apache-2.0
"""Statistics that betray a collapse: features that are the same for every patch, or for every cloud."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_CLOUDS = 32  # of any larger batch, so that ranks of different batches compare; the decomposition grows with their cube


def token_deviation(tokens: Tensor) -> Tensor:
    """Deviation over all tokens [...,d] of each dimension, mean over the dimensions; a scalar."""
    return tokens.detach().float().flatten(0, -2).std(dim=0).mean()


def effective_rank(features: Tensor) -> Tensor:
    """Directions that centred features [B,d] use: exp of the entropy of the singular values (Roy & Vetterli, 2007).

    From 1 (all on a line, or all the same) to min(B-1, d); NaN where features are not finite.
    """
    centered = features.detach().float()
    centered = centered - centered.mean(dim=0)
    gram = centered @ centered.T
    if not gram.isfinite().all():  # a loss that ran away is for the loop to report
        return gram.new_tensor(torch.nan)
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = values / values.sum().clamp(min=1e-12)
    return torch.special.entr(share).sum().exp()


def mean_cosine(features: Tensor) -> Tensor:
    """Mean cosine between the features [B,d] of different clouds; 1 when all point in one direction."""
    unit = F.normalize(features.detach().float(), dim=-1)
    n = len(unit)
    return (unit.sum(dim=0).square().sum() - n) / (n * (n - 1))


def cloud_statistics(tokens: Tensor) -> dict[str, Tensor]:
    """How different the first 32 clouds are by their mean token features; tokens [B,T,d]. Nothing of a single cloud."""
    if len(tokens) < 2:
        return {}
    with torch.autocast(tokens.device.type, enabled=False):
        pooled = tokens[:_CLOUDS].detach().float().mean(dim=1)
        return {
            "cloud_std": pooled.std(dim=0).mean(),
            "cloud_rank": effective_rank(pooled),
            "cloud_cosine": mean_cosine(pooled),
        }
