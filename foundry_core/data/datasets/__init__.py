# SPDX-License-Identifier: Apache-2.0
"""Public data sets in their official folders, one file each: every layout becomes a :class:`ShapeSet` with z up."""

from __future__ import annotations

from pathlib import Path

from foundry_core.data.datasets import modelnet40, scanobjectnn, shapenet55, shapenetpart
from foundry_core.data.datasets.layout import Layout
from foundry_core.data.shapes import ShapeSet
from foundry_core.errors import InputError

#: every layout that is read, by its name
LAYOUTS: dict[str, Layout] = {
    layout.name: layout for module in (modelnet40, shapenet55, scanobjectnn, shapenetpart) for layout in module.LAYOUTS
}


def split_name(text: str) -> tuple[str | None, str]:
    """(layout, path) of ``layout:path``; (None, the text) where no known layout stands before the first colon."""
    name, colon, path = text.partition(":")
    return (name, path) if colon and name in LAYOUTS else (None, text)


def _matching(folder: Path) -> list[str]:
    return [name for name, layout in LAYOUTS.items() if layout.matches(folder)]


def read_folder(name: str | None, folder: Path) -> ShapeSet:
    """The shape set in a folder, by the layout's name, or by what is in the folder where the name is None.

    Raises:
        InputError: no such folder, an unknown layout, several where no name is given, or missing or faulty files.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {LAYOUTS[name].hint if name else 'check the path'}")
    if name is None:
        names = _matching(folder)
        if not names:
            raise InputError(f"{folder}: no data set that is known; {_suggestion(folder)}")
        if len(names) > 1:
            choices = " or ".join(f"{each}:{folder}" for each in names)
            raise InputError(f"{folder}: holds several sets; give {choices}")
        name = names[0]
    layout = LAYOUTS[name]
    return layout.read(folder, layout)


def _suggestion(folder: Path) -> str:
    inner = next((each for each in sorted(folder.iterdir()) if each.is_dir() and _matching(each)), None)
    if inner is not None:
        return f"did you mean {inner}?"
    return f"expected the folder of one of {', '.join(LAYOUTS)} (docs/data.md), or an .npz shape set"
