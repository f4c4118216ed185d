# SPDX-License-Identifier: Apache-2.0
"""How alike two sets of features are, and how evenly an assignment uses its supertokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class TokenAgreement:
    """R^2 and cosine of token features, batch by batch.

    R^2 is the share of the variance that is explained, features pooled, as
    :func:`foundry_core.training.distill.r_squared` on all batches at once.
    """

    def __init__(self) -> None:
        self.residual = self.squares = self.cosine = 0.0
        self.total: np.ndarray | float = 0.0
        self.count = 0

    def add(self, rebuilt: Tensor, target: Tensor) -> None:
        """Count one batch of rebuilt and true token features, both [B,G,d]."""
        rebuilt, target = rebuilt.flatten(0, 1).double(), target.flatten(0, 1).double()
        self.residual += float((rebuilt - target).square().sum())
        self.squares += float(target.square().sum())
        self.total = self.total + target.sum(dim=0).numpy()
        self.cosine += float(torch.cosine_similarity(rebuilt, target, dim=-1).sum())
        self.count += len(target)

    @property
    def r2(self) -> float:
        """1 where the features are equal, 0 where they are no better than the mean; below 0 where worse."""
        variance = self.squares - float((np.asarray(self.total) ** 2).sum()) / self.count
        return 1.0 - self.residual / variance

    @property
    def mean_cosine(self) -> float:
        """Mean cosine between a token's two features."""
        return self.cosine / self.count


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centred kernel alignment of features [M,p] and [M,q], 0 to 1 (Kornblith et al., 2019)."""
    x, y = (np.asarray(a, np.float64) - np.mean(a, axis=0, dtype=np.float64) for a in (x, y))
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / scale) if scale > 0 else 0.0


def neighbors(features: np.ndarray, k: int) -> np.ndarray:
    """Indices int64 [M,k] of the k other rows of [M,p] that are nearest by Euclidean distance, nearest first."""
    x = np.asarray(features, np.float64)
    x = x - x.mean(axis=0)
    length = (x**2).sum(axis=1)
    squared = length[:, None] + length[None] - 2 * x @ x.T
    np.fill_diagonal(squared, np.inf)
    return np.argsort(squared, axis=1, kind="stable")[:, :k]


def neighbor_agreement(x: np.ndarray, y: np.ndarray, k: int = 10) -> tuple[float, float]:
    """Percent of rows with the same nearest other row in [M,p] and [M,q], and percent shared of the k nearest."""
    k = min(k, len(x) - 1)
    if k < 1:
        return 100.0, 100.0
    ours, theirs = neighbors(x, k), neighbors(y, k)
    shared = [len(np.intersect1d(a, b)) for a, b in zip(ours, theirs, strict=True)]
    return 100.0 * float((ours[:, 0] == theirs[:, 0]).mean()), 100.0 * float(np.mean(shared)) / k


def _evenness(counts: np.ndarray) -> np.ndarray:
    """Entropy of counts [...,s] over that of an even use; 1 for a single slot."""
    if counts.shape[-1] == 1:
        return np.ones(counts.shape[:-1])
    share = counts / counts.sum(axis=-1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=-1)
    return entropy / np.log(counts.shape[-1])


def assignment_use(owner: np.ndarray, count: int) -> dict[str, float]:
    """How supertokens are used, given each token's own: int [M,G] in 0..count-1.

    Returns:
        ``supertokens_used``: mean number per cloud that own a token; ``supertokens_used_percent``: the same in percent
        of ``count``; ``supertokens_used_set_percent``: those that own a token of any cloud; ``assignment_evenness``:
        mean over the clouds of the entropy of the shares, 1 where all own equally many; ``..._set``: of the whole set.
    """
    counts = np.stack([np.bincount(row, minlength=count) for row in owner])  # (M, s)
    used = float((counts > 0).sum(axis=1).mean())
    return {
        "supertokens_used": used,
        "supertokens_used_percent": 100.0 * used / count,
        "supertokens_used_set_percent": 100.0 * float((counts.sum(axis=0) > 0).mean()),
        "assignment_evenness": float(_evenness(counts).mean()),
        "assignment_evenness_set": float(_evenness(counts.sum(axis=0))),
    }


def derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """A random cycle through ``count`` items, int64 [count]: nobody keeps its own (2 items or more)."""
    order = rng.permutation(count)
    other = np.empty(count, np.int64)
    other[order] = np.roll(order, 1)
    return other
