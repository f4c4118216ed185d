# SPDX-License-Identifier: Apache-2.0
"""Rows put in order: one sheet for each protocol and data set, the teacher first, every loss beside its figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from foundry_core.card import ModelCard
from foundry_core.errors import InputError
from foundry_core.evaluation.report.read import Metric, Row

#: name of a metric -> its heading; others are read off the name
HEADINGS = {
    "r2": "R²",
    "cosine": "cosine",
    "cka": "CKA",
    "neighbor_same_percent": "nearest neighbour %",
    "neighbor_overlap_percent": "10 neighbours %",
    "swap_accuracy_percent": "head swap %",
    "probe_accuracy_percent": "re-probe %",
    "supertoken_accuracy_percent": "supertokens only %",
    "linear_accuracy_percent": "linear probe %",
    "rbf_accuracy_percent": "RBF probe %",
    "supertokens_used": "in use",
    "r2_supertokens_alone": "R², A S alone",
    "r2_shuffled": "R², shuffled",
    "r2_without_supertokens": "R², s = 0",
}
#: what a teacher reaches in a figure that compares with itself
PERFECT = {"r2": 1.0, "cosine": 1.0, "cka": 1.0, "neighbor_same_percent": 100.0, "neighbor_overlap_percent": 100.0}
#: figures of fidelity rows that a teacher's own accuracy stands beside
_SWAPPED = ("swap_accuracy_percent", "probe_accuracy_percent", "supertoken_accuracy_percent")
_TEACHER_ACCURACY = "teacher_accuracy_percent"
#: a percentage whose name has one of these words is better when it is higher
_GOOD_WORDS = ("accuracy", "miou", "auroc")


@dataclass(frozen=True)
class Line:
    """One model at one budget: its figures, and how much worse they are than the teacher's, in points."""

    model: str
    budget: int | None
    role: str  # teacher, student or baseline
    conditions: Mapping[str, str]
    metrics: Mapping[str, Metric]
    losses: Mapping[str, float]


@dataclass(frozen=True)
class Sheet:
    """All lines of a protocol on one data set, clean or shifted."""

    protocol: str
    data: str
    split: str | None
    shift: str  # "" where the clouds are clean
    shapes: tuple[int | None, int | None]  # train, test
    seeds: int
    lines: tuple[Line, ...]
    rows: tuple[Row, ...]

    @property
    def metrics(self) -> list[str]:
        """Names of the figures, in the order in which they first occur."""
        return list(dict.fromkeys(name for line in self.lines for name in line.metrics))


def heading(metric: str) -> str:
    """A metric's name for people."""
    if metric in HEADINGS:
        return HEADINGS[metric]
    words = metric.replace("_", " ").removesuffix(" percent")
    return words.replace("miou", "mIoU").replace("auroc", "AUROC").replace("ece", "ECE") + " %" * metric.endswith(
        "_percent"
    )


def short(model: str) -> str:
    """A model's name without the folders before it."""
    prefix, _, last = model.rpartition(":")
    return (prefix + ":" if prefix else "") + Path(last).name


def is_accuracy(metric: str) -> bool:
    """Whether a metric counts what is right, in percent, so that a difference to the teacher's is a loss."""
    return metric.endswith("_percent") and any(word in metric for word in _GOOD_WORDS)


def teacher_of(model: str, cards: Mapping[str, ModelCard]) -> str | None:
    """The name of the model that ``model`` stands in for, where that is known."""
    if ":" in model:
        return model.rpartition(":")[2]
    card = cards.get(model)
    runs = [run.parent for run in card.training if run.parent and "distill" in run.task] if card else []
    return runs[-1] if card and card.kind == "student" and runs else None


def sheets(rows: Iterable[Row], cards: Mapping[str, ModelCard]) -> list[Sheet]:
    """The rows by protocol, data set and shift, in the order in which these first occur."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        shift = f"{row.shift} {row.severity}" if row.shift and row.severity else row.shift or ""
        groups.setdefault((row.protocol, row.data, row.split, shift), []).append(row)
    order = {name: number for number, name in enumerate(dict.fromkeys(key[:3] for key in groups))}
    return [
        _sheet(key, groups[key], cards) for key in sorted(groups, key=lambda key: order[key[:3]])
    ]  # a set's shifts follow its clean clouds


def _sheet(key: tuple, rows: list[Row], cards: Mapping[str, ModelCard]) -> Sheet:
    protocol, data, split, shift = key
    teachers = [row.teacher or teacher_of(row.model, cards) for row in rows]
    known = {Path(name).name for name in teachers if name}
    varied = [
        name
        for name in dict.fromkeys(name for row in rows for name in row.conditions)
        if len({row.conditions.get(name) for row in rows}) > 1
    ]
    lines = [
        Line(
            row.model,
            row.budget,
            _role(row.model, known, cards),
            {name: str(row.conditions.get(name, "")) for name in varied},
            {name: value for name, value in row.metrics.items() if name != _TEACHER_ACCURACY},
            {},
        )
        for row in rows
    ]
    if not any(line.role == "teacher" for line in lines):
        lines = [*_compared_with(rows), *lines]
    lines.sort(key=lambda line: ("teacher", "student", "baseline").index(line.role))
    measured = [(row.train_shapes, row.test_shapes) for row in rows]
    return Sheet(
        protocol, data, split, shift, measured[0] if len(set(measured)) == 1 else (None, None),
        max(row.seeds for row in rows), tuple(_with_losses(lines, rows, cards)), tuple(rows),
    )  # fmt: skip


def _role(model: str, teachers: set[str], cards: Mapping[str, ModelCard]) -> str:
    if ":" in model:
        return "baseline"
    if Path(model).name in teachers:
        return "teacher"
    card = cards.get(model)
    return card.kind if card else "baseline"


def _compared_with(rows: list[Row]) -> list[Line]:
    """The teachers of rows that carry their figures: what a student that lost nothing would have."""
    found: dict[str, dict[str, Metric]] = {}
    for row in rows:
        if row.teacher is None:
            continue
        metrics = found.setdefault(row.teacher, {})
        metrics |= {name: Metric(mean=PERFECT[name]) for name in row.metrics if name in PERFECT}
        if (accuracy := row.metrics.get(_TEACHER_ACCURACY)) is not None:
            metrics |= {name: accuracy for name in row.metrics if name in _SWAPPED}
    return [Line(name, None, "teacher", {}, metrics, {}) for name, metrics in found.items()]


def _with_losses(lines: list[Line], rows: list[Row], cards: Mapping[str, ModelCard]) -> list[Line]:
    references = {Path(line.model).name: line for line in lines if line.role == "teacher"}
    named = {row.model: row.teacher for row in rows}
    done = []
    for line in lines:
        parent = named.get(line.model) or teacher_of(line.model, cards)
        reference = references.get(Path(parent).name) if parent else None
        if reference is None and len(references) == 1 and line.role == "student":
            (reference,) = references.values()
        losses = {}
        if reference is not None and line.role != "teacher" and _comparable(line, reference):
            for name, metric in line.metrics.items():
                if is_accuracy(name) and name in reference.metrics:
                    losses[name] = reference.metrics[name].mean - metric.mean
        done.append(replace(line, losses=losses))
    return done


def _comparable(line: Line, reference: Line) -> bool:
    return not reference.conditions or line.conditions == reference.conditions


def load_cards(models: Iterable[str], named: Iterable[str]) -> dict[str, ModelCard]:
    """Cards by the name under which a model was asked for.

    Args:
        models: must be there.
        named: as they stand in rows, baselines among them; those that are not on this machine have no card.
    """
    from foundry_core.card import find_model, load_card

    cards = {name: load_card(find_model(name), verify=False) for name in models}
    for name in named:
        if name in cards:
            continue
        try:
            cards[name] = load_card(find_model(name), verify=False)
        except InputError:
            continue
    return cards
