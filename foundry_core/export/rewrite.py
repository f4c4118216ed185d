# SPDX-License-Identifier: Apache-2.0
"""Exact rewrites of the training graph for inference."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from foundry_core.models.heads import Perception
from foundry_core.models.tokenizer import Tokenizer


def _scale_shift(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - scale * norm.running_mean


class FusedTokenizer(nn.Module):
    """The tokenizer in evaluation mode with less arithmetic and the same numbers.

    Batch norms are folded into the linear maps before them; the second and third layer, which have no nonlinearity
    between them, are composed for the per-point half; biases that are the same for a whole patch are added after the
    maximum.
    """

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.config = tokenizer.config
        with torch.no_grad():
            scale, shift = _scale_shift(tokenizer.point_norm)
            self.point = _linear(scale[:, None] * tokenizer.point.weight, scale * tokenizer.point.bias + shift)
            self.local = _linear(tokenizer.local.weight, None)
            scale, shift = _scale_shift(tokenizer.joint_norm)
            from_patch = scale[:, None] * tokenizer.from_patch.weight
            from_point = scale[:, None] * tokenizer.from_point.weight
            bias = scale * tokenizer.from_point.bias + shift + (from_patch + from_point) @ tokenizer.local.bias
            self.from_patch = _linear(from_patch, bias)
            self.from_point = _linear(from_point @ tokenizer.local.weight, None)
            self.token = _linear(tokenizer.token.weight, None)
            self.token_bias = nn.Parameter(tokenizer.token.bias.clone())

    def forward(self, neighborhoods: Tensor) -> Tensor:
        neighborhoods = neighborhoods[:, :, :: self.config.stride]
        b, g, k, _ = neighborhoods.shape
        x = torch.relu(self.point(neighborhoods.reshape(b * g, k, 3)))  # (B*G, K, first)
        patch = self.from_patch(self.local(x).amax(dim=1))  # (B*G, third)
        if self.config.pool == "before":  # the maximum commutes with what is the same for, or grows with, every point
            x = torch.relu(self.from_point(x).amax(dim=1) + patch)  # (B*G, third)
            return (self.token(x) + self.token_bias).view(b, g, -1)
        x = torch.relu(self.from_point(x) + patch[:, None])  # (B*G, K, third)
        return (self.token(x).amax(dim=1) + self.token_bias).view(b, g, -1)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer


def for_inference(network: Perception) -> Perception:
    """A copy of the network with all exact rewrites applied, in evaluation mode."""
    fused = copy.deepcopy(network).eval()
    fused.backbone.tokenizer = FusedTokenizer(fused.backbone.tokenizer)
    return fused
