# SPDX-License-Identifier: Apache-2.0
"""ModelNet40 (Wu et al., 3D ShapeNets, 2015) in the three forms that are in use: HDF5, resampled text, OFF meshes."""

from __future__ import annotations

import re
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from foundry_core import geometry
from foundry_core.data.datasets.layout import POINTS, Layout, draw_rows, join, tracked, z_up
from foundry_core.data.datasets.off import read_off
from foundry_core.data.mesh import sample_triangles
from foundry_core.data.shapes import ShapeSet
from foundry_core.errors import InputError

SPLITS = ("train", "test")


def _read_hdf5(folder: Path, layout: Layout) -> ShapeSet:
    names = layout.lines(folder / "shape_names.txt")
    parts, side = [], []
    for number, split in enumerate(SPLITS):
        for line in layout.lines(folder / f"{split}_files.txt"):  # data/modelnet40_ply_hdf5_2048/ply_data_train0.h5
            path = folder / PurePosixPath(line).name
            points, label = layout.hdf5(path)
            if len(label) and not 0 <= label.min() <= label.max() < len(names):
                raise InputError(f"{path}: label {label.max()}, but shape_names.txt has {len(names)} classes")
            parts.append((points, label))
            side.append(number)
    points, label, number = join(parts, folder)
    del parts
    split = np.array(side, np.int8)[number]
    return ShapeSet(str(folder), z_up(points), label.astype(np.int16), tuple(names), split=split)


def _read_text(folder: Path, layout: Layout) -> ShapeSet:
    names = layout.lines(folder / "modelnet40_shape_names.txt")
    shapes = [(s, name) for s, split in enumerate(SPLITS) for name in layout.lines(folder / f"modelnet40_{split}.txt")]
    points = np.empty((len(shapes), POINTS, 3), np.float32)
    label = np.empty(len(shapes), np.int16)
    for row, (_, shape) in enumerate(tracked(shapes, f"reading {folder.name}")):
        category = shape.rpartition("_")[0]  # night_stand_0001
        if category not in names:
            raise InputError(f"{folder}: {shape} is of no class in modelnet40_shape_names.txt; get the set again")
        cloud = layout.table(folder / category / f"{shape}.txt", range(3), ",", POINTS)
        points[row] = cloud[draw_rows(len(cloud), POINTS, shape)]
        label[row] = names.index(category)
    split = np.array([side for side, _ in shapes], np.int8)
    return ShapeSet(str(folder), z_up(points), label, tuple(names), split=split)


def _read_meshes(folder: Path, layout: Layout) -> ShapeSet:
    names = sorted(path.name for path in folder.iterdir() if (path / "train").is_dir() or (path / "test").is_dir())
    files = []
    for label, name in enumerate(names):
        for side, split in enumerate(SPLITS):
            found = sorted(layout.require(folder / name / split).glob("*.off"))
            if not found:
                raise InputError(f"{folder / name / split}: no .off file; {layout.hint}")
            files += [(path, label, side) for path in found]
    points = np.empty((len(files), POINTS, 3), np.float32)
    for row, (path, _, _) in enumerate(tracked(files, f"sampling {folder.name}")):
        rng = np.random.default_rng(zlib.crc32(re.sub(r"\.off$", "", path.name).encode()))
        try:
            drawn, _ = sample_triangles(read_off(path), POINTS, rng)
        except ValueError as error:
            raise InputError(f"{path}: {error}; get the file again") from None
        points[row] = geometry.normalize(drawn)[0]
    label, split = np.array([row[1:] for row in files], np.int16).T
    return ShapeSet(str(folder), points, label, tuple(names), split=split.astype(np.int8))


LAYOUTS = (
    Layout(
        "modelnet40-h5",
        "ModelNet40 (HDF5)",
        "train_files.txt",
        "shape_names.txt, train_files.txt, test_files.txt and the .h5 files that these two list",
        "https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip",
        _read_hdf5,
    ),
    Layout(
        "modelnet40-txt",
        "ModelNet40 (resampled)",
        "modelnet40_shape_names.txt",
        "modelnet40_shape_names.txt, modelnet40_train.txt, modelnet40_test.txt and CLASS/CLASS_0001.txt with"
        " x,y,z,nx,ny,nz per line",
        "https://shapenet.cs.stanford.edu/media/modelnet40_normal_resampled.zip",
        _read_text,
    ),
    Layout(
        "modelnet40-off",
        "ModelNet40 (meshes)",
        "*/train/*.off",
        "CLASS/train/*.off and CLASS/test/*.off",
        "https://modelnet.cs.princeton.edu",
        _read_meshes,
    ),
)
