# SPDX-License-Identifier: Apache-2.0
"""`foundry head`: object and part heads on a frozen backbone, learned from what simulated sensors see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry_core.card import Heads, Metric, ModelCard, ObjectHead, PartHead, SizeLikelihood, TrainingData
from foundry_core.data.procedural import CATEGORIES, CATEGORY_PARTS, PART_NAMES, make_shape
from foundry_core.evaluation.matching import mean_part_iou
from foundry_core.evaluation.uncertainty import ece, log_softmax
from foundry_core.export.rewrite import for_inference
from foundry_core.head_card import fingerprint
from foundry_core.models.heads import Perception
from foundry_core.models.registry import create_perception, load_model
from foundry_core.runtime.sizes import log_likelihood
from foundry_core.training.bank import FeatureBank
from foundry_core.training.calibration import fit_size_weight, fit_temperature, fit_threshold, size_likelihood
from foundry_core.training.config import HeadConfig
from foundry_core.training.loop import Run
from foundry_core.training.processes import Share, first_alone, join
from foundry_core.training.sighting_set import SCENES, SHAPES, draw
from foundry_core.training.sightings import OTHER

CLASSES = (*CATEGORIES, OTHER)
SUPERVISED = 128  # points per cloud on which the part head is trained in one step


def allowed_parts() -> Tensor:
    """bool [C,P]: which parts a class can have; ``other`` has none."""
    allowed = torch.zeros(len(CLASSES), len(PART_NAMES), dtype=torch.bool)
    for number, name in enumerate(CATEGORIES):
        for part in CATEGORY_PARTS[name]:
            allowed[number, PART_NAMES.index(part)] = True
    return allowed


def largest_diagonals(samples: int = 200, margin: float = 1.25) -> dict[str, float]:
    """Diagonal in metres of the largest of ``samples`` members of each category, with a margin for segmentation."""
    rng = np.random.default_rng(0)
    sizes = {}
    for name in CATEGORIES:
        extents = [np.subtract(*make_shape(name, rng).bounds[::-1]) for _ in range(samples)]
        sizes[name] = round(margin * float(np.linalg.norm(extents, axis=1).max()), 2)
    return sizes


class HeadTraining:
    """The task: cross-entropy on classes, and on the parts that the true class can have."""

    def __init__(self, config: HeadConfig, network: Perception):
        self.config, self.network = config, network
        self.module = nn.ModuleDict({"objects": network.objects, "parts": network.parts})
        self.allowed = allowed_parts()

    def losses(self, batch, progress):
        tokens, label, centers, points, index, weight, part = batch
        logits = self.network.objects(tokens)
        loss = F.cross_entropy(logits.float(), label, label_smoothing=self.config.label_smoothing)
        part_logits = self.network.parts(tokens, centers, points, index, weight).float()
        part_logits = part_logits.masked_fill(~self.allowed.to(label.device)[label][:, None], -1e4)
        part_loss = F.cross_entropy(part_logits.flatten(0, 1), part.flatten().long(), ignore_index=-1)
        accuracy = (logits.argmax(dim=1) == label).float().mean()
        known = part >= 0
        part_accuracy = (part_logits.argmax(dim=-1) == part)[known].float().mean()
        return {
            "loss": loss + self.config.part_weight * part_loss,
            "class_loss": loss,
            "part_loss": part_loss,
            "accuracy": accuracy,
            "part_accuracy": part_accuracy,
        }

    def batches(self, bank: FeatureBank, share: Share, step: int) -> Iterator[tuple[Tensor, ...]]:
        """Endless micro-batches of a share; rare classes are drawn more often, by the inverse root of their count."""
        counts = torch.bincount(bank.label, minlength=len(CLASSES)).clamp(min=1)
        weights = counts[bank.label].float().rsqrt()
        while True:
            generator = torch.Generator().manual_seed(self.config.loop.seed * 1_000_003 + step)
            drawn = torch.multinomial(weights, share.batch, generator=generator)
            every = torch.randint(bank.points.shape[1], (share.batch, SUPERVISED), generator=generator)
            for micro in range(share.accumulate):
                own = list(share.rows(micro))
                rows, chosen = drawn[own], every[own]
                points, index, weight = bank.part_inputs(rows, chosen)
                part = torch.gather(bank.part[rows], 1, chosen)
                yield bank.tokens[rows].float(), bank.label[rows], bank.centers[rows], points, index, weight, part
            step += 1


@torch.no_grad()
def class_logits(network: Perception, bank: FeatureBank) -> Tensor:
    """Logits [M,C] of the object head."""
    return torch.cat([network.objects(tokens.float()) for tokens in bank.tokens.split(256)])


@torch.no_grad()
def instance_iou(network: Perception, bank: FeatureBank, limit: int = 3000) -> np.ndarray:
    """Mean IoU over the parts present in truth or answer, for ``limit`` known clouds at all points."""
    allowed, values = allowed_parts(), []
    rows = torch.nonzero(bank.label < len(CATEGORIES)).flatten()
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:limit]]
    every = torch.arange(bank.points.shape[1])
    for group in rows.split(64):
        points, index, weight = bank.part_inputs(group, every.expand(len(group), -1))
        logits = network.parts(bank.tokens[group].float(), bank.centers[group], points, index, weight)
        answer = logits.masked_fill(~allowed[bank.label[group]][:, None], -1e4).argmax(dim=-1)
        for found, true in zip(answer.numpy(), bank.part[group].numpy(), strict=True):
            known = true >= 0
            if known.any():
                values.append(mean_part_iou(true[known], found[known]))
    return np.array(values)


def train_heads(
    config: HeadConfig, out: Path, minutes: float | None = None, source: str = "", cache: Path = Path("runs/cache")
) -> ModelCard:
    """Train heads on a frozen backbone and write the model directory ``out/<name>`` with both; its card.

    Args:
        cache: folder of the sightings, which are the same for every backbone.
    """
    backbone, card = load_model(config.model)
    heads = Heads(
        objects=ObjectHead(classes=list(CLASSES), largest_m=largest_diagonals()),
        parts=PartHead(
            parts=list(PART_NAMES),
            class_parts={name: list(parts) for name, parts in CATEGORY_PARTS.items()},
            hidden=config.part_hidden,
        ),
    )
    join(config.loop.device)
    torch.manual_seed(config.loop.seed)
    torch.set_num_threads(config.loop.threads)
    network = create_perception(card.model_copy(update={"heads": heads}))
    network.backbone.load_state_dict(backbone.backbone.state_dict())
    network.eval()
    size = card.preprocessing
    frozen = for_inference(network).backbone  # the same numbers, faster
    # learned at every budget of an elastic student, the larger the more often; judged at the one that it runs with
    learned = [budget for rank, budget in enumerate(sorted(card.budgets), 1) for _ in range(rank)]
    deployed = [card.budget] if card.budget else []
    with first_alone():  # the others read what the first has simulated
        sightings, unseen = (draw(config, size.points, held_out, cache) for held_out in (False, True))
    train = FeatureBank.extract(frozen, sightings, size, learned)
    held_out = FeatureBank.extract(frozen, unseen, size, deployed)
    task = HeadTraining(config, network)
    run = Run(out, task, config.loop, config, minutes)
    run.train(lambda step: task.batches(train, run.share, step), f"heads of {config.name}")
    if not run.leads:
        return card
    network.eval()
    logits = class_logits(network, held_out)
    sizes = size_likelihood(train.sightings.diagonal, train.sightings.label, heads.objects.classes)
    head = heads.objects.model_copy(update={"sizes": sizes})
    judged = _judged(head, config, held_out, logits)
    heads = heads.model_copy(update={"objects": _calibrated(head, config, held_out, logits, np.arange(len(held_out)))})
    card = card.model_copy(
        update={
            "name": config.name,
            "heads": heads,
            "metrics": [*card.metrics, *_metrics(network, held_out, *judged)],
            "training": [
                *card.training,
                run.record(
                    "heads on the frozen backbone: classes and parts",
                    [_seen(train)],
                    source,
                    parent=card.name,
                    parent_sha256=fingerprint(card),
                ),
            ],
        }
    )
    return run.write(network, card)


def _sized(log_probability: np.ndarray, sizes: SizeLikelihood, diagonal: np.ndarray, classes: list[str]) -> np.ndarray:
    """Log probabilities [M,C] with the likelihood of the diagonals [M] weighed in."""
    return log_softmax(log_probability + log_likelihood(sizes, diagonal, classes))


def _calibrated(
    head: ObjectHead, config: HeadConfig, held_out: FeatureBank, logits: Tensor, rows: np.ndarray
) -> ObjectHead:
    """The head with temperature, weight of the sizes and unknown threshold, fitted on these held-out rows."""
    label, diagonal = held_out.label.numpy()[rows], held_out.sightings.diagonal[rows]
    temperature = fit_temperature(logits[rows], held_out.label[rows])
    log_probability = (logits[rows] / temperature).log_softmax(dim=1).numpy()
    weight = fit_size_weight(log_probability, diagonal, label, head.sizes, head.classes)
    sizes = head.sizes.model_copy(update={"weight": weight})
    sized = _sized(log_probability, sizes, diagonal, head.classes)
    threshold = fit_threshold(sized[label < len(CATEGORIES)], config.reject)
    return head.model_copy(update={"temperature": temperature, "sizes": sizes, "unknown_threshold": threshold})


def _halves(source: np.ndarray) -> list[np.ndarray]:
    """Rows of two halves; sightings are in the order of their scenes, of which both halves have other ones."""
    cut = [np.array_split(np.flatnonzero(source == number), 2) for number in (SHAPES, SCENES)]
    return [np.concatenate([parts[half] for parts in cut]) for half in (0, 1)]


def _judged(
    head: ObjectHead, config: HeadConfig, held_out: FeatureBank, logits: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities [M,C] without and with the size: each half as calibrated on the other one."""
    plain, sized = np.empty(logits.shape), np.empty(logits.shape)
    halves = _halves(held_out.sightings.source)
    for judged, fitted in (halves, halves[::-1]):
        if not len(fitted):  # a single sighting
            fitted = judged
        calibrated = _calibrated(head, config, held_out, logits, fitted)
        plain[judged] = (logits[judged] / calibrated.temperature).log_softmax(dim=1).numpy()
        diagonal = held_out.sightings.diagonal[judged]
        sized[judged] = _sized(plain[judged], calibrated.sizes, diagonal, head.classes)
    return plain, sized


def _metrics(network: Perception, held_out: FeatureBank, plain: np.ndarray, sized: np.ndarray) -> list[Metric]:
    label = held_out.label.numpy()
    known = label < len(CATEGORIES)
    metrics = []
    for number, name in ((SHAPES, "single shapes and views"), (SCENES, "segments of simulated sweeps")):
        rows = known & (held_out.sightings.source == number)
        if not rows.any():
            continue
        note = f"{int(rows.sum())} objects"
        for title, scores in (("", plain), (", size known", sized)):
            value = round(100 * float((scores[rows].argmax(axis=1) == label[rows]).mean()), 2)
            metrics.append(_metric(f"class accuracy{title}", value, "percent", name, note))
        every = held_out.sightings.source == number  # background, too
        value = round(ece(sized[every], label[every]), 4)
        note = f"{int(every.sum())} objects and others, 15 bins, each half as calibrated on the other"
        metrics.append(_metric("calibration error (ECE), size known", value, "", name, note))
    iou = instance_iou(network, held_out)
    note = f"mean over {len(iou)} objects; parts restricted to the true class"
    metrics.append(_metric("part instance mIoU", round(100 * float(iou.mean()), 2), "percent", "all sightings", note))
    return metrics


def _metric(name: str, value: float, unit: str, data: str, note: str) -> Metric:
    return Metric(name=name, value=value, unit=unit, data=f"simulated: {data}", split="held-out seeds", note=note)


def _seen(bank: FeatureBank) -> TrainingData:
    return TrainingData(
        name="procedural categories, single sensor views and segments of simulated sweeps",
        licence="Apache-2.0 (generated by this project)",
        shapes=len(bank),
    )
