# SPDX-License-Identifier: Apache-2.0
"""A teacher whose tokens merge as it runs (ToMe), rewritten exactly for inference: its fastest form, and a graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry_core.export.rewrite_transformer import FusedAttention, FusedBlock, fused_tokenizer
from foundry_core.models.merging import Merged
from foundry_core.models.schedule import schedule
from foundry_core.models.transformer import Attention


class _MergingAttention(FusedAttention):
    """The keys keep their bias, because tokens are matched by their keys."""

    def __init__(self, attention: Attention):
        super().__init__(attention, key_bias=True)

    def forward(self, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
        """Answer [B,n,d] to x [B,n,d] and the keys' mean over the heads [B,n,d/H]; a token of size m counts m times."""
        b, n, d = x.shape
        rows = self.query_key_value(x.reshape(b * n, d)).view(b, n, 3, self.heads, d // self.heads)
        query, key, value = rows.permute(2, 0, 3, 1, 4)  # (B, H, n, d/H) each
        scores = query @ key.transpose(-1, -2)
        if size is not None:
            scores = scores + size.log()[:, None, None, :]
        y = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(b * n, d)
        return self.out(y).view(b, n, d), key.mean(dim=1)


def _owner(keys: Tensor, merged: int) -> Tensor:
    """As ``match_tome``, one-hot [B,n,n-merged], with operations that a graph has."""
    b, n, _ = keys.shape
    keys = F.normalize(keys, dim=-1)
    similarity = keys[:, 1::2] @ keys[:, 0::2].transpose(1, 2)  # (B, odd, even)
    best, partner = similarity.max(dim=-1)
    edge = best.topk(merged, dim=-1).indices  # (B, r)
    source, target = 2 * edge + 1, 2 * partner.gather(1, edge)
    numbers = torch.arange(n).expand(b, n)
    owner = numbers.scatter(1, source, target)
    stays = torch.ones_like(numbers).scatter(1, source, torch.zeros_like(source))
    slot = (stays.cumsum(dim=1) - 1).gather(1, owner)  # (B, n)
    return (slot[:, :, None] == torch.arange(n - merged)).to(keys.dtype)


class FusedMerged(nn.Module):
    """``Merged`` by ``tome`` in evaluation mode; what merges together is one product."""

    def __init__(self, merged: Merged):
        super().__init__()
        if merged.method != "tome":
            raise ValueError(f"no inference form of {merged.method}")
        teacher = merged.teacher
        self.architecture, self.supertokens = teacher.architecture, merged.supertokens
        self.tokenizer, self.position = fused_tokenizer(teacher.tokenizer), teacher.position
        self.blocks = nn.ModuleList(FusedBlock(block, _MergingAttention) for block in teacher.encoder.blocks)
        self.norm = teacher.encoder.norm

    def forward(self, centers: Tensor, neighborhoods: Tensor) -> dict[str, Tensor]:
        """centers [B,G,3] and neighborhoods [B,G,K,3] to ``tokens`` [B,G,d] and the merged ``supertokens`` [B,s,d]."""
        b, g, _ = centers.shape
        x = self.tokenizer(neighborhoods).view(b, g, -1)
        positions = self.position(centers.reshape(b * g, 3)).view(b, g, -1)
        d = x.shape[2]
        size = assignment = None
        for block, left in zip(self.blocks, schedule(g, min(self.supertokens, g), len(self.blocks)), strict=True):
            x = x + positions
            y, keys = block.attention(block.attention_norm(x), size)
            x = x + y
            while x.shape[1] > left:
                owner = _owner(keys, min(x.shape[1] - left, x.shape[1] // 2))
                size = torch.ones_like(x[:, :, 0]) if size is None else size
                summed = torch.cat([torch.cat([x, positions, keys], dim=2) * size[:, :, None], size[:, :, None]], dim=2)
                summed = owner.transpose(1, 2) @ summed  # (B, m, 2d + d/H + 1)
                size = summed[:, :, -1]
                x, positions, keys = (summed[:, :, :-1] / size[:, :, None]).split([d, d, keys.shape[2]], dim=2)
                assignment = owner if assignment is None else assignment @ owner
            x = x + block.mlp(block.mlp_norm(x))
        x = self.norm(x)
        return {"tokens": x if assignment is None else assignment @ x, "supertokens": x}
