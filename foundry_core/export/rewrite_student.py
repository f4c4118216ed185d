# SPDX-License-Identifier: Apache-2.0
"""The student, rewritten exactly for inference at any of its budgets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry_core.export.rewrite_transformer import FusedEncoder, after_norm, constant, fused_tokenizer, linear
from foundry_core.models.student import Student
from foundry_core.models.supertokens import LEARNED, SupertokenAssignment, Upsampling

#: assignments that are computed by an algorithm rather than by a network: no graph can hold them
BASELINES = ("kmeans", "tome")


def balanced(logits: Tensor, iterations: int) -> Tensor:
    """Up to a factor per row the exponential of :func:`foundry_core.models.supertokens.sinkhorn`, float [B,G,s].

    Sinkhorn-Knopp as matrix scaling: only the factors of rows and columns are iterated, exp(logits) stays as it is.
    The first column step is taken in the log domain and the largest entry of every row is then set to one; so each row
    and column keeps an entry of at least 1/G and nothing over- or underflows, whatever the logits are.
    """
    g, s = logits.shape[1], logits.shape[2]
    logits = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    kernel = torch.exp(logits - logits.amax(dim=2, keepdim=True))  # (B, G, s)
    across = kernel.transpose(1, 2)  # (B, s, G)
    columns = torch.ones_like(kernel[:, 0, :, None])  # (B, s, 1)
    for _ in range(iterations - 1):
        rows = 1.0 / (kernel @ columns)  # (B, G, 1)
        columns = (g / s) / (across @ rows)
    return kernel * columns.transpose(1, 2)


class FusedAssignment(nn.Module):
    """DSO in evaluation mode. The key map and the queries are one map; values are computed after the merging."""

    def __init__(self, assignment: SupertokenAssignment):
        super().__init__()
        self.config = assignment.config
        with torch.no_grad():
            if self.config.assignment in LEARNED:
                weight, bias = after_norm(assignment.key, assignment.key_norm)
                queries = assignment.queries * assignment.key.in_features**-0.5
                self.logits = linear(queries @ weight, queries @ bias)  # (S, d)
            self.value = constant(assignment.value.weight.T)
            self.value_bias = constant(assignment.value.bias)
        self.supertokens = constant(assignment.supertokens)
        self.baseline = assignment if self.config.assignment in BASELINES else None

    def _assign(self, embedded: Tensor, normed: Tensor, centers: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """One-hot assignment [B,G,s], and the soft one up to a factor per row."""
        b, g, _ = centers.shape
        if self.baseline is not None:
            hard = self.baseline.assign(embedded.view(b, g, -1), centers, slots.shape[0]).hard
            return hard, hard
        if self.config.assignment == "fps":
            offset = centers[:, :, None] - centers.index_select(1, slots)[:, None]  # (B, G, s, 3)
            logits = -offset.square().sum(dim=3).sqrt()
            hard = (logits.argmax(dim=2, keepdim=True) == slots).to(logits.dtype)
            return hard, hard
        logits = self.logits(normed).view(b, g, -1).index_select(2, slots)  # (B, G, s)
        if self.config.assignment == "sinkhorn":
            logits = soft = balanced(logits, self.config.sinkhorn_iterations)
        else:
            soft = torch.softmax(logits, dim=2)
        return (logits.argmax(dim=2, keepdim=True) == slots).to(soft.dtype), soft

    def forward(
        self, tokens: Tensor, embedded: Tensor, normed: Tensor, centers: Tensor, slots: Tensor
    ) -> tuple[Tensor, ...]:
        """Merge.

        Args:
            tokens: [B*G,d]; embedded: tokens plus positions; normed: these, normalised; centers: [B,G,3].
            slots: int64 [s], the supertokens in use.

        Returns:
            supertokens [B,s,d], their centres [B,s,3], the one-hot assignment and the A of A S, both [B,G,s].
        """
        b, g, _ = centers.shape
        hard, soft = self._assign(embedded, normed, centers, slots)
        if "soft" in (self.config.merge, self.config.spread):
            soft = soft / soft.sum(dim=2, keepdim=True)
        weight, least = (hard, 1.0) if self.config.merge == "hard" else (soft, 1e-6)
        share = weight.transpose(1, 2)  # (B, s, G)
        total = share.sum(dim=2, keepdim=True)
        full = total.clamp(min=least)
        share = share / full
        bias = total / full * self.value_bias + self.supertokens.index_select(0, slots)  # (B, s, d)
        merged = share @ tokens.view(b, g, -1) @ self.value + bias
        spread = hard if self.config.spread == "hard" else soft
        return merged, share @ centers, hard, spread


class FusedUpsampling(nn.Module):
    """CAU in evaluation mode.

    There are fewer keys than channels, so queries and outputs are never formed: the query map is multiplied into the
    s keys, and the output map into the s values, of every head.
    """

    def __init__(self, upsampling: Upsampling):
        super().__init__()
        self.residual = "residual" in upsampling.mode
        self.crossing = "cross-attention" in upsampling.mode
        self.mlp_norm, self.mlp = upsampling.mlp_norm, upsampling.mlp
        self.out_norm, self.out = upsampling.out_norm, upsampling.out
        if not self.crossing:
            return
        attention = upsampling.attention
        self.heads = heads = attention.heads
        width = attention.query.in_features
        size = width // heads
        with torch.no_grad():
            weight, bias = after_norm(attention.query, upsampling.query_norm)
            self.query = constant(weight.view(heads, size, width) * size**-0.5)  # (H, d/H, d)
            self.query_bias = constant(bias.view(heads, size, 1) * size**-0.5)
            self.key_value = linear(attention.key_value.weight, None)
            self.output = constant(attention.out.weight.T.reshape(heads, size, width))
            self.bias = constant(attention.out.bias + attention.out.weight @ attention.key_value.bias[width:])

    def _cross(self, normed: Tensor, supertokens: Tensor, spread: Tensor) -> Tensor:
        """Attention's answer plus A S, each token's own supertoken, as one product over H*s + s columns: [B,G,d]."""
        b, g, s = spread.shape
        d = normed.shape[1]
        rows = self.key_value(supertokens).view(b, s, 2, self.heads, d // self.heads)
        key, value = rows.permute(2, 0, 3, 1, 4)  # (B, H, s, d/H) each
        maps = (key @ self.query).view(b, self.heads * s, d)
        scores = normed.view(b, g, d) @ maps.transpose(1, 2)  # (B, G, H*s)
        scores = scores + (key @ self.query_bias).view(b, 1, self.heads * s)
        weights = scores.view(b, g, self.heads, s).softmax(dim=-1).view(b, g, self.heads * s)
        answers = (value @ self.output).view(b, self.heads * s, d)
        left = torch.cat([weights, spread], dim=2)
        right = torch.cat([answers, supertokens], dim=1)
        return left @ right + self.bias

    def forward(self, tokens: Tensor, normed: Tensor, supertokens: Tensor, spread: Tensor) -> Tensor:
        """Rebuilt token features [B*G,out] from tokens and normed [B*G,d], supertokens [B,s,d] and A [B,G,s]."""
        if self.crossing:
            x = self._cross(normed, supertokens, spread)
        else:
            x = spread @ supertokens
        x = x.flatten(0, 1)  # (B*G, d)
        if self.residual:
            x = x + tokens
        x = x + self.mlp(self.mlp_norm(x))
        return self.out(self.out_norm(x))


class FusedStudent(nn.Module):
    """The student in evaluation mode.

    Tokens plus positions are normalised once; scale and shift of the norms that read them are folded into the maps
    behind them.
    """

    def __init__(self, student: Student):
        super().__init__()
        self.architecture = student.architecture
        self.tokenizer = fused_tokenizer(student.tokenizer)
        self.position = student.position
        self.assignment = FusedAssignment(student.assignment)
        self.encoder = FusedEncoder(student.encoder)
        self.upsampling = FusedUpsampling(student.upsampling)

    def forward(self, centers: Tensor, neighborhoods: Tensor, budget: int | Tensor | None = None) -> dict[str, Tensor]:
        """Rebuilt token features; ``budget`` is a number, or the tensor 0, 1, ... s-1 in a graph for all budgets."""
        b, g, _ = centers.shape
        slots = budget
        if not isinstance(slots, Tensor):
            slots = torch.arange(budget or self.architecture.supertokens.count, device=centers.device)
        tokens = self.tokenizer(neighborhoods)  # (B*G, d)
        at = tokens + self.position(centers.reshape(b * g, 3))
        normed = F.layer_norm(at, at.shape[-1:])
        merged, merged_centers, assignment, spread = self.assignment(tokens, at, normed, centers, slots)
        supertokens = self.encoder(merged, self.position(merged_centers), b)  # (B, s, d)
        rebuilt = self.upsampling(tokens, normed, supertokens, spread)
        return {
            "tokens": rebuilt.view(b, g, -1),
            "supertokens": supertokens,
            "assignment": assignment,
        }
