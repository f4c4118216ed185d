# SPDX-License-Identifier: Apache-2.0
"""Simulated sensors: the directions that they look in, and what they make of an ideal distance.

Every sensor frame is x forward, y left, z up (REP-103) with the sensor at the origin.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from foundry_core.schema import Settings

#: elevation angles in degrees of spinning lidars, highest beam first, after the data sheets of VLP-16, HDL-32E, HDL-64E
BEAMS: dict[int, np.ndarray] = {
    16: np.linspace(15.0, -15.0, 16),
    32: np.linspace(10.67, -30.67, 32),
    64: np.concatenate([np.linspace(2.0, -8.33, 32), np.linspace(-8.83, -24.33, 32)]),
}


class LidarConfig(Settings):
    """A spinning lidar. One sweep is taken as an instant: there is no distortion by the sensor's own motion."""

    beams: Literal[16, 32, 64] = Field(64, description="number of beams; sets the table of elevation angles")
    azimuth_steps: int = Field(1440, ge=16, le=8192, description="firings in one turn")
    elevation_deg: tuple[float, float] | None = Field(
        None, description="lowest and highest beam in degrees, evenly spaced; the table of the beam count when absent"
    )
    min_range: float = Field(0.7, ge=0, description="nearest return, metres")
    max_range: float = Field(80.0, gt=0, description="farthest return, metres")
    range_noise: float = Field(0.012, ge=0, description="standard deviation of a range, metres")
    dropout: float = Field(0.01, ge=0, lt=1, description="probability that a return is lost, whatever its strength")
    full_return_range: float = Field(
        90.0, gt=0, description="metres at which a white surface seen head-on is lost with probability 0.37"
    )

    @model_validator(mode="after")
    def _ordered(self) -> LidarConfig:
        if self.min_range >= self.max_range:
            raise ValueError(f"min_range {self.min_range} must be below max_range {self.max_range}")
        if self.elevation_deg is not None and not -90 <= self.elevation_deg[0] < self.elevation_deg[1] <= 90:
            raise ValueError(f"elevation_deg {self.elevation_deg} must be two rising angles in -90..90")
        return self

    @cached_property
    def elevations(self) -> np.ndarray:
        """Elevation of each beam, float64 [beams], radians, highest first."""
        if self.elevation_deg is None:
            return np.deg2rad(BEAMS[self.beams])
        return np.deg2rad(np.linspace(self.elevation_deg[1], self.elevation_deg[0], self.beams))

    @cached_property
    def directions(self) -> np.ndarray:
        """Unit vectors float32 [beams * azimuth_steps, 3], beam after beam."""
        azimuth = np.pi - 2 * np.pi * np.arange(self.azimuth_steps) / self.azimuth_steps  # clockwise, from behind
        elevation, azimuth = np.meshgrid(self.elevations, azimuth, indexing="ij")
        return unit_vectors(elevation, azimuth).reshape(-1, 3)

    def measure(self, distance, cosine, albedo, rng: np.random.Generator):
        """What the sensor makes of ideal returns.

        A return of strength ``albedo * sqrt(cosine)`` weakens with the square of its range; weak ones get lost.

        Args:
            distance, cosine, albedo: float32 [R], metres, cosine of the angle of incidence, reflectivity 0..1.

        Returns:
            kept int64 [N], indices of the returns; range float32 [N] metres; intensity float32 [N] in 0..1.
        """
        near = np.flatnonzero((distance > self.min_range) & (distance < self.max_range))
        distance, strength = distance[near], albedo[near] * np.sqrt(cosine[near])
        lost = self.dropout + (1 - self.dropout) * np.exp(-strength * (self.full_return_range / distance) ** 2)
        kept = rng.random(len(near)) >= lost
        noise = rng.normal(0.0, self.range_noise, len(near))
        measured = (distance + noise).astype(np.float32)[kept]
        intensity = np.clip(strength * rng.normal(1.0, 0.08, len(near)), 0.0, 1.0).astype(np.float32)[kept]
        return near[kept], measured, intensity


class RgbdConfig(Settings):
    """A depth camera with a pinhole pattern; the points are in the camera's body frame, x along the optical axis."""

    width: int = Field(320, ge=8, le=1920, description="columns of the depth image")
    height: int = Field(240, ge=8, le=1200, description="rows of the depth image")
    field_of_view_deg: float = Field(58.0, gt=5, lt=150, description="horizontal field of view, degrees")
    min_range: float = Field(0.4, ge=0, description="nearest depth, metres")
    max_range: float = Field(6.0, gt=0, description="farthest depth, metres")
    noise_floor: float = Field(0.0012, ge=0, description="standard deviation of the depth at 0.4 m, metres")
    noise_growth: float = Field(
        0.0019, ge=0, description="its growth with (z - 0.4 m) squared, 1/m (Nguyen et al., 2012)"
    )
    edge_dropout: float = Field(0.6, ge=0, le=1, description="probability that a pixel at a depth step is lost")
    dropout: float = Field(0.01, ge=0, lt=1, description="probability that any pixel is lost")

    @model_validator(mode="after")
    def _ordered(self) -> RgbdConfig:
        if self.min_range >= self.max_range:
            raise ValueError(f"min_range {self.min_range} must be below max_range {self.max_range}")
        return self

    @cached_property
    def directions(self) -> np.ndarray:
        """Unit vectors float32 [height * width, 3], row after row from the top left pixel."""
        return self.window(0, self.height, 0, self.width)

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return 0.5 * self.width / float(np.tan(np.deg2rad(self.field_of_view_deg) / 2))

    def window(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Unit vectors float32 of the pixels in rows top..bottom-1 and columns left..right-1, row after row."""
        v, u = np.meshgrid(np.arange(top, bottom), np.arange(left, right), indexing="ij")
        rays = np.stack([np.full(u.shape, self.focal), (self.width - 1) / 2 - u, (self.height - 1) / 2 - v], axis=-1)
        return (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).reshape(-1, 3).astype(np.float32)

    def measure(self, distance, cosine, albedo, rng: np.random.Generator, directions=None, shape=None):
        """See :meth:`LidarConfig.measure`; the noise is along the ray and follows the depth.

        Args:
            directions, shape: of a :meth:`window` and its (rows, columns); the whole image when absent.
        """
        along = (self.directions if directions is None else directions)[:, 0]
        depth = distance * along
        image = depth.reshape(shape or (self.height, self.width))
        step = np.zeros(image.shape, bool)  # pixels next to a jump in depth
        rows = np.abs(image[1:] - image[:-1]) > 0.03 * np.minimum(image[1:], image[:-1])
        columns = np.abs(image[:, 1:] - image[:, :-1]) > 0.03 * np.minimum(image[:, 1:], image[:, :-1])
        for side, jump in ((step[1:], rows), (step[:-1], rows), (step[:, 1:], columns), (step[:, :-1], columns)):
            side |= jump
        lost = np.maximum(self.dropout, self.edge_dropout * step.ravel())
        lost = np.maximum(lost, np.clip(1.0 - cosine / 0.15, 0.0, 1.0))  # grazing surfaces give no depth
        kept = np.flatnonzero((depth > self.min_range) & (depth < self.max_range) & (rng.random(len(depth)) >= lost))
        sigma = self.noise_floor + self.noise_growth * np.maximum(depth[kept] - 0.4, 0.0) ** 2
        measured = distance[kept] + sigma * rng.standard_normal(len(kept)) / along[kept]
        intensity = np.clip(albedo[kept] * (0.4 + 0.6 * cosine[kept]), 0.0, 1.0).astype(np.float32)
        return kept, measured.astype(np.float32), intensity


def unit_vectors(elevation: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """Directions float32 [..., 3] of angles [...] in radians."""
    flat = np.cos(elevation)
    return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], axis=-1).astype(np.float32)
