# SPDX-License-Identifier: Apache-2.0
"""`foundry head --data`: heads of their own on the features of a model, calibrated, and told what is unknown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from foundry_core.card import Heads, Metric, ModelCard, Training, find_model
from foundry_core.data.shapes import data_name
from foundry_core.errors import InputError
from foundry_core.export.rewrite import for_inference
from foundry_core.head_card import HEAD_WEIGHTS, Backbone, Calibration, HeadCard, Unknown, fingerprint, write_head_card
from foundry_core.models.heads import PartHead, Perception
from foundry_core.models.registry import load_model, save_model
from foundry_core.models.transfer import Classifiers, InnerFeatures
from foundry_core.runtime.fewshot import SHRINKAGE, Whitening, class_means
from foundry_core.runtime.session import check_budget
from foundry_core.tensors import write_tensors
from foundry_core.training.calibration import calibrate, fit_unknown
from foundry_core.training.config import TransferConfig
from foundry_core.training.lesson import Lesson
from foundry_core.training.loader import batches_from
from foundry_core.training.loop import Run
from foundry_core.training.shape_features import ShapeFeatures, cached, extract
from foundry_core.training.transfer_tasks import (
    ClassTraining,
    FineTuning,
    PartTraining,
    VariedShapes,
    one_hot,
    standardisation,
)

#: shares of the identity in the covariance of an ncm head; the folds choose
SHRINKAGES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
JUDGED = 64  # points of a shape on which the probabilities of a part head are judged


@dataclass(frozen=True)
class Made:
    """A head that has learned.

    Attributes:
        tensors: as the head file has them.
        accuracy: percent right of train shapes (of points, for parts) that it had not learned from.
    """

    tensors: Mapping[str, np.ndarray | Tensor]
    calibration: Calibration
    accuracy: float
    training: Training
    backbone: Backbone
    unknown: Unknown | None = None


def train_transfer_head(
    config: TransferConfig, out: Path, minutes: float | None = None, source: str = "", cache: Path = Path("runs/cache")
) -> HeadCard:
    """Train a head (or resume in ``out``) and write the head directory ``out/<name>``; its card.

    A fine-tuned backbone becomes the model directory ``out/<name>-backbone``, and the first of a family of its own.

    Args:
        cache: folder of features of frozen backbones, computed once for all heads.

    Raises:
        InputError: the model or the data cannot be used for such a head.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("foundry head --data: a transfer head trains in one process; start it without torchrun")
    lesson = Lesson.of(config)
    network, card = load_model(find_model(config.model))
    check_budget(card, config.budget, "budget:")
    budget = config.budget or card.budget
    last = card.architecture.encoder.depth - 1
    if config.depths and (card.budgets or min(config.depths) < 1 or max(config.depths) > last):
        raise InputError(
            f"depths: {config.depths}: give blocks of a teacher, 1 to {last}; {card.name} is a {card.kind}"
        )
    if config.supertokens and not card.budgets:
        raise InputError(f"supertokens: {card.name} is a teacher and has none; name a student")
    torch.manual_seed(config.loop.seed)
    torch.set_num_threads(config.loop.threads)
    inner = bool(config.depths or config.supertokens)
    frozen = network.backbone if inner else for_inference(network).backbone  # the same numbers, faster
    reading = InnerFeatures(frozen, config.depths, config.supertokens, budget).eval()
    key = [config.depths, config.supertokens, budget]
    features = cached(reading, lesson.train, card.preprocessing, cache, fingerprint(card), key).select(lesson.rows)
    maker = _Maker(config, lesson, card, budget, out, minutes, source)
    made = maker.finetune(network, features) if config.finetune else maker.frozen(features)
    return maker.write(made, features.tokens.shape[2])


@dataclass(frozen=True)
class _Maker:
    """One head in the making."""

    config: TransferConfig
    lesson: Lesson
    card: ModelCard
    budget: int | None
    out: Path
    minutes: float | None
    source: str

    def frozen(self, features: ShapeFeatures) -> Made:
        """A head on features that stay as they are."""
        if self.config.kind == "parts":
            return self._parts(features)
        pooled = features.pooled()
        return self._nearest_mean(pooled) if self.config.kind == "ncm" else self._classes(pooled)

    def _run(self, task, device: str = "cpu") -> Run:
        loop = self.config.loop.model_copy(update={"device": device})  # cpu: where features are; a head is small
        return Run(self.out, task, loop, self.config, self.minutes)

    def _record(self, run: Run | None, what: str, keeps_features: bool = True) -> Training:
        data, parent = [self.lesson.provenance(self.config)], self.card
        origin = {"parent": parent.name, "parent_sha256": fingerprint(parent)}
        if run is None:
            seed = self.config.loop.seed
            return Training(
                task=what, data=data, seed=seed, steps=0, batch=0, minutes=0.0, config=self.source, **origin
            )
        record = run.record(what, data, self.source, **origin)
        return record.model_copy(update={"keeps_features": keeps_features})

    def _classes(self, pooled: np.ndarray) -> Made:
        lesson = self.lesson
        task = ClassTraining(self.config, pooled, lesson.label, lesson.fold)
        run = self._run(task)
        run.train(lambda step: task.batches(run.share, step), self.config.title)
        logits = task.unseen_logits(lesson.fold)
        return self._class_head(task.module.tensors(), pooled, logits, self._record(run, "transfer head, frozen"))

    def _nearest_mean(self, pooled: np.ndarray) -> Made:
        label, fold, count = self.lesson.label, self.lesson.fold, len(self.lesson.classes)

        def tensors(rows: np.ndarray, shrinkage: float) -> tuple[Whitening, np.ndarray]:
            space = Whitening.fit(pooled[rows], label[rows], shrinkage)
            return space, class_means(space.units(pooled[rows]), label[rows], count)

        trials = []
        for shrinkage in SHRINKAGES:
            logits = np.empty((len(label), count))
            for number in range(self.config.folds):
                space, means = tensors(fold != number, shrinkage)
                logits[fold == number] = space.units(pooled[fold == number]) @ means.T
            trials.append(((logits.argmax(axis=1) == label).mean(), shrinkage, logits))
        _, shrinkage, logits = max(trials, key=lambda trial: trial[:2])
        space, means = tensors(np.ones(len(label), bool), shrinkage)
        made = {"space.center": space.center, "space.matrix": space.matrix, "space.means": means}
        record = self._record(None, f"nearest class mean, closed form, shrinkage {shrinkage}")
        return self._class_head(made, pooled, logits, record, shrinkage)

    def _class_head(
        self,
        tensors: Mapping[str, np.ndarray | Tensor],
        pooled: np.ndarray,
        logits: np.ndarray,
        training: Training,
        shrinkage: float = SHRINKAGE,
        backbone: Backbone | None = None,
    ) -> Made:
        """A classifier with temperature and threshold: ``logits`` [J,C] are those of the first folds, as many as there
        are rows, by classifiers that did not learn them."""
        lesson, config = self.lesson, self.config
        judged = np.ones(len(lesson.label), bool) if len(logits) == len(lesson.label) else lesson.fold == 0
        label = lesson.label[judged]
        unknown, space_tensors = fit_unknown(config, pooled, lesson.label, lesson.fold, judged, logits, shrinkage)
        return Made(
            {**space_tensors, **tensors},
            calibrate(logits, label, np.arange(len(label)), config.loop.seed),
            100 * float((logits.argmax(axis=1) == label).mean()),
            training,
            backbone or Backbone.of(self.card, self.budget),
            unknown,
        )

    def _part_labels(self, features: ShapeFeatures) -> np.ndarray:
        labels = self.lesson.train.part_label[self.lesson.rows]
        return np.take_along_axis(labels, features.index.astype(np.int64), axis=1).astype(np.int16)

    def _parts(self, features: ShapeFeatures) -> Made:
        lesson, part = self.lesson, self._part_labels(features)
        learned = np.flatnonzero(lesson.fold != 0)
        task = PartTraining(self.config, features, part, lesson.label, lesson.allowed, learned)
        run = self._run(task)
        run.train(lambda step: task.batches(run.share, step), self.config.title)
        record = self._record(run, "part head, frozen")
        return self._part_head(task.module, features, part, record, Backbone.of(self.card, self.budget))

    def _part_head(
        self, head: PartHead, features: ShapeFeatures, part: np.ndarray, training: Training, backbone: Backbone
    ) -> Made:
        lesson, rng = self.lesson, np.random.default_rng(self.config.loop.seed)
        judged = np.flatnonzero(lesson.fold == 0)
        found, true, owner = [], [], []
        for rows in np.array_split(judged, -(-len(judged) // 32)):
            chosen = rng.integers(0, part.shape[1], (len(rows), JUDGED))
            label = torch.from_numpy(lesson.label[rows])
            with torch.no_grad():
                logits = head.eval()(*features.part_inputs(rows, chosen), one_hot(label, len(lesson.allowed)))
            logits = np.where(lesson.allowed[lesson.label[rows]][:, None], logits.numpy(), -1e4)
            own = np.take_along_axis(part[rows], chosen, axis=1)
            known = own >= 0
            found.append(logits[known])
            true.append(own[known])
            owner.append(np.broadcast_to(rows[:, None], own.shape)[known])
        logits, label = np.concatenate(found), np.concatenate(true).astype(int)
        if not len(label):
            raise InputError(f"{self.config.data}: part_label: too few known points to judge a parts head by")
        calibration = calibrate(logits, label, np.concatenate(owner), self.config.loop.seed)
        accuracy = 100 * float((logits.argmax(axis=1) == label).mean())
        return Made(head.state_dict(), calibration, accuracy, training, backbone)

    def finetune(self, network: Perception, features: ShapeFeatures) -> Made:
        """A head and its backbone, end to end; the first fold is not learned from."""
        config, lesson, size = self.config, self.lesson, self.card.preprocessing
        backbone = InnerFeatures(network.backbone.train(), [], False, self.budget)
        part = None
        if config.kind == "parts":
            part = lesson.train.part_label[lesson.rows]
            categories = len(lesson.allowed) if config.category else 0
            head: nn.Module = PartHead(features.tokens.shape[2], len(lesson.parts), config.hidden, categories)
        else:
            hidden = config.hidden if config.kind == "mlp" else None
            moments = standardisation(features.pooled())
            head = Classifiers(*moments, len(lesson.classes), 1, hidden, config.dropout)
        shapes = lesson.train.select(np.isin(np.arange(len(lesson.train)), lesson.rows))
        varied = VariedShapes(shapes, size, np.flatnonzero(lesson.fold != 0), config.loop.seed, part)
        run = self._run(FineTuning(config, backbone, head, lesson.label, lesson.allowed), config.loop.device)
        run.train(lambda step: batches_from(varied, run.share, step, config.loop.workers), config.title)
        record = self._record(run, "fine-tuning, end to end", keeps_features=False)
        card = self._save_backbone(network, record)
        tuned = Backbone.of(card, self.budget)
        reading = InnerFeatures(for_inference(network).backbone, [], False, self.budget).eval()
        features = extract(reading, shapes, size, "tuned features")
        if isinstance(head, PartHead):
            return self._part_head(head, features, self._part_labels(features), record, tuned)
        pooled = features.pooled()
        with torch.no_grad():
            logits = head.eval()(torch.from_numpy(pooled[lesson.fold == 0]))[0].numpy()
        return self._class_head(head.tensors(), pooled, logits, record, backbone=tuned)

    def _save_backbone(self, network: Perception, record: Training) -> ModelCard:
        name = f"{self.config.title}-backbone"
        bare = Perception(network.backbone.eval(), self.card.architecture.token_width)
        changes = {
            "name": name,
            "description": f"{self.card.name}, fine-tuned on {data_name(self.config.data)}",
            "heads": Heads(),
            "metrics": [],
            "budgets": [self.budget] if self.budget else [],
            "default_budget": None,
            "training": [*self.card.training, record],
        }
        return save_model(self.out / name, bare, self.card.model_copy(update=changes))

    def write(self, made: Made, width: int) -> HeadCard:
        """The head directory; its card."""
        config, lesson = self.config, self.lesson
        folder = self.out / config.title
        plain = {k: v.detach().numpy() if isinstance(v, Tensor) else v for k, v in made.tensors.items()}
        write_tensors(folder / HEAD_WEIGHTS, plain)
        what, unit = ("part accuracy", "percent of points") if config.kind == "parts" else ("accuracy", "percent")
        metric = Metric(
            name=what,
            value=round(made.accuracy, 2),
            unit=unit,
            data=f"{data_name(config.data)} (train split)",
            split="not learned from" if config.finetune or config.kind == "parts" else f"{config.folds} folds",
        )
        card = HeadCard(
            name=config.title,
            kind=config.kind,
            backbone=made.backbone,
            width=width,
            hidden=config.hidden if config.kind in ("mlp", "parts") else None,
            depths=config.depths,
            supertokens=config.supertokens,
            classes=lesson.classes,
            left_out=lesson.left_out,
            parts=lesson.parts,
            class_parts=lesson.class_parts,
            category=config.category,
            calibration=made.calibration,
            unknown=made.unknown,
            training=made.training,
            metrics=[metric],
        )
        return write_head_card(folder, card)
