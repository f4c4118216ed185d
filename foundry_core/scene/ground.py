# SPDX-License-Identifier: Apache-2.0
"""The ground under a sweep: a plane for the sensor's height and tilt, then a local, slope-limited surface.

The plane is the lowest one that explains the lowest returns of a grid, so neither the height of the sensor nor its
exact tilt has to be known. The surface follows what the plane does not: slopes, kerbs, crowned roads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foundry_core.scene import grid
from foundry_core.scene.config import GroundConfig
from foundry_core.scene.planes import fit_plane

_MIN_CELLS = 8
_MAX_CELLS = 1 << 21
_SMOOTHING = 1.5  # standard deviation, cells


@dataclass(frozen=True)
class Ground:
    """What is known about the ground.

    Attributes:
        height: float32 [N], metres of each point above the ground; infinity where no ground was found.
        rotation: float32 [3,3], level from sensor: rotates points so that the ground's normal is +z; the identity where
            the tilt is small or no ground was found.
        found: whether there is a ground.
    """

    height: np.ndarray
    rotation: np.ndarray
    found: bool


def _grid_of(points: np.ndarray, cell: float) -> tuple[float, float, float, int, int]:
    x_low, x_high, y_low, y_high = grid.bounds(points)
    while True:
        nx, ny = int((x_high - x_low) / cell) + 2, int((y_high - y_low) / cell) + 2
        if nx * ny <= _MAX_CELLS:
            return float(x_low), float(y_low), cell, nx, ny
        cell *= 2


def rotation_to_z(normal: np.ndarray) -> np.ndarray:
    """The smallest rotation [3,3] that turns the unit vector ``normal`` (z >= 0) into +z."""
    x, y, z = normal
    factor = 1.0 / (1.0 + z)
    return np.array(
        [[1 - factor * x * x, -factor * x * y, -x], [-factor * x * y, 1 - factor * y * y, -y], [x, y, z]], np.float64
    )


def _no_ground(points: np.ndarray) -> Ground:
    return Ground(np.full(len(points), np.inf, np.float32), np.eye(3, dtype=np.float32), False)


def find_ground(points: np.ndarray, config: GroundConfig) -> tuple[Ground, np.ndarray]:
    """The ground under points float32 [N,3], and the points made level, float32 [N,3] (the input itself if level)."""
    if not config.enabled or len(points) < _MIN_CELLS:
        return _no_ground(points), points
    steepest = np.tan(np.deg2rad(config.max_tilt_deg))
    x_low, y_low, cell, nx, ny = layout = _grid_of(points, config.cell)
    minima = grid.drop_unsupported(grid.cell_minima(points, *layout), cell, steepest, config.tolerance, -np.inf)
    a, b = np.nonzero(np.isfinite(minima))
    if len(a) < _MIN_CELLS:
        return _no_ground(points), points
    lowest = np.stack([x_low + (a + 0.5) * cell, y_low + (b + 0.5) * cell, minima[a, b]], axis=1)
    axis = (float(np.cos(np.deg2rad(config.max_tilt_deg))), 1.0)
    found = fit_plane(lowest, config.tolerance, axis, below_penalty=2.0)
    if found is None or found[1] * len(lowest) < _MIN_CELLS:
        return _no_ground(points), points
    normal, offset = found[0][:3], found[0][3]
    rotation = np.eye(3)
    if normal[2] < np.cos(np.deg2rad(config.level_from_deg)):
        rotation = rotation_to_z(normal)
        points = grid.rotate(points, rotation.astype(np.float32))
        normal = rotation @ normal
        x_low, y_low, cell, nx, ny = layout = _grid_of(points, config.cell)
        minima = grid.cell_minima(points, *layout)
    centers_x = x_low + (np.arange(nx) + 0.5) * cell
    centers_y = y_low + (np.arange(ny) + 0.5) * cell
    plane = -(normal[0] * centers_x[:, None] + normal[1] * centers_y[None, :] + offset) / normal[2]
    plane = plane.astype(np.float32)
    surface = _surface(minima - plane, cell, config) + plane
    height = grid.heights_above(points, surface, x_low, y_low, cell)
    return Ground(height, rotation.astype(np.float32), True), points


def _gaussian() -> np.ndarray:
    reach = int(4 * _SMOOTHING + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SMOOTHING) ** 2)
    return (taps / taps.sum()).astype(np.float32)


def _surface(residual: np.ndarray, cell: float, config: GroundConfig) -> np.ndarray:
    """A complete surface [nx,ny] through the ground cells of residual [nx,ny] (infinite where nothing was seen)."""
    residual = grid.drop_unsupported(residual, cell, config.slope, config.tolerance, -3 * config.tolerance)
    envelope = grid.slope_envelope(residual, cell, config.slope)
    is_ground = np.isfinite(residual) & (residual <= envelope + config.tolerance)
    values = np.where(is_ground, residual, np.float32(0.0))
    near, smooth = grid.smooth_pair(is_ground.astype(np.float32), values, _gaussian())
    smooth /= np.maximum(near, np.float32(1e-6))
    envelope = np.where(np.isfinite(envelope), envelope, np.float32(0.0))
    return np.where(near > 0.02, smooth, envelope).astype(np.float32)
