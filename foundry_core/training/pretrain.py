# SPDX-License-Identifier: Apache-2.0
"""`foundry pretrain`: a teacher by masked autoencoding, without labels."""

from __future__ import annotations

from pathlib import Path

import torch

from foundry_core.card import ModelCard
from foundry_core.data.stream import ShapeStream
from foundry_core.models.heads import Perception
from foundry_core.models.masked import MaskedAutoencoder
from foundry_core.models.teacher import Teacher
from foundry_core.training.config import PretrainConfig
from foundry_core.training.loader import GroupedClouds, batches_from
from foundry_core.training.loop import Run


class MaskedPretraining:
    """The task: rebuild the masked patches."""

    def __init__(self, config: PretrainConfig):
        torch.manual_seed(config.loop.seed)
        self.teacher = Teacher(config.architecture)
        self.module = MaskedAutoencoder(
            self.teacher, config.preprocessing.neighbors, config.decoder_depth, config.mask_ratio
        )

    def losses(self, batch, progress):
        return self.module(*batch)


def pretrain(config: PretrainConfig, out: Path, minutes: float | None = None, source: str = "") -> ModelCard:
    """Train (or resume in ``out``) and write the model directory ``out/<name>``; its card."""
    stream = ShapeStream(config.data, config.preprocessing.points, config.loop.seed)
    task = MaskedPretraining(config)
    run = Run(out, task, config.loop, config, minutes)
    dataset = GroupedClouds(stream, config.preprocessing)
    run.train(lambda step: batches_from(dataset, run.share, step, config.loop.workers), f"pretrain {config.name}")
    card = ModelCard(
        name=config.name,
        kind="teacher",
        description=config.description,
        architecture=config.architecture,
        preprocessing=config.preprocessing,
        training=[run.record("masked autoencoding (Point-MAE)", stream.provenance(), source)],
    )
    return run.write(Perception(task.teacher, config.architecture.encoder.width), card)
