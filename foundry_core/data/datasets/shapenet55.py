# SPDX-License-Identifier: Apache-2.0
"""ShapeNet55 (Yu et al., PoinTr, 2021): ShapeNetCore as point files, which Point-BERT and its kin pre-train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foundry_core import geometry
from foundry_core.data.datasets.layout import POINTS, Layout, draw_rows, tracked, z_up
from foundry_core.data.shapes import ShapeSet
from foundry_core.errors import InputError

#: the 55 categories of ShapeNetCore by synset, in the order of the labels
SYNSETS = {
    "02691156": "airplane", "02747177": "trash bin", "02773838": "bag", "02801938": "basket", "02808440": "bathtub",
    "02818832": "bed", "02828884": "bench", "02843684": "birdhouse", "02871439": "bookshelf", "02876657": "bottle",
    "02880940": "bowl", "02924116": "bus", "02933112": "cabinet", "02942699": "camera", "02946921": "can",
    "02954340": "cap", "02958343": "car", "02992529": "cellphone", "03001627": "chair", "03046257": "clock",
    "03085013": "keyboard", "03207941": "dishwasher", "03211117": "display", "03261776": "earphone",
    "03325088": "faucet", "03337140": "file cabinet", "03467517": "guitar", "03513137": "helmet", "03593526": "jar",
    "03624134": "knife", "03636649": "lamp", "03642806": "laptop", "03691459": "loudspeaker", "03710193": "mailbox",
    "03759954": "microphone", "03761084": "microwave", "03790512": "motorbike", "03797390": "mug", "03928116": "piano",
    "03938244": "pillow", "03948459": "pistol", "03991062": "flowerpot", "04004475": "printer", "04074963": "remote",
    "04090263": "rifle", "04099429": "rocket", "04225987": "skateboard", "04256520": "sofa", "04330267": "stove",
    "04379243": "table", "04401088": "telephone", "04460130": "tower", "04468005": "train", "04530566": "watercraft",
    "04554684": "washer",
}  # fmt: skip


def _read(folder: Path, layout: Layout) -> ShapeSet:
    lists = folder / "ShapeNet-55" if (folder / "ShapeNet-55").is_dir() else folder
    files = [
        (side, line) for side, split in enumerate(("train", "test")) for line in layout.lines(lists / f"{split}.txt")
    ]
    numbers = {synset: number for number, synset in enumerate(SYNSETS)}
    points = np.empty((len(files), POINTS, 3), np.float16)  # 52,470 shapes: 645 MB
    label = np.empty(len(files), np.int16)
    for row, (_, line) in enumerate(tracked(files, f"reading {folder.name}")):
        synset = line.partition("-")[0]  # 02691156-<model>.npy
        if synset not in numbers:
            raise InputError(f"{lists}: {line}: {synset} is none of the {len(SYNSETS)} synsets of ShapeNetCore")
        cloud = _cloud(folder / "shapenet_pc" / line, layout)
        points[row] = z_up(geometry.normalize(cloud[draw_rows(len(cloud), POINTS, line)])[0])
        label[row] = numbers[synset]
    split = np.array([side for side, _ in files], np.int8)
    return ShapeSet(str(folder), points, label, tuple(SYNSETS.values()), split=split)


def _cloud(path: Path, layout: Layout) -> np.ndarray:
    layout.require(path)
    try:
        cloud = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise InputError(f"{path}: no .npy file, or a damaged one; {layout.hint}") from None
    if cloud.ndim != 2 or cloud.shape[1] < 3 or not len(cloud) or cloud.dtype.kind != "f":
        raise InputError(f"{path}: {cloud.dtype} {cloud.shape}; expected floating-point points [P,3]")
    return cloud[:, :3]


LAYOUTS = (
    Layout(
        "shapenet55",
        "ShapeNet55",
        "shapenet_pc",
        "ShapeNet-55/train.txt, ShapeNet-55/test.txt and shapenet_pc/SYNSET-MODEL.npy",
        "https://github.com/yuxumin/PoinTr (DATASET.md)",
        _read,
    ),
)
