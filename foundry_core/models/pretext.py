# SPDX-License-Identifier: Apache-2.0
"""What the pre-training objectives share: a teacher, a task that it is to solve without labels, and the losses."""

from __future__ import annotations

from torch import Tensor, nn

from foundry_core.models.teacher import Teacher


class PretextTask(nn.Module):
    """A self-supervised task of ``teacher``.

    Attributes:
        views: clouds of a shape that follow each other in a batch; statistics over clouds take the first alone.
    """

    views = 1

    def __init__(self, teacher: Teacher):
        super().__init__()
        self.teacher = teacher

    def solve(self, centers: Tensor, neighborhoods: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The losses of one batch, [B,G,3] and [B,G,K,3], and the teacher's features [B,V,d] of what it saw."""
        raise NotImplementedError

    def forward(self, centers: Tensor, neighborhoods: Tensor) -> dict[str, Tensor]:
        """Losses of one batch: ``loss``, and the statistics that betray a collapse."""
        return self.solve(centers, neighborhoods)[0]
