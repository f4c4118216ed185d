# SPDX-License-Identifier: Apache-2.0
"""Ray casting against rigid triangle meshes on one core, compiled with numba.

One bounding volume hierarchy for each mesh, built once; a moving mesh only changes its pose, and rays are taken into
its frame. So a frame of a scene with moving objects costs no rebuild, and no graphics library is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foundry_core.kernels import jit

_LEAF = 4
_BINS = 12


@jit
def _build(low, high, center):
    # binned surface-area heuristic (Wald, 2007); left child follows its parent, `skip` holds the right child
    n = low.shape[0]
    order = np.arange(n)
    node_low = np.empty((2 * n, 3), np.float32)
    node_high = np.empty((2 * n, 3), np.float32)
    right = np.zeros(2 * n, np.int32)  # 0: a leaf
    first = np.zeros(2 * n, np.int32)
    count = np.zeros(2 * n, np.int32)
    stack = np.empty((256, 3), np.int64)  # (begin, end, parent whose right child this is or -1)
    stack[0, 0], stack[0, 1], stack[0, 2] = 0, n, -1
    depth, nodes = 1, 0
    bin_count = np.empty(_BINS, np.int64)
    bin_low = np.empty((_BINS, 3), np.float32)
    bin_high = np.empty((_BINS, 3), np.float32)
    area_right = np.empty(_BINS, np.float64)
    while depth > 0:
        depth -= 1
        begin, end, parent = stack[depth, 0], stack[depth, 1], stack[depth, 2]
        node = nodes
        nodes += 1
        if parent >= 0:
            right[parent] = node
        c_low = np.full(3, np.float32(np.inf), np.float32)
        c_high = np.full(3, np.float32(-np.inf), np.float32)
        for a in range(3):
            lo, hi = np.float32(np.inf), np.float32(-np.inf)
            for i in range(begin, end):
                lo = min(lo, low[order[i], a])
                hi = max(hi, high[order[i], a])
                c_low[a] = min(c_low[a], center[order[i], a])
                c_high[a] = max(c_high[a], center[order[i], a])
            node_low[node, a], node_high[node, a] = lo, hi
        axis = 0
        for a in range(1, 3):
            if c_high[a] - c_low[a] > c_high[axis] - c_low[axis]:
                axis = a
        extent = c_high[axis] - c_low[axis]
        if end - begin <= _LEAF or not extent > 0 or depth > 250:
            first[node], count[node] = begin, end - begin
            continue
        bin_count[:] = 0
        bin_low[:] = np.inf
        bin_high[:] = -np.inf
        scale = _BINS * (1.0 - 1e-6) / extent
        for i in range(begin, end):
            t = order[i]
            b = min(_BINS - 1, max(0, int((center[t, axis] - c_low[axis]) * scale)))
            bin_count[b] += 1
            for a in range(3):
                bin_low[b, a] = min(bin_low[b, a], low[t, a])
                bin_high[b, a] = max(bin_high[b, a], high[t, a])
        lo3 = np.full(3, np.inf)
        hi3 = np.full(3, -np.inf)
        total = 0
        for b in range(_BINS - 1, 0, -1):
            total += bin_count[b]
            for a in range(3):
                lo3[a] = min(lo3[a], bin_low[b, a])
                hi3[a] = max(hi3[a], bin_high[b, a])
            dx, dy, dz = hi3[0] - lo3[0], hi3[1] - lo3[1], hi3[2] - lo3[2]
            area_right[b] = (dx * dy + dy * dz + dz * dx) * total if total else np.inf
        lo3[:] = np.inf
        hi3[:] = -np.inf
        total, best, best_cost = 0, -1, np.inf
        for b in range(_BINS - 1):
            total += bin_count[b]
            for a in range(3):
                lo3[a] = min(lo3[a], bin_low[b, a])
                hi3[a] = max(hi3[a], bin_high[b, a])
            if total == 0 or total == end - begin:
                continue
            dx, dy, dz = hi3[0] - lo3[0], hi3[1] - lo3[1], hi3[2] - lo3[2]
            cost = (dx * dy + dy * dz + dz * dx) * total + area_right[b + 1]
            if cost < best_cost:
                best, best_cost = b, cost
        if best < 0:
            first[node], count[node] = begin, end - begin
            continue
        i, j = begin, end - 1
        while i <= j:
            t = order[i]
            if min(_BINS - 1, max(0, int((center[t, axis] - c_low[axis]) * scale))) <= best:
                i += 1
            else:
                order[i], order[j] = order[j], order[i]
                j -= 1
        stack[depth, 0], stack[depth, 1], stack[depth, 2] = i, end, node
        stack[depth + 1, 0], stack[depth + 1, 1], stack[depth + 1, 2] = begin, i, -1
        depth += 2
    return node_low[:nodes], node_high[:nodes], right[:nodes], first[:nodes], count[:nodes], order


@jit
def _enter(low, high, node, ox, oy, oz, ix, iy, iz, best):
    # distance at which a ray enters a box, or infinity; 0 * inf is NaN, and min/max as written here then ignore it
    a, b = (low[node, 0] - ox) * ix, (high[node, 0] - ox) * ix
    near, far = min(a, b), max(a, b)
    a, b = (low[node, 1] - oy) * iy, (high[node, 1] - oy) * iy
    near, far = max(near, min(a, b)), min(far, max(a, b))
    a, b = (low[node, 2] - oz) * iz, (high[node, 2] - oz) * iz
    near, far = max(near, min(a, b)), min(far, max(a, b))
    if far >= max(near, np.float32(0.0)) and near < best:
        return near
    return np.float32(np.inf)


@jit
def _cast(directions, origins, rotations, roots, triangle_roots, spheres, nodes, corners, limit, distance, hit, owner):
    node_low, node_high, right, first, count = nodes
    stack = np.empty(256, np.int64)
    tiny = np.float32(1e-12)
    for r in range(directions.shape[0]):
        wx, wy, wz = directions[r, 0], directions[r, 1], directions[r, 2]
        best, best_triangle, best_owner = np.float32(limit), -1, -1
        for m in range(len(roots)):
            # closest approach of the ray to the mesh's bounding sphere, in the sensor's frame
            cx, cy, cz, radius = spheres[m, 0], spheres[m, 1], spheres[m, 2], spheres[m, 3]
            along = cx * wx + cy * wy + cz * wz
            if cx * cx + cy * cy + cz * cz - along * along > radius * radius or along < -radius:
                continue
            ox, oy, oz = origins[m, 0], origins[m, 1], origins[m, 2]
            rot = rotations[m]
            dx = rot[0, 0] * wx + rot[0, 1] * wy + rot[0, 2] * wz
            dy = rot[1, 0] * wx + rot[1, 1] * wy + rot[1, 2] * wz
            dz = rot[2, 0] * wx + rot[2, 1] * wy + rot[2, 2] * wz
            ix = np.float32(1.0) / (dx if abs(dx) > tiny else tiny)
            iy = np.float32(1.0) / (dy if abs(dy) > tiny else tiny)
            iz = np.float32(1.0) / (dz if abs(dz) > tiny else tiny)
            root, base = roots[m], triangle_roots[m]
            depth = 0
            if _enter(node_low, node_high, root, ox, oy, oz, ix, iy, iz, best) < best:
                stack[0] = root
                depth = 1
            while depth > 0:
                depth -= 1
                node = stack[depth]
                if _enter(node_low, node_high, node, ox, oy, oz, ix, iy, iz, best) >= best:
                    continue
                if right[node]:
                    one, two = node + 1, root + right[node]
                    near = _enter(node_low, node_high, one, ox, oy, oz, ix, iy, iz, best)
                    far = _enter(node_low, node_high, two, ox, oy, oz, ix, iy, iz, best)
                    if near > far:
                        one, two, near, far = two, one, far, near
                    if far < best:
                        stack[depth] = two
                        depth += 1
                    if near < best:
                        stack[depth] = one
                        depth += 1
                    continue
                for i in range(base + first[node], base + first[node] + count[node]):  # Moeller-Trumbore (1997)
                    t = corners[i]
                    px, py, pz = dy * t[8] - dz * t[7], dz * t[6] - dx * t[8], dx * t[7] - dy * t[6]
                    det = t[3] * px + t[4] * py + t[5] * pz
                    if abs(det) < tiny:
                        continue
                    inverse = np.float32(1.0) / det
                    sx, sy, sz = ox - t[0], oy - t[1], oz - t[2]
                    u = (sx * px + sy * py + sz * pz) * inverse
                    if u < 0 or u > 1:
                        continue
                    qx, qy, qz = sy * t[5] - sz * t[4], sz * t[3] - sx * t[5], sx * t[4] - sy * t[3]
                    v = (dx * qx + dy * qy + dz * qz) * inverse
                    if v < 0 or u + v > 1:
                        continue
                    s = (t[6] * qx + t[7] * qy + t[8] * qz) * inverse
                    if np.float32(1e-4) < s < best:
                        best, best_triangle, best_owner = s, i - base, m
        distance[r], hit[r], owner[r] = best, best_triangle, best_owner


class Mesh:
    """A rigid triangle mesh, ready for ray casting.

    Args:
        vertices: [V,3] in the mesh's frame, metres.
        triangles: int [T,3].
    """

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray) -> None:
        corners = np.asarray(vertices, np.float32)[np.asarray(triangles)]  # (T, 3, 3)
        if corners.ndim != 3 or len(corners) == 0:
            raise ValueError(f"expected at least one triangle, got {len(corners)}")
        low, high = corners.min(axis=1), corners.max(axis=1)
        *self.nodes, self.order = _build(low, high, (low + high) * np.float32(0.5))
        corners = corners[self.order]
        edges = corners[:, 1:] - corners[:, :1]
        self.corners = np.concatenate([corners[:, :1], edges], axis=1).reshape(-1, 9)  # (T, 9): a, b - a, c - a
        normals = np.cross(edges[:, 0], edges[:, 1])
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        self.normals = (normals / np.maximum(length, 1e-12)).astype(np.float32)
        self.center = (low.min(axis=0) + high.max(axis=0)) / 2
        self.radius = float(np.linalg.norm(np.asarray(vertices, np.float64) - self.center, axis=1).max()) + 1e-3


@dataclass(frozen=True)
class Hits:
    """What each ray met first.

    Attributes:
        distance: float32 [R] metres along the ray, ``max_range`` where nothing was met.
        mesh: int32 [R], index of the mesh, -1 for nothing.
        triangle: int32 [R], row of that mesh's ``triangles``, -1 for nothing.
        cosine: float32 [R], cosine of the angle between ray and surface normal, 0 for nothing.
    """

    distance: np.ndarray
    mesh: np.ndarray
    triangle: np.ndarray
    cosine: np.ndarray


class Caster:
    """Several rigid meshes; each call takes their poses, so nothing is rebuilt when they move."""

    def __init__(self, meshes: list[Mesh]) -> None:
        self.meshes = meshes
        columns = zip(*(mesh.nodes for mesh in meshes), strict=True)
        self._nodes = tuple(np.ascontiguousarray(np.concatenate(column)) for column in columns)
        self._corners = np.ascontiguousarray(np.concatenate([mesh.corners for mesh in meshes]))
        self._normals = np.concatenate([mesh.normals for mesh in meshes])
        self._order = np.concatenate([mesh.order for mesh in meshes])
        self._roots = np.cumsum([0] + [len(mesh.nodes[0]) for mesh in meshes[:-1]]).astype(np.int64)
        self._bases = np.cumsum([0] + [len(mesh.corners) for mesh in meshes[:-1]]).astype(np.int64)

    def cast(
        self, directions: np.ndarray, sensor: np.ndarray, rotations: np.ndarray, translations: np.ndarray,
        max_range: float,
    ) -> Hits:  # fmt: skip
        """First surface along each ray from the sensor's origin.

        Args:
            directions: unit vectors float32 [R,3] in the sensor's frame.
            sensor: pose of the sensor in the world, [4,4].
            rotations: [M,3,3] and translations [M,3]: pose of each mesh in the world.
        """
        rotations = np.asarray(rotations, np.float64)
        translations = np.asarray(translations, np.float64)
        mesh_from_sensor = np.einsum("mji,jk->mik", rotations, sensor[:3, :3])  # (M, 3, 3)
        origins = np.einsum("mji,mj->mi", rotations, sensor[:3, 3] - translations)  # (M, 3), in mesh frames
        spheres = np.empty((len(self.meshes), 4), np.float32)
        for row, mesh in enumerate(self.meshes):
            spheres[row, :3] = mesh_from_sensor[row].T @ (mesh.center - origins[row])
            spheres[row, 3] = mesh.radius
        count = len(directions)
        distance = np.empty(count, np.float32)
        triangle, owner = np.empty(count, np.int32), np.empty(count, np.int32)
        rotation32 = np.ascontiguousarray(mesh_from_sensor, np.float32)
        _cast(
            np.ascontiguousarray(directions, np.float32), origins.astype(np.float32), rotation32, self._roots,
            self._bases, spheres, self._nodes, self._corners, max_range, distance, triangle, owner,
        )  # fmt: skip
        found = owner >= 0
        row = np.where(found, self._bases[owner] + triangle, 0)
        local = np.einsum("rij,rj->ri", rotation32[owner[found]], directions[found])
        cosine = np.zeros(count, np.float32)
        cosine[found] = np.abs((local * self._normals[row[found]]).sum(axis=1))
        return Hits(distance, owner, np.where(found, self._order[row], -1).astype(np.int32), cosine)
