# SPDX-License-Identifier: Apache-2.0
"""`foundry distill`: a SuperToken student learns to rebuild its teacher's token features (arXiv 2511.20721)."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry_core.card import WEIGHTS_FILE, ModelCard, find_model, sha256
from foundry_core.data.stream import ShapeStream
from foundry_core.errors import InputError
from foundry_core.models.heads import Perception
from foundry_core.models.registry import load_model, save_model, token_width
from foundry_core.models.student import Student
from foundry_core.training.config import DistillConfig
from foundry_core.training.loader import GroupedClouds, batches_from
from foundry_core.training.loop import Run


def r_squared(rebuilt: Tensor, target: Tensor) -> Tensor:
    """Share of the variance of token features [B,G,d] that is explained, features pooled; a scalar."""
    rebuilt, target = rebuilt.float(), target.float()
    residual = (rebuilt - target).square().sum()
    return 1 - residual / (target - target.mean(dim=(0, 1))).square().sum()


class Distillation:
    """The task: SmoothL1 between the rebuilt and the teacher's token features; the teacher is frozen.

    A student that keeps the teacher's tokenizer keeps it frozen too: its tokens are then the teacher's own, computed
    once for both, and only what replaces the teacher's blocks is learned.
    """

    def __init__(self, config: DistillConfig, teacher: nn.Module, student: Student):
        self.config = config
        self.teacher = teacher.eval().requires_grad_(False)
        self.student = student
        copied = student.initialize_from_teacher(teacher)
        self.shared_tokenizer = "tokenizer" in copied
        if self.shared_tokenizer:
            student.tokenizer.requires_grad_(False)
        self.module = student

    def losses(self, batch, progress):
        centers, neighborhoods = batch
        if self.shared_tokenizer:
            self.student.tokenizer.eval()  # frozen: batch statistics stay the teacher's
        with torch.no_grad():
            tokens = self.teacher.tokenizer(neighborhoods)
            target = self.teacher.encoder(tokens, self.teacher.position(centers)).float()
        first, last = self.config.temperature
        temperature = first + (last - first) * progress
        budget = self._budget()
        out = self.student(
            centers, neighborhoods, budget, temperature, tokens=tokens if self.shared_tokenizer else None
        )
        rebuilt, assignment = out["tokens"].float(), out["assignment"].detach()
        used = (assignment.round().sum(dim=1) > 0).float().mean()
        return {
            "loss": F.smooth_l1_loss(rebuilt, target, beta=0.5),
            "r2": r_squared(rebuilt.detach(), target),
            "cosine": F.cosine_similarity(rebuilt.detach(), target, dim=-1).mean(),
            "token_std": rebuilt.detach().std(dim=(0, 1)).mean(),
            "unused": 1 - used,
        }

    def _budget(self) -> int:
        budgets = self.config.budgets
        if not budgets:
            return self.student.architecture.supertokens.count
        return budgets[int(torch.randint(len(budgets), (1,)))]


def distill(config: DistillConfig, out: Path, minutes: float | None = None, source: str = "") -> ModelCard:
    """Train (or resume in ``out``) and write the model directory ``out/<name>``; its card."""
    teacher, teacher_card = load_model(config.teacher)
    architecture = config.architecture
    if architecture.supertokens is None:
        raise InputError(f"{source}: architecture.supertokens: missing; a student needs it")
    if config.budgets and max(config.budgets) > architecture.supertokens.count:
        raise InputError(f"{source}: budgets: larger than architecture.supertokens.count; lower them")
    width = token_width(teacher_card)
    if width != architecture.encoder.width:
        architecture = architecture.model_copy(update={"output_width": width})
    torch.manual_seed(config.loop.seed)
    task = Distillation(config, teacher.backbone, Student(architecture))
    stream = ShapeStream(config.data, teacher_card.preprocessing.points, config.loop.seed + 1)
    run = Run(out, task, config.loop, config, minutes)
    dataset = GroupedClouds(stream, teacher_card.preprocessing)
    run.train(
        lambda step: batches_from(dataset, step, config.loop.batch, config.loop.workers), f"distill {config.name}"
    )
    card = ModelCard(
        name=config.name,
        kind="student",
        description=config.description,
        architecture=architecture,
        preprocessing=teacher_card.preprocessing,
        budgets=config.budgets or [architecture.supertokens.count],
        training=[
            *teacher_card.training,
            run.record(
                "foundation model distillation: SmoothL1 on token features",
                stream.provenance(),
                source,
                parent=teacher_card.name,
                parent_sha256=sha256(find_model(config.teacher) / WEIGHTS_FILE),
            ),
        ],
    )
    return save_model(out / config.name, Perception(task.student, width), card)
