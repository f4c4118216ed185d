# SPDX-License-Identifier: Apache-2.0
"""The schema of the training configurations in ``config/train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from foundry_core.architecture import Architecture, Preprocessing
from foundry_core.data.shapes import data_name
from foundry_core.data.stream import StreamConfig
from foundry_core.head_card import Kind
from foundry_core.models.objective_config import Contrast, JepaObjective, MaeObjective, Objective, Point2vecObjective
from foundry_core.schema import MAX_SEED, Settings


class LoopConfig(Settings):
    """The loop that all tasks share."""

    steps: int = Field(20000, ge=1, description="optimiser steps; --minutes ends the run (and its schedule) earlier")
    batch: int = Field(32, ge=2, description="clouds per step, of all processes and micro-batches together")
    accumulate: int = Field(
        1, ge=1, description="micro-batches whose gradients make one step, where a batch does not fit into memory"
    )
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the run in which the learning rate rises")
    clip: float = Field(5.0, gt=0, description="largest gradient norm")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="bf16: matrix products in bfloat16 (autocast); auto: where the device has instructions for it",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one")
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of averaged weights, which then are what is written; 0: the last weights"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED)
    threads: int = Field(1, ge=1, description="threads of the training process")
    workers: int = Field(1, ge=0, description="data processes beside it; 0 makes the data in the training process")
    checkpoint_seconds: float = Field(60.0, gt=0)
    log_steps: int = Field(50, ge=1, description="steps whose means make a row of log.jsonl")

    @model_validator(mode="after")
    def _divides(self) -> LoopConfig:
        if self.batch % self.accumulate:
            raise ValueError(
                f"batch {self.batch} is not a multiple of accumulate {self.accumulate}; change one of them"
            )
        return self


class PretrainConfig(Settings):
    """`foundry pretrain`: a teacher, without labels."""

    removed_keys: ClassVar[dict[str, str]] = {
        key: f"write it as objective: {{kind: mae, {key}: ...}}" for key in ("mask_ratio", "decoder_depth")
    }

    name: str
    description: str = ""
    architecture: Architecture = Architecture()
    preprocessing: Preprocessing = Preprocessing()
    data: StreamConfig = StreamConfig()
    loop: LoopConfig = LoopConfig()
    objective: Objective = MaeObjective()
    contrast: Contrast | None = Field(
        None, description="tell two clouds of a shape from other shapes, beside the objective; null: one cloud a shape"
    )
    start: str | None = Field(
        None, description="name or path of a teacher of this architecture to go on from; null: random weights"
    )

    @model_validator(mode="after")
    def _fits(self) -> PretrainConfig:
        encoder, groups, objective = self.architecture.encoder, self.preprocessing.groups, self.objective
        for key in ("supertokens", "output_width"):
            if getattr(self.architecture, key) is not None:
                raise ValueError(f"architecture: {key} is for students; remove it from the teacher's")
        if self.contrast and self.loop.batch == self.loop.accumulate:
            raise ValueError("contrast: micro-batches of one shape leave nothing to tell it from; raise loop.batch")
        if isinstance(objective, JepaObjective):
            largest = objective.targets * objective.target_size(groups, 1.0)
            if largest >= groups:
                raise ValueError(f"objective: targets may cover {largest} of {groups} groups and leave no context")
            width = objective.predictor_width or encoder.width // 2
            if width % encoder.heads:
                raise ValueError(f"objective: predictor_width {width} is not a multiple of heads {encoder.heads}")
        elif not 0 < round(groups * objective.mask_ratio) < groups:
            raise ValueError(f"objective: mask_ratio {objective.mask_ratio} masks all or none of {groups} groups")
        if isinstance(objective, Point2vecObjective) and objective.target_blocks > encoder.depth:
            raise ValueError(f"objective: target_blocks {objective.target_blocks} exceeds the depth {encoder.depth}")
        return self


class LossWeights(Settings):
    """What a distillation minimises: SmoothL1 distances to the frozen teacher and one constraint, each weighted."""

    features: float = Field(1.0, ge=0, description="rebuilt token features against the teacher's")
    pooled: float = Field(
        0.0,
        ge=0,
        description="mean and maximum over the rebuilt features against the teacher's, each dimension in deviations of "
        "the teacher's over clouds: what a head on pooled features reads",
    )
    supertokens: float = Field(
        0.0, ge=0, description="a linear map of pooled supertokens against the teacher's pooled features"
    )
    alone: float = Field(0.0, ge=0, description="features from A S alone; also trains the supertokens")
    usage: float = Field(0.0, ge=0, description="shortfall of supertokens that are no token's first choice")
    tokenizer: float = Field(0.0, ge=0, description="the student's tokens against the teacher's tokenizer output")
    gate: float = Field(0.0, ge=0, description="square of how far the share of by-passing tokens is from the gate's")
    logits: float = Field(0.0, ge=0, description="answers of a classifier of its own against the teacher's, for `task`")


class DistillConfig(Settings):
    """`foundry distill`: a SuperToken student of any teacher directory."""

    name: str
    description: str = ""
    teacher: str = Field(description="name or path of the teacher")
    start: str | None = Field(
        None,
        description="name or path of a student of this architecture, but perhaps for its tokenizer and its depth, to "
        "go on from; null: the teacher's blocks",
    )
    tokenizer_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the run, at its start, in which the tokenizer alone learns, to give the teacher's tokens",
    )
    architecture: Architecture
    data: StreamConfig = StreamConfig()
    loop: LoopConfig = LoopConfig()
    losses: LossWeights = LossWeights()
    task: str | None = Field(
        None,
        description="labelled set among data.files, by name: the one task of a specialist, see losses.logits",
    )
    budgets: list[int] = Field(
        [],
        description="nested supertoken counts; each step trains the largest and a random other; only the full count "
        "when empty",
    )
    default_budget: int | None = Field(None, description="one of the budgets, for the card; the largest if not set")
    default_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the steps whose other budget is the default one; null: all others are as likely",
    )
    temperature: tuple[float, float] = Field((1.0, 0.5), description="of the assignment noise, first and last step")
    cache: int = Field(
        0, ge=0, description="clouds whose teacher features are computed once and kept on disk; 0: endless fresh clouds"
    )
    stream_seed: int = Field(
        1, ge=0, le=MAX_SEED, description="seed of the clouds; students that are compared see the same ones"
    )
    freeze_tokenizer: bool = Field(
        True, description="keep a tokenizer that is the teacher's as it is, not as `start` has it"
    )


class HeadConfig(Settings):
    """`foundry head`: classification and part heads for the parametric categories, as sensors see them."""

    name: str
    model: str = Field(description="name or path of the backbone, which stays frozen")
    loop: LoopConfig = LoopConfig()
    scenes: int = Field(24, ge=0, description="simulated scenes, all kinds together, whose segments join")
    frames: int = Field(8, ge=1, description="sweeps taken from each scene")
    samples: int = Field(24000, ge=1, description="objects from the stream of shapes and single views")
    part_weight: float = Field(1.0, ge=0)
    part_hidden: int = Field(96, ge=1, description="width of the part head, which runs once for every point")
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    reject: float = Field(
        0.03,
        ge=0,
        lt=1,
        description="share of known validation objects below the unknown threshold; what `other` wins is unknown, too",
    )


#: what a loop is given where the configuration of a transfer head says nothing else
_LOOPS: dict[str, dict[str, Any]] = {
    "linear": {"steps": 400, "batch": 256, "learning_rate": 3e-3, "weight_decay": 0.1},
    "mlp": {"steps": 400, "batch": 256, "learning_rate": 3e-3, "weight_decay": 0.1},
    "parts": {"steps": 3000, "batch": 32, "learning_rate": 2e-3, "weight_decay": 0.05},
    "ncm": {},
    "finetune": {"steps": 3000, "batch": 32, "learning_rate": 1e-3, "weight_decay": 0.05, "precision": "auto"},
}


class TransferConfig(Settings):
    """`foundry head --data`: a head of its own on a shape set, for a model and every other of its family."""

    name: str = Field("", description="of the head; <kind>-<data> if not set")
    model: str = Field(description="name or path of the backbone")
    data: Path = Field(description="labelled shape set (.npz or folder); its train split is learned from")
    kind: Kind = Field("linear", description="classes by linear, mlp or nearest class mean (ncm); or parts")
    budget: int | None = Field(None, ge=1, description="supertokens of a student; its own number if not set")
    finetune: bool = Field(False, description="train the backbone too, end to end; it becomes a model of its own")
    hidden: int = Field(256, ge=1, description="width of the layers of an mlp or parts head")
    dropout: float = Field(0.5, ge=0, lt=1, description="of pooled features and hidden layers of a linear or mlp head")
    depths: list[int] = Field([], description="blocks of a teacher, from 1 on, that a parts head reads beside the last")
    supertokens: bool = Field(False, description="a parts head reads each token's supertokens too; a student's")
    category: bool = Field(False, description="a parts head is told the category (its shapes need labels)")
    leave_out: int = Field(0, ge=0, description="classes, drawn by the seed, that the head is not shown")
    folds: int = Field(5, ge=2, description="parts of the train split; each is judged by a head that did not learn it")
    unknown: Literal["energy", "distance"] = Field("distance", description="what decides that an object is of no class")
    exemplars: int = Field(32, ge=1, description="train shapes of each class that distances are measured to, at most")
    reject: float = Field(0.05, ge=0, lt=1, description="share of known shapes that may be called unknown")
    backbone_rate: float = Field(0.1, gt=0, le=1, description="fine-tuning: rate of the last block over the head's")
    layer_decay: float = Field(0.8, gt=0, le=1, description="fine-tuning: rate of a block over that of the next")
    loop: LoopConfig = LoopConfig()

    @model_validator(mode="before")
    @classmethod
    def _loop_of_the_kind(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("loop", {}), dict):
            return values
        usual = {"precision": "fp32", **_LOOPS.get(str(values.get("kind", "linear")), {})}
        if values.get("finetune") is True:
            usual |= _LOOPS["finetune"]
        return {**values, "loop": {**usual, **values.get("loop", {})}}

    @model_validator(mode="after")
    def _consistent(self) -> TransferConfig:
        if (self.depths or self.supertokens or self.category) and self.kind != "parts":
            raise ValueError("depths, supertokens and category are for heads of kind parts")
        if self.kind == "parts" and self.leave_out:
            raise ValueError("leave_out is for heads of classes, not for parts")
        if self.finetune and (self.kind == "ncm" or self.depths or self.supertokens):
            raise ValueError("finetune is for linear, mlp and parts heads on the last features")
        return self

    @property
    def title(self) -> str:
        """Name of the head."""
        return self.name or f"{self.kind}-{data_name(self.data)}"
