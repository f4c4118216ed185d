# SPDX-License-Identifier: Apache-2.0
"""`foundry pretrain`: a teacher by masked autoencoding or latent prediction, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from foundry_core.card import ModelCard
from foundry_core.data.stream import ShapeStream
from foundry_core.models.heads import Perception
from foundry_core.models.latent import Jepa, LatentPrediction, Point2vec
from foundry_core.models.masked import MaskedAutoencoder
from foundry_core.models.teacher import Teacher
from foundry_core.training.config import PretrainConfig
from foundry_core.training.loader import GroupedClouds, batches_from
from foundry_core.training.loop import Run
from foundry_core.training.probing import Probes

_KEPT = "; these are the weights of the encoder that learned, not of its moving average"
#: what the card says of an objective
TASKS = {
    "mae": "masked autoencoding (Point-MAE)",
    "point2vec": "latent prediction of masked patches (point2vec)" + _KEPT,
    "jepa": "latent prediction of contiguous blocks (Point-JEPA)" + _KEPT,
}


class Pretraining:
    """The task: the objective that the configuration names."""

    def __init__(self, config: PretrainConfig):
        torch.manual_seed(config.loop.seed)
        self.teacher = Teacher(config.architecture)
        objective = config.objective
        if objective.kind == "mae":
            self.module = MaskedAutoencoder(self.teacher, config.preprocessing.neighbors, objective)
        else:
            self.module = {"point2vec": Point2vec, "jepa": Jepa}[objective.kind](self.teacher, objective)

    def losses(self, batch, progress):
        return self.module(*batch)


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
    task = Pretraining(config)
    prober = Probes(task.teacher, config.preprocessing, probes, probe_every, config.loop.threads) if probes else None
    run = Run(out, task, config.loop, config, minutes)
    run.probes = prober
    if isinstance(task.module, LatentPrediction):
        run.optimizer.register_step_post_hook(lambda *_: task.module.follow(run.progress()))
    dataset = GroupedClouds(stream, config.preprocessing)
    run.train(lambda step: batches_from(dataset, run.share, step, config.loop.workers), f"pretrain {config.name}")
    card = ModelCard(
        name=config.name,
        kind="teacher",
        description=config.description,
        architecture=config.architecture,
        preprocessing=config.preprocessing,
        training=[run.record(TASKS[config.objective.kind], stream.provenance(), source)],
    )
    return run.write(Perception(task.teacher, config.architecture.encoder.width), card)
