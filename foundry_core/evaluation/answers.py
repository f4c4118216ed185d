# SPDX-License-Identifier: Apache-2.0
"""What a model answers on grouped clouds, beside its teacher's features: everything that fidelity is computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from foundry_core.evaluation.features import BATCH, Advance, Groups
from foundry_core.evaluation.measures import TokenAgreement, assignment_use, derangement
from foundry_core.models.heads import pool
from foundry_core.models.student import Student
from foundry_core.models.teacher import Teacher


@dataclass(frozen=True)
class Batch:
    """The answer for one batch at one budget.

    Attributes:
        tokens: rebuilt token features [B,G,d]; supertokens [B,s,w]; assignment [B,G,s], where the model has them.
        rebuild: token features from other supertokens, everything else unchanged.
        alone: token features [B,G,d] that a student's control decoder rebuilds from A S alone.
    """

    tokens: Tensor
    supertokens: Tensor | None = None
    assignment: Tensor | None = None
    rebuild: Callable[[Tensor], Tensor] | None = None
    alone: Tensor | None = None


def same_tokenizer(network: nn.Module, teacher: nn.Module) -> bool:
    """Whether a student, or the teacher inside a baseline, has the very weights of the teacher's tokenizer."""
    owner = network if isinstance(network, Student) else getattr(network, "teacher", None)
    if owner is None or owner.architecture.tokenizer != teacher.architecture.tokenizer:
        return False
    ours, theirs = owner.tokenizer.state_dict(), teacher.tokenizer.state_dict()
    return all(ours[key].shape == theirs[key].shape and torch.equal(ours[key], theirs[key]) for key in theirs)


def ask(
    network: nn.Module,
    centers: Tensor,
    neighborhoods: Tensor,
    budgets: Sequence[int | None],
    tokens: Tensor | None = None,
) -> list[Batch]:
    """A model's answers at each budget (None: it has none); a student's tokenizer runs once for all of them.

    ``tokens`` [B,G,d] are those of the model's tokenizer, where they are known.
    """
    if not isinstance(network, Student):
        known = {} if tokens is None else {"tokens": tokens}
        answers = []
        for budget in budgets:
            out = network(centers, neighborhoods, *([] if budget is None else [budget]), **known)
            rebuild = partial(network.rebuild, out) if hasattr(network, "rebuild") else None
            answers.append(Batch(out["tokens"], out.get("supertokens"), out.get("assignment"), rebuild))
        return answers
    answers = []
    for encoded in network.encode(centers, neighborhoods, list(budgets), tokens=tokens):
        decoder = network.from_supertokens
        alone = decoder(encoded.spread, encoded.supertokens) if decoder is not None else None
        rebuild = partial(network.rebuild, encoded)
        answers.append(Batch(network.rebuild(encoded), encoded.supertokens, encoded.assignment.hard, rebuild, alone))
    return answers


@dataclass
class Answers:
    """One model at one budget on one part of a shape set.

    Attributes:
        pooled: mean and maximum over the rebuilt tokens, float32 [M,2d]; supertokens_pooled: over the supertokens.
        values: figures by name, a list each: one value, or one for each seed.
    """

    pooled: np.ndarray
    supertokens_pooled: np.ndarray | None
    values: dict[str, list[float]] = field(default_factory=dict)


class _Collector:
    """Gathers the batches of one budget."""

    def __init__(self) -> None:
        self.pooled: list[np.ndarray] = []
        self.supertokens_pooled: list[np.ndarray] = []
        self.kept: list[Batch] = []
        self.tokens, self.alone = TokenAgreement(), TokenAgreement()

    def add(self, batch: Batch, target: Tensor | None) -> None:
        self.pooled.append(pool(batch.tokens).numpy())
        if batch.supertokens is not None:
            self.supertokens_pooled.append(pool(batch.supertokens).numpy())
        if target is None:
            return
        self.tokens.add(batch.tokens, target)
        if batch.alone is not None:
            self.alone.add(batch.alone, target)
        self.kept.append(batch)

    def answers(self, target: Tensor | None, controls: bool, seeds: Sequence[int]) -> Answers:
        supertokens = np.concatenate(self.supertokens_pooled) if self.supertokens_pooled else None
        answers = Answers(np.concatenate(self.pooled), supertokens)
        if target is None:
            return answers
        answers.values = {"r2": [self.tokens.r2], "cosine": [self.tokens.mean_cosine]}
        if self.alone.count:
            answers.values["r2_supertokens_alone"] = [self.alone.r2]
        if self.kept[0].rebuild is not None:
            answers.values |= self._controls(target, controls, seeds)
        if self.kept[0].assignment is not None:
            owner = torch.cat([batch.assignment.argmax(dim=-1) for batch in self.kept]).numpy()  # (M, G)
            use = assignment_use(owner, self.kept[0].assignment.shape[-1])
            answers.values |= {name: [value] for name, value in use.items()}
        return answers

    def _controls(self, target: Tensor, residual: bool, seeds: Sequence[int]) -> dict[str, list[float]]:
        """R^2 with the supertokens of other clouds and, for a student, without any: how much rests on them."""
        supertokens = torch.cat([batch.supertokens for batch in self.kept])  # (M, s, w)
        targets = target.split(BATCH)
        values: dict[str, list[float]] = {}
        if len(supertokens) > 1:
            for seed in seeds:
                others = supertokens[torch.from_numpy(derangement(len(supertokens), np.random.default_rng(seed)))]
                agreement = TokenAgreement()
                for batch, other, true in zip(self.kept, others.split(BATCH), targets, strict=True):
                    agreement.add(batch.rebuild(other), true)
                values.setdefault("r2_shuffled", []).append(agreement.r2)
        if residual:
            agreement = TokenAgreement()
            for batch, true in zip(self.kept, targets, strict=True):
                agreement.add(batch.rebuild(torch.zeros_like(batch.supertokens)), true)
            values["r2_without_supertokens"] = [agreement.r2]
        return values


@torch.no_grad()
def collect(
    network: nn.Module,
    groups: Groups,
    budgets: Sequence[int | None],
    target: Tensor | None = None,
    seeds: Sequence[int] = (0,),
    advance: Advance | None = None,
) -> list[Answers]:
    """A model's answers at each budget.

    Args:
        groups: with the tokens of a teacher only if the model has the same tokenizer.
        target: the teacher's features [M,G,d] of the same clouds; without them only pooled features are gathered.
        seeds: each draws one permutation of the clouds for the shuffle control.
        advance: called with the number of clouds done.
    """
    collectors = [_Collector() for _ in budgets]
    targets = [None] * len(groups) if target is None else target.split(BATCH)
    for (centers, neighborhoods, tokens), true in zip(groups.batches(), targets, strict=False):
        for collector, batch in zip(collectors, ask(network, centers, neighborhoods, budgets, tokens), strict=True):
            collector.add(batch, true)
        if advance:
            advance(len(centers))
    return [collector.answers(target, isinstance(network, Student), seeds) for collector in collectors]


@torch.no_grad()
def ask_teacher(network: Teacher, groups: Groups, advance: Advance | None = None) -> tuple[Groups, Tensor]:
    """The clouds with the tokens of the teacher's tokenizer, and its token features [M,G,d]."""
    tokens, features = [], []
    for centers, neighborhoods, _ in groups.batches():
        tokens.append(network.tokenizer(neighborhoods))
        features.append(network.encoder(tokens[-1], network.position(centers)))
        if advance:
            advance(len(centers))
    return replace(groups, tokens=torch.cat(tokens)), torch.cat(features)
