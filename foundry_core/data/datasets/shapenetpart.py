# SPDX-License-Identifier: Apache-2.0
"""ShapeNetPart (Yi et al., A Scalable Active Framework for Region Annotation, 2016): 16 categories, 50 parts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from foundry_core.data.datasets.layout import POINTS, Layout, draw_rows, tracked, z_up
from foundry_core.data.shapes import ShapeSet
from foundry_core.errors import InputError

#: how many of the 50 part numbers each category has, in their order
PART_COUNTS = {
    "Airplane": 4, "Bag": 2, "Cap": 2, "Car": 4, "Chair": 4, "Earphone": 3, "Guitar": 3, "Knife": 2, "Lamp": 4,
    "Laptop": 2, "Motorbike": 6, "Mug": 2, "Pistol": 3, "Rocket": 3, "Skateboard": 3, "Table": 3,
}  # fmt: skip

#: the files name no parts
PART_NAMES = tuple(f"{name} {number}" for name, count in PART_COUNTS.items() for number in range(count))
_FIRST = dict(zip(PART_COUNTS, np.cumsum([0, *PART_COUNTS.values()]).tolist()))

#: the published protocol learns from train and val together
LISTS = (("train", 0), ("val", 0), ("test", 1))


def _categories(folder: Path, layout: Layout) -> dict[str, str]:
    """Synset to category, in the order of the file, which is that of the labels."""
    path = folder / "synsetoffset2category.txt"
    found = {}
    for line in layout.lines(path):
        name, _, synset = line.partition("\t") if "\t" in line else line.partition(" ")
        if name not in PART_COUNTS or not synset.strip():
            raise InputError(f"{path}: '{line}' is none of the {len(PART_COUNTS)} categories of ShapeNetPart")
        found[synset.strip()] = name
    return found


def _listed(folder: Path, layout: Layout) -> list[tuple[str, str, int]]:
    """(synset, model, side) of every shape."""
    shapes = []
    for split, side in LISTS:
        path = layout.require(folder / "train_test_split" / f"shuffled_{split}_file_list.json")
        try:
            entries = [entry.split("/")[-2:] for entry in json.loads(path.read_text(encoding="utf-8"))]
            shapes += [(synset, model, side) for synset, model in entries]  # shape_data/02691156/<model>
        except (ValueError, AttributeError, TypeError):
            raise InputError(f"{path}: not a list of SYNSET/MODEL entries; {layout.hint}") from None
    return shapes


def _read(folder: Path, layout: Layout) -> ShapeSet:
    categories = _categories(folder, layout)
    names = tuple(categories.values())
    shapes = _listed(folder, layout)
    points = np.empty((len(shapes), POINTS, 3), np.float32)
    part = np.empty((len(shapes), POINTS), np.int8)
    label = np.empty(len(shapes), np.int16)
    for row, (synset, model, _) in enumerate(tracked(shapes, f"reading {folder.name}")):
        if synset not in categories:
            raise InputError(f"{folder}: {synset}/{model} is of no category in synsetoffset2category.txt")
        category, path = categories[synset], folder / synset / f"{model}.txt"
        table = layout.table(path, (0, 1, 2, 6), None)
        table = table[draw_rows(len(table), POINTS, f"{synset}/{model}")]
        first, last = _FIRST[category], _FIRST[category] + PART_COUNTS[category] - 1
        if not (table[:, 3].min() >= first and table[:, 3].max() <= last):
            raise InputError(f"{path}: a part outside {first}..{last}, those of {category}; get the set again")
        points[row], part[row], label[row] = table[:, :3], table[:, 3], names.index(category)
    split = np.array([side for *_, side in shapes], np.int8)
    return ShapeSet(str(folder), z_up(points), label, names, part, PART_NAMES, split)


LAYOUTS = (
    Layout(
        "shapenetpart",
        "ShapeNetPart",
        "synsetoffset2category.txt",
        "synsetoffset2category.txt, train_test_split/shuffled_{train,val,test}_file_list.json and SYNSET/MODEL.txt"
        " with x y z nx ny nz part per line",
        "https://shapenet.cs.stanford.edu/media/shapenetcore_partanno_segmentation_benchmark_v0_normal.zip",
        _read,
    ),
)
