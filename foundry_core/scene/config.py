# SPDX-License-Identifier: Apache-2.0
"""Settings of the path from a sweep to its segments; the defaults fit a lidar on a vehicle."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from foundry_core.schema import Settings


class Box(Settings):
    """An axis-aligned box in the sensor frame (x forward, y left, z up), metres."""

    x_min: float = -40.0
    x_max: float = 40.0
    y_min: float = -40.0
    y_max: float = 40.0
    z_min: float = -10.0
    z_max: float = 10.0

    @model_validator(mode="after")
    def _ordered(self) -> Box:
        for axis in "xyz":
            if getattr(self, f"{axis}_min") > getattr(self, f"{axis}_max"):
                raise ValueError(f"{axis}_min must not exceed {axis}_max")
        return self


class EgoBox(Box):
    """The box around the robot itself, whose returns are left out; empty (off) by default."""

    x_min: float = 0.0
    x_max: float = 0.0
    y_min: float = 0.0
    y_max: float = 0.0
    z_min: float = 0.0
    z_max: float = 0.0


class GroundConfig(Settings):
    """The ground: a plane for height and tilt, then a slope-limited surface through the lowest returns of a grid."""

    enabled: bool = Field(True, description="off: no point is ground (a cloud without a floor)")
    cell: float = Field(0.5, gt=0.005, le=10, description="grid cell, metres")
    slope: float = Field(0.15, ge=0, le=1, description="steepest ground relative to the plane, rise over run")
    tolerance: float = Field(0.15, gt=0, description="step that is still ground, such as a kerb, metres")
    clearance: float = Field(0.15, gt=0, description="points up to this height above the surface are ground, metres")
    max_tilt_deg: float = Field(35.0, ge=0, le=60, description="largest tilt of the sensor against the ground, degrees")
    level_from_deg: float = Field(3.0, ge=0, le=90, description="smallest tilt that is corrected, degrees")


class PlaneConfig(Settings):
    """Removal of dominant planes after the ground: a table's top, walls."""

    count: int = Field(0, ge=0, le=8, description="at most this many planes are removed")
    orientation: Literal["horizontal", "vertical", "any"] = Field("horizontal", description="planes that qualify")
    tolerance: float = Field(0.015, gt=0, description="distance at which a point belongs to the plane, metres")
    min_share: float = Field(0.15, gt=0, le=1, description="smallest share of the points left that makes a plane")
    only_above: bool = Field(True, description="below a removed horizontal plane nothing is an object")


class ClusterConfig(Settings):
    """Connected components of occupied cells."""

    method: Literal["birdseye", "voxel"] = Field("birdseye", description="cells seen from above, or cubes in space")
    cell: float = Field(0.25, gt=0.002, le=10, description="cell at the sensor, metres")
    growth: float = Field(0.015, ge=0, le=1, description="cell * (1 + growth * range), 1/m")


class SceneConfig(Settings):
    """Everything between a cloud and its segments."""

    crop: Box = Box()
    ego: EgoBox = EgoBox()
    max_points: int = Field(300_000, ge=1000, description="more points after the crop are thinned evenly")
    voxel: float = Field(0.0, ge=0, le=1, description="one point is kept per cube of this edge; 0 keeps all, metres")
    ground: GroundConfig = GroundConfig()
    planes: PlaneConfig = PlaneConfig()
    max_height: float = Field(4.5, gt=0, description="points higher above the ground belong to no object, metres")
    clusters: ClusterConfig = ClusterConfig()
    min_points: int = Field(30, ge=2, description="a segment has at least this many points")
    min_height: float = Field(0.35, ge=0, description="a segment reaches at least this high above the ground, metres")
    min_size: float = Field(0.25, ge=0, description="smallest longest edge of a segment, metres")
    max_size: float = Field(14.0, gt=0, description="longest edge of a segment, metres; larger ones are background")
    max_objects: int = Field(64, ge=1, description="segments per frame; the rest is counted")
    priority: Literal["nearest", "largest"] = Field("nearest", description="which segments come first")


def street_config() -> SceneConfig:
    """A lidar on a vehicle or an outdoor robot."""
    return SceneConfig()


def room_config() -> SceneConfig:
    """A depth camera or a lidar in a room: the floor is the only ground, tables and what stands on them are objects."""
    return SceneConfig(
        crop=Box(x_min=-8, x_max=8, y_min=-8, y_max=8, z_min=-4, z_max=4),
        voxel=0.01,
        ground=GroundConfig(cell=0.1, slope=0.05, tolerance=0.03, clearance=0.035),
        max_height=2.3,
        clusters=ClusterConfig(method="voxel", cell=0.07, growth=0.2),
        min_height=0.06,
        min_size=0.05,
        max_size=3.0,
    )


def tabletop_config() -> SceneConfig:
    """A depth camera that looks at a table: its top is removed too, and only what stands on it is an object.

    Where no floor is in view the top itself is found as the ground.
    """
    return SceneConfig(
        crop=Box(x_min=0, x_max=3, y_min=-2, y_max=2, z_min=-2, z_max=2),
        voxel=0.003,
        ground=GroundConfig(cell=0.03, slope=0.02, tolerance=0.012, clearance=0.012, max_tilt_deg=60),
        planes=PlaneConfig(count=1, tolerance=0.012, min_share=0.5),
        max_height=2.0,
        clusters=ClusterConfig(method="voxel", cell=0.01, growth=0.1),
        min_height=0.02,
        min_size=0.03,
        max_size=0.8,
    )
