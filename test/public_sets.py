# SPDX-License-Identifier: Apache-2.0
"""Tiny copies of the public data sets' folders, in the exact format of the originals; the points are solids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def solid(kind: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Points float32 [count,3] on a sphere, a cube, or a rod along y: y is up in most of the sets."""
    points = rng.normal(size=(count, 3))
    points /= np.abs(points).max(axis=1, keepdims=True) if kind == 1 else np.linalg.norm(points, axis=1, keepdims=True)
    return (points * ((0.1, 1, 0.1) if kind == 2 else (1, 1, 1))).astype(np.float32)


def _solids(labels, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([solid(label % 3, count, rng) for label in labels])


def _hdf5(path: Path, points: np.ndarray, label: np.ndarray, **others: np.ndarray) -> None:
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in {"data": points, "label": label, **others}.items():
            file.create_dataset(name, data=values, compression="gzip")


def modelnet40_h5(folder: Path, per_class: int = 4, points: int = 2048) -> Path:
    """`modelnet40_ply_hdf5_2048`: two train files and one test file; labels uint8 [N,1]; names in any order."""
    root = folder / "modelnet40_ply_hdf5_2048"
    labels = np.repeat(np.arange(3, dtype=np.uint8), per_class)
    lists = {"train": ["ply_data_train0.h5", "ply_data_train1.h5"], "test": ["ply_data_test0.h5"]}
    for split, names in lists.items():
        for number, name in enumerate(names):
            cloud = _solids(labels, points, 10 * len(split) + number)
            _hdf5(root / name, cloud, labels[:, None], normal=cloud, faceId=np.zeros(cloud.shape[:2], np.int32))
        lines = [f"data/modelnet40_ply_hdf5_2048/{name}" for name in names]
        (root / f"{split}_files.txt").write_text("\n".join(lines) + "\n")
    (root / "shape_names.txt").write_text("airplane\nbathtub\nnight_stand\n")
    return root


def modelnet40_txt(folder: Path, points: int = 3000) -> Path:
    """`modelnet40_normal_resampled`: x,y,z,nx,ny,nz per line."""
    root, rng = folder / "modelnet40_normal_resampled", np.random.default_rng(0)
    names = ("airplane", "night_stand")
    for split, numbers in (("train", (1, 2, 3)), ("test", (4,))):
        shapes = [f"{name}_{number:04d}" for name in names for number in numbers]
        for shape in shapes:
            place = root / shape.rpartition("_")[0]
            place.mkdir(parents=True, exist_ok=True)
            cloud = solid(names.index(place.name), points, rng)
            np.savetxt(place / f"{shape}.txt", np.hstack([cloud, cloud]), fmt="%.6f", delimiter=",")
        (root / f"modelnet40_{split}.txt").write_text("\n".join(shapes) + "\n")
    (root / "modelnet40_shape_names.txt").write_text("\n".join(names) + "\n")
    return root


#: a closed box of 2 x 4 x 6 in 12 triangles, z up, far from the origin as in the original files
BOX_VERTICES = np.array([(x, y, z) for z in (100, 106) for y in (0, 4) for x in (0, 2)], float)
BOX_FACES = (
    (0, 2, 1), (1, 2, 3), (4, 5, 6), (5, 7, 6), (0, 1, 4), (1, 5, 4), (2, 6, 3), (3, 6, 7), (0, 4, 2), (2, 4, 6),
    (1, 3, 5), (3, 7, 5),
)  # fmt: skip


def off_text(vertices=BOX_VERTICES, faces=BOX_FACES, glued: bool = False) -> str:
    """An OFF file; ``glued``: counts directly behind OFF, as in some files of ModelNet40."""
    head = "OFF" if glued else "OFF\n"
    lines = [f"{head}{len(vertices)} {len(faces)} 0"]
    lines += [" ".join(f"{value:g}" for value in vertex) for vertex in vertices]
    lines += [" ".join(map(str, (len(face), *face))) for face in faces]
    return "\n".join(lines) + "\n"


def modelnet40_off(folder: Path) -> Path:
    """`ModelNet40`: CLASS/train/*.off and CLASS/test/*.off."""
    root = folder / "ModelNet40"
    for number, name in enumerate(("night_stand", "bathtub")):
        for split, numbers in (("train", (1, 2)), ("test", (3,))):
            (root / name / split).mkdir(parents=True)
            for index in numbers:
                text = off_text(BOX_VERTICES * (1, 1 + number, 1), glued=index == 2)
                (root / name / split / f"{name}_{index:04d}.off").write_text(text)
    return root


def shapenet55(folder: Path, points: int = 8192) -> Path:
    """`ShapeNet55-34`: lists of SYNSET-MODEL.npy, float32 [8192,3] each."""
    root, rng = folder / "ShapeNet55-34", np.random.default_rng(0)
    (root / "shapenet_pc").mkdir(parents=True)
    (root / "ShapeNet-55").mkdir()
    for split, numbers in (("train", (1, 2)), ("test", (3,))):
        names = [f"{synset}-{number:032x}.npy" for synset in ("02691156", "04554684") for number in numbers]
        for name in names:
            np.save(root / "shapenet_pc" / name, solid(2, points, rng) * 0.3 + 2)
        (root / "ShapeNet-55" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def scanobjectnn(folder: Path, points: int = 2048) -> Path:
    """`h5_files`: three variants that can be told apart by the number of shapes."""
    root = folder / "h5_files"
    files = {
        "main_split/{}_objectdataset.h5": 3,
        "main_split_nobg/{}_objectdataset.h5": 4,
        "main_split/{}_objectdataset_augmentedrot_scale75.h5": 5,
    }
    for name, count in files.items():
        for split, number in (("training", count), ("test", 2)):
            labels = np.arange(number, dtype=np.int32) + 10
            cloud = _solids(labels, points, number)
            _hdf5(root / name.format(split), cloud, labels, mask=np.zeros(cloud.shape[:2], np.int32))
    return root


def shapenetpart(folder: Path) -> Path:
    """`shapenetcore_partanno_segmentation_benchmark_v0_normal`: x y z nx ny nz part per line, any number of lines."""
    root, rng = folder / "shapenetcore_partanno_segmentation_benchmark_v0_normal", np.random.default_rng(0)
    categories = {"Airplane": ("02691156", 0), "Cap": ("02954340", 6), "Table": ("04379243", 47)}
    (root / "train_test_split").mkdir(parents=True)
    text = "".join(f"{name}\t{synset}\n" for name, (synset, _) in categories.items())
    (root / "synsetoffset2category.txt").write_text(text)
    for split, numbers in (("train", (1, 2)), ("val", (3,)), ("test", (4,))):
        entries = []
        for synset, first in categories.values():
            (root / synset).mkdir(exist_ok=True)
            for number in numbers:
                cloud = solid(1, 2500 if number != 2 else 700, rng)
                part = first + (cloud[:, 1:2] > 0)
                rows = np.hstack([cloud, cloud, part])
                np.savetxt(root / synset / f"model{number}.txt", rows, fmt="%.6f")
                entries.append(f"shape_data/{synset}/model{number}")
        (root / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(json.dumps(entries))
    return root
