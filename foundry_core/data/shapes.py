# SPDX-License-Identifier: Apache-2.0
"""Shape sets: clouds with labels, parts and a split, from one ``.npz`` file or from a public set's own folder."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foundry_core.card import sha256
from foundry_core.clouds import MAX_COORDINATE
from foundry_core.errors import InputError
from foundry_core.files import replacing

#: keys with one entry per shape
PER_SHAPE = ("label", "split", "twin_in_train", "licence", "part_label")
_CHUNK = 1024


@dataclass(frozen=True)
class ShapeSet:
    """Clouds of one size with what is known of them.

    points float [N,P,3] (float16 on disk is kept); label int [N] into ``class_names`` (-1 unlabelled); part_label
    int [N,P] into ``part_names`` (-1 unknown); split int [N] (0 train, 1 test); twin_in_train bool [N]; licence str
    [N].
    """

    name: str
    points: np.ndarray
    label: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    part_label: np.ndarray | None = None
    part_names: tuple[str, ...] = ()
    split: np.ndarray | None = None
    twin_in_train: np.ndarray | None = None
    licence: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.points.ndim != 3 or self.points.shape[2] != 3 or 0 in self.points.shape:
            raise InputError(f"{self.name}: points: shape {self.points.shape}, expected [N,P,3], N and P >= 1")
        if self.points.dtype.kind != "f":
            raise InputError(f"{self.name}: points: type {self.points.dtype}, expected floating point")
        if not np.isfinite(self.points).all():
            raise InputError(f"{self.name}: points: NaN or infinite values; clean the file")
        low, high = self.points.min(axis=1), self.points.max(axis=1)  # (N, 3)
        if max(-float(low.min()), float(high.max())) > MAX_COORDINATE:
            raise InputError(f"{self.name}: points: values beyond {MAX_COORDINATE:g}; scale or clean the file")
        if (flat := (low == high).all(axis=1)).any():
            raise InputError(f"{self.name}: points: shape {int(flat.argmax())} has only identical points; remove it")
        for key in PER_SHAPE:
            values = getattr(self, key)
            if values is None:
                continue
            if values.shape[:1] != self.points.shape[:1] or (key != "part_label" and values.ndim != 1):
                raise InputError(f"{self.name}: {key}: shape {values.shape} for {len(self)} shapes, give one each")
            kinds, wanted = ("US", "text") if key == "licence" else ("iub", "integers")
            if values.dtype.kind not in kinds:
                raise InputError(f"{self.name}: {key}: type {values.dtype}, give {wanted}")
        if self.part_label is not None and self.part_label.shape != self.points.shape[:2]:
            raise InputError(f"{self.name}: part_label: shape {self.part_label.shape}, expected one label per point")
        for key, names in (("label", self.class_names), ("part_label", self.part_names)):
            values = getattr(self, key)
            if values is not None and values.min() < -1:
                raise InputError(f"{self.name}: {key}: value {values.min()}; the smallest is -1, which is unknown")
            if values is not None and names and values.max() >= len(names):
                raise InputError(f"{self.name}: {key}: value {values.max()}, but only {len(names)} names are given")
        if self.split is not None and not np.isin(self.split, (0, 1)).all():
            raise InputError(f"{self.name}: split: other values than 0 (train) and 1 (test)")

    def __len__(self) -> int:
        return len(self.points)

    def select(self, mask: np.ndarray) -> ShapeSet:
        """The shapes that ``mask`` (bool [N]) picks; InputError if there is none."""
        if not mask.any():
            raise InputError(
                f"{self.name}: no shape is left of {len(self)}; check its split, twin_in_train and licence"
            )
        chosen = {key: getattr(self, key)[mask] for key in PER_SHAPE if getattr(self, key) is not None}
        return replace(self, points=self.points[mask], **chosen)

    def train(self) -> ShapeSet:
        """The train split; everything where the set has no split."""
        return self if self.split is None else self.select(self.split == 0)

    def test(self, twins: bool = False) -> ShapeSet:
        """The test split, without the shapes that have a near-identical twin in the train split."""
        if self.split is None:
            raise InputError(
                f"{self.name}: split: missing, so there is no test part; add it (docs/data.md). `foundry evaluate` can"
                " judge on a quarter instead, with --split validation, or learn from another --train"
            )
        mask = self.split == 1
        if not twins and self.twin_in_train is not None:
            mask = mask & ~self.twin_in_train.astype(bool)
        return self.select(mask)

    def labelled(self) -> ShapeSet:
        """The shapes whose class is known; InputError if there is none."""
        if self.label is None or not (self.label >= 0).any():
            raise InputError(f"{self.name}: label: missing; give a set with labelled shapes")
        return self.select(self.label >= 0)

    def turned(self, up) -> ShapeSet:
        """The set with z up, of one in which ``up`` [3] points upwards: the shortest rotation that takes it to z."""
        x, y, z = np.asarray(up, np.float64) / np.linalg.norm(up)
        if z < -1 + 1e-9:
            rotation = np.diag([1.0, -1.0, -1.0])
        else:  # Rodrigues' formula, about up x (0, 0, 1)
            rotation = np.array(
                [[z + y * y / (1 + z), -x * y / (1 + z), -x], [-x * y / (1 + z), z + x * x / (1 + z), -y]]
            )
            rotation = np.vstack([rotation, [x, y, z]])
        points = np.empty_like(self.points)
        for start in range(0, len(self), _CHUNK):  # no copy of the whole set in single precision
            chunk = self.points[start : start + _CHUNK].astype(np.float32)
            points[start : start + _CHUNK] = chunk @ rotation.T.astype(np.float32)
        return replace(self, points=points)

    def with_licences(self, licences: list[str]) -> ShapeSet:
        """The shapes under one of the named licences."""
        if self.licence is None:
            raise InputError(f"{self.name}: licence: missing, cannot select {', '.join(licences)}")
        mask = np.isin(self.licence, licences)
        if not mask.any():
            raise InputError(f"{self.name}: licence: no shape is under {', '.join(licences)}")
        return self.select(mask)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The known arrays of the archive; other keys are left alone."""
    if not zipfile.is_zipfile(path):
        with open(path, "rb"):  # a missing or unreadable file says so itself
            raise InputError(f"{path}: not an .npz archive, or a truncated one; save it with numpy.savez")
    with np.load(path, allow_pickle=False) as archive:
        if "points" not in archive.files:
            raise InputError(f"{path}: points: missing; a shape set has `points` [N,P,3]")
        values = {}
        for key in ("points", "class_names", "part_names", *PER_SHAPE):
            if key in archive.files:
                try:
                    values[key] = archive[key]
                except ValueError:
                    raise InputError(f"{path}: {key}: pickled or damaged; save plain arrays with numpy.savez") from None
        return values


def data_name(path: str | Path) -> str:
    """What tables and rows call a set: the name of its layout where one is given, else of its file or folder."""
    from foundry_core.data.datasets import split_name

    layout, place = split_name(str(path))
    return layout or Path(place).stem


def load_shapes(path: str | Path) -> ShapeSet:
    """Read a shape set: an ``.npz`` file, or the folder of a public data set.

    Folders are recognised by what is in them; where a folder holds several variants, ``name:folder`` picks one
    (``foundry_core.data.datasets`` and docs/data.md have the names). Their points come with z up.

    Raises:
        InputError: missing or damaged file, a pickled array, a missing key or a wrong shape, by name; a folder of an
            unknown or incomplete layout.
    """
    from foundry_core.data.datasets import read_folder, split_name

    layout, place = split_name(str(path))
    if layout or (Path(place).is_dir() and not place.endswith(".npz")):
        return read_folder(layout, Path(place))
    return _load_npz(Path(path))


def names_of(names: tuple[str, ...], label: np.ndarray) -> tuple[str, ...]:
    """The names that labels index; their numbers, where they have none."""
    return names or tuple(map(str, range(1 + int(label.max()))))


def renumbering(names: tuple[str, ...], known: tuple[str, ...]) -> np.ndarray:
    """Places int64 of ``names`` in ``known``, -1 for one that is not there; a last -1 keeps what is unlabelled so."""
    return np.array([*(known.index(name) if name in known else -1 for name in names), -1])


def content_sha256(path: str | Path, points: np.ndarray) -> str:
    """What names the content of a shape set in a cache: SHA-256 of its file; of a folder, of the ``points`` read."""
    if Path(path).is_file():
        return sha256(Path(path))
    return hashlib.sha256(np.ascontiguousarray(points)).hexdigest()


def save_shapes(path: str | Path, shapes: ShapeSet) -> None:
    """Write an ``.npz`` shape set, under a temporary name first; InputError if it cannot be written."""
    arrays = {"points": shapes.points}
    arrays |= {key: np.array(getattr(shapes, key)) for key in ("class_names", "part_names") if getattr(shapes, key)}
    arrays |= {key: getattr(shapes, key) for key in PER_SHAPE if getattr(shapes, key) is not None}
    try:
        with replacing(path) as stream:
            np.savez(stream, **arrays)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --out") from None


def _load_npz(path: Path) -> ShapeSet:
    if path.suffix != ".npz":
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; give an .npz shape set or a data set's folder")
        raise InputError(f"{path}: not an .npz shape set; the keys are described in docs/data.md")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give an .npz shape set")
    try:
        values = _arrays(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the path of an .npz shape set") from None
    except InputError:
        raise
    except Exception:  # numpy, its header's parser, zipfile and zlib raise what they meet
        raise InputError(f"{path}: empty, truncated or damaged; restore the file") from None
    for key in ("class_names", "part_names"):
        if key in values:
            if values[key].ndim != 1:
                raise InputError(f"{path}: {key}: shape {values[key].shape}; give a list of names")
            values[key] = tuple(str(name) for name in values[key])
    for key in ("label", "split", "part_label"):  # as an index, true and false would select and not number
        if key in values and values[key].dtype == bool:
            values[key] = values[key].astype(np.int8)
    return ShapeSet(name=str(path), **values)
