# SPDX-License-Identifier: Apache-2.0
"""The part probe: a small head that reads the part of every point from frozen token features, learned in a minute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry_core.models.heads import pool

#: the logit of a part that a category does not have
NEVER = -1e4


@dataclass(frozen=True)
class PartProbeConfig:
    """How the head is learned; the same for every model, chosen on validation parts of train splits."""

    steps: int = 600
    batch: int = 16
    points: int = 256  # of each shape in a step
    hidden: int = 192
    dropout: float = 0.1
    rate: float = 2e-3
    decay: float = 0.05


@dataclass
class PartBank:
    """What the head reads, of M shapes with P points.

    Attributes:
        tokens: float16 [M,G,F], the depths side by side; F is 0 for the points alone.
        point: float16 [M,P,D], what is known of a point without a model.
        index, weight: int16 and float16 [M,P,3], :func:`foundry_core.geometry.interpolation` onto the centres.
        category: int64 [M]; part: int64 [M,P], -1 unknown.
    """

    tokens: Tensor
    point: Tensor
    index: Tensor
    weight: Tensor
    category: Tensor
    part: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def inputs(self, rows: Tensor, chosen: Tensor | None = None) -> tuple[Tensor, ...]:
        """Of shapes [B] the points that ``chosen`` int64 [B,n] picks, or all: the arguments of the head."""
        where = rows if chosen is None else (rows[:, None], chosen)
        point, index, weight = (column[where] for column in (self.point, self.index, self.weight))
        return self.tokens[rows].float(), self.category[rows], point.float(), index.long(), weight.float()


class PartProbe(nn.Module):
    """Token features [B,G,F], category [B] and points [B,n,D] to part logits [B,n,K].

    The first layer is applied to the tokens and its result interpolated to the points by inverse distance (PointNet++,
    Qi et al., 2017), as in :class:`foundry_core.models.heads.PartHead`.

    Args:
        allowed: bool [C,K], the parts of each category.
    """

    def __init__(self, width: int, point: int, allowed: Tensor, hidden: int, dropout: float):
        super().__init__()
        self.register_buffer("allowed", allowed)
        categories, parts = allowed.shape
        self.width = width
        if width:
            self.norm = nn.LayerNorm(width)
            self.token = nn.Linear(width, hidden)
            self.cloud = nn.Linear(2 * width, hidden)
        self.category = nn.Embedding(categories, hidden)
        self.point = nn.Sequential(nn.Linear(point, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.mlp = nn.Sequential(
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, parts),
        )

    def forward(self, tokens: Tensor, category: Tensor, point: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        x = self.point(point) + self.category(category)[:, None]  # (B, n, H)
        if self.width:
            tokens = self.norm(tokens)
            spread = weight.new_zeros(*index.shape[:2], tokens.shape[1]).scatter_add_(2, index, weight)  # (B, n, G)
            x = x + torch.bmm(spread, self.token(tokens)) + self.cloud(pool(tokens))[:, None]
        return self.mlp(x).masked_fill(~self.allowed[category][:, None], NEVER)


def fit_part_probe(
    bank: PartBank, allowed: Tensor, config: PartProbeConfig, seed: int, advance: Callable[[], None] | None = None
) -> PartProbe:
    """A head learned on the bank, in evaluation mode; the seed draws its weights and its batches."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = PartProbe(bank.tokens.shape[2], bank.point.shape[2], allowed, config.hidden, config.dropout).train()
        optimizer = torch.optim.AdamW(probe.parameters(), lr=config.rate, weight_decay=config.decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.rate, total_steps=max(config.steps, 2), pct_start=0.1
        )
        points = bank.part.shape[1]
        for _ in range(config.steps):
            rows = torch.randint(len(bank), (config.batch,), generator=generator)
            chosen = torch.randint(points, (config.batch, min(config.points, points)), generator=generator)
            part = bank.part[rows[:, None], chosen]
            if not (part >= 0).any():
                continue
            logits = probe(*bank.inputs(rows, chosen))
            loss = F.cross_entropy(logits.flatten(0, 1), part.flatten(), ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if advance:
                advance()
    return probe.eval()


@torch.no_grad()
def part_probabilities(probe: PartProbe, bank: PartBank) -> Tensor:
    """Probabilities float16 [M,P,K] of every part at every point."""
    return torch.cat([probe(*bank.inputs(rows)).softmax(-1).half() for rows in torch.arange(len(bank)).split(16)])
