# SPDX-License-Identifier: Apache-2.0
"""How good a transfer head is on unseen shapes: right, sure only where it may be, and aware of the unknown."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from foundry_core.data.shapes import ShapeSet
from foundry_core.errors import InputError
from foundry_core.evaluation.part_metrics import part_iou
from foundry_core.evaluation.uncertainty import auroc, ece, ece_of_perfect
from foundry_core.geometry import Batch
from foundry_core.runtime.head_perceiver import HeadPerceiver

BATCH = 16

Advance = Callable[[int], None]
#: the network's input and token features, batch by batch
Read = list[tuple[Batch, np.ndarray]]


def read_shapes(perceiver: HeadPerceiver, shapes: ShapeSet, advance: Advance | None = None) -> Read:
    """What the backbone says of every shape; ``advance`` is called with the number of shapes done."""
    found = []
    for start in range(0, len(shapes), BATCH):
        clouds = list(shapes.points[start : start + BATCH].astype(np.float32))
        found.append(perceiver.read(clouds))
        if advance:
            advance(len(clouds))
    return found


def evaluate_head(perceiver: HeadPerceiver, shapes: ShapeSet, read: Read | None = None) -> dict[str, float]:
    """Figures of the one head of a perceiver.

    Args:
        shapes: labelled; shapes of classes that the head does not have count as unknown ones.
        read: of these shapes, where it is known.

    Returns:
        of classes, over shapes of known ones and with the threshold left aside: accuracy_percent, ece (0 to 1),
        ece_uncalibrated (temperature 1) and ece_of_perfect (what chance leaves on so few shapes);
        known_rejected_percent, above the threshold; and where there are unknown ones unknown_auroc and
        unknown_rejected_percent. Of parts, over all points whose part is known: point_accuracy_percent,
        instance_miou_percent, category_miou_percent.

    Raises:
        InputError: labels that are needed are missing, or none of the classes is the head's.
    """
    read = read or read_shapes(perceiver, shapes)
    return _classes(perceiver, shapes, read) if perceiver.classes else _parts(perceiver, shapes, read)


def _named(shapes: ShapeSet) -> list[str]:
    """The class name of each shape."""
    if shapes.label is None:
        raise InputError(f"{shapes.name}: label: missing; a head is judged on labelled shapes")
    names = shapes.class_names or tuple(map(str, range(int(shapes.label.max()) + 1)))
    return [names[number] for number in shapes.label]


def _classes(perceiver: HeadPerceiver, shapes: ShapeSet, read: Read) -> dict[str, float]:
    head = perceiver.classes
    position = {name: number for number, name in enumerate(head.card.classes)}
    label = np.array([position.get(name, -1) for name in _named(shapes)])
    known = label >= 0
    if not known.any():
        raise InputError(f"{shapes.name}: class_names: none is a class of {head.directory}; give shapes of its classes")
    answers = [perceiver.class_answers(tokens) for _, tokens in read]
    columns = ([getattr(answer, name) for answer in answers] for name in ("logits", "score", "unknown"))
    logits, score, rejected = map(np.concatenate, columns)
    temperature = head.card.calibration.temperature if head.card.calibration else 1.0
    metrics = {
        "accuracy_percent": 100 * float((logits[known].argmax(axis=1) == label[known]).mean()),
        "ece": ece(logits[known], label[known], temperature),
        "ece_uncalibrated": ece(logits[known], label[known]),
        "ece_of_perfect": ece_of_perfect(logits[known], temperature),
        "known_rejected_percent": 100 * float(rejected[known].mean()),
    }
    if not known.all():
        metrics["unknown_auroc"] = auroc(score, ~known)
        metrics["unknown_rejected_percent"] = 100 * float(rejected[~known].mean())
    return metrics


def _parts(perceiver: HeadPerceiver, shapes: ShapeSet, read: Read) -> dict[str, float]:
    card = perceiver.parts.card
    if shapes.part_label is None:
        raise InputError(f"{shapes.name}: part_label: missing; a parts head is judged on labelled points")
    theirs = list(shapes.part_names) or [str(number) for number in range(int(shapes.part_label.max()) + 1)]
    position = {name: number for number, name in enumerate(card.parts)}
    translate = np.array([*(position.get(name, -1) for name in theirs), -1])  # the last one for -1
    names = _named(shapes) if shapes.label is not None else [""] * len(shapes)
    right, points, values = 0, 0, {}
    for number, (batch, tokens) in enumerate(read):
        for row in range(len(tokens)):
            shape = number * BATCH + row
            cloud, name, true = shapes.points[shape], names[shape], translate[shapes.part_label[shape]]
            known = true >= 0
            if known.any() and (name in card.classes or not card.category):
                told = name if card.category else None
                found, _ = perceiver.part_answers(cloud, batch.index[row], tokens[row], batch.centers[row], told)
                right, points = right + int((found == true)[known].sum()), points + int(known.sum())
                seen = card.class_parts.get(name, card.parts)
                parts = np.union1d([position[part] for part in seen], true[known])
                values.setdefault(name, []).append(part_iou(true[known], found[known], parts))
    if not points:
        raise InputError(f"{shapes.name}: part_names: none is a part of {perceiver.parts.directory}; give such shapes")
    return {
        "point_accuracy_percent": 100 * right / points,
        "instance_miou_percent": 100 * float(np.mean([value for row in values.values() for value in row])),
        "category_miou_percent": 100 * float(np.mean([np.mean(row) for row in values.values()])),
    }
