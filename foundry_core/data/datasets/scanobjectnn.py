# SPDX-License-Identifier: Apache-2.0
"""ScanObjectNN (Uy et al., 2019): real scans of indoor objects, the main split of three variants."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foundry_core.data.datasets.layout import Layout, join, z_up
from foundry_core.data.shapes import ShapeSet
from foundry_core.errors import InputError

#: in the order of the labels
CLASSES = (
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow", "sink",
    "sofa", "toilet",
)  # fmt: skip

#: name, title and training file of each variant: with background, without, and perturbed (the hardest)
VARIANTS = (
    ("obj_bg", "OBJ_BG", "main_split/training_objectdataset.h5"),
    ("obj_only", "OBJ_ONLY", "main_split_nobg/training_objectdataset.h5"),
    ("pb_t50_rs", "PB_T50_RS", "main_split/training_objectdataset_augmentedrot_scale75.h5"),
)


def _read(folder: Path, layout: Layout) -> ShapeSet:
    parts = []
    for file in (layout.sign, layout.sign.replace("training_", "test_")):
        path = folder / file
        points, label = layout.hdf5(path)
        if len(label) and not 0 <= label.min() <= label.max() < len(CLASSES):
            raise InputError(f"{path}: label {label.max()}, but ScanObjectNN has {len(CLASSES)} classes")
        parts.append((points, label))
    points, label, split = join(parts, folder)
    return ShapeSet(str(folder), z_up(points), label.astype(np.int16), CLASSES, split=split)


LAYOUTS = tuple(
    Layout(
        name,
        f"ScanObjectNN {title}",
        file,
        f"{file} and {file.replace('training_', 'test_')}",
        "https://hkust-vgd.github.io/scanobjectnn (h5_files.zip, after accepting its terms)",
        _read,
    )
    for name, title, file in VARIANTS
)
