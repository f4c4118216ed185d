# SPDX-License-Identifier: Apache-2.0
"""Procedural shapes as a model sees them: their class and parts, and which points each supertoken owns."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from foundry_core.card import ModelCard
from foundry_core.colors import class_color
from foundry_core.data.mesh import sample_surface
from foundry_core.data.procedural import CATEGORIES, PART_NAMES, make_shape
from foundry_core.evaluation.report.html import Html, tag
from foundry_core.evaluation.report.splats import data_uri, draw_points

POINTS = 3000
#: categories to show, as far as the model knows them
_SHOWN = (
    "chair", "lamp", "table", "mug", "car", "bicycle", "plane", "person", "bus", "dog", "plant", "motorcycle",
)  # fmt: skip
_OWNED = ("chair", "dog", "car")
_BUDGETS = 3
_CALM = 0.16  # share of grey that takes the edge off the viewers' colours

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Sample:
    """A procedural shape: points float32 [N,3] in metres, and the name of each point's part."""

    category: str
    points: np.ndarray
    part: np.ndarray


def draw_samples(categories: Sequence[str]) -> list[Sample]:
    """The first shape of each category that its generator makes: none is picked by hand."""
    samples = []
    for category in categories:
        rng = np.random.default_rng([2026, CATEGORIES.index(category)])
        points, part = sample_surface(make_shape(category, rng), POINTS, rng)
        samples.append(Sample(category, points, np.array(PART_NAMES)[part]))
    return samples


def calm_colors(indices: Sequence[int]) -> np.ndarray:
    """The colours [K,3] of ids as the viewers have them, a little softer."""
    colors = np.array([class_color(int(index)) for index in indices])
    return (1 - _CALM) * colors + _CALM * 0.55


def part_pictures(model: str, advance: Advance) -> Html:
    """A picture of each sample, coloured by the parts that the model finds, with its class and probability."""
    from foundry_core.runtime.perceiver import Perceiver, PerceiverConfig

    perceiver = Perceiver(model, PerceiverConfig())
    classes, head = perceiver.card.heads.objects.classes, perceiver.card.heads.parts
    names = head.parts if head else []
    known = [name for name in _SHOWN if name in classes] or list(_SHOWN[:4])
    samples = draw_samples(known)
    figures = []
    for sample in samples:
        (answer,) = perceiver.classify([sample.points])
        ids, group = np.unique(answer.part_ids, return_inverse=True)
        colors = calm_colors(ids)
        figures.append(_labelled(sample, answer, ids, group, colors, names))
        advance(1)
    return tag("div", figures, class_="shapes")


def _labelled(sample: Sample, answer, ids: np.ndarray, group: np.ndarray, colors: np.ndarray, names) -> Html:
    picture = _picture(sample.points, group, colors, f"{sample.category}: {answer.label}, coloured by its parts")
    counts = np.bincount(group)
    parts = [
        tag("li", tag("i", style=f"background:{_css(colors[row])}"), names[ids[row]])
        for row in np.argsort(-counts)
        if ids[row] >= 0
    ]
    right = answer.label == sample.category
    said = [tag("strong", answer.label), f" {answer.probability:.0%}"]
    if not right:
        said.append(tag("span", f" is a {sample.category}", class_="wrong"))
    if len(parts):
        told = np.array([names[index] if index >= 0 else "" for index in answer.part_ids])
        said.append(tag("small", f"parts {(told == sample.part).mean():.0%} right"))
    return tag("figure", picture, tag("figcaption", said, tag("ul", parts, class_="parts") if parts else None))


def can_draw_ownership(card: ModelCard) -> bool:
    """Whether a model has supertokens whose assignment can be computed here: that needs torch."""
    return bool(card.budgets) and "model.safetensors" in card.files and importlib.util.find_spec("torch") is not None


def ownership_pictures(model: str, card: ModelCard, advance: Advance) -> Html:
    """For each shape a row: which points each supertoken owns, at the model's three largest budgets."""
    from foundry_core.evaluation.features import resolve
    from foundry_core.evaluation.ownership import owners

    source = resolve(model)
    budgets = sorted(card.budgets, reverse=True)[:_BUDGETS]
    rows = []
    for sample in draw_samples(_OWNED):
        figures = []
        for budget, (points, owner) in zip(budgets, owners(source, sample.points, budgets)):
            colors = calm_colors(range(budget))
            picture = _picture(points, owner, colors, f"{sample.category} by the {budget} supertokens", 0.032)
            used = len(np.unique(owner))
            caption = tag("figcaption", tag("strong", f"s = {budget}"), f" {used} in use")
            figures.append(tag("figure", picture, caption))
        rows.append(tag("div", figures, class_="owned"))
        advance(1)
    return tag("div", rows, class_="ownership")


def steps(cards: dict[str, ModelCard], shown: str | None) -> int:
    """How often the functions above call ``advance``, for a progress bar."""
    owned = sum(can_draw_ownership(card) for card in cards.values())
    return (len(_SHOWN) if shown else 0) + owned * len(_OWNED)


def _picture(points: np.ndarray, group: np.ndarray, colors: np.ndarray, text: str, radius: float = 0.019) -> Html:
    return tag("img", src=data_uri(draw_points(points, group, colors, radius)), alt=text, width=200, height=200)


def _css(color: np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * float(value)):02x}" for value in color)
