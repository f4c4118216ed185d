# SPDX-License-Identifier: Apache-2.0
"""Transfer heads in training: classifiers of pooled features, many at once, and inner features of a backbone."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from foundry_core.head_card import HeadCard
from foundry_core.models.registry import load_model
from foundry_core.models.student import Student
from foundry_core.models.teacher import Teacher


class Classifiers(nn.Module):
    """K classifiers of the same form, side by side: standardised features [B,F] to logits [K,B,C].

    Trained together, each on rows of its own, they cost little more than one.

    Args:
        mean, scale: [F] of the features.
        hidden: width of the one hidden layer; none makes the classifiers linear.
        dropout: of features and hidden layer.
    """

    def __init__(self, mean: Tensor, scale: Tensor, classes: int, copies: int, hidden: int | None, dropout: float):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.copies, self.classes = copies, classes
        self.dropout = nn.Dropout(dropout)
        sizes = [len(mean), *([hidden] if hidden else []), classes]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            bound = inputs**-0.5  # as nn.Linear
            self.weights.append(nn.Parameter(torch.empty(copies, inputs, outputs).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.zeros(copies * outputs)))  # flat: the loop decays matrices only

    def forward(self, features: Tensor) -> Tensor:
        x = ((features - self.mean) / self.scale).expand(self.copies, -1, -1)  # (K, B, F)
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if number:
                x = nn.functional.gelu(x)
            x = torch.bmm(self.dropout(x), weight) + bias.view(self.copies, 1, -1)
        return x

    def tensors(self, copy: int = 0) -> dict[str, Tensor]:
        """One of the classifiers, as a head file names its tensors."""
        found = {"mean": self.mean, "scale": self.scale}
        names = ("hidden", "out")[-len(self.weights) :]
        for name, weight, bias in zip(names, self.weights, self.biases, strict=True):
            found |= {f"{name}.weight": weight[copy].T, f"{name}.bias": bias.view(self.copies, -1)[copy]}
        return found


class InnerFeatures(nn.Module):
    """Centers [B,G,3] and neighborhoods [B,G,K,3] to token features [B,G,d], beside them those of inner levels.

    Args:
        backbone: a teacher or a student.
        depths: blocks of a teacher, from 1 on, whose normalised outputs [B,G,d] are appended.
        supertokens: append A S [B,G,w] of a student: what its supertokens say of each token.
        budget: supertokens of a student.
    """

    def __init__(self, backbone: nn.Module, depths: list[int], supertokens: bool, budget: int | None):
        super().__init__()
        self.backbone, self.depths, self.supertokens, self.budget = backbone, depths, supertokens, budget
        if depths and not isinstance(backbone, Teacher) or supertokens and not isinstance(backbone, Student):
            raise ValueError("depths are a teacher's, supertokens a student's")

    def forward(self, centers: Tensor, neighborhoods: Tensor) -> Tensor:
        if self.supertokens:
            (encoded,) = self.backbone.encode(centers, neighborhoods, [self.budget])
            return torch.cat([self.backbone.rebuild(encoded), encoded.spread @ encoded.supertokens], dim=-1)
        if not self.depths:
            chosen = {} if self.budget is None else {"budget": self.budget}
            return self.backbone(centers, neighborhoods, **chosen)["tokens"]
        encoder = self.backbone.encoder
        tokens, positions = self.backbone.tokenizer(neighborhoods), self.backbone.position(centers)
        levels = []
        for depth, block in enumerate(encoder.blocks, 1):
            tokens = block(tokens + positions)
            if depth in self.depths:
                levels.append(encoder.norm(tokens))
        return torch.cat([encoder.norm(tokens), *levels], dim=-1)


def inner_tokens(directory: str | Path, head: HeadCard, budget: int | None):
    """The function from centers [B,G,3] and neighborhoods [B,G,K,3] to the features [B,G,D] that a head reads.

    All of them are numpy arrays; for heads that read what no graph gives. The model is loaded with the first call.
    """

    @cache
    def reading() -> InnerFeatures:
        network, card = load_model(directory)
        return InnerFeatures(network.backbone, head.depths, head.supertokens, budget or card.budget).eval()

    @torch.no_grad()
    def tokens(centers: np.ndarray, neighborhoods: np.ndarray) -> np.ndarray:
        return reading()(torch.from_numpy(centers), torch.from_numpy(neighborhoods)).numpy()

    return tokens
