# SPDX-License-Identifier: Apache-2.0
"""The tokenizer and the transformer blocks, rewritten exactly for inference on matrices with one row per token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry_core.models.tokenizer import ShallowTokenizer, Tokenizer, describe
from foundry_core.models.transformer import Attention, Block, Encoder


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with the given weight [out,in] and bias [out]."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer.requires_grad_(False)


def constant(value: Tensor) -> nn.Parameter:
    """A copy of ``value`` that belongs to a module and is not trained."""
    return nn.Parameter(value.detach().clone().contiguous(), requires_grad=False)


def after_norm(layer: nn.Linear, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of ``layer(norm(x))`` on x normalised without the norm's own scale and shift."""
    bias = layer.weight @ norm.bias
    return layer.weight * norm.weight, bias if layer.bias is None else bias + layer.bias


def _scale_shift(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - scale * norm.running_mean


class FusedTokenizer(nn.Module):
    """The tokenizer in evaluation mode: patches [B,G,K,3] to tokens [B*G,d].

    Batch norms are folded into the linear maps before them; the second and third layer, which have no nonlinearity
    between them, are composed for the per-point half; the half that is the same for a whole patch enters as the matrix
    that the product is added to; biases that are the same for a whole patch are added after the maximum. Where the
    maximum comes before the last layer, it commutes with all that is the same for, or grows with, every point.
    """

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.config = tokenizer.config
        with torch.no_grad():
            scale, shift = _scale_shift(tokenizer.point_norm)
            self.point = linear(scale[:, None] * tokenizer.point.weight, scale * tokenizer.point.bias + shift)
            self.local = linear(tokenizer.local.weight, None)
            scale, shift = _scale_shift(tokenizer.joint_norm)
            from_patch = scale[:, None] * tokenizer.from_patch.weight
            from_point = scale[:, None] * tokenizer.from_point.weight
            bias = scale * tokenizer.from_point.bias + shift + (from_patch + from_point) @ tokenizer.local.bias
            self.from_patch = linear(from_patch, bias)
            self.from_point = constant((from_point @ tokenizer.local.weight).T)  # (first, third)
            self.token = linear(tokenizer.token.weight, None)
            self.token_bias = constant(tokenizer.token.bias)

    def forward(self, neighborhoods: Tensor) -> Tensor:
        neighborhoods = neighborhoods[:, :, :: self.config.stride]
        b, g, k, _ = neighborhoods.shape
        x = torch.relu(self.point(neighborhoods.reshape(b * g * k, 3)))  # (B*G*K, first)
        patch = self.from_patch(self.local(x).view(b * g, k, -1).amax(dim=1))  # (B*G, third)
        if self.config.pool == "before":
            x = (x @ self.from_point).view(b * g, k, -1).amax(dim=1)
            return self.token(torch.relu(x + patch)) + self.token_bias
        patch = patch[:, None].expand(-1, k, -1).reshape(b * g * k, -1)
        x = torch.relu(torch.addmm(patch, x, self.from_point))  # (B*G*K, third)
        return self.token(x).view(b * g, k, -1).amax(dim=1) + self.token_bias  # (B*G, d)


class FusedShallowTokenizer(nn.Module):
    """The shallow tokenizer in evaluation mode: patches [B,G,K,3] to tokens [B*G,d].

    The batch norm is folded into the first layer.
    """

    def __init__(self, tokenizer: ShallowTokenizer):
        super().__init__()
        self.config = tokenizer.config
        with torch.no_grad():
            scale, shift = _scale_shift(tokenizer.norm)
            weight = tokenizer.first.weight * scale
            self.first = linear(weight, tokenizer.first.bias + tokenizer.first.weight @ shift)
        self.point, self.second, self.token = tokenizer.point, tokenizer.second, tokenizer.token

    def forward(self, neighborhoods: Tensor) -> Tensor:
        x = self.first(describe(self.point, neighborhoods))
        return self.token(F.gelu(self.second(F.gelu(x))))  # (B*G, d)


def fused_tokenizer(tokenizer: Tokenizer | ShallowTokenizer) -> nn.Module:
    """The inference form of a tokenizer."""
    return (FusedShallowTokenizer if isinstance(tokenizer, ShallowTokenizer) else FusedTokenizer)(tokenizer)


class FusedAttention(nn.Module):
    """Self-attention on rows [B*T,d] or on [B,T,d]: one product gives queries, keys and values, the scale in it.

    The bias of the keys adds the same number to all scores of a query and is dropped, unless the keys themselves are
    of use; the bias of the values passes the softmax unchanged and is added to the output's.
    """

    def __init__(self, attention: Attention, key_bias: bool = False):
        super().__init__()
        self.heads = attention.heads
        width = attention.query.in_features
        scale = (width // self.heads) ** -0.5
        with torch.no_grad():
            weight = torch.cat([attention.query.weight * scale, attention.key_value.weight])
            of_keys, of_values = attention.key_value.bias.split(width)
            kept = of_keys if key_bias else torch.zeros_like(of_keys)
            bias = torch.cat([attention.query.bias * scale, kept, torch.zeros_like(of_values)])
            self.query_key_value = linear(weight, bias)
            self.out = linear(attention.out.weight, attention.out.bias + attention.out.weight @ of_values)

    def forward(self, x: Tensor, batch: int) -> Tensor:
        shape, d = x.shape, x.shape[-1]
        x = self.query_key_value(x).view(batch, -1, 3, self.heads, d // self.heads)
        query, key, value = x.permute(2, 0, 3, 1, 4)  # (B, H, T, d/H) each
        x = (query @ key.transpose(-1, -2)).softmax(dim=-1) @ value
        return self.out(x.transpose(1, 2).reshape(shape))


class FusedBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), on rows [B*T,d], or on [B,T,d]."""

    def __init__(self, block: Block, attention: type[FusedAttention] = FusedAttention):
        super().__init__()
        self.attention_norm, self.mlp_norm, self.mlp = block.attention_norm, block.mlp_norm, block.mlp
        self.attention = attention(block.attention)

    def forward(self, x: Tensor, batch: int) -> Tensor:
        x = x + self.attention(self.attention_norm(x), batch)
        return x + self.mlp(self.mlp_norm(x))


class FusedEncoder(nn.Module):
    """The blocks and the final norm on tokens and positions [B*T,d], or on [B,T,d]."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.blocks = nn.ModuleList(FusedBlock(block) for block in encoder.blocks)
        self.norm = encoder.norm

    def forward(self, tokens: Tensor, positions: Tensor, batch: int) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens + positions, batch)
        return self.norm(tokens)
