# SPDX-License-Identifier: Apache-2.0
"""The heads, rewritten exactly for inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foundry_core.export.rewrite_transformer import constant, linear
from foundry_core.models.heads import ObjectHead, PartHead, pool


class FusedObjectHead(nn.Module):
    """Token features [B,G,d] to class logits [B,C]; scores and values are one product."""

    def __init__(self, head: ObjectHead):
        super().__init__()
        self.norm = head.norm
        self.queries = head.scores.out_features
        with torch.no_grad():
            # the bias of a score is the same for all tokens of the softmax and drops out
            bias = torch.cat([torch.zeros_like(head.scores.bias), head.values.bias])
            self.scores_values = linear(torch.cat([head.scores.weight, head.values.weight]), bias)
        self.mlp = nn.Sequential(*(layer for layer in head.mlp if not isinstance(layer, nn.Dropout)))

    def forward(self, tokens: Tensor) -> Tensor:
        b, g, d = tokens.shape
        rows = self.norm(tokens.reshape(b * g, d))
        tokens = rows.view(b, g, d)
        scores, values = self.scores_values(rows).view(b, g, -1).tensor_split([self.queries], dim=2)
        weights = scores.transpose(1, 2).softmax(dim=2)  # (B, Q, G)
        return self.mlp(torch.cat([pool(tokens), (weights @ values).flatten(1)], dim=-1))


class FusedPartHead(nn.Module):
    """Token features [B,G,d] and points [B,N,3] to part logits [B,N,P].

    Everything before the first nonlinearity is linear in a point's interpolation weights, the point, its nearest centre
    and 1; so it is one product of these [B,N,G+7] with a matrix [G+7,hidden] that each cloud has of its own.
    """

    def __init__(self, head: PartHead):
        super().__init__()
        self.norm, self.token, self.mlp = head.norm, head.token, head.mlp
        with torch.no_grad():
            self.cloud = linear(head.cloud.weight, head.cloud.bias + head.point.bias)
            point, offset = head.point.weight[:, :3], head.point.weight[:, 3:]
            self.point = constant(torch.cat([point + offset, -offset], dim=1).T)  # (6, hidden)

    def forward(self, tokens: Tensor, centers: Tensor, points: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """``index`` int64 [B,N,k] and ``weight`` [B,N,k] are :func:`foundry_core.geometry.interpolation`."""
        b, g, d = tokens.shape
        n = points.shape[1]
        rows = self.norm(tokens.reshape(b * g, d))
        spread = weight.new_zeros(b, n, g).scatter_add(2, index, weight)
        nearest = centers.gather(1, index[:, :, :1].expand(-1, -1, 3))  # (B, N, 3)
        left = torch.cat([spread, points, nearest, torch.ones_like(points[:, :, :1])], dim=2)
        cloud = self.cloud(pool(rows.view(b, g, d)))
        right = torch.cat([self.token(rows).view(b, g, -1), self.point.expand(b, -1, -1), cloud[:, None]], dim=1)
        return self.mlp((left @ right).view(b * n, -1)).view(b, n, -1)
