# SPDX-License-Identifier: Apache-2.0
"""Pre-norm transformer blocks, with the position embedding added before every block as in Point-MAE and point2vec."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from foundry_core.architecture import EncoderConfig


class Attention(nn.Module):
    """Multi-head attention of queries [B,Q,d] over context [B,C,d] (self-attention when both are the same)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Answers [B,Q,d]; nobody sees those of the context that are ``hidden``, bool [B,C]."""
        b, q, d = queries.shape
        c = context.shape[1]
        query = self.query(queries).view(b, q, self.heads, d // self.heads).transpose(1, 2)  # (B, H, Q, d/H)
        key, value = self.key_value(context).view(b, c, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        # written out: at tens of tokens the fused kernel is slower on a CPU, in the backward pass above all
        scores = (query * (d // self.heads) ** -0.5) @ key.transpose(-1, -2)  # (B, H, Q, C)
        if hidden is not None:
            scores = scores.masked_fill(hidden[:, None, None], float("-inf"))
        x = scores.softmax(dim=-1).to(value.dtype) @ value  # (B, H, Q, d/H)
        return self.out(x.transpose(1, 2).reshape(b, q, d))


class Mlp(nn.Module):
    """Two layers with GELU: [...,width] to [...,out]."""

    def __init__(self, width: int, hidden: int, out: int | None = None):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out or width))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); x is [B,T,d]."""

    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        y = self.attention_norm(x)
        x = x + self.attention(y, y, hidden)
        return x + self.mlp(self.mlp_norm(x))


class Encoder(nn.Module):
    """L blocks and a final norm: tokens [B,T,d] and positions [B,T,d] to token features [B,T,d]."""

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    @classmethod
    def from_config(cls, config: EncoderConfig) -> Encoder:
        return cls(config.width, config.depth, config.heads, config.mlp_ratio)

    def outputs(self, tokens: Tensor, positions: Tensor, hidden: Tensor | None = None) -> Iterator[Tensor]:
        """Tokens [B,T,d] after each block, before the final norm; none sees a ``hidden`` one, bool [B,T]."""
        for block in self.blocks:
            tokens = block(tokens + positions, hidden)
            yield tokens

    def forward(self, tokens: Tensor, positions: Tensor, hidden: Tensor | None = None) -> Tensor:
        for output in self.outputs(tokens, positions, hidden):
            tokens = output
        return self.norm(tokens)


def init_weights(module: nn.Module) -> None:
    """Truncated normal of deviation 0.02 for linear layers, as the published encoders are initialised."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
