# SPDX-License-Identifier: Apache-2.0
"""The student: tokens merge to a few supertokens, only those pass the blocks, and the token features are rebuilt."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from foundry_core.architecture import Architecture
from foundry_core.models.gate import BypassGate, Gated, encode_both
from foundry_core.models.supertokens import Assignment, FromSupertokens, SupertokenAssignment, Upsampling
from foundry_core.models.tokenizer import PositionEmbedding, make_tokenizer
from foundry_core.models.transformer import Encoder, init_weights


def spread(deep: int, shallow: int) -> list[int]:
    """Which of ``deep`` blocks each of ``shallow`` ones is copied from: evenly over the depth, the last among them."""
    return [round((i + 1) * deep / shallow) - 1 if shallow <= deep else min(i, deep - 1) for i in range(shallow)]


@dataclass(frozen=True)
class Encoded:
    """What a student knows before it rebuilds.

    Attributes:
        tokens: [B,G,d] of its own tokenizer; positions: [B,G,d].
        supertokens: [B,s,d], after the blocks.
        assignment: which supertoken each token goes to; spread: [B,G,s], the A of A S.
        gated: tokens that by-passed the supertokens, of a student with a gate.
    """

    tokens: Tensor
    positions: Tensor
    supertokens: Tensor
    assignment: Assignment
    spread: Tensor
    gated: Gated | None = None


class Student(nn.Module):
    """Centers [B,G,3] and neighborhoods [B,G,K,3] to rebuilt token features [B,G,d_teacher] and supertokens [B,s,d]."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        if architecture.supertokens is None:
            raise ValueError("a student's architecture needs `supertokens`")
        encoder, supertokens = architecture.encoder, architecture.supertokens
        out = architecture.token_width
        self.architecture = architecture
        self.tokenizer = make_tokenizer(architecture.tokenizer, encoder.width)
        self.position = PositionEmbedding(encoder.position_hidden, encoder.width)
        self.encoder = Encoder.from_config(encoder)
        self.position.apply(init_weights)
        self.encoder.apply(init_weights)
        self.assignment = SupertokenAssignment(supertokens, encoder.width)
        self.upsampling = Upsampling(supertokens, encoder.width, encoder.heads, out)
        self.gate = BypassGate(supertokens, encoder.width, out) if supertokens.gate else None
        self.from_supertokens = FromSupertokens(encoder.width, out) if supertokens.alone else None

    def encode(
        self,
        centers: Tensor,
        neighborhoods: Tensor | None,
        budgets: list[int],
        temperature: float = 1.0,
        tokens: Tensor | None = None,
    ) -> list[Encoded]:
        """Supertokens at each of the budgets; the tokenizer runs once for all.

        Args:
            centers: [B,G,3]; neighborhoods: [B,G,K,3].
            budgets: numbers of supertokens; the first so many are used.
            temperature: of the assignment's noise, in training only.
            tokens: [B,G,d] of a tokenizer shared with the teacher, where they are computed already.
        """
        if tokens is None:
            tokens = self.tokenizer(neighborhoods)  # (B, G, d)
        positions = self.position(centers)  # (B, G, d)
        embedded = tokens + positions
        soft = self.architecture.supertokens.spread == "soft"
        encoded = []
        for budget in budgets:
            assignment = self.assignment.assign(embedded, centers, budget, temperature)
            gated = self.gate(embedded, temperature) if self.gate else None
            merging = 1 - gated.open if gated else None
            merged, merged_centers = self.assignment.merge(tokens, centers, assignment, merging)
            merged_positions = self.position(merged_centers)  # (B, s, d)
            if gated:
                supertokens, features = encode_both(
                    self.encoder, merged, merged_positions, tokens, positions, gated.open
                )
                gated = replace(gated, features=features)
            else:
                supertokens = self.encoder(merged, merged_positions)  # (B, s, d)
            spread = assignment.soft if soft else assignment.hard
            encoded.append(Encoded(tokens, positions, supertokens, assignment, spread, gated))
        return encoded

    def rebuild(self, encoded: Encoded, supertokens: Tensor | None = None) -> Tensor:
        """The teacher's token features [B,G,d_teacher]; from other ``supertokens`` [B,s,d] where they are given."""
        supertokens = encoded.supertokens if supertokens is None else supertokens
        rebuilt = self.upsampling(encoded.tokens, encoded.positions, supertokens, encoded.spread)
        return self.gate.rebuilt(encoded.gated, rebuilt) if self.gate else rebuilt

    def forward(self, centers: Tensor, neighborhoods: Tensor, budget: int | None = None) -> dict[str, Tensor]:
        """Rebuild the teacher's token features with the first ``budget`` supertokens, all of them by default."""
        (encoded,) = self.encode(centers, neighborhoods, [budget or self.architecture.supertokens.count])
        return {
            "tokens": self.rebuild(encoded),
            "supertokens": encoded.supertokens,
            "assignment": encoded.assignment.hard,
        }

    def initialize_from_teacher(self, teacher: nn.Module) -> list[str]:
        """Copy whatever fits from the teacher: tokenizer, positions, and blocks spread evenly over its depth.

        Returns:
            names of the copied parts.
        """
        copied = []
        theirs, ours = teacher.architecture, self.architecture
        if theirs.tokenizer == ours.tokenizer and theirs.encoder.width == ours.encoder.width:
            self.tokenizer.load_state_dict(teacher.tokenizer.state_dict())
            copied.append("tokenizer")
        fields = ("width", "heads", "mlp_ratio", "position_hidden")
        if all(getattr(theirs.encoder, field) == getattr(ours.encoder, field) for field in fields):
            self.position.load_state_dict(teacher.position.state_dict())
            self.encoder.norm.load_state_dict(teacher.encoder.norm.state_dict())
            for block, source in zip(self.encoder.blocks, spread(theirs.encoder.depth, ours.encoder.depth)):
                block.load_state_dict(teacher.encoder.blocks[source].state_dict())
            copied += ["position", "encoder"]
        return copied
