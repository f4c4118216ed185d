# SPDX-License-Identifier: Apache-2.0
"""Contiguous blocks of patches: their order along a cloud, and which are context and targets (Saito et al., 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from foundry_core.models.objective_config import JepaObjective
from foundry_core.models.parallel import rand


@torch.no_grad()
def sequence(centers: Tensor) -> Tensor:
    """A path through the patches of each cloud [B,G,3]: their indices int64 [B,G] in the order in which they come.

    It starts at the centre with the smallest sum of coordinates and goes on to the nearest that it has not seen, of
    equally near ones to the lowest index; so neighbours in the sequence are neighbours in space, but for a few jumps.
    """
    b, g, _ = centers.shape
    rows = torch.arange(b, device=centers.device)
    distance = (centers[:, :, None] - centers[:, None]).square().sum(dim=-1)  # (B, G, G)
    seen = torch.zeros(b, g, device=centers.device)  # infinite where the path has been
    path = [centers.sum(dim=-1).argmin(dim=1)]
    for _ in range(g - 1):
        seen[rows, path[-1]] = torch.inf
        path.append((distance[rows, path[-1]] + seen).argmin(dim=1))
    return torch.stack(path, dim=1)


def draw_blocks(batch: int, groups: int, config: JepaObjective) -> tuple[Tensor, Tensor]:
    """Places in the sequence of one context block int64 [B,V] and of M target blocks int64 [B,M,n] for each cloud.

    A target block is a run of n places, the context one of V places after the targets' were taken out. The sizes, and
    how targets overlap, are drawn for the batch, for it is one tensor; where the blocks lie is drawn for every cloud
    (the published code draws that for the batch too).
    """
    draws = torch.rand(2 + config.targets).tolist()
    size = config.target_size(groups, draws[0])
    starts = sorted(int(draw * (groups - size + 1)) for draw in draws[2:])
    runs = [[starts[0]]]  # starts of blocks that overlap or touch
    for start in starts[1:]:
        if start <= runs[-1][-1] + size:
            runs[-1].append(start)
        else:
            runs.append([start])
    lengths = [run[-1] - run[0] + size for run in runs]
    free = groups - sum(lengths)
    # the runs and the free places, each of length 1, in an order of its own for every cloud
    length = torch.tensor([*lengths, *[1] * free])
    order = rand(batch, len(length)).argsort(dim=1)  # (B, R+free)
    ordered = length[order]
    start = torch.empty_like(order).scatter_(1, order, ordered.cumsum(dim=1) - ordered)  # (B, R+free), by item
    offset = [(number, first - run[0]) for number, run in enumerate(runs) for first in run]
    item, shift = torch.tensor(offset).unbind(dim=1)
    targets = start[:, item, None] + shift[:, None] + torch.arange(size)  # (B, M, n)
    places = start[:, len(runs) :].sort(dim=1).values  # (B, free)
    count = config.context_size(free, draws[1])
    first = (rand(batch, 1) * (free - count + 1)).long()
    return places.gather(1, first + torch.arange(count)), targets
