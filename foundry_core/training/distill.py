# SPDX-License-Identifier: Apache-2.0
"""`foundry distill`: a SuperToken student learns to rebuild its teacher's token features (arXiv 2511.20721)."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry_core.architecture import Architecture
from foundry_core.card import WEIGHTS_FILE, Heads, ModelCard, Training, find_model, sha256
from foundry_core.data.stream import ShapeStream
from foundry_core.errors import InputError
from foundry_core.models.gate import off_budget
from foundry_core.models.heads import Perception, pool
from foundry_core.models.registry import load_model
from foundry_core.models.student import Encoded, Student, spread
from foundry_core.models.supertokens import usage_shortfall
from foundry_core.training.cache import CachedFeatures, build_cache, cache_key
from foundry_core.training.config import DistillConfig
from foundry_core.training.held_out import HeldOutFidelity
from foundry_core.training.loader import GroupedClouds, batches_from
from foundry_core.training.loop import Run
from foundry_core.training.precision import effective
from foundry_core.training.probing import Every
from foundry_core.training.specialist import answer_distance, task_file, teacher_classifier
from foundry_core.training.student_config import student_architecture


def r_squared(rebuilt: Tensor, target: Tensor) -> Tensor:
    """Share of the variance of token features [B,G,d] that is explained, features pooled; a scalar."""
    rebuilt, target = rebuilt.float(), target.float()
    residual = (rebuilt - target).square().sum()
    return 1 - residual / (target - target.mean(dim=(0, 1))).square().sum()


def smooth_l1(rebuilt: Tensor, target: Tensor) -> Tensor:
    """Mean SmoothL1 distance; quadratic up to half a unit, features have a deviation of about one."""
    return F.smooth_l1_loss(rebuilt.float(), target, beta=0.5)


class Distillation:
    """The task: SmoothL1 between the rebuilt and the teacher's token features; the teacher is frozen.

    A student that keeps the teacher's tokenizer keeps it frozen too (unless told otherwise): its tokens are then the
    teacher's own, computed once for both, and only what replaces the teacher's blocks is learned.
    """

    def __init__(
        self,
        config: DistillConfig,
        teacher: nn.Module,
        student: Student,
        start: nn.Module | None = None,
        classifier: nn.Linear | None = None,
    ):
        self.config = config
        self.classifier = classifier
        self.teacher = teacher.eval().requires_grad_(False)
        self.student = student
        copied = student.initialize_from_teacher(teacher)
        self.shared_tokenizer = config.freeze_tokenizer and "tokenizer" in copied
        if start is not None:
            student.load_state_dict(_fitting(start, student, self.shared_tokenizer), strict=False)
        if self.shared_tokenizer:
            student.tokenizer.requires_grad_(False)
        encoder, out = student.architecture.encoder, student.architecture.token_width
        # reads the teacher's pooled features off pooled supertokens; a loss only, no part of the model
        reader = nn.Linear(2 * encoder.width, 2 * out) if config.losses.supertokens else nn.Identity()
        # running deviation over clouds of the teacher's pooled features; a scale for a loss, no part of the model
        scale = nn.BatchNorm1d(2 * out, affine=False)
        answers = nn.Linear(2 * out, classifier.out_features) if classifier else nn.Identity()
        self.module = nn.ModuleDict({"student": student, "reader": reader, "scale": scale, "answers": answers})

    def losses(self, batch, progress):
        centers, neighborhoods = batch[:2]
        if self.shared_tokenizer:
            self.student.tokenizer.eval()  # frozen: batch statistics stay the teacher's
        tokens, target = batch[2:] if len(batch) == 4 else self._ask_teacher(centers, neighborhoods)
        if progress < self.config.tokenizer_share:
            loss = smooth_l1(self.student.tokenizer(neighborhoods), tokens)
            return {"loss": loss, "tokenizer": loss}
        first, last = self.config.temperature
        encoded = self.student.encode(
            centers,
            neighborhoods,
            self.budgets(),
            first + (last - first) * progress,
            tokens=tokens if self.shared_tokenizer else None,
        )
        pooled = pool(target)
        deviation = self._deviation(pooled)
        parts = [self._losses_at(each, target, pooled, deviation) for each in encoded]
        losses = {name: torch.stack([part[0][name] for part in parts]).mean() for name in parts[0][0]}
        if self.config.losses.tokenizer and not self.shared_tokenizer:
            losses["tokenizer"] = smooth_l1(encoded[0].tokens, tokens)
        weights = self.config.losses
        total = sum(getattr(weights, name) * value for name, value in losses.items())
        return {"loss": total, **losses, **parts[0][1]}  # the statistics are those of the largest budget

    @torch.no_grad()
    def _ask_teacher(self, centers: Tensor, neighborhoods: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.teacher.tokenizer(neighborhoods)
        return tokens, self.teacher.encoder(tokens, self.teacher.position(centers)).float()

    @torch.no_grad()
    def _deviation(self, pooled: Tensor) -> Tensor:
        """Deviation over clouds of the teacher's pooled features [B,2d], of this batch and those before: [2d]."""
        scale = self.module["scale"]
        scale.momentum = 0.01 if scale.num_batches_tracked else 1.0
        scale(pooled.float())  # takes this batch in
        return (scale.running_var + scale.eps).sqrt()

    def _losses_at(
        self, encoded: Encoded, target: Tensor, pooled: Tensor, deviation: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses by the name of their weight, and statistics, at one budget."""
        weights = self.config.losses
        rebuilt = self.student.rebuild(encoded).float()
        losses = {"features": smooth_l1(rebuilt, target)}
        if self.classifier is not None:
            losses["logits"] = answer_distance(self.module["answers"](pool(rebuilt)), self.classifier(pooled))
        if weights.pooled:
            losses["pooled"] = smooth_l1(pool(rebuilt) / deviation, pooled / deviation)
        if weights.supertokens:
            read = self.module["reader"](pool(encoded.supertokens))
            losses["supertokens"] = smooth_l1(read / deviation, pooled / deviation)
        if encoded.gated is not None:
            losses["gate"] = off_budget(encoded.gated.decided, self.student.architecture.supertokens.bypass)
        if weights.usage:
            several = encoded.assignment.soft.shape[-1] > 1
            losses["usage"] = usage_shortfall(encoded.assignment.soft) if several else rebuilt.new_zeros(())
        seen = rebuilt.detach()
        statistics = {
            "r2": r_squared(seen, target),
            "cosine": F.cosine_similarity(seen, target, dim=-1).mean(),
            "token_std": seen.std(dim=(0, 1)).mean(),
            "unused": 1 - (encoded.assignment.hard.detach().round().sum(dim=1) > 0).float().mean(),
        }
        if encoded.gated is not None:
            statistics["bypass"] = encoded.gated.decided.detach().round().mean()
        if self.student.from_supertokens is not None:
            alone = self.student.from_supertokens(encoded.spread, encoded.supertokens).float()
            statistics["r2_alone"] = r_squared(alone.detach(), target)
            losses["alone"] = smooth_l1(alone, target)
        return losses, statistics

    def budgets(self) -> list[int]:
        """The supertoken counts of a step: the largest, and one of the others, drawn from torch's generator."""
        full, *others = sorted(self.config.budgets or [self.student.architecture.supertokens.count], reverse=True)
        default, share = self.config.default_budget, self.config.default_share
        if share is not None and default in others:
            if len(others) == 1 or float(torch.rand(())) < share:
                return [full, default]
            others.remove(default)
        return [full, others[int(torch.randint(len(others), (1,)))]] if others else [full]


def _fitting(start: nn.Module, student: Student, shared_tokenizer: bool) -> dict[str, Tensor]:
    """The weights of a student to go on from; without its tokenizer, where that is another one or the teacher's is
    kept, and of its blocks those that are spread over its depth, where that is another."""
    theirs, ours = start.architecture, student.architecture
    own = theirs.tokenizer == ours.tokenizer and not shared_tokenizer
    replaced = ("encoder.blocks.",) if own else ("encoder.blocks.", "tokenizer.")
    weights = {name: value for name, value in start.state_dict().items() if not name.startswith(replaced)}
    for number, source in enumerate(spread(theirs.encoder.depth, ours.encoder.depth)):
        block = start.encoder.blocks[source].state_dict()
        weights |= {f"encoder.blocks.{number}.{name}": value for name, value in block.items()}
    return weights


def _start(
    config: DistillConfig, architecture: Architecture, teacher: ModelCard, source: str
) -> tuple[Perception | None, Heads, list[Training]]:
    """The student to go on from, if any, its heads, and the trainings behind it or behind the teacher."""
    if config.start is None:
        return None, Heads(), teacher.training
    model, card = load_model(config.start)
    encoder = card.architecture.encoder.model_copy(update={"depth": architecture.encoder.depth})
    if card.architecture.model_copy(update={"tokenizer": architecture.tokenizer, "encoder": encoder}) != architecture:
        raise InputError(f"{source}: start: {config.start} is of another architecture; correct one of them")
    if card.architecture.tokenizer != architecture.tokenizer and not config.tokenizer_share:
        raise InputError(
            f"{source}: start: {config.start} has another tokenizer; give tokenizer_share, to learn it first"
        )
    if card.training[: len(teacher.training)] != teacher.training:
        raise InputError(f"{source}: start: {config.start} is no student of {teacher.name}; name one that is")
    return model, card.heads, card.training


def distill(
    config: DistillConfig,
    out: Path,
    minutes: float | None = None,
    source: str = "",
    cache: Path = Path("runs/cache"),
    held_out: Path | None = None,
    measure_every: int = 500,
) -> ModelCard:
    """Train (or resume in ``out``) and write the model directory ``out/<name>``; its card.

    A student that goes on from one with heads keeps them: they read the teacher's features, which it rebuilds.

    Args:
        cache: folder of the feature caches, where the configuration asks for one.
        held_out: shape set on whose test split fidelity is measured every ``measure_every`` steps, for log and card.
    """
    teacher, teacher_card = load_model(config.teacher)
    architecture = student_architecture(config, teacher_card, source)
    size = teacher_card.preprocessing
    torch.manual_seed(config.loop.seed)
    torch.set_num_threads(config.loop.threads)
    start, heads, history = _start(config, architecture, teacher_card, source)
    classifier = None
    if config.task is not None:
        file = task_file(config.data.files, config.task, source)
        classifier = teacher_classifier(teacher.backbone.eval(), file, size)
    task = Distillation(
        config, teacher.backbone, Student(architecture), None if start is None else start.backbone, classifier
    )
    # the stream's seed is not the run's: students that are compared see the same clouds
    stream = ShapeStream(config.data, size.points, config.stream_seed)
    measured = None
    if held_out is not None:
        budget = config.default_budget or architecture.supertokens.count
        due = Every(measure_every, config.loop.log_steps)
        measured = HeldOutFidelity(task.student, teacher.backbone, held_out, size, budget, due)
    run = Run(out, task, config.loop, config, minutes)
    run.probes = measured
    for frozen in filter(None, (teacher, classifier)):
        frozen.to(run.device)
    if config.cache:
        precision = effective(config.loop.precision, run.device)
        folder = cache / cache_key(config.teacher, stream, size, precision)
        width, workers = teacher_card.architecture.encoder.width, config.loop.workers
        shards = build_cache(folder, teacher.backbone, stream, size, config.cache, width, workers, precision)
        dataset, workers = CachedFeatures(shards, config.cache, config.loop.seed), 0
    else:
        dataset, workers = GroupedClouds(stream, size), config.loop.workers
    run.train(lambda step: batches_from(dataset, run.share, step, workers), f"distill {config.name}")
    card = ModelCard(
        name=config.name,
        kind="student",
        description=config.description,
        licence=teacher_card.licence,  # a student is derived from its teacher
        architecture=architecture,
        preprocessing=size,
        budgets=sorted(config.budgets) or [architecture.supertokens.count],
        default_budget=config.default_budget,
        heads=heads,
        metrics=measured.metrics() if measured else [],
        training=[
            *history,
            run.record(
                "foundation model distillation: SmoothL1 on token features"
                if config.losses.features
                else f"knowledge distillation for one task, {config.task}",
                stream.provenance(),
                source,
                parent=teacher_card.name,
                parent_sha256=sha256(find_model(config.teacher) / WEIGHTS_FILE),
            ),
        ],
    )
    network = start or Perception(task.student, card.architecture.token_width)
    network.backbone = task.student
    return run.write(network, card)
