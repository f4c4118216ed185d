# SPDX-License-Identifier: Apache-2.0
"""What a simulated recording is made of: one setting for each choice, all of it drawn from one seed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foundry_core.data.world.sensors import LidarConfig, RgbdConfig
from foundry_core.schema import Settings

#: nominal start of a simulated recording, ns since the epoch
START_NS = 1_700_000_000_000_000_000


class WorldConfig(Settings):
    """A recording of the simulated world."""

    kind: Literal["street", "room"] = Field("street", description="scene: a street with traffic, or a furnished room")
    sensor: Literal["lidar", "rgbd"] = Field("lidar", description="spinning lidar or depth camera")
    seconds: float = Field(10.0, gt=0, le=600, description="length of the recording, s")
    rate_hz: float = Field(10.0, gt=0, le=60, description="frames a second")
    seed: int = Field(0, ge=0, description="seed of shapes, layout, motion and noise")
    beams: Literal[16, 32, 64] = Field(64, description="beams of the lidar")
    lidar: LidarConfig | None = Field(None, description="the lidar in full; replaces 'beams'")
    rgbd: RgbdConfig | None = Field(None, description="the depth camera in full")
    raycaster: Literal["numba", "open3d"] = Field("numba", description="what casts the rays; open3d needs its package")
    speed: float = Field(4.0, ge=0, le=30, description="speed of the sensor along a street, m/s")

    @property
    def frames(self) -> int:
        """Number of frames, at least one."""
        return max(1, round(self.seconds * self.rate_hz))

    @property
    def frame_id(self) -> str:
        """Frame of the points, ``lidar`` or ``camera``."""
        return "lidar" if self.sensor == "lidar" else "camera"

    def sensor_config(self) -> LidarConfig | RgbdConfig:
        """The sensor in use; a lidar in a room looks 45 degrees up and down."""
        if self.sensor == "rgbd":
            return self.rgbd or RgbdConfig()
        if self.lidar is not None:
            return self.lidar
        span = (-45.0, 30.0) if self.kind == "room" else None
        minimum = 0.3 if self.kind == "room" else 0.7
        steps = {16: 2160, 32: 1800, 64: 1440}[self.beams]
        return LidarConfig(beams=self.beams, azimuth_steps=steps, elevation_deg=span, min_range=minimum)
