# SPDX-License-Identifier: Apache-2.0
"""The matrix products of a model in its inference form: their number decides what it must cost at least."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from foundry_core.architecture import Architecture, EncoderConfig, Preprocessing
from foundry_core.card import ModelCard
from foundry_core.models.schedule import schedule

_HEAD_QUERIES, _HEAD_VALUES, _HEAD_HIDDEN = 8, 64, 384  # as in foundry_core.models.heads


class Product(NamedTuple):
    """``count`` products [rows,inner] x [inner,columns] for one cloud; with a weight the rows of a batch are joined."""

    rows: int
    inner: int
    columns: int
    count: int = 1
    weight: bool = True


def products(card: ModelCard, budget: int | None, outputs: Iterable[str]) -> list[Product]:
    """Every product that ``outputs`` need at a budget (None: a teacher)."""
    wanted = set(outputs)
    found = [*_backbone(card, budget)]
    d = card.architecture.token_width
    g, n = card.preprocessing.groups, card.preprocessing.points
    if "class_logits" in wanted and card.heads.objects:
        pooled = 2 * d + _HEAD_QUERIES * _HEAD_VALUES
        found += [
            Product(g, d, _HEAD_QUERIES + _HEAD_VALUES),
            Product(_HEAD_QUERIES, g, _HEAD_VALUES, weight=False),
            Product(1, pooled, _HEAD_HIDDEN),
            Product(1, _HEAD_HIDDEN, _HEAD_HIDDEN),
            Product(1, _HEAD_HIDDEN, len(card.heads.objects.classes)),
        ]
    if "part_logits" in wanted and card.heads.parts:
        hidden = card.heads.parts.hidden
        found += [
            Product(g, d, hidden),
            Product(1, 2 * d, hidden),
            Product(n, g + 7, hidden, weight=False),
            Product(n, hidden, hidden),
            Product(n, hidden, len(card.heads.parts.parts)),
        ]
    return found


def macs(card: ModelCard, budget: int | None, outputs: Iterable[str]) -> int:
    """Multiply-accumulate operations for one cloud."""
    return total(products(card, budget, outputs))


def merging_products(card: ModelCard, supertokens: int) -> list[Product]:
    """Every product of a teacher whose tokens merge to so many (ToMe), in the inference form."""
    encoder, g = card.architecture.encoder, card.preprocessing.groups
    d, size = encoder.width, encoder.width // encoder.heads
    hidden = int(d * encoder.mlp_ratio)
    found = [*tokenizer_products(card.architecture, card.preprocessing, g), *position_products(g, encoder)]
    n = g
    for left in schedule(g, min(supertokens, g), encoder.depth):
        found += attention_products(n, encoder)
        while n > left:
            kept = n - min(n - left, n // 2)
            found.append(Product(n // 2, size, n - n // 2, weight=False))
            found.append(Product(kept, n, 2 * d + size + 1, weight=False))
            if n < g:
                found.append(Product(g, n, kept, weight=False))
            n = kept
        found += [Product(n, d, hidden), Product(n, hidden, d)]
    return found if n == g else [*found, Product(g, n, d, weight=False)]


def total(found: Iterable[Product]) -> int:
    """Multiply-accumulate operations of products."""
    return sum(p.rows * p.inner * p.columns * p.count for p in found)


def _backbone(card: ModelCard, budget: int | None) -> Iterator[Product]:
    architecture = card.architecture
    encoder, d = architecture.encoder, architecture.encoder.width
    g = card.preprocessing.groups
    yield from tokenizer_products(architecture, card.preprocessing, g)
    yield from position_products(g, encoder)
    if architecture.supertokens is None or budget is None:
        yield from block_products(g, encoder)
        return
    s, heads, size = budget, encoder.heads, d // encoder.heads
    if architecture.supertokens.assignment in ("sinkhorn", "gumbel"):
        yield Product(g, d, architecture.supertokens.count)
    if architecture.supertokens.assignment == "sinkhorn":
        rounds = architecture.supertokens.sinkhorn_iterations - 1
        yield Product(g, s, 1, rounds, weight=False)
        yield Product(s, g, 1, rounds, weight=False)
    yield Product(s, g, d + 3, weight=False)
    yield Product(s, d, d)
    yield from position_products(s, encoder)
    gate = architecture.supertokens.gate
    passing = round(g * architecture.supertokens.bypass) if gate else 0  # as many as the gate was told to let by
    yield from block_products(s + passing, encoder)
    if gate:
        yield Product(g, d, gate)
        yield Product(g, gate, 1)
        yield Product(passing, d, 2 * d)
        yield Product(passing, 2 * d, architecture.token_width)
    if "cross-attention" in architecture.supertokens.upsampling:
        yield Product(s, d, 2 * d)
        yield Product(s, size, 2 * d + 1, heads, weight=False)
        yield Product(g, d, heads * s, weight=False)
        yield Product(g, heads * s + s, d, weight=False)
    else:
        yield Product(g, s, d, weight=False)
    hidden, half = (int(architecture.supertokens.mlp_ratio * d / part) for part in (1, 2))
    yield Product(g, d, hidden)
    yield Product(g, hidden, d)
    yield Product(g, d, half)
    yield Product(g, half, architecture.token_width)


def tokenizer_products(
    architecture: Architecture, size: Preprocessing, groups: int, composed: bool = True
) -> Iterator[Product]:
    """Of the tokenizer on so many patches; for inference its second and third map are ``composed`` for a point."""
    tokenizer, width = architecture.tokenizer, architecture.encoder.width
    if tokenizer.kind == "shallow":
        yield Product(groups * size.neighbors, 3, tokenizer.directions)
        yield Product(groups, 2 * tokenizer.directions + 1, tokenizer.hidden)
        yield Product(groups, tokenizer.hidden, tokenizer.hidden)
        yield Product(groups, tokenizer.hidden, width)
        return
    rows = groups * -(-size.neighbors // tokenizer.stride)
    yield Product(rows, 3, tokenizer.first)
    yield Product(rows, tokenizer.first, tokenizer.second)
    yield Product(groups, tokenizer.second, tokenizer.third)
    yield Product(rows, tokenizer.first if composed else tokenizer.second, tokenizer.third)
    yield Product(groups if tokenizer.pool == "before" else rows, tokenizer.third, width)


def position_products(tokens: int, encoder: EncoderConfig) -> Iterator[Product]:
    """Of the position embedding of so many tokens."""
    yield Product(tokens, 3, encoder.position_hidden)
    yield Product(tokens, encoder.position_hidden, encoder.width)


def attention_products(tokens: int, encoder: EncoderConfig) -> list[Product]:
    """Of the attention of one transformer block on so many tokens."""
    d, size = encoder.width, encoder.width // encoder.heads
    return [
        Product(tokens, d, 3 * d),
        Product(tokens, size, tokens, encoder.heads, weight=False),
        Product(tokens, tokens, size, encoder.heads, weight=False),
        Product(tokens, d, d),
    ]


def block_products(tokens: int, encoder: EncoderConfig) -> Iterator[Product]:
    """Of the transformer blocks on so many tokens."""
    d, hidden = encoder.width, int(encoder.width * encoder.mlp_ratio)
    for _ in range(encoder.depth):
        yield from attention_products(tokens, encoder)
        yield Product(tokens, d, hidden)
        yield Product(tokens, hidden, d)
