# SPDX-License-Identifier: Apache-2.0
"""The shape of a network and of its input, as cards and training configurations state them; torch-free."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from foundry_core.schema import Settings


class Preprocessing(Settings):
    """How a cloud becomes the network's input."""

    points: int = Field(1024, ge=1, description="points per cloud; more are reduced by FPS, fewer are repeated")
    groups: int = Field(64, ge=1, description="local patches, one token each")
    neighbors: int = Field(32, ge=1, description="points per patch")
    normalization: Literal["unit-sphere"] = Field("unit-sphere", description="centred on the mean, scaled to radius 1")

    @model_validator(mode="after")
    def _fits(self) -> Preprocessing:
        if self.groups > self.points or self.neighbors > self.points:
            raise ValueError("groups and neighbors must not exceed points")
        return self


class TokenizerConfig(Settings):
    """Mini-PointNet: 3 -> first -> second, max over the patch, concatenated -> third -> width, max (Point-MAE)."""

    kind: Literal["pointnet"] = "pointnet"
    first: int = Field(128, ge=1)
    second: int = Field(256, ge=1)
    third: int = Field(512, ge=1)
    stride: int = Field(1, ge=1, description="every stride-th neighbour of a patch is read, from near to far")
    pool: Literal["after", "before"] = Field(
        "after", description="the maximum over the patch comes after the last linear map, or before it (cheaper)"
    )


class ShallowTokenizerConfig(Settings):
    """Maximum and mean over a patch of its points along a few directions, then -> hidden -> hidden -> width."""

    kind: Literal["shallow"]
    directions: int = Field(64, ge=1, description="linear maps of a point, scaled to the extent of its patch")
    hidden: int = Field(256, ge=1)


def _tokenizer_kind(value: Any) -> Any:
    return value.get("kind", "pointnet") if isinstance(value, dict) else getattr(value, "kind", None)


AnyTokenizerConfig = Annotated[
    Annotated[TokenizerConfig, Tag("pointnet")] | Annotated[ShallowTokenizerConfig, Tag("shallow")],
    Discriminator(_tokenizer_kind),
]


class EncoderConfig(Settings):
    """Pre-norm transformer with the position embedding added before every block."""

    width: int = Field(192, ge=1, description="token dimension d")
    depth: int = Field(6, ge=1, description="blocks L")
    heads: int = Field(3, ge=1)
    mlp_ratio: float = Field(4.0, gt=0)
    position_hidden: int = Field(128, ge=1)

    @model_validator(mode="after")
    def _divides(self) -> EncoderConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class SupertokenConfig(Settings):
    """Dynamic supertoken optimisation (DSO) and cross-attention upsampling (CAU) of a student."""

    count: int = Field(16, ge=1, description="supertokens s")
    assignment: Literal["sinkhorn", "gumbel", "fps", "kmeans", "tome"] = Field(
        "sinkhorn",
        description="learned and balanced; learned as in the paper; or not learned: cells of the first s FPS centres, "
        "k-means from them, token merging (ToMe)",
    )
    sinkhorn_iterations: int = Field(4, ge=1)
    noise: bool = Field(True, description="Gumbel noise on the assignment in training")
    merge: Literal["hard", "soft"] = Field("hard", description="tokens average into their own supertoken, or into all")
    spread: Literal["hard", "soft"] = Field("hard", description="A in A S: one-hot, or a mixture of all supertokens")
    upsampling: Literal["none", "residual", "cross-attention", "residual+cross-attention"] = "cross-attention"
    mlp_ratio: float = Field(4.0, gt=0, description="hidden width of the upsampling, over the token dimension")
    gate: int = Field(
        0, ge=0, description="hidden width of a gate that lets tokens by-pass the merging; 0: none. Runs in torch only"
    )
    bypass: float = Field(0.1, gt=0, lt=1, description="share of the tokens that by-pass, where there is a gate")
    alone: bool = Field(False, description="train a control beside it that rebuilds the features from A S alone")


class Architecture(Settings):
    """The network of a teacher (``supertokens`` absent) or of a student."""

    tokenizer: AnyTokenizerConfig = TokenizerConfig()
    encoder: EncoderConfig = EncoderConfig()
    supertokens: SupertokenConfig | None = None
    output_width: int | None = Field(None, description="token dimension of the teacher, where a student's differs")

    @property
    def token_width(self) -> int:
        """Dimension d of the token features that the network gives."""
        return self.output_width or self.encoder.width
