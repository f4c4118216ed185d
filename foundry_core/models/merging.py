# SPDX-License-Identifier: Apache-2.0
"""Token merging on a teacher, without training: the baselines that a trained student has to beat.

Every baseline answers like a student: ``tokens`` [B,G,d] rebuilt, ``supertokens`` [B,s,d], the merged tokens, and the
one-hot ``assignment`` [B,G,s]; a token's rebuilt feature is that of the supertoken that owns it (unmerging).

- ``tome``: Bolya et al., Token Merging: Your ViT But Faster, 2023.
- ``pitome``: Tran et al., Accelerating Transformers with Spectrum-Preserving Token Merging, 2024.
- ``kmeans``, ``fps``: tokens merge once, before the first block, by Lloyd's k-means or by the Voronoi cells of the
  centres that farthest-point sampling picks first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry_core.models.schedule import schedule
from foundry_core.models.teacher import Teacher
from foundry_core.models.transformer import Attention

Match = Callable[[Tensor, int, float], Tensor]


def _normalized_pairs(keys: Tensor) -> Tensor:
    keys = F.normalize(keys.float(), dim=-1)
    return keys @ keys.transpose(1, 2)  # (B, n, n)


def _merge_pairs(source: Tensor, target: Tensor, n: int, merged: int) -> Tensor:
    """One-hot owner matrix [B,n,n-merged]: ``source`` [B,r] join ``target`` [B,r], the others stay."""
    b = len(source)
    owner = torch.arange(n, device=source.device).repeat(b, 1).scatter(1, source, target)  # (B, n)
    stays = torch.ones_like(owner).scatter(1, source, 0)
    slot = stays.cumsum(dim=1) - 1  # the new index of a token that stays
    return F.one_hot(slot.gather(1, owner), n - merged).float()


def match_tome(keys: Tensor, merged: int, progress: float) -> Tensor:
    """Bipartite soft matching: the ``merged`` most similar edges from even to odd tokens.

    Args:
        keys: [B,n,d/H], mean of the attention's keys over the heads.
        merged: at most n // 2.
        progress: share of the blocks passed; not used here.

    Returns:
        owner matrix [B,n,n-merged], one-hot rows.
    """
    n = keys.shape[1]
    similarity = _normalized_pairs(keys)[:, 1::2, 0::2]  # (B, odd, even): the smaller set merges into the larger
    best, partner = similarity.max(dim=-1)  # (B, odd)
    edge = best.argsort(dim=-1, descending=True, stable=True)[:, :merged]  # (B, r)
    return _merge_pairs(2 * edge + 1, 2 * partner.gather(1, edge), n, merged)


def energy(keys: Tensor, margin: float, alpha: float = 1.0) -> Tensor:
    """PiToMe's energy [B,n]: high where many tokens are alike, so that a token may be merged without loss."""
    cosine = _normalized_pairs(keys)
    return torch.where(cosine >= margin, cosine, alpha * (torch.exp(cosine - margin) - 1)).mean(dim=-1)


def match_pitome(keys: Tensor, merged: int, progress: float) -> Tensor:
    """Energy-based matching: of the 2r tokens of highest energy, every second joins the most similar of the others.

    Args and returns as :func:`match_tome`; the margin falls from 0.9 by 0.9 times ``progress``.
    """
    n = keys.shape[1]
    order = energy(keys, 0.9 - 0.9 * progress).argsort(dim=-1, descending=True, stable=True)
    to, source = order[:, 0 : 2 * merged : 2], order[:, 1 : 2 * merged : 2]  # (B, r) each
    similarity = _normalized_pairs(keys)
    rows = similarity.gather(1, source[:, :, None].expand(-1, -1, n))  # (B, r, n)
    partner = rows.gather(2, to[:, None, :].expand(-1, merged, -1)).argmax(dim=-1)
    return _merge_pairs(source, to.gather(1, partner), n, merged)


MATCHING: dict[str, Match] = {"tome": match_tome, "pitome": match_pitome}


def merge(values: Tensor, size: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Size-weighted means [B,m,d] of values [B,n,d] by owner [B,n,m], and the new sizes [B,m]."""
    to = owner.transpose(1, 2)
    total = (to @ size[..., None]).clamp(min=1e-6)  # (B, m, 1)
    return (to @ (values * size[..., None])) / total, total[..., 0]


def merge_tokens(tokens: Tensor, count: int) -> Tensor:
    """Owner matrix [B,n,count] of ToMe's matching alone, repeated on tokens [B,n,d] until ``count`` are left."""
    size = tokens.new_ones(tokens.shape[:2])
    owner = torch.eye(tokens.shape[1], device=tokens.device).repeat(len(tokens), 1, 1)
    while tokens.shape[1] > count:
        step = match_tome(tokens, min(tokens.shape[1] - count, tokens.shape[1] // 2), 0.0)
        tokens, size = merge(tokens, size, step)
        owner = owner @ step
    return owner


def proportional_attention(attention: Attention, x: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Self-attention of x [B,n,d] in which a token of size m [B,n] counts m times, and its mean keys [B,n,d/H]."""
    b, n, d = x.shape
    heads = attention.heads
    query = attention.query(x).view(b, n, heads, d // heads).transpose(1, 2)
    key, value = attention.key_value(x).view(b, n, 2, heads, d // heads).permute(2, 0, 3, 1, 4)  # (B, H, n, d/H)
    scores = (query * (d // heads) ** -0.5) @ key.transpose(-1, -2) + size.log()[:, None, None, :]
    y = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(b, n, d)
    return attention.out(y), key.mean(dim=1)


def kmeans(values: Tensor, seeds: Tensor, iterations: int = 10) -> Tensor:
    """Owner matrix [B,n,s] of Lloyd's algorithm on values [B,n,d] from the seeds [B,s,d]; no cluster stays empty.

    A cluster that lost all its values takes the value that lies farthest from its own centre.
    """
    s = seeds.shape[1]
    for _ in range(iterations):
        distance = torch.cdist(values, seeds)  # (B, n, s)
        near, owner = distance.min(dim=-1)
        for cloud in range(len(values)):
            empty = (torch.bincount(owner[cloud], minlength=s) == 0).nonzero()[:, 0]
            for slot in empty.tolist():
                counts = torch.bincount(owner[cloud], minlength=s)
                row = int(near[cloud].masked_fill(counts[owner[cloud]] < 2, -1.0).argmax())
                owner[cloud, row], near[cloud, row] = slot, 0.0
        matrix = F.one_hot(owner, s).to(values.dtype)
        seeds = (matrix.transpose(1, 2) @ values) / matrix.sum(dim=1)[..., None].clamp(min=1)
    return matrix


class Merged(nn.Module):
    """A teacher whose tokens merge to ``supertokens`` and are unmerged at the end.

    Args:
        method: ``tome``, ``pitome``, ``kmeans`` or ``fps``.
        supertokens: tokens left after the last block; G or more merge nothing.
    """

    def __init__(self, teacher: Teacher, method: str, supertokens: int):
        super().__init__()
        self.teacher, self.method, self.supertokens = teacher, method, supertokens

    def forward(
        self, centers: Tensor, neighborhoods: Tensor, budget: int | None = None, tokens: Tensor | None = None
    ) -> dict[str, Tensor]:
        """As a student's; centers [B,G,3] in the order of farthest-point sampling.

        ``tokens`` [B,G,d] are those of the teacher's tokenizer, where they are known. The answer also has ``sizes``
        [B,s], the number of tokens that each supertoken owns.
        """
        x = self.teacher.tokenizer(neighborhoods) if tokens is None else tokens  # (B, G, d)
        positions = self.teacher.position(centers)
        b, g, _ = x.shape
        size = torch.ones(b, g, device=x.device)
        assignment = torch.eye(g, device=x.device).repeat(b, 1, 1)  # (B, G, n): the token left that owns each of the G
        supertokens = min(budget or self.supertokens, g)
        if self.method not in MATCHING and supertokens < g:
            assignment = self._clusters(x + positions, centers, supertokens)
            x, _ = merge(x, size, assignment)
            positions, size = merge(positions, size, assignment)
        blocks = self.teacher.encoder.blocks
        left = schedule(g, supertokens, len(blocks)) if self.method in MATCHING else [supertokens] * len(blocks)
        for depth, block in enumerate(blocks):
            x = x + positions
            y, keys = proportional_attention(block.attention, block.attention_norm(x), size)
            x = x + y
            while x.shape[1] > left[depth]:
                merged = min(x.shape[1] - left[depth], x.shape[1] // 2)
                owner = MATCHING[self.method](keys, merged, depth / len(blocks))
                keys, _ = merge(keys, size, owner)
                positions, _ = merge(positions, size, owner)
                x, size = merge(x, size, owner)
                assignment = assignment @ owner
            x = x + block.mlp(block.mlp_norm(x))
        x = self.teacher.encoder.norm(x)
        return {"tokens": assignment @ x, "supertokens": x, "assignment": assignment, "sizes": size}

    def _clusters(self, tokens: Tensor, centers: Tensor, count: int) -> Tensor:
        if self.method == "kmeans":
            return kmeans(tokens, tokens[:, :count])
        nearest = torch.cdist(centers, centers[:, :count]).argmin(dim=-1)
        return F.one_hot(nearest, count).float()

    def rebuild(self, out: dict[str, Tensor], supertokens: Tensor) -> Tensor:
        """Token features [B,G,d] from other supertokens [B,s,d] under the assignment of ``out``."""
        return out["assignment"] @ supertokens
