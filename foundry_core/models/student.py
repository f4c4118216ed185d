# SPDX-License-Identifier: Apache-2.0
"""The student: tokens merge to a few supertokens, only those pass the blocks, and the token features are rebuilt."""

from __future__ import annotations

from torch import Tensor, nn

from foundry_core.card import Architecture
from foundry_core.models.supertokens import SupertokenAssignment, Upsampling
from foundry_core.models.tokenizer import PositionEmbedding, Tokenizer
from foundry_core.models.transformer import Encoder, init_weights


class Student(nn.Module):
    """Centers [B,G,3] and neighborhoods [B,G,K,3] to rebuilt token features [B,G,d_teacher] and supertokens [B,s,d]."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        if architecture.supertokens is None:
            raise ValueError("a student's architecture needs `supertokens`")
        encoder, supertokens = architecture.encoder, architecture.supertokens
        self.architecture = architecture
        self.tokenizer = Tokenizer(architecture.tokenizer, encoder.width)
        self.position = PositionEmbedding(encoder.position_hidden, encoder.width)
        self.encoder = Encoder.from_config(encoder)
        self.position.apply(init_weights)
        self.encoder.apply(init_weights)
        self.assignment = SupertokenAssignment(supertokens, encoder.width)
        self.upsampling = Upsampling(
            supertokens, encoder.width, encoder.heads, architecture.output_width or encoder.width
        )

    def forward(
        self,
        centers: Tensor,
        neighborhoods: Tensor,
        budget: int | None = None,
        temperature: float = 1.0,
        tokens: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Rebuild the teacher's token features.

        Args:
            centers: [B,G,3]; neighborhoods: [B,G,K,3].
            budget: supertokens to use; all of them by default.
            temperature: of the assignment's noise, in training only.
            tokens: [B,G,d] of a tokenizer shared with the teacher, where they are computed already.
        """
        budget = budget or self.architecture.supertokens.count
        if tokens is None:
            tokens = self.tokenizer(neighborhoods)  # (B, G, d)
        positions = self.position(centers)  # (B, G, d)
        merged, merged_centers, assignment = self.assignment(tokens, positions, centers, budget, temperature)
        supertokens = self.encoder(merged, self.position(merged_centers))  # (B, s, d)
        rebuilt = self.upsampling(tokens, positions, supertokens, assignment)
        return {"tokens": rebuilt, "supertokens": supertokens, "assignment": assignment}

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
            deep, shallow = theirs.encoder.depth, ours.encoder.depth
            for i, block in enumerate(self.encoder.blocks):
                source = round((i + 1) * deep / shallow) - 1 if shallow <= deep else min(i, deep - 1)
                block.load_state_dict(teacher.encoder.blocks[source].state_dict())
            copied += ["position", "encoder"]
        return copied
