# SPDX-License-Identifier: Apache-2.0
"""The teacher: a point-cloud transformer that gives one feature vector per local patch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foundry_core.architecture import Architecture
from foundry_core.models.tokenizer import PositionEmbedding, make_tokenizer
from foundry_core.models.transformer import Encoder, init_weights


class Teacher(nn.Module):
    """Centers [B,G,3] and neighborhoods [B,G,K,3] to token features [B,G,d]."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        encoder = architecture.encoder
        self.architecture = architecture
        self.tokenizer = make_tokenizer(architecture.tokenizer, encoder.width)
        self.position = PositionEmbedding(encoder.position_hidden, encoder.width)
        self.encoder = Encoder.from_config(encoder)
        self.position.apply(init_weights)
        self.encoder.apply(init_weights)

    def forward(self, centers: Tensor, neighborhoods: Tensor) -> dict[str, Tensor]:
        return {"tokens": self.encoder(self.tokenizer(neighborhoods), self.position(centers))}

    def encode_visible(self, centers: Tensor, neighborhoods: Tensor, visible: Tensor) -> Tensor:
        """Token features [B,V,d] of the patches that ``visible`` (int64 [B,V]) names, computed from them alone."""
        rows = torch.arange(len(visible), device=visible.device)[:, None]
        return self.forward(centers[rows, visible], neighborhoods[rows, visible])["tokens"]
