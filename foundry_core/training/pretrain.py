# SPDX-License-Identifier: Apache-2.0
"""`foundry pretrain`: a teacher by masked autoencoding or latent prediction, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from foundry_core.card import WEIGHTS_FILE, ModelCard, Training, find_model, sha256
from foundry_core.data.stream import ShapeStream
from foundry_core.errors import InputError
from foundry_core.models.contrast import Contrasted
from foundry_core.models.heads import Perception
from foundry_core.models.latent import Jepa, LatentPrediction, Point2vec
from foundry_core.models.masked import MaskedAutoencoder
from foundry_core.models.registry import load_model
from foundry_core.models.teacher import Teacher
from foundry_core.training.config import PretrainConfig
from foundry_core.training.loader import GroupedClouds, GroupedPairs, batches_from
from foundry_core.training.loop import Run
from foundry_core.training.probing import Every, Probes

_KEPT = "; these are the weights of the encoder that learned, not of its moving average"
#: what the card says of an objective
TASKS = {
    "mae": "masked autoencoding (Point-MAE)",
    "point2vec": "latent prediction of masked patches (point2vec)" + _KEPT,
    "jepa": "latent prediction of contiguous blocks (Point-JEPA)" + _KEPT,
}


_CONTRAST = ", and telling two clouds of a shape from other shapes (NT-Xent)"


def _task(config: PretrainConfig) -> str:
    return TASKS[config.objective.kind] + (_CONTRAST if config.contrast else "")


class Pretraining:
    """The task: the objective that the configuration names; ``start`` is a teacher whose weights it begins with."""

    def __init__(self, config: PretrainConfig, start: nn.Module | None = None):
        torch.manual_seed(config.loop.seed)
        self.teacher = Teacher(config.architecture)
        if start is not None:
            self.teacher.load_state_dict(start.state_dict())
        objective = config.objective
        if objective.kind == "mae":
            self.objective = MaskedAutoencoder(self.teacher, config.preprocessing.neighbors, objective)
        else:
            self.objective = {"point2vec": Point2vec, "jepa": Jepa}[objective.kind](self.teacher, objective)
        self.module = Contrasted(self.objective, config.contrast) if config.contrast else self.objective

    def losses(self, batch, progress):
        return self.module(*batch)


def clouds_of(config: PretrainConfig, stream: ShapeStream) -> GroupedClouds:
    """What the task is given of the stream: every shape once, or twice where it is to be recognised."""
    return (GroupedPairs if config.contrast else GroupedClouds)(stream, config.preprocessing)


def _start(config: PretrainConfig, source: str) -> tuple[nn.Module | None, list[Training], dict[str, str]]:
    """The teacher to go on from, if any, the trainings behind it, and how the card names it."""
    if config.start is None:
        return None, [], {}
    model, card = load_model(config.start)
    if card.kind != "teacher":
        raise InputError(f"{source}: start: {config.start} is a {card.kind}; name a teacher")
    for key in ("architecture", "preprocessing"):
        if getattr(card, key) != getattr(config, key):
            raise InputError(f"{source}: start: {config.start} has another {key}; correct one of them")
    parent = {"parent": card.name, "parent_sha256": sha256(find_model(config.start) / WEIGHTS_FILE)}
    return model.backbone, card.training, parent


def pretrain(
    config: PretrainConfig,
    out: Path,
    minutes: float | None = None,
    source: str = "",
    probes: Sequence[Path] = (),
    probe_every: int = 2000,
) -> ModelCard:
    """Train (or resume in ``out``) and write the model directory ``out/<name>``; its card.

    Args:
        probes: labelled shape sets that a linear probe reads every ``probe_every`` steps, for the log.
    """
    stream = ShapeStream(config.data, config.preprocessing.points, config.loop.seed)
    start, history, parent = _start(config, source)
    task = Pretraining(config, start)
    due = Every(probe_every, config.loop.log_steps)
    prober = Probes(task.teacher, config.preprocessing, probes, due, config.loop.threads) if probes else None
    run = Run(out, task, config.loop, config, minutes)
    run.probes = prober
    if isinstance(task.objective, LatentPrediction):
        run.optimizer.register_step_post_hook(lambda *_: task.objective.follow(run.progress()))
    dataset = clouds_of(config, stream)
    run.train(lambda step: batches_from(dataset, run.share, step, config.loop.workers), f"pretrain {config.name}")
    card = ModelCard(
        name=config.name,
        kind="teacher",
        description=config.description,
        architecture=config.architecture,
        preprocessing=config.preprocessing,
        training=[*history, run.record(_task(config), stream.provenance(), source, **parent)],
    )
    return run.write(Perception(task.teacher, config.architecture.encoder.width), card)
