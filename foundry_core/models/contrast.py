# SPDX-License-Identifier: Apache-2.0
"""Contrast beside another objective: which clouds are of the same shape (NT-Xent of SimCLR, Chen et al., 2020).

Prediction within a cloud says little of the cloud as a whole; the two are joined as in ReCon (Qi et al., 2023), here on
the same masked clouds and without its teachers of other modalities.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry_core.models.heads import pool
from foundry_core.models.objective_config import Contrast
from foundry_core.models.parallel import gather, rank
from foundry_core.models.pretext import PretextTask
from foundry_core.models.transformer import init_weights


def nt_xent(embedded: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Loss of embeddings float32 [B,2,e] of two clouds of each of B shapes, and the share of clouds that are most like
    the other cloud of their shape; both scalars.

    The clouds of all processes are told apart; the loss is the mean over this one's.
    """
    everyone = F.normalize(gather(embedded), dim=-1).flatten(0, 1)  # (2 B W, e)
    clouds = 2 * len(embedded)
    own = torch.arange(rank() * clouds, (rank() + 1) * clouds, device=embedded.device)
    similarity = everyone[own] @ everyone.T / temperature  # (2 B, 2 B W)
    similarity = similarity.scatter(1, own[:, None], float("-inf"))  # none is compared with itself
    partner = own ^ 1
    found = (similarity.detach().argmax(dim=1) == partner).float().mean()
    return F.cross_entropy(similarity, partner), found


class Contrasted(nn.Module):
    """An objective on two clouds of every shape, which are to be told from those of the other shapes too."""

    def __init__(self, objective: PretextTask, config: Contrast):
        super().__init__()
        width = objective.teacher.architecture.encoder.width
        self.objective, self.config = objective, config
        objective.views = 2
        self.projector = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, config.width))
        self.projector.apply(init_weights)

    def forward(self, centers: Tensor, neighborhoods: Tensor) -> dict[str, Tensor]:
        """Losses of one batch of pairs, [B,2,G,3] and [B,2,G,K,3]."""
        losses, features = self.objective.solve(centers.flatten(0, 1), neighborhoods.flatten(0, 1))
        embedded = self.projector(pool(features)).float().view(len(centers), 2, -1)
        with torch.autocast(centers.device.type, enabled=False):
            contrast, found = nt_xent(embedded, self.config.temperature)
        loss = losses["loss"] + self.config.weight * contrast
        return losses | {"loss": loss, "objective": losses["loss"], "contrast": contrast, "pairs_found": found}
