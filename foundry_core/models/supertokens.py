# SPDX-License-Identifier: Apache-2.0
"""SuperTokens: dynamic supertoken optimisation (DSO) and cross-attention upsampling (CAU), after arXiv 2511.20721.

The paper's learned hard assignment collapses to a few supertokens when trained with a Gumbel-softmax gradient alone.
The default here balances the assignment with a few Sinkhorn iterations (Sinkhorn-Knopp in the log domain, as in
SwAV, Caron et al., 2020), at training and at inference.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry_core.card import SupertokenConfig
from foundry_core.models.transformer import Attention, Mlp


def sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """Log of an almost balanced soft assignment.

    Args:
        logits: [B,G,s].
        iterations: each scales the columns to G/s tokens and then the rows to one.

    Returns:
        log probabilities [B,G,s]; rows sum to one exactly, columns to about G/s.
    """
    share = math.log(logits.shape[1] / logits.shape[2])
    for _ in range(iterations):
        logits = logits - torch.logsumexp(logits, dim=1, keepdim=True) + share
        logits = logits - torch.logsumexp(logits, dim=2, keepdim=True)
    return logits


class SupertokenAssignment(nn.Module):
    """DSO: tokens [B,G,d] are assigned, each to one of s learned supertokens, and averaged within it."""

    def __init__(self, config: SupertokenConfig, width: int):
        super().__init__()
        self.config = config
        self.supertokens = nn.Parameter(torch.randn(config.count, width) * 0.02)
        self.queries = nn.Parameter(torch.randn(config.count, width))
        self.key_norm = nn.LayerNorm(width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        nn.init.eye_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(
        self, tokens: Tensor, positions: Tensor, centers: Tensor, budget: int, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Merge.

        Args:
            tokens: [B,G,d], before positions; positions: [B,G,d]; centers: [B,G,3].
            budget: the first ``budget`` supertokens are used.
            temperature: of the Gumbel noise and the softmax gradient, in training only.

        Returns:
            supertokens [B,s,d], their centres [B,s,3] (means of the centres assigned to them; the origin where there
            are none), and the one-hot assignment [B,G,s] with a straight-through gradient.
        """
        keys = self.key(self.key_norm(tokens + positions))  # (B, G, d)
        logits = F.linear(keys, self.queries[:budget]) * tokens.shape[-1] ** -0.5  # (B, G, s)
        if self.training:
            uniform = torch.rand_like(logits, dtype=torch.float32).clamp_(1e-6, 1 - 1e-6)
            logits = (logits.float() - torch.log(-torch.log(uniform))) / temperature
        logits = logits.float()
        if self.config.assignment == "sinkhorn":
            logits = sinkhorn(logits, self.config.sinkhorn_iterations)
        slots = torch.arange(budget, device=logits.device)
        hard = (logits.argmax(dim=-1, keepdim=True) == slots).to(logits.dtype)  # (B, G, s)
        if self.training:
            soft = logits.softmax(dim=-1)
            assignment = hard + soft - soft.detach()
        else:
            assignment = hard
        share = assignment / hard.sum(dim=1, keepdim=True).clamp(min=1.0)  # columns sum to 1; empty ones stay 0
        share = share.transpose(1, 2)  # (B, s, G)
        merged = torch.bmm(share, self.value(tokens).float()) + self.supertokens[:budget]
        return merged, torch.bmm(share, centers.float()), assignment


class Upsampling(nn.Module):
    """CAU: rebuilds the teacher's G token features from s supertokens.

    ``cross-attention``: tokens and positions only ask, the supertokens answer. ``residual`` is the paper's form,
    MLP(T + A S). The two can be combined.
    """

    def __init__(self, config: SupertokenConfig, width: int, heads: int, out: int):
        super().__init__()
        self.mode = config.upsampling
        if "cross-attention" in self.mode:
            self.query_norm = nn.LayerNorm(width)
            self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)
        self.out_norm = nn.LayerNorm(width)
        self.out = Mlp(width, 2 * width, out)

    def forward(self, tokens: Tensor, positions: Tensor, supertokens: Tensor, assignment: Tensor) -> Tensor:
        x = torch.bmm(assignment.to(supertokens.dtype), supertokens)  # (B, G, d): each token's own supertoken
        if "residual" in self.mode:
            x = x + tokens
        if "cross-attention" in self.mode:
            x = x + self.attention(self.query_norm(tokens + positions), supertokens)
        x = x + self.mlp(self.mlp_norm(x))
        return self.out(self.out_norm(x))  # (B, G, out)
