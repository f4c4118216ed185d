# SPDX-License-Identifier: Apache-2.0
"""SuperTokens: dynamic supertoken optimisation (DSO) and cross-attention upsampling (CAU), after arXiv 2511.20721.

The paper's learned hard assignment collapses to a few supertokens when trained with a Gumbel-softmax gradient alone.
The default here balances the assignment with a few Sinkhorn iterations (Sinkhorn-Knopp in the log domain, as in
SwAV, Caron et al., 2020), at training and at inference.

Supertokens are nested: a budget of s uses the first s of them, so one set of weights serves every budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry_core.architecture import SupertokenConfig
from foundry_core.models.merging import kmeans, merge_tokens
from foundry_core.models.parallel import rand
from foundry_core.models.transformer import Attention, Mlp

#: assignments with queries of their own; the others follow from the cloud
LEARNED = ("sinkhorn", "gumbel")


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


def usage_shortfall(soft: Tensor, margin: float = 0.1) -> Tensor:
    """How far supertokens are from being the first choice of at least one token; 0 when each is, by the margin.

    Args:
        soft: assignment [B,G,s], s >= 2.
        margin: lead over the second choice, in log probability.
    """
    log = soft.clamp(min=1e-9).log()
    best, second = log.topk(2, dim=-1).values.split(1, dim=-1)  # (B, G, 1) each
    lead = log - torch.where(log == best, second, best)  # (B, G, s), over the best of the others
    return torch.relu(margin - lead.amax(dim=1)).mean()


@dataclass(frozen=True)
class Assignment:
    """Which supertoken each token goes to.

    Attributes:
        hard: one-hot [B,G,s]; in training its gradient is that of ``soft`` (straight through).
        soft: rows that sum to one, [B,G,s].
    """

    hard: Tensor
    soft: Tensor


class SupertokenAssignment(nn.Module):
    """DSO: tokens [B,G,d] are assigned, each to one of s supertokens, and averaged within it."""

    def __init__(self, config: SupertokenConfig, width: int):
        super().__init__()
        self.config = config
        self.supertokens = nn.Parameter(torch.randn(config.count, width) * 0.02)
        self.value = nn.Linear(width, width)
        nn.init.eye_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        if config.assignment in LEARNED:
            self.queries = nn.Parameter(torch.randn(config.count, width))
            self.key_norm = nn.LayerNorm(width)
            self.key = nn.Linear(width, width)

    def assign(self, embedded: Tensor, centers: Tensor, budget: int, temperature: float = 1.0) -> Assignment:
        """Assign tokens with their positions, [B,G,d], to the first ``budget`` supertokens.

        Args:
            centers: [B,G,3], in the order of farthest-point sampling.
            temperature: of the Gumbel noise and of the straight-through gradient, in training only.
        """
        if self.config.assignment not in LEARNED:
            hard = self._fixed_cells(embedded.detach().float(), centers.float(), budget)
            return Assignment(hard, hard)
        keys = self.key(self.key_norm(embedded))  # (B, G, d)
        logits = F.linear(keys, self.queries[:budget]).float() * keys.shape[-1] ** -0.5  # (B, G, s)
        if self.training and self.config.noise:
            uniform = rand(*logits.shape, device=logits.device).clamp_(1e-6, 1 - 1e-6)
            logits = (logits - torch.log(-torch.log(uniform))) / temperature
        if self.config.assignment == "sinkhorn":
            logits = sinkhorn(logits, self.config.sinkhorn_iterations)
        slots = torch.arange(budget, device=logits.device)
        hard = (logits.argmax(dim=-1, keepdim=True) == slots).to(logits.dtype)  # (B, G, s)
        soft = logits.softmax(dim=-1)
        return Assignment(hard + soft - soft.detach() if self.training else hard, soft)

    def _fixed_cells(self, embedded: Tensor, centers: Tensor, budget: int) -> Tensor:
        """One-hot assignment [B,G,s] without anything learned: the baselines."""
        if self.config.assignment == "kmeans":
            return kmeans(embedded, embedded[:, :budget])
        if self.config.assignment == "tome":
            return merge_tokens(embedded, budget)
        owner = torch.cdist(centers, centers[:, :budget]).argmin(dim=-1)
        return F.one_hot(owner, budget).to(embedded.dtype)

    def merge(
        self, tokens: Tensor, centers: Tensor, assignment: Assignment, merging: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Average the tokens of each supertoken and add what it has learned.

        Args:
            merging: [B,G], 0 for tokens that take no part.

        Returns:
            supertokens [B,s,d], and their centres [B,s,3]: means of the centres assigned to them, the origin where
            there are none.
        """
        weight = assignment.hard if self.config.merge == "hard" else assignment.soft
        if merging is not None:
            weight = weight * merging[..., None]
        total = weight.detach().sum(dim=1, keepdim=True) if self.config.merge == "hard" else weight.sum(1, keepdim=True)
        share = (weight / total.clamp(min=1.0 if self.config.merge == "hard" else 1e-6)).transpose(1, 2)  # (B, s, G)
        merged = torch.bmm(share, self.value(tokens).float()) + self.supertokens[: share.shape[1]]
        return merged, torch.bmm(share, centers.float())


class Upsampling(nn.Module):
    """CAU: rebuilds the teacher's G token features from s supertokens.

    ``cross-attention``: tokens and positions only ask, the supertokens answer. ``residual`` is the paper's form,
    MLP(T + A S). The two can be combined; ``none`` leaves A S alone.
    """

    def __init__(self, config: SupertokenConfig, width: int, heads: int, out: int):
        super().__init__()
        self.mode = config.upsampling
        if "cross-attention" in self.mode:
            self.query_norm = nn.LayerNorm(width)
            self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(config.mlp_ratio * width))
        self.out_norm = nn.LayerNorm(width)
        self.out = Mlp(width, int(config.mlp_ratio * width / 2), out)

    def forward(self, tokens: Tensor, positions: Tensor, supertokens: Tensor, spread: Tensor) -> Tensor:
        """Token features [B,G,out]; ``spread`` [B,G,s] is the A of A S."""
        x = torch.bmm(spread.to(supertokens.dtype), supertokens)  # (B, G, d)
        if "residual" in self.mode:
            x = x + tokens
        if "cross-attention" in self.mode:
            x = x + self.attention(self.query_norm(tokens + positions), supertokens)
        x = x + self.mlp(self.mlp_norm(x))
        return self.out(self.out_norm(x))  # (B, G, out)


class FromSupertokens(nn.Module):
    """The control of every table: the features from A S alone, without residual and without cross-attention."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.out = Mlp(width, 2 * width, out)

    def forward(self, spread: Tensor, supertokens: Tensor) -> Tensor:
        """Token features [B,G,out] from ``spread`` [B,G,s] and supertokens [B,s,d]."""
        return self.out(self.norm(torch.bmm(spread.to(supertokens.dtype), supertokens)))
