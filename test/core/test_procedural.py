# SPDX-License-Identifier: Apache-2.0
"""Parametric categories: reproducible, varied, correctly labelled, of real size and sane to cast rays at."""

import numpy as np
import pytest

from foundry_core.data.mesh import sample_surface, sample_triangles
from foundry_core.data.procedural import (
    CATEGORIES,
    CATEGORY_PARTS,
    CATEGORY_PLACES,
    ON_TABLE,
    PART_NAMES,
    assembly,
    make_shape,
    primitives,
)

SEEDS = 80

# lowest and highest (x, y, z) extent in metres that a real object of the category can have
EXTENTS = {
    "chair": ((0.3, 0.3, 0.5), (1.0, 0.9, 1.5)),
    "table": ((0.3, 0.3, 0.3), (1.5, 2.1, 0.85)),
    "sofa": ((0.7, 0.5, 0.6), (2.0, 3.6, 1.15)),
    "bed": ((1.8, 0.75, 0.25), (2.5, 2.3, 2.4)),
    "shelf": ((0.2, 0.4, 0.5), (0.8, 1.5, 2.4)),
    "lamp": ((0.12, 0.12, 0.2), (1.8, 0.8, 2.3)),
    "monitor": ((0.05, 0.25, 0.2), (0.6, 1.5, 1.6)),
    "mug": ((0.06, 0.05, 0.04), (0.25, 0.16, 0.16)),
    "bottle": ((0.04, 0.04, 0.1), (0.3, 0.16, 0.5)),
    "bowl": ((0.1, 0.1, 0.02), (0.6, 0.42, 0.2)),
    "can": ((0.03, 0.03, 0.02), (0.3, 0.3, 0.4)),
    "box": ((0.1, 0.1, 0.04), (1.3, 1.3, 1.3)),
    "suitcase": ((0.08, 0.25, 0.25), (0.5, 0.85, 1.4)),
    "plant": ((0.1, 0.1, 0.15), (2.0, 2.0, 2.2)),
    "bin": ((0.1, 0.1, 0.2), (1.4, 2.1, 1.7)),
    "bench": ((0.3, 1.0, 0.38), (0.9, 2.3, 1.05)),
    "person": ((0.15, 0.25, 0.6), (1.8, 1.6, 2.4)),
    "dog": ((0.2, 0.06, 0.2), (1.6, 0.5, 1.3)),
    "car": ((2.5, 1.4, 1.1), (5.6, 2.4, 2.5)),
    "truck": ((3.5, 1.7, 1.5), (18.0, 2.8, 4.2)),
    "bus": ((5.0, 1.9, 2.3), (14.5, 3.2, 4.8)),
    "bicycle": ((0.9, 0.25, 0.5), (2.0, 0.85, 1.35)),
    "motorcycle": ((1.4, 0.4, 0.7), (2.7, 1.0, 1.6)),
    "plane": ((5.0, 5.0, 1.0), (46.0, 50.0, 16.0)),
    "tree": ((0.4, 0.4, 2.0), (12.0, 12.0, 11.0)),
    "pole": ((0.05, 0.05, 0.7), (6.0, 6.0, 10.5)),
    "sign": ((0.04, 0.3, 1.2), (0.9, 2.6, 6.0)),
    "cone": ((0.08, 0.08, 0.25), (1.0, 1.0, 1.1)),
}


@pytest.fixture(scope="module")
def shapes():
    return {name: [make_shape(name, np.random.default_rng(seed)) for seed in range(SEEDS)] for name in CATEGORIES}


def test_the_vocabulary_is_closed():
    assert len(set(CATEGORIES)) == len(CATEGORIES) >= 14
    assert len(set(PART_NAMES)) == len(PART_NAMES) <= 40
    assert set(CATEGORY_PARTS) == set(CATEGORY_PLACES) == set(CATEGORIES)
    assert {part for parts in CATEGORY_PARTS.values() for part in parts} == set(PART_NAMES)
    assert {place for places in CATEGORY_PLACES.values() for place in places} == {"street", "room"}
    assert all("room" in CATEGORY_PLACES[name] for name in ON_TABLE)


def test_ids_that_models_and_bags_store_do_not_move():
    assert [CATEGORIES[i] for i in (0, 9, 18, 27)] == ["chair", "bowl", "car", "cone"]
    assert [PART_NAMES[i] for i in (0, 10, 20, 30, 39)] == ["leg", "shade", "wheel", "wing", "plate"]


def test_an_unknown_category_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown category 'spaceship'"):
        make_shape("spaceship", np.random.default_rng(0))


@pytest.mark.parametrize("name", CATEGORIES)
def test_a_seed_gives_one_shape_and_another_seed_another(name, shapes):
    for seed in (0, 7):
        again = make_shape(name, np.random.default_rng(seed))
        for field in ("vertices", "triangles", "part"):
            np.testing.assert_array_equal(getattr(again, field), getattr(shapes[name][seed], field))
    sizes = {tuple(np.round(mesh.bounds[1] - mesh.bounds[0], 6)) for mesh in shapes[name]}
    assert len(sizes) == SEEDS
    structures = {(len(mesh.triangles), *np.bincount(mesh.part, minlength=40)) for mesh in shapes[name]}
    assert len(structures) >= 6  # a category has structural variants, not one template that is stretched


@pytest.mark.parametrize("name", CATEGORIES)
def test_every_declared_part_occurs_and_no_other(name, shapes):
    seen = {PART_NAMES[index] for mesh in shapes[name] for index in np.unique(mesh.part)}
    assert seen == set(CATEGORY_PARTS[name])


@pytest.mark.parametrize("name", CATEGORIES)
def test_shapes_stand_on_the_floor_at_the_origin_in_real_sizes(name, shapes):
    smallest, largest = EXTENTS[name]
    for mesh in shapes[name]:
        low, high = mesh.bounds
        assert abs(low[2]) < 1e-6
        np.testing.assert_allclose((low + high)[:2], 0, atol=1e-4 * max(1.0, float(high.max())))
        assert (high - low >= smallest).all() and (high - low <= largest).all(), high - low


@pytest.mark.parametrize("name", CATEGORIES)
def test_meshes_are_sane_for_ray_casting(name, shapes):
    for mesh in shapes[name]:
        assert np.isfinite(mesh.vertices).all()
        assert mesh.areas().min() > 0.5e-9
        assert 20 <= len(mesh.triangles) <= 6000


@pytest.mark.parametrize("name", CATEGORIES)
def test_sampled_labels_are_those_of_the_surface(name, shapes):
    mesh = shapes[name][3]
    points, part = sample_surface(mesh, 300, np.random.default_rng(5))
    _, triangle = sample_triangles(mesh, 300, np.random.default_rng(5))
    a, b, c = mesh.vertices[mesh.triangles[triangle]].transpose(1, 0, 2).astype(float)
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    assert np.abs(((points - a) * normal).sum(axis=1)).max() < 1e-4 * max(1.0, float(mesh.bounds[1].max()))
    np.testing.assert_array_equal(part, mesh.part[triangle])


def _volume_if_closed(vertices, triangles):
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    forward = {tuple(edge) for edge in edges.tolist()}
    if len(forward) != len(edges) or any((b, a) not in forward for a, b in forward):
        return None
    a, b, c = vertices[triangles.T]
    return float((np.cross(a - a.mean(0), b - a.mean(0)) * (c - a.mean(0))).sum() / 6)


@pytest.mark.parametrize("name", CATEGORIES)
def test_closed_solids_face_outwards(name, monkeypatch):
    solids = []
    add = assembly.Assembly.add
    monkeypatch.setattr(assembly.Assembly, "add", lambda self, part, *s: (solids.extend(s), add(self, part, *s))[1])
    for seed in range(25):
        make_shape(name, np.random.default_rng(seed))
    volumes = [volume for volume in (_volume_if_closed(*solid) for solid in solids) if volume is not None]
    assert len(volumes) >= 10
    assert min(volumes) > 0


@pytest.mark.parametrize(
    ("solid", "volume"),
    [
        (primitives.box((1, 2, 3), (1, 2, 3)), 6.0),
        (primitives.rods((0, 0, 0), (1, 1, 1), 0.1, segments=64), np.pi * 0.01 * np.sqrt(3)),
        (primitives.superellipsoid((5, 0, 0), (2, 4, 6), segments=48, rows=48), 4 / 3 * np.pi * 6),
        (primitives.torus((0, 0, 0), 1.0, 0.1, "y", 64, 32), 2 * np.pi**2 * 0.01),
        (primitives.revolve([(0, 0), (1, 0), (0, 2)], 64), 2 / 3 * np.pi),
        (primitives.revolve([(0, 0), (1, 0), (1, 2), (0.5, 2), (0.5, 1), (0, 1)], 64), np.pi * (2 - 0.25)),
        (primitives.extrude(primitives.rounded_rectangle(1, 2), 1, 4), 6.0),
    ],
)
def test_primitives_enclose_their_volume(solid, volume):
    assert _volume_if_closed(*solid) == pytest.approx(volume, rel=0.02)
