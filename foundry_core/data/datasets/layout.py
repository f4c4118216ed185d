# SPDX-License-Identifier: Apache-2.0
"""What the readers of public data sets share: the layout's description, lists, numbers as text, HDF5, sampling."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from foundry_core.data.shapes import ShapeSet
from foundry_core.errors import InputError

#: points of a shape where the files have other numbers; what the published protocols draw theirs from
POINTS = 2048

T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """One official layout of a data set.

    Attributes:
        name: what may stand before a path, ``name:path``.
        title: the set and its variant, for people.
        sign: pattern of the file or folder by which it is recognised.
        expected: what the folder holds.
        source: where a user gets it.
        read: reads the folder.
    """

    name: str
    title: str
    sign: str
    expected: str
    source: str
    read: Callable[[Path, Layout], ShapeSet]

    def matches(self, folder: Path) -> bool:
        """Whether the folder looks like one of this layout."""
        return next(folder.glob(self.sign), None) is not None

    @property
    def hint(self) -> str:
        """The end of every message about a missing file."""
        return f"{self.title} has {self.expected}; get it from {self.source}"

    def require(self, path: Path) -> Path:
        """The path itself; InputError that says what is expected where it is missing."""
        if not path.exists():
            raise InputError(f"{path}: missing; {self.hint}")
        return path

    def lines(self, path: Path) -> list[str]:
        """The lines of a text file that are not empty; InputError if there is none."""
        try:
            text = self.require(path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{path}: not a text file; {self.hint}") from None
        if not (lines := [line.strip() for line in text.splitlines() if line.strip()]):
            raise InputError(f"{path}: empty; {self.hint}")
        return lines

    def table(self, path: Path, columns: Iterable[int], delimiter: str | None, rows: int | None = None) -> np.ndarray:
        """Columns of numbers float32 [n,len(columns)] of a text file, its first ``rows`` rows."""
        self.require(path)
        try:
            with open(path, encoding="utf-8") as stream:
                values = np.loadtxt(
                    stream, np.float32, delimiter=delimiter, usecols=tuple(columns), max_rows=rows, ndmin=2
                )
        except (ValueError, UnicodeDecodeError):
            raise InputError(f"{path}: other columns than expected; {self.hint}") from None
        if not len(values):
            raise InputError(f"{path}: empty; {self.hint}")
        return values

    def hdf5(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """points float32 [N,P,3] and labels int64 [N], the data sets ``data`` and ``label`` of an HDF5 file."""
        self.require(path)
        try:
            import h5py
        except ImportError:
            raise InputError(f"{path}: HDF5 needs h5py: pip install 'foundry_ros[train]'") from None
        try:
            with h5py.File(path, "r") as file:
                points = np.asarray(file["data"][..., :3], np.float32)
                label = np.asarray(file["label"], np.int64).reshape(-1)
        except (OSError, KeyError, ValueError, TypeError):
            raise InputError(f"{path}: damaged, or without the data sets `data` and `label`; {self.hint}") from None
        if points.ndim != 3 or len(label) != len(points):
            raise InputError(f"{path}: data {points.shape}, label {label.shape}; expected [N,P,3] and [N]")
        return points, label


def draw_rows(count: int, wanted: int, name: str) -> np.ndarray:
    """Which rows of ``count`` points to keep, int64 [wanted]: drawn by chance from the shape's name, or repeated."""
    if count <= wanted:
        return np.arange(wanted) % count
    return np.random.default_rng(zlib.crc32(name.encode())).permutation(count)[:wanted]


def z_up(points: np.ndarray) -> np.ndarray:
    """Points [...,3] with y up (x right, z towards the viewer) in axes with z up: (x, y, z) becomes (x, -z, y)."""
    turned = points[..., [0, 2, 1]]
    turned[..., 1] *= -1
    return turned


def join(parts: list[tuple[np.ndarray, np.ndarray]], path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """points [N,P,3], label [N] and part number int8 [N] of several files' points and labels."""
    if len({points.shape[1] for points, _ in parts}) > 1:
        raise InputError(f"{path}: its files have different numbers of points; get the set again")
    number = np.repeat(np.arange(len(parts), dtype=np.int8), [len(points) for points, _ in parts])
    return np.concatenate([points for points, _ in parts]), np.concatenate([label for _, label in parts]), number


def tracked(items: list[T], title: str) -> Iterator[T]:
    """The items, with a bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True, markup=False, emoji=False)
    return iter(track(items, title, console=console, transient=True, disable=not console.is_terminal))
