# SPDX-License-Identifier: Apache-2.0
"""The schema of what a teacher learns without labels: the section ``objective`` of `foundry pretrain`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foundry_core.schema import Settings


class MaeObjective(Settings):
    """Rebuild the points of masked patches (Point-MAE, Pang et al., 2022)."""

    kind: Literal["mae"] = "mae"
    mask_ratio: float = Field(0.6, gt=0, lt=1)
    decoder_depth: int = Field(2, ge=1)


class LatentObjective(Settings):
    """What is common to objectives that predict the features of a target, the moving average of the encoder."""

    decay: tuple[float, float] = Field(description="of the moving average, at the first step and once it has risen")
    decay_share: float = Field(gt=0, le=1, description="share of the run in which the decay rises, linearly")
    beta: float = Field(2.0, gt=0, description="SmoothL1 is quadratic up to this distance")

    @model_validator(mode="after")
    def _decay_rises(self) -> LatentObjective:
        if not 0 <= self.decay[0] <= self.decay[1] <= 1:
            raise ValueError(f"decay must rise within 0 and 1, got {list(self.decay)}")
        return self


class Point2vecObjective(LatentObjective):
    """Predict the target's features of masked patches from the others (point2vec, Abou Zeid et al., 2023)."""

    kind: Literal["point2vec"] = "point2vec"
    mask_ratio: float = Field(0.65, gt=0, lt=1)
    decoder_depth: int = Field(4, ge=1)
    target_blocks: int = Field(6, ge=1, description="the outputs of the target's last blocks that are averaged")
    decay: tuple[float, float] = (0.9998, 0.99999)
    decay_share: float = Field(0.25, gt=0, le=1)


class JepaObjective(LatentObjective):
    """Predict the target's features of contiguous blocks from another block (Point-JEPA, Saito et al., 2024)."""

    kind: Literal["jepa"] = "jepa"
    targets: int = Field(4, ge=1, description="target blocks M of a cloud; they may overlap")
    target_ratio: tuple[float, float] = Field((0.15, 0.2), description="range of a target block's share of the patches")
    context_ratio: tuple[float, float] = Field(
        (0.4, 0.75), description="range of the context block's share of the patches that are in no target"
    )
    predictor_width: int | None = Field(None, ge=1, description="null: half of the encoder's")
    predictor_depth: int = Field(6, ge=1)
    decay: tuple[float, float] = (0.995, 1.0)
    decay_share: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _ranges(self) -> JepaObjective:
        for name, (low, high) in (("target_ratio", self.target_ratio), ("context_ratio", self.context_ratio)):
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} must rise within 0 and 1, got {[low, high]}")
        return self

    def target_size(self, groups: int, draw: float) -> int:
        """Patches of a target block; ``draw`` in [0, 1) places it in the range."""
        low, high = self.target_ratio
        return max(1, int(groups * (low + draw * (high - low))))

    def context_size(self, free: int, draw: float) -> int:
        """Patches of the context block, of ``free`` that are in no target."""
        low, high = self.context_ratio
        return max(1, int(free * (low + draw * (high - low))))


class Contrast(Settings):
    """Two clouds of one shape are to be alike, and unlike those of the batch's other shapes, beside the objective."""

    weight: float = Field(0.005, gt=0, description="of this loss beside the objective's")
    temperature: float = Field(0.1, gt=0, description="of the similarities, as cosines")
    width: int = Field(128, ge=2, description="width of the features that are compared, projections of the pooled ones")


Objective = Annotated[MaeObjective | Point2vecObjective | JepaObjective, Field(discriminator="kind")]
