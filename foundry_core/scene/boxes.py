# SPDX-License-Identifier: Apache-2.0
"""Oriented boxes of segments: the rectangle of least area around the points seen from above."""

from __future__ import annotations

import numpy as np

from foundry_core.scene.grid import jit

_JUDGED = 400  # points per segment that an angle is judged on


@jit
def _extent(points, order, start, end, step, angle):
    c, s = np.cos(angle), np.sin(angle)
    u_low, u_high, v_low, v_high = np.inf, -np.inf, np.inf, -np.inf
    for k in range(start, end, step):
        x, y = points[order[k], 0], points[order[k], 1]
        u, v = c * x + s * y, c * y - s * x
        u_low, u_high = min(u_low, u), max(u_high, u)
        v_low, v_high = min(v_low, v), max(v_high, v)
    return u_low, u_high, v_low, v_high


@jit
def oriented_boxes(points, order, starts):
    """Boxes of the groups ``order[starts[i]:starts[i+1]]`` of points [N,3], upright in z.

    Returns:
        center float32 [S,3], size float32 [S,3] with size_x >= size_y along yaw, yaw float32 [S] in (-pi/2, pi/2].
    """
    count = len(starts) - 1
    center, size = np.empty((count, 3), np.float32), np.empty((count, 3), np.float32)
    yaw = np.empty(count, np.float32)
    for i in range(count):
        start, end = starts[i], starts[i + 1]
        step = max((end - start) // _JUDGED, 1)
        best, best_area = 0.0, np.inf
        width = np.pi / 36  # a rectangle repeats after 90 degrees: 18 angles, then 10 finer ones on each side
        for k in range(18):
            a, b, c, d = _extent(points, order, start, end, step, k * width)
            area = (b - a + 1e-3) * (d - c + 1e-3)
            if area < best_area:
                best, best_area = k * width, area
        coarse = best
        for k in range(-10, 11):
            a, b, c, d = _extent(points, order, start, end, step, coarse + k * width / 10)
            area = (b - a + 1e-3) * (d - c + 1e-3)
            if area < best_area:
                best, best_area = coarse + k * width / 10, area
        a, b, c, d = _extent(points, order, start, end, 1, best)
        low, high = np.inf, -np.inf
        for k in range(start, end):
            low, high = min(low, points[order[k], 2]), max(high, points[order[k], 2])
        u, v = (a + b) / 2, (c + d) / 2
        center[i, 0] = np.cos(best) * u - np.sin(best) * v
        center[i, 1] = np.sin(best) * u + np.cos(best) * v
        center[i, 2] = (low + high) / 2
        length, breadth = b - a, d - c
        if length < breadth:
            length, breadth = breadth, length
            best += np.pi / 2
        while best > np.pi / 2:
            best -= np.pi
        size[i, 0], size[i, 1], size[i, 2] = length, breadth, high - low
        yaw[i] = best
    return center, size, yaw
