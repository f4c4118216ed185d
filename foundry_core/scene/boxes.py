# SPDX-License-Identifier: Apache-2.0
"""Oriented boxes of segments: the rectangle of least area around the points seen from above."""

from __future__ import annotations

import numpy as np

from foundry_core.kernels import jit

_JUDGED = 400  # points per segment that an angle is judged on


@jit
def _best_angle(x, y, cosine, sine):
    # the index of the angle whose rectangle around points x, y [n] is smallest, all of them float32
    far, best, best_area = np.float32(np.inf), 0, np.inf
    for k in range(cosine.shape[0]):
        c, s = cosine[k], sine[k]
        u_low, u_high, v_low, v_high = far, -far, far, -far
        for i in range(x.shape[0]):
            u, v = c * x[i] + s * y[i], c * y[i] - s * x[i]
            u_low, u_high = u if u < u_low else u_low, u if u > u_high else u_high
            v_low, v_high = v if v < v_low else v_low, v if v > v_high else v_high
        area = (u_high - u_low + 1e-3) * (v_high - v_low + 1e-3)
        if area < best_area:
            best, best_area = k, area
    return best


@jit
def oriented_boxes(points, order, starts):
    """Boxes of the groups ``order[starts[i]:starts[i+1]]`` of points [N,3], upright in z.

    Returns:
        center float32 [S,3], size float32 [S,3] with size_x >= size_y along yaw, yaw float32 [S] in (-pi/2, pi/2].
    """
    count = len(starts) - 1
    center, size = np.empty((count, 3), np.float32), np.empty((count, 3), np.float32)
    yaw = np.empty(count, np.float32)
    # a rectangle repeats after 90 degrees: 18 angles, then 10 finer ones on each side of the best
    coarse, fine = np.arange(18) * (np.pi / 36), np.arange(-10, 11) * (np.pi / 360)
    cosine, sine = np.cos(coarse).astype(np.float32), np.sin(coarse).astype(np.float32)
    for i in range(count):
        start, end = starts[i], starts[i + 1]
        step = max((end - start) // _JUDGED, 1)
        judged = (end - start + step - 1) // step
        x, y = np.empty(judged, np.float32), np.empty(judged, np.float32)
        for k in range(judged):
            x[k], y[k] = points[order[start + k * step], 0], points[order[start + k * step], 1]
        best = coarse[_best_angle(x, y, cosine, sine)]
        around = best + fine
        best = around[_best_angle(x, y, np.cos(around).astype(np.float32), np.sin(around).astype(np.float32))]
        c, s = np.cos(best), np.sin(best)
        u_low, u_high, v_low, v_high = np.inf, -np.inf, np.inf, -np.inf
        low, high = np.inf, -np.inf
        for k in range(start, end):
            j = order[k]
            px, py, pz = points[j, 0], points[j, 1], points[j, 2]
            u, v = c * px + s * py, c * py - s * px
            u_low, u_high = min(u_low, u), max(u_high, u)
            v_low, v_high = min(v_low, v), max(v_high, v)
            low, high = min(low, pz), max(high, pz)
        u, v = (u_low + u_high) / 2, (v_low + v_high) / 2
        center[i, 0], center[i, 1], center[i, 2] = c * u - s * v, s * u + c * v, (low + high) / 2
        length, breadth = u_high - u_low, v_high - v_low
        if length < breadth:
            length, breadth = breadth, length
            best += np.pi / 2
        while best > np.pi / 2:
            best -= np.pi
        size[i, 0], size[i, 1], size[i, 2] = length, breadth, high - low
        yaw[i] = best
    return center, size, yaw
