# SPDX-License-Identifier: Apache-2.0
"""OFF meshes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from foundry_core.data.mesh import LabeledMesh


def read_off(path: str | Path) -> LabeledMesh:
    """The triangles of an OFF file, all of part 0; polygons are cut into fans.

    The counts may stand in the first line, and directly behind the word OFF, as in some files of ModelNet40.

    Raises:
        ValueError: not an OFF file, fewer numbers than it announces, or a face with a corner that is none.
        OSError: the file cannot be read.
    """
    text = Path(path).read_bytes()
    if b"#" in text:
        text = re.sub(rb"#[^\n]*", b"", text)
    text = text.lstrip()
    if not text.startswith(b"OFF"):
        raise ValueError("not an OFF file")
    try:
        numbers = np.array(text[3:].split(), np.float64)
    except ValueError:
        raise ValueError("something else than numbers in an OFF file") from None
    if len(numbers) < 3:
        raise ValueError("an OFF file without counts")
    vertex_count, face_count = int(numbers[0]), int(numbers[1])
    end = 3 + 3 * vertex_count
    vertices, rest = numbers[3:end], numbers[end:]
    if len(vertices) < 3 * vertex_count or vertex_count < 3 or face_count < 1 or len(rest) < 4 * face_count:
        raise ValueError(f"fewer numbers than {vertex_count} vertices and {face_count} faces need")
    vertices = vertices.reshape(-1, 3)
    vertices = vertices - (vertices.min(axis=0) + vertices.max(axis=0)) / 2  # exact in single precision, too
    if len(rest) == 4 * face_count and (rest[::4] == 3).all():
        triangles = rest.reshape(-1, 4)[:, 1:]
    else:
        triangles = _fans(rest, face_count)
    return LabeledMesh(vertices, triangles.astype(np.int64), np.zeros(len(triangles), np.int16))


def _fans(numbers: np.ndarray, face_count: int) -> np.ndarray:
    triangles, at = [], 0
    for _ in range(face_count):
        corners = int(numbers[at]) if at < len(numbers) else 0
        face = numbers[at + 1 : at + 1 + corners]
        if corners < 1 or len(face) < corners:
            raise ValueError("a face with other corners than it announces")
        triangles += [(face[0], face[k], face[k + 1]) for k in range(1, corners - 1)]
        at += 1 + corners
    if not triangles:
        raise ValueError("no face with an area")
    return np.array(triangles)
