# SPDX-License-Identifier: Apache-2.0
"""Features of shape sets: those of a model, and the floors and baselines that tables carry beside it (needs torch)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from foundry_core import geometry
from foundry_core.architecture import Preprocessing
from foundry_core.card import ModelCard, find_model, load_card
from foundry_core.data.stream import ShapeStream, StreamConfig
from foundry_core.errors import InputError
from foundry_core.head_card import fingerprint
from foundry_core.models.bounds import Compressed
from foundry_core.models.heads import pool
from foundry_core.models.merging import Merged
from foundry_core.models.registry import load_model, random_teacher
from foundry_core.models.schedule import check_merging

HISTOGRAM = "histogram"
RANDOM = "random:"  # random:<model> is that model's teacher architecture with random weights
BATCH = 16  # clouds; what a batch needs then stays in the cache of a core

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Groups:
    """Clouds cut into patches: centers [M,G,3] and neighborhoods [M,G,K,3], float32.

    ``tokens`` [M,G,d], where they are known, are those of a teacher's tokenizer, the larger part of its work; whoever
    has the same tokenizer is spared it.
    """

    centers: Tensor
    neighborhoods: Tensor
    tokens: Tensor | None = None

    def __len__(self) -> int:
        return len(self.centers)

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """(centers, neighborhoods, tokens or None) of up to ``BATCH`` clouds."""
        tokens = [None] * -(-len(self) // BATCH) if self.tokens is None else self.tokens.split(BATCH)
        yield from zip(self.centers.split(BATCH), self.neighborhoods.split(BATCH), tokens, strict=True)


def group_clouds(clouds: Sequence[np.ndarray], size: Preprocessing) -> Groups:
    """Patches of clouds [P,3], whose sizes may differ, as a model with this preprocessing takes them."""
    centers, neighborhoods = [], []
    for cloud in clouds:
        at, patches = geometry.group(geometry.prepare(cloud, size.points)[0], size.groups, size.neighbors)
        centers.append(at)
        neighborhoods.append(patches)
    return Groups(torch.from_numpy(np.stack(centers)), torch.from_numpy(np.stack(neighborhoods)))


@dataclass(frozen=True)
class Source:
    """Something that turns clouds into token features.

    Attributes:
        name: as it was asked for.
        network: (centers, neighborhoods) to a dict with ``tokens`` [B,G,d]; students also take a budget.
        size: how clouds are prepared.
        budgets: supertoken counts that it runs with; empty where it has none.
        budget: the one used where none is asked for.
        teacher: name or path of the model whose features it rebuilds, where that is known; teacher_sha256: of its
            weights, where a card has it.
    """

    name: str
    network: nn.Module
    size: Preprocessing
    budgets: tuple[int, ...] = ()
    budget: int | None = None
    teacher: str | None = None
    teacher_sha256: str = ""

    def fit(self, groups: Groups) -> None:
        """Let a baseline learn from the training clouds; most have nothing to learn."""
        if hasattr(self.network, "fit"):
            with torch.no_grad():
                self.network.fit(groups.batches())


def _distilled(name: str, card: ModelCard) -> tuple[str | None, str]:
    """Name or path of the teacher that a student was distilled from and sha256 of its weights, if its card has them."""
    runs = [run for run in card.training if run.parent and "distill" in run.task]
    if card.kind != "student" or not runs:
        return None, ""
    beside = Path(name).parent / runs[-1].parent
    return str(beside) if Path(name).is_dir() and beside.is_dir() else runs[-1].parent, runs[-1].parent_sha256


def _stored(name: str, seed: int) -> Source:
    network, card = load_model(name)
    parent, weights = _distilled(name, card)
    budgets = tuple(sorted(card.budgets))
    return Source(name, network.backbone, card.preprocessing, budgets, card.budget, parent, weights)


def _random(name: str, seed: int) -> Source:
    model = name.removeprefix(RANDOM)
    card = load_card(find_model(model))
    if card.kind == "student":
        model, _ = _distilled(model, card)
        if model is None:
            raise InputError(f"{name}: the student's card names no teacher; give random:TEACHER")
        card = load_card(find_model(model))
    backbone = random_teacher(card, seed)
    calibrate_batch_norm(backbone, card.preprocessing, seed)
    return Source(name, backbone, card.preprocessing, teacher=model)


def _compressed(make: Callable[[nn.Module, str, int], nn.Module]) -> Callable[[str, int], Source]:
    def build(name: str, seed: int) -> Source:
        method, count, model = (name + "::").split(":", 2)
        model = model.removesuffix("::")
        if not count.isascii() or not count.isdigit() or int(count) < 1 or not model:
            raise InputError(f"{name}: give {method}:NUMBER:TEACHER, such as {method}:16:teacher-small")
        teacher = _stored(model, seed)
        if teacher.budgets:
            raise InputError(f"{name}: {model} is a student; {method} compresses a teacher, name one")
        if make is Merged:
            check_merging(name, model, teacher.size.groups, int(count))
        network = make(teacher.network, method, int(count)).eval()
        return Source(name, network, teacher.size, (int(count),), int(count), model)

    return build


#: what may stand before a model's name; ``tome:16:teacher-small`` is that teacher, its tokens merged to 16
BASELINES: dict[str, Callable[[str, int], Source]] = {
    "random": _random,
    **dict.fromkeys(("tome", "pitome", "kmeans", "fps"), _compressed(Merged)),
    **dict.fromkeys(("pca", "rank", "cluster"), _compressed(Compressed)),
}


def resolve(name: str, seed: int = 0) -> Source:
    """A model by name or path, or a baseline by its prefix (``BASELINES``); the seed draws random weights.

    Raises:
        InputError: an unknown model, or a baseline that is not written as ``METHOD:NUMBER:TEACHER``.
    """
    return BASELINES.get(name.split(":", 1)[0] if ":" in name else "", _stored)(name, seed)


def choose_budgets(source: Source, wanted: Sequence[int]) -> list[int | None]:
    """Of a student's budgets those that are wanted, all without a wish; a baseline has the one in its name."""
    if not source.budgets:
        return [None]
    if not wanted or source.name.count(":") >= 2:
        return sorted(source.budgets, reverse=True)
    chosen = [budget for budget in wanted if budget in source.budgets]
    if not chosen:
        raise InputError(f"--budget: {source.name} runs with {', '.join(map(str, source.budgets))}; name one of these")
    return list(dict.fromkeys(chosen))


def require_teachers(sources: Iterable[Source]) -> None:
    """Check that the teachers which cards name are at hand, with the weights that the students were made from.

    Raises:
        InputError: one is not found, or is another model of that name.
    """
    for source in sources:
        if not source.teacher_sha256:
            continue
        try:
            found = fingerprint(load_card(find_model(source.teacher)))
        except InputError:
            raise InputError(f"{source.name}: its teacher {source.teacher} is not found; give --teacher") from None
        if found != source.teacher_sha256:
            raise InputError(
                f"{source.name}: {source.teacher} has other weights than the teacher that it was made from; "
                "give that one to --teacher"
            )


def pooled_features(source: Source, groups: Groups, advance: Advance | None = None) -> np.ndarray:
    """Mean and maximum over the token features: float32 [M,2d]; a student runs with its own budget."""
    budget = {"budget": source.budget} if source.budgets else {}
    rows = []
    for centers, neighborhoods, _ in groups.batches():
        with torch.no_grad():
            rows.append(pool(source.network(centers, neighborhoods, **budget)["tokens"]).numpy())
        if advance:
            advance(len(centers))
    return np.concatenate(rows)


def calibrate_batch_norm(backbone, size: Preprocessing, seed: int, batches: int = 8) -> None:
    """Give a random network the batch statistics of procedural shapes: without them it would be no fair floor."""
    stream = ShapeStream(StreamConfig(), size.points, seed)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over the batches: of a moving average the initial values would keep a share
    backbone.train()
    for number in range(batches):
        clouds = np.stack([stream[32 * number + i] for i in range(32)])
        with torch.no_grad():
            backbone(*map(torch.from_numpy, geometry.group_batch(clouds, size.groups, size.neighbors)))
    backbone.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def histogram_features(clouds, bins: int = 32, pairs: int = 4096) -> np.ndarray:
    """A handcrafted global descriptor, float32 [M,F]: shape distributions (Osada et al., 2002) and moments.

    Histograms of distances between random pairs (D2), of angles at random triples (A3) and of radii, of the
    coordinates along each axis, and the sorted spread along the principal axes.
    """
    rows = []
    rng = np.random.default_rng(0)
    for cloud in clouds:
        points, _, _ = geometry.normalize(np.asarray(cloud, np.float32))
        a, b, c = points[rng.integers(0, len(points), (3, pairs))]
        u, v = b - a, c - a
        lengths = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
        cosine = (u * v).sum(axis=1) / np.maximum(lengths, 1e-9)
        columns = [
            np.histogram(np.linalg.norm(u, axis=1), bins, (0, 2))[0] / pairs,
            np.histogram(np.arccos(np.clip(cosine, -1, 1)), bins, (0, np.pi))[0] / pairs,
            np.histogram(np.linalg.norm(points, axis=1), bins, (0, 1))[0] / len(points),
            *(np.histogram(points[:, axis], bins, (-1, 1))[0] / len(points) for axis in range(3)),
            np.sqrt(np.sort(np.linalg.eigvalsh(np.cov(points.T)))[::-1].clip(0)),
        ]
        rows.append(np.concatenate(columns))
    return np.asarray(rows, np.float32)


def progress_bar() -> Progress:
    """A progress bar on stderr that leaves nothing behind, and is silent where stderr is no terminal."""
    console = Console(stderr=True, markup=False, emoji=False)
    return Progress(console=console, transient=True, disable=not console.is_terminal)
