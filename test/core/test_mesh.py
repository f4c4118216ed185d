# SPDX-License-Identifier: Apache-2.0
"""Labelled meshes: validation, transforms, merging and area-uniform sampling."""

import numpy as np
import pytest

from foundry_core.data.mesh import LabeledMesh, merge, sample_surface, sample_triangles

VERTICES = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (3, 0, 0), (0, 3, 1)], np.float32)
TRIANGLES = np.array([(0, 1, 2), (0, 3, 4)], np.int32)


@pytest.fixture
def mesh() -> LabeledMesh:
    return LabeledMesh(VERTICES, TRIANGLES, np.array([4, 7], np.int16))


def test_types_are_those_of_the_contract(mesh):
    plain = LabeledMesh(VERTICES.tolist(), TRIANGLES.tolist(), [4, 7])
    for each in (mesh, plain):
        assert (each.vertices.dtype, each.triangles.dtype, each.part.dtype) == (np.float32, np.int32, np.int16)


@pytest.mark.parametrize(
    ("vertices", "triangles", "part", "message"),
    [
        (VERTICES[:, :2], TRIANGLES, [0, 0], r"vertices \[V,3\]"),
        (VERTICES, TRIANGLES[:, :2], [0, 0], r"triangles \[T,3\]"),
        (VERTICES, np.empty((0, 3)), [], r"triangles \[T,3\]"),
        (VERTICES, TRIANGLES, [0], "one label per triangle"),
        (VERTICES, [(0, 1, 5)], [0], "outside 0..4"),
        (VERTICES, [(0, 1, -1)], [0], "outside 0..4"),
        (np.where(VERTICES == 3, np.nan, VERTICES), TRIANGLES, [0, 0], "not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(vertices, triangles, part, message):
    with pytest.raises(ValueError, match=message):
        LabeledMesh(vertices, triangles, part)


def test_a_transform_rotates_first_and_then_shifts(mesh):
    quarter = [(0, -1, 0), (1, 0, 0), (0, 0, 1)]  # x becomes y
    turned = mesh.transformed(quarter, (10, 0, 0))
    np.testing.assert_allclose(turned.vertices[1], (10, 1, 0), atol=1e-6)
    np.testing.assert_allclose(turned.areas(), mesh.areas(), rtol=1e-6)


def test_scaling_accepts_one_factor_or_three_and_nothing_that_mirrors(mesh):
    np.testing.assert_allclose(mesh.scaled(2).areas(), 4 * mesh.areas(), rtol=1e-6)
    np.testing.assert_allclose(mesh.scaled((1, 2, 3)).vertices[4], (0, 6, 3))
    with pytest.raises(ValueError, match="positive"):
        mesh.scaled((1, -1, 1))


def test_merging_keeps_order_and_shifts_indices(mesh):
    both = merge([mesh, mesh.transformed(np.eye(3), (5, 0, 0))])
    assert both.triangles.tolist() == [*TRIANGLES.tolist(), *(TRIANGLES + 5).tolist()]
    assert both.part.tolist() == [4, 7, 4, 7]
    assert both.bounds[1][0] == 8
    with pytest.raises(ValueError, match="at least one"):
        merge([])


def test_samples_are_uniform_over_area_and_lie_in_their_triangle(mesh):
    points, triangle = sample_triangles(mesh, 20000, np.random.default_rng(0))
    share = np.bincount(triangle, minlength=2) / len(triangle)
    np.testing.assert_allclose(share, mesh.areas() / mesh.areas().sum(), atol=0.01)
    corners = mesh.vertices[mesh.triangles].astype(float)
    for index, (a, b, c) in enumerate(corners):
        mine = points[triangle == index]
        weights = np.linalg.lstsq(np.stack([b - a, c - a], axis=1), (mine - a).T, rcond=None)[0]  # barycentric, (2, n)
        assert weights.min() > -1e-5 and weights.sum(axis=0).max() < 1 + 1e-5
        np.testing.assert_allclose(mine.mean(axis=0), (a + b + c) / 3, atol=0.05)


def test_sampled_parts_are_those_of_the_triangles(mesh):
    points, triangle = sample_triangles(mesh, 100, np.random.default_rng(3))
    again, part = sample_surface(mesh, 100, np.random.default_rng(3))
    np.testing.assert_array_equal(points, again)
    np.testing.assert_array_equal(part, mesh.part[triangle])
    assert points.dtype == np.float32 and part.dtype == np.int16


def test_a_mesh_without_area_cannot_be_sampled():
    flat = LabeledMesh(np.zeros((3, 3)), [(0, 1, 2)], [0])
    with pytest.raises(ValueError, match="no area"):
        sample_surface(flat, 4, np.random.default_rng(0))
