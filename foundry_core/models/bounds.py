# SPDX-License-Identifier: Apache-2.0
"""What compression of a teacher's token features can reach at best: bounds to read a student's R^2 against.

Each knows the teacher's features Y [G,d] themselves and only compresses them. ``pca``: k directions, the same for all
clouds, fitted on training clouds. ``rank``: the best A S with any real weights A [G,s], cloud by cloud. ``cluster``: A
S with a hard assignment, as k-means finds it. What is built from a token's own supertoken alone takes one value in each
cluster, so it can come no closer than the best clustering, of which k-means finds a local optimum.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from foundry_core.models.merging import kmeans
from foundry_core.models.teacher import Teacher


class Compressed(nn.Module):
    """A teacher whose token features pass a bottleneck; answers like a student, as far as it has the parts."""

    def __init__(self, teacher: Teacher, method: str, size: int):
        super().__init__()
        self.teacher, self.method, self.size = teacher, method, size
        self.mean: Tensor | None = None  # (d)
        self.basis: Tensor | None = None  # (d, k)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor, Tensor | None]]) -> None:
        """Learn what is to be learned from training clouds: arguments of :meth:`features`."""
        if self.method != "pca":
            return
        count, total, products = 0, 0.0, 0.0
        for batch in batches:
            tokens = self.features(*batch).flatten(0, 1).double()
            count, total, products = count + len(tokens), total + tokens.sum(dim=0), products + tokens.T @ tokens
        mean = total / count
        _, vectors = torch.linalg.eigh(products / count - torch.outer(mean, mean))  # ascending
        self.mean, self.basis = mean.float(), vectors[:, -min(self.size, len(vectors)) :].float()

    def features(self, centers: Tensor, neighborhoods: Tensor, tokens: Tensor | None = None) -> Tensor:
        """The teacher's features [B,G,d]; ``tokens`` [B,G,d] of its tokenizer, where they are known."""
        tokens = self.teacher.tokenizer(neighborhoods) if tokens is None else tokens
        return self.teacher.encoder(tokens, self.teacher.position(centers))

    def forward(
        self, centers: Tensor, neighborhoods: Tensor, budget: int | None = None, tokens: Tensor | None = None
    ) -> dict[str, Tensor]:
        tokens = self.features(centers, neighborhoods, tokens)  # (B, G, d)
        if self.method == "pca":
            return {"tokens": self.mean + (tokens - self.mean) @ self.basis @ self.basis.T}
        size = min(self.size, tokens.shape[1])
        if self.method == "rank":
            left, values, right = torch.linalg.svd(tokens, full_matrices=False)
            return {"tokens": (left[..., :size] * values[:, None, :size]) @ right[:, :size]}
        assignment = kmeans(tokens, tokens[:, :size], iterations=20)
        supertokens = (assignment.transpose(1, 2) @ tokens) / assignment.sum(dim=1)[..., None]
        return {"tokens": assignment @ supertokens, "supertokens": supertokens, "assignment": assignment}
