# SPDX-License-Identifier: Apache-2.0
"""Coloured point clouds as small pictures: points are balls, in front of one another, with shaded edges."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

_SIZE = 400  # pixels of a side; shown at half of that or less
_AZIMUTH, _ELEVATION = 2.2, 0.42  # from the front (+x), a little to the side
_LIGHT = np.array([-0.35, 0.65, 0.68])  # right, up, towards the viewer
_CLEAR = 0  # the palette's transparent entry


def draw_points(points: np.ndarray, group: np.ndarray, colors: np.ndarray, radius: float = 0.022) -> bytes:
    """A square PNG with a transparent ground.

    Args:
        points: [N,3], z up, any unit.
        group: int [N], the row of ``colors`` that each point has.
        colors: RGB [K,3] in 0..1, at most 64 of them.
        radius: of the balls, over the side of the picture.
    """
    levels = min(24, 255 // len(colors))
    at, depth = _project(points)  # (N, 2) and (N), in pixels
    r = radius * _SIZE
    reach = int(np.ceil(r))
    dx, dy = (grid.ravel() for grid in np.meshgrid(*[np.arange(-reach, reach + 1)] * 2))
    inside = dx**2 + dy**2 <= r * r
    dx, dy = dx[inside], dy[inside]  # (D), the pixels of a ball
    height = np.sqrt(r * r - dx**2 - dy**2)
    light = np.clip(np.stack([dx, -dy, height], axis=1) @ _LIGHT / r, 0, 1)
    pixel = np.rint(at).astype(np.int64)
    where = (pixel[:, 1, None] + dy) * _SIZE + pixel[:, 0, None] + dx  # (N, D)
    z = depth[:, None] + height
    front = np.argsort(z, axis=None, kind="stable")  # of several values for a pixel the last one stays
    flat = where.ravel()[front]
    nearest = np.full(_SIZE * _SIZE, -np.inf)
    shade, color = np.zeros(_SIZE * _SIZE), np.zeros(_SIZE * _SIZE, np.int64)
    nearest[flat] = z.ravel()[front]
    shade[flat] = np.broadcast_to(0.62 + 0.38 * light, z.shape).ravel()[front]
    color[flat] = np.broadcast_to(np.asarray(group)[:, None], z.shape).ravel()[front]
    drawn = np.isfinite(nearest)
    shade *= _occlusion(nearest.reshape(_SIZE, _SIZE)).ravel()
    level = np.clip(np.rint(shade * (levels - 1)), 0, levels - 1).astype(np.int64)
    image = np.where(drawn, 1 + color * levels + level, _CLEAR).astype(np.uint8).reshape(_SIZE, _SIZE)
    ramp = np.linspace(0, 1, levels)[:, None]
    palette = [np.zeros((1, 3)), *(ramp * color + (1 - ramp) * 0.12 * color for color in np.asarray(colors))]
    return encode_png(image, np.rint(255 * np.concatenate(palette)).astype(np.uint8))


def _project(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N,2] (x right, y down) and depth [N] in pixels (larger is nearer), seen from afar and a little above."""
    points = np.asarray(points, np.float64)
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    c, s = np.cos(_AZIMUTH), np.sin(_AZIMUTH)
    right, away = points @ [c, s, 0.0], points @ [-s, c, 0.0]
    c, s = np.cos(_ELEVATION), np.sin(_ELEVATION)
    flat = np.stack([right, -(c * points[:, 2] + s * away)], axis=1)
    depth = s * points[:, 2] - c * away
    low, high = flat.min(axis=0), flat.max(axis=0)
    scale = 0.9 * _SIZE / max(float((high - low).max()), 1e-9)
    return (flat - (low + high) / 2) * scale + _SIZE / 2, depth * scale


def _occlusion(depth: np.ndarray) -> np.ndarray:
    """Eye-dome lighting (Boucheny, 2009): 1 where nothing is in front of a pixel's neighbourhood, darker at edges."""
    dark = np.zeros_like(depth)
    floor = np.where(np.isfinite(depth), depth, depth[np.isfinite(depth)].min(initial=0.0) - _SIZE)
    for step in (2, 5):
        padded = np.pad(floor, step, constant_values=floor.min())
        for y, x in ((0, 1), (2, 1), (1, 0), (1, 2)):
            beside = padded[y * step : y * step + _SIZE, x * step : x * step + _SIZE]
            dark += np.clip((beside - floor) / (0.1 * _SIZE), 0, 1)
    return np.exp(-0.45 * dark)


def encode_png(image: np.ndarray, palette: np.ndarray) -> bytes:
    """An indexed PNG of uint8 [H,W] with a palette uint8 [K,3], K <= 256, whose first entry is transparent."""
    height, width = image.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = np.concatenate([np.zeros((height, 1), np.uint8), image], axis=1)  # each line starts with its filter: none
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", palette.tobytes()),
            chunk(b"tRNS", b"\0"),
            chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            chunk(b"IEND", b""),
        )
    )


def data_uri(png: bytes) -> str:
    """The picture as an address that needs no network."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
