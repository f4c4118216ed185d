# SPDX-License-Identifier: Apache-2.0
"""`foundry head`: object and part heads on a frozen backbone, learned from what simulated sensors see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from foundry_core import geometry
from foundry_core.card import Heads, Metric, ModelCard, ObjectHead, PartHead, Preprocessing, Training, TrainingData
from foundry_core.data.procedural import CATEGORIES, CATEGORY_PARTS, PART_NAMES
from foundry_core.data.world.config import WorldConfig
from foundry_core.models.heads import Perception
from foundry_core.models.registry import create_perception, load_model, save_model
from foundry_core.scene.config import SceneConfig, room_config, street_config
from foundry_core.training.config import HeadConfig
from foundry_core.training.loop import Run
from foundry_core.training.sightings import OTHER, Sighting, scene_sightings, shape_sighting

CLASSES = (*CATEGORIES, OTHER)
SUPERVISED = 256  # points per cloud on which the part head is trained in one step

#: what is simulated for the training: kind of scene, sensor and settings, by turns
WORLDS = (
    {"kind": "street", "sensor": "lidar", "beams": 64},
    {"kind": "room", "sensor": "rgbd"},
    {"kind": "street", "sensor": "lidar", "beams": 32},
    {"kind": "street", "sensor": "lidar", "beams": 64},
    {"kind": "room", "sensor": "lidar", "beams": 64},
)


def scene_config(world: dict) -> SceneConfig:
    """The settings with which the robot cuts such a scene."""
    return street_config() if world["kind"] == "street" else room_config()


class _Shapes(Dataset):
    def __init__(self, count: int, seed: int, size: int):
        self.count, self.seed, self.size = count, seed, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> list[Sighting]:
        return [shape_sighting(index, self.seed, self.size)]


class _Scenes(Dataset):
    def __init__(self, count: int, frames: int, seed: int, size: int):
        self.count, self.frames, self.seed, self.size = count, frames, seed, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> list[Sighting]:
        world = WORLDS[index % len(WORLDS)]
        # one sweep a second: neighbouring sweeps would show the same again
        config = WorldConfig(**world, seed=self.seed + index, seconds=float(self.frames), rate_hz=1.0)
        return list(scene_sightings(config, scene_config(world), self.size))


@dataclass
class FeatureBank:
    """Frozen features of all sightings: tokens float16 [M,G,d], centres [M,G,3], points [M,N,3], labels and parts."""

    tokens: Tensor
    centers: Tensor
    points: Tensor
    label: Tensor
    part: Tensor
    source: np.ndarray  # 0 shapes and views, 1 street, 2 room

    @classmethod
    def extract(cls, backbone: nn.Module, datasets: dict[int, Dataset], size: Preprocessing, workers: int) -> FeatureBank:
        """Draw every sighting once and run the backbone on it."""
        rows: dict[str, list] = {"tokens": [], "centers": [], "points": [], "label": [], "part": [], "source": []}
        for source, dataset in datasets.items():
            loader = DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=8 if workers else None)
            pending: list[Sighting] = []
            for sightings in track(loader, description=f"features, source {source}", total=len(dataset)):
                pending += sightings
                while len(pending) >= 64:
                    cls._add(rows, backbone, pending[:64], source, size)
                    pending = pending[64:]
            if pending:
                cls._add(rows, backbone, pending, source, size)
        joined = {key: torch.cat(value) for key, value in rows.items() if key != "source"}
        return cls(**joined, source=np.concatenate(rows["source"]))

    @staticmethod
    def _add(rows: dict[str, list], backbone, sightings: list[Sighting], source: int, size: Preprocessing) -> None:
        points = np.stack([sighting.points for sighting in sightings])
        centers, neighborhoods = map(torch.from_numpy, geometry.group_batch(points, size.groups, size.neighbors))
        with torch.no_grad():
            rows["tokens"].append(backbone(centers, neighborhoods)["tokens"].half())
        rows["centers"].append(centers)
        rows["points"].append(torch.from_numpy(points))
        rows["label"].append(torch.tensor([sighting.label for sighting in sightings]))
        rows["part"].append(torch.from_numpy(np.stack([sighting.part for sighting in sightings])))
        rows["source"].append(np.full(len(sightings), source))

    def __len__(self) -> int:
        return len(self.label)

    def part_inputs(self, rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points [B,n,3] picked by ``chosen`` [B,n], and the interpolation index and weight [B,n,3] onto the centres."""
        points = torch.gather(self.points[rows], 1, chosen[..., None].expand(-1, -1, 3))
        pairs = [
            geometry.interpolation(cloud, centers)
            for cloud, centers in zip(points.numpy(), self.centers[rows].numpy(), strict=True)
        ]
        index, weight = (torch.from_numpy(np.stack(column)) for column in zip(*pairs, strict=True))
        return points, index, weight


def allowed_parts() -> Tensor:
    """bool [C,P]: which parts a class can have; ``other`` has none."""
    allowed = torch.zeros(len(CLASSES), len(PART_NAMES), dtype=torch.bool)
    for number, name in enumerate(CATEGORIES):
        for part in CATEGORY_PARTS[name]:
            allowed[number, PART_NAMES.index(part)] = True
    return allowed


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
        part_logits = part_logits.masked_fill(~self.allowed[label][:, None], -1e4)
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

    def batches(self, bank: FeatureBank, step: int) -> Iterator[tuple[Tensor, ...]]:
        """Endless batches; rare classes are drawn more often, by the inverse root of their count."""
        counts = torch.bincount(bank.label, minlength=len(CLASSES)).clamp(min=1)
        weights = counts[bank.label].float().rsqrt()
        batch = self.config.loop.batch
        while True:
            generator = torch.Generator().manual_seed(self.config.loop.seed * 1_000_003 + step)
            rows = torch.multinomial(weights, batch, generator=generator)
            chosen = torch.randint(bank.points.shape[1], (batch, SUPERVISED), generator=generator)
            points, index, weight = bank.part_inputs(rows, chosen)
            part = torch.gather(bank.part[rows], 1, chosen)
            yield bank.tokens[rows].float(), bank.label[rows], bank.centers[rows], points, index, weight, part
            step += 1


@torch.no_grad()
def class_logits(network: Perception, bank: FeatureBank) -> Tensor:
    """Logits [M,C] of the object head."""
    return torch.cat([network.objects(tokens.float()) for tokens in bank.tokens.split(256)])


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """The temperature of least negative log-likelihood on held-out data (Guo et al., 2017)."""
    grid = torch.exp(torch.linspace(-1.6, 1.6, 129))
    losses = torch.stack([F.cross_entropy(logits / t, label) for t in grid])
    return round(float(grid[losses.argmin()]), 4)


def fit_threshold(logits: Tensor, label: Tensor, temperature: float, reject: float) -> float:
    """The unknown threshold at which ``reject`` of the known held-out objects are turned away."""
    known = label < len(CATEGORIES)
    best = (logits[known] / temperature).softmax(dim=1).max(dim=1).values
    return round(float(torch.quantile(best, reject)), 4)


@torch.no_grad()
def instance_iou(network: Perception, bank: FeatureBank, limit: int = 3000) -> np.ndarray:
    """Mean IoU over the parts present in truth or answer, for each of the first ``limit`` known clouds, at all points."""
    allowed, values = allowed_parts(), []
    rows = torch.nonzero(bank.label < len(CATEGORIES)).flatten()
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:limit]]
    every = torch.arange(bank.points.shape[1])
    for group in rows.split(64):
        points, index, weight = bank.part_inputs(group, every.expand(len(group), -1))
        logits = network.parts(bank.tokens[group].float(), bank.centers[group], points, index, weight)
        answer = logits.masked_fill(~allowed[bank.label[group]][:, None], -1e4).argmax(dim=-1)
        for predicted, truth in zip(answer.numpy(), bank.part[group].numpy(), strict=True):
            known = truth >= 0
            present = np.union1d(predicted[known], truth[known])
            overlaps = [
                np.sum((predicted == p) & (truth == p) & known) / np.sum(((predicted == p) | (truth == p)) & known)
                for p in present
            ]
            if overlaps:
                values.append(np.mean(overlaps))
    return np.array(values)


def datasets(config: HeadConfig, size: int, held_out: bool) -> dict[str, Dataset]:
    """The sources of sightings; held-out ones come from other seeds, a sixth as many."""
    seed = config.loop.seed + (900_000 if held_out else 100_000)
    share = 6 if held_out else 1
    scenes = max(config.scenes // share, len(WORLDS)) if config.scenes else 0
    made: dict[str, Dataset] = {"shapes": _Shapes(max(config.samples // share, 1), seed, size)}
    if scenes:
        made["scenes"] = _Scenes(scenes, config.frames, seed, size)
    return made


def train_heads(config: HeadConfig, out: Path, minutes: float | None = None, source: str = "") -> ModelCard:
    """Train heads on a frozen backbone and write the model directory ``out/<name>`` with both; its card."""
    backbone, card = load_model(config.model)
    heads = Heads(
        objects=ObjectHead(classes=list(CLASSES)),
        parts=PartHead(parts=list(PART_NAMES), class_parts={name: list(parts) for name, parts in CATEGORY_PARTS.items()}),
    )
    torch.manual_seed(config.loop.seed)
    torch.set_num_threads(config.loop.threads)
    network = create_perception(card.model_copy(update={"heads": heads}))
    network.backbone.load_state_dict(backbone.backbone.state_dict())
    network.eval()
    size = card.preprocessing
    train, held_out = (
        FeatureBank.extract(
            network.backbone,
            dict(enumerate(datasets(config, size.points, part).values())),
            size,
            config.loop.workers,
        )
        for part in (False, True)
    )
    task = HeadTraining(config, network)
    run = Run(out, task, config.loop, config, minutes)
    run.train(lambda step: task.batches(train, step), f"heads of {config.name}")
    network.eval()
    logits = class_logits(network, held_out)
    temperature = fit_temperature(logits, held_out.label)
    threshold = fit_threshold(logits, held_out.label, temperature, config.reject)
    calibrated = heads.objects.model_copy(update={"temperature": temperature, "unknown_threshold": threshold})
    card = card.model_copy(
        update={
            "name": config.name,
            "heads": heads.model_copy(update={"objects": calibrated}),
            "metrics": [*card.metrics, *_metrics(network, held_out, logits)],
            "training": [*card.training, _training(config, train, run, source)],
        }
    )
    return save_model(out / config.name, network, card)


def _metrics(network: Perception, held_out: FeatureBank, logits: Tensor) -> list[Metric]:
    correct = (logits.argmax(dim=1) == held_out.label).numpy()
    known = (held_out.label < len(CATEGORIES)).numpy()
    metrics = []
    for number, name in enumerate(("single shapes and views", "segments of simulated sweeps")):
        rows = known & (held_out.source == number)
        if rows.any():
            value = round(100 * float(correct[rows].mean()), 2)
            metrics.append(_metric("class accuracy", value, "percent", name, f"{int(rows.sum())} objects"))
    iou = instance_iou(network, held_out)
    note = f"mean over {len(iou)} objects; parts restricted to the true class"
    metrics.append(_metric("part instance mIoU", round(100 * float(iou.mean()), 2), "percent", "all sightings", note))
    return metrics


def _metric(name: str, value: float, unit: str, data: str, note: str) -> Metric:
    return Metric(name=name, value=value, unit=unit, data=f"simulated: {data}", split="held-out seeds", note=note)


def _training(config: HeadConfig, bank: FeatureBank, run: Run, source: str) -> Training:
    return Training(
        task="heads on the frozen backbone: classes and parts",
        data=[
            TrainingData(
                name="procedural categories, single sensor views and segments of simulated sweeps",
                licence="Apache-2.0 (generated by this project)",
                shapes=len(bank),
            )
        ],
        seed=config.loop.seed,
        steps=run.step,
        batch=config.loop.batch,
        minutes=round(run.elapsed / 60, 1),
        config=source,
    )
