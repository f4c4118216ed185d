# SPDX-License-Identifier: Apache-2.0
"""Labelled shape sets of the parametric categories: whole shapes, or single views as a sensor returns them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np

from foundry_core.data.mesh import LabeledMesh, sample_surface
from foundry_core.data.mounted import Mount, mounted_view, thinned
from foundry_core.data.procedural import CATEGORIES, PART_NAMES, make_shape
from foundry_core.data.shapes import ShapeSet
from foundry_core.data.stream import random_rotation
from foundry_core.data.views import MIN_POINTS, foot_cut, sensor_view
from foundry_core.errors import InputError

#: full: area samples of the surface, as from CAD; rgbd, lidar: one view from a random plausible place, with the
#: sensor's pattern, noise and losses
KINDS = ("full", "rgbd", "lidar")
_TRIES = 50


def parse_classes(texts: list[str]) -> dict[str, tuple[str, ...]]:
    """Class name to the categories that it is drawn from, of ``car`` or ``bush=plant+tree``; all where none is given.

    Raises:
        InputError: an unknown category, or a class without a name, or one that is given twice.
    """
    classes: dict[str, tuple[str, ...]] = {}
    for text in texts or CATEGORIES:
        name, _, listed = text.partition("=")
        if not name.strip():
            raise InputError(f"--class '{text}': has no name; give CATEGORY, or NAME=CATEGORY+CATEGORY")
        members = tuple((listed or name).split("+"))
        for category in members:
            if category not in CATEGORIES:
                raise InputError(f"--class {text}: unknown category '{category}'; use {', '.join(CATEGORIES)}")
        if name in classes:
            raise InputError(f"--class {text}: '{name}' is there already; join its categories with +")
        classes[name] = members
    return classes


def draw_shapes(
    kind: str,
    classes: Mapping[str, tuple[str, ...]],
    train: int,
    test: int = 0,
    points: int = 1024,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
    mount: Mount | None = None,
) -> ShapeSet:
    """``train`` and ``test`` shapes of every class, each from one of its categories by chance.

    A shape is a pure function of kind, seed, split, class and number: other counts and classes give the same others.

    Args:
        kind: one of ``KINDS``.
        points: of each shape, float16, centred in the unit sphere, z up, turned about z by a random angle. Views with
            fewer returns are repeated, ones with more reduced by farthest-point sampling.
        advance: called with 1 after each shape.
        mount: of a depth camera whose place is known; ``full`` takes no more of it than the proportions.

    Raises:
        InputError: a category that gives no view, or a mount with ``lidar``.
    """
    if mount is not None and kind == "lidar":
        raise InputError("--mount: is of a depth camera; use it with --kind rgbd")
    others = tuple(category for members in classes.values() for category in members)
    clouds, parts, labels, split = [], [], [], []
    for side, count in ((0, train), (1, test)):
        for label, (name, members) in enumerate(classes.items()):
            for number in range(count):
                rng = np.random.default_rng([seed, side, zlib.crc32(name.encode()), number])
                cloud, part = _draw(kind, members, points, rng, mount, others)
                cloud = cloud @ random_rotation(rng, "z").T
                cloud, part = thinned(cloud, part, points, rng, mount is not None and mount.random_points)
                clouds.append(cloud.astype(np.float16))
                parts.append(part)
                labels.append(label)
                split.append(side)
                advance(1)
    return ShapeSet(
        name=kind,
        points=np.stack(clouds),
        label=np.array(labels, np.int16),
        class_names=tuple(classes),
        part_label=np.stack(parts).astype(np.int16),
        part_names=PART_NAMES,
        split=np.array(split, np.int8) if test else None,
    )


def _draw(
    kind: str,
    members: tuple[str, ...],
    points: int,
    rng: np.random.Generator,
    mount: Mount | None,
    others: tuple[str, ...],
) -> tuple[np.ndarray, np.ndarray]:
    def make(categories: tuple[str, ...]) -> LabeledMesh:
        mesh = make_shape(categories[int(rng.integers(len(categories)))], rng)
        return mesh if mount is None else mount.fit(mesh, rng)

    for _ in range(_TRIES):
        mesh = make(members)
        if kind == "full":
            return sample_surface(mesh, points, rng)
        if mount is None:
            least, (cloud, part) = MIN_POINTS, sensor_view(mesh, rng, kind, ground_cut=foot_cut(mesh, rng))
        else:
            before = make(others) if rng.random() < mount.hidden else None
            least, (cloud, part) = mount.least, mounted_view(mesh, mount, rng, before)
        if len(cloud) >= least:
            return cloud, part
    raise InputError(f"{' + '.join(members)}: too small, thin or hidden for a view by {kind}; choose others")
