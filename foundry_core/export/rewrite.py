# SPDX-License-Identifier: Apache-2.0
"""Exact rewrites of the training graph for inference: less arithmetic, fewer and larger kernels, the same numbers.

Rows of all clouds stand in one matrix wherever that is possible, because a linear map with its bias is then a single
GEMM on a constant weight in every runtime.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from foundry_core.export.rewrite_heads import FusedObjectHead, FusedPartHead
from foundry_core.export.rewrite_merging import FusedMerged
from foundry_core.export.rewrite_student import FusedStudent
from foundry_core.export.rewrite_transformer import FusedEncoder, fused_tokenizer
from foundry_core.models.heads import Perception
from foundry_core.models.merging import Merged
from foundry_core.models.student import Student
from foundry_core.models.teacher import Teacher


class FusedTeacher(nn.Module):
    """The teacher in evaluation mode: centers [B,G,3] and neighborhoods [B,G,K,3] to tokens [B,G,d]."""

    def __init__(self, teacher: Teacher):
        super().__init__()
        self.architecture = teacher.architecture
        self.tokenizer = fused_tokenizer(teacher.tokenizer)
        self.position = teacher.position
        self.encoder = FusedEncoder(teacher.encoder)

    def forward(self, centers: Tensor, neighborhoods: Tensor) -> dict[str, Tensor]:
        b, g, _ = centers.shape
        tokens = self.encoder(self.tokenizer(neighborhoods), self.position(centers.reshape(b * g, 3)), b)
        return {"tokens": tokens.view(b, g, -1)}


def fused_backbone(backbone: nn.Module) -> nn.Module:
    """A teacher or student with all exact rewrites, a copy in evaluation mode; any other network as it is."""
    kinds = {Student: FusedStudent, Teacher: FusedTeacher}
    if getattr(backbone, "gate", None) is not None:  # as many tokens as a cloud needs: nothing to rewrite
        return copy.deepcopy(backbone).eval()
    return kinds[type(backbone)](copy.deepcopy(backbone).eval()).eval() if type(backbone) in kinds else backbone


def for_inference(network: Perception) -> Perception:
    """A copy of the network with all exact rewrites applied, in evaluation mode."""
    fused = copy.deepcopy(network).eval()
    merged = isinstance(fused.backbone, Merged)
    fused.backbone = FusedMerged(fused.backbone) if merged else fused_backbone(fused.backbone)
    if fused.objects is not None:
        fused.objects = FusedObjectHead(fused.objects)
    if fused.parts is not None:
        fused.parts = FusedPartHead(fused.parts)
    return fused.eval()
