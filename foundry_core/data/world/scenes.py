# SPDX-License-Identifier: Apache-2.0
"""Scenes: procedural objects standing and moving on a street or in a room, and what surrounds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from foundry_core.data.mesh import LabeledMesh
from foundry_core.data.procedural import CATEGORIES, make_shape
from foundry_core.data.world.background import Background, room_background, street_background, street_ground

#: objects stand at least this far apart, metres, seen from above and at every moment
CLEARANCE = 0.8


@dataclass(frozen=True)
class Placed:
    """One object of a scene.

    Attributes:
        category: name in ``CATEGORIES``; ``class_id`` is its index.
        mesh: in the object's frame, metres, standing on z=0.
        position: [2] metres at time 0, in the world.
        yaw: heading, radians.
        velocity: [2] m/s, constant.
        reflectivity: float32 [len(PART_NAMES)], 0..1, of each part.
    """

    category: str
    mesh: LabeledMesh
    position: np.ndarray
    yaw: float
    velocity: np.ndarray
    reflectivity: np.ndarray

    @property
    def class_id(self) -> int:
        return CATEGORIES.index(self.category)

    @property
    def moving(self) -> bool:
        return bool(np.any(self.velocity))

    @property
    def rotation(self) -> np.ndarray:
        """World from object, [3,3]."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])

    def at(self, seconds: float) -> np.ndarray:
        """Position [2] at a time."""
        return self.position + self.velocity * seconds


@dataclass(frozen=True)
class Scene:
    """Objects, surroundings and the path of the sensor.

    Attributes:
        objects: object ids are indices into this tuple.
        background: everything that is no object.
        ground: height of the ground at (x, y), metres.
        sensor_pose: world from sensor [4,4] at a time in seconds.
    """

    objects: tuple[Placed, ...]
    background: Background
    ground: Callable[[float, float], float]
    sensor_pose: Callable[[float], np.ndarray]


@dataclass
class _Layout:
    """Collects objects whose footprints keep their distance from each other over the whole recording."""

    rng: np.random.Generator
    seconds: float
    objects: list[Placed] = field(default_factory=list)
    _boxes: list[np.ndarray] = field(default_factory=list)  # each [T,4]: low x, low y, high x, high y

    def __post_init__(self) -> None:
        self._times = np.linspace(0.0, self.seconds, max(2, int(4 * self.seconds) + 1))

    def reserve(self, low, high, path: Callable[[float], np.ndarray] | None = None) -> None:
        """Keep a rectangle, or one that follows a path, free of objects."""
        move = np.array([path(t)[:2, 3] if path else (0.0, 0.0) for t in self._times])
        self._boxes.append(np.concatenate([move + low, move + high], axis=1))

    def free(self, boxes: np.ndarray, clearance: float) -> bool:
        for other in self._boxes:
            apart = np.maximum(boxes[:, :2] - other[:, 2:], other[:, :2] - boxes[:, 2:]).max(axis=1)
            if apart.min() < clearance:
                return False
        return True

    def add(self, category: str, position, yaw: float, velocity=(0.0, 0.0), clearance=CLEARANCE, mesh=None) -> bool:
        """Place a new object unless it comes too close to another; says whether it was placed."""
        mesh = mesh or make_shape(category, self.rng)
        reflectivity = self.rng.uniform(0.2, 0.9, 64).astype(np.float32)
        placed = Placed(category, mesh, np.asarray(position, float), yaw, np.asarray(velocity, float), reflectivity)
        flat = (mesh.vertices @ placed.rotation.T)[:, :2]
        move = placed.position + self._times[:, None] * placed.velocity
        boxes = np.concatenate([move + flat.min(axis=0), move + flat.max(axis=0)], axis=1)
        if not self.free(boxes, clearance):
            return False
        self.objects.append(placed)
        self._boxes.append(boxes)
        return True

    def scatter(self, category: str, count: int, draw: Callable[[], tuple], tries: int = 12, **options) -> int:
        """Try to place ``count`` objects where ``draw`` says (position, yaw[, velocity]); returns how many fitted."""
        placed = 0
        for _ in range(count):
            mesh = options.get("mesh") or make_shape(category, self.rng)
            placed += any(self.add(category, *draw(), **{**options, "mesh": mesh}) for _ in range(tries))
        return placed


def _pose(position, yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    pose = np.eye(4)
    pose[:3, :3] = (
        np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        @ np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
        @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    )
    pose[:3, 3] = position
    return pose


def _street(rng: np.random.Generator, seconds: float, speed: float) -> Scene:
    lane, parked, strip, walk, facade = 1.9, 5.0, (7.4, 8.6), (10.6, 12.0), 13.6
    begin, end = -35.0, 45.0 + speed * seconds
    ground = street_ground(rng)
    phase = rng.uniform(0, 2 * np.pi, 3)

    def sensor_pose(t: float) -> np.ndarray:
        x, y = speed * t, -lane + 0.15 * np.sin(0.4 * t + phase[0])
        z = ground(x, y) + 1.85
        grade = (ground(x + 1.4, y) - ground(x - 1.4, y)) / 2.8
        shake = np.deg2rad(0.25) * np.sin(np.array([5.1, 6.3]) * t + phase[1:])
        return _pose((x, y, z), 0.03 * np.cos(0.4 * t + phase[0]), shake[0] - np.arctan(grade), shake[1])

    layout = _Layout(rng, seconds)
    layout.reserve((-2.5, -1.1), (2.5, 1.1), sensor_pose)
    for side in (-1, 1):
        layout.reserve((begin - 50, side * facade - 0.3), (end + 50, side * facade + 0.3))

    def along() -> float:
        return float(rng.uniform(begin + 4, end - 4))

    def beside(low: float, high: float, yaws, jitter: float = 0.15) -> Callable[[], tuple]:
        def draw() -> tuple:
            side = float(rng.choice([-1.0, 1.0]))
            return (along(), side * rng.uniform(low, high)), float(rng.choice(yaws)) + jitter * rng.normal()

        return draw

    def flow(low: float, high: float, pace: tuple[float, float]) -> Callable[[], tuple]:
        def draw() -> tuple:
            side, way = rng.choice([-1.0, 1.0], 2)
            heading = 0.0 if way > 0 else np.pi
            return (along(), side * rng.uniform(low, high)), heading, (way * rng.uniform(*pace), 0.0)

        return draw

    # traffic first: it needs its lanes; oncoming vehicles share one speed, so they never meet
    oncoming, straight = float(rng.uniform(5, 8)), (0.0, np.pi)
    layout.add("car", (rng.uniform(13, 17), -lane), 0.0, (speed, 0.0))
    for start in np.arange(14.0, 30.0 + (oncoming + speed) * seconds, 21.0):
        kind = str(rng.choice(["car", "car", "car", "truck", "bus", "motorcycle"]))
        layout.add(kind, (start + rng.uniform(0, 6), lane), np.pi, (-oncoming, 0.0))
    scale = (end - begin) / 100.0
    layout.scatter("person", round(10 * scale), flow(*walk, (0.8, 1.7)))
    layout.scatter("dog", round(2 * scale), flow(*walk, (0.8, 1.7)))
    for _ in range(2):  # somebody crosses the road
        way = float(rng.choice([-1.0, 1.0]))
        start, pace = (rng.uniform(8, 0.7 * end), -way * 12.0), way * rng.uniform(1.2, 1.7)
        layout.add("person", start, way * np.pi / 2, (0.0, pace))
    layout.scatter("truck", round(1.5 * scale), beside(parked + 0.1, parked + 0.3, straight, 0.01))
    for _ in range(round(7 * scale)):
        mesh = make_shape("tree", rng)
        widest = float(2 * np.abs(mesh.vertices[:, :2]).max())
        if widest > 3.8:
            mesh = mesh.scaled(3.8 / widest)
        layout.scatter("tree", 1, beside(7.9, 8.2, straight, 0.5), mesh=mesh)
    layout.scatter("car", round(10 * scale), beside(parked - 0.15, parked + 0.15, straight, 0.02))
    layout.scatter("motorcycle", round(3 * scale), beside(parked, parked + 0.4, straight, 0.2))
    layout.scatter("bicycle", round(4 * scale), beside(*strip, straight, 0.3))
    for name, count in (("pole", 5), ("sign", 5), ("bin", 4), ("bench", 4), ("cone", 4), ("box", 3), ("plant", 2)):
        facing = (-np.pi / 2, np.pi / 2) if name in ("bench", "sign") else straight
        layout.scatter(name, round(count * scale), beside(*strip, facing, 0.1))
    layout.scatter("suitcase", round(2 * scale), beside(*walk, straight, 1.0))
    layout.scatter("person", round(4 * scale), beside(7.4, 12.0, straight, 1.0))
    hedges = []
    for _ in range(round(3 * scale)):  # clutter that belongs to no class
        (x, y), _yaw = beside(7.6, 8.4, straight)()
        size = rng.uniform((1.5, 0.5, 0.5), (3.5, 0.9, 1.2))
        box = np.concatenate([(x, y) - size[:2] / 2, (x, y) + size[:2] / 2])
        if layout.free(box[None], CLEARANCE):
            layout.reserve(box[:2], box[2:])
            hedges.append(((x, y, ground(x, y) + size[2] / 2), size))
    background = street_background(rng, ground, begin - 15, end + 15, facade, hedges)
    return Scene(tuple(layout.objects), background, ground, sensor_pose)


def _room(rng: np.random.Generator, seconds: float, camera: bool) -> Scene:
    half = np.array([rng.uniform(5.2, 6.2), rng.uniform(4.6, 5.4)])
    phase, turn = rng.uniform(0, 2 * np.pi), 2 * np.pi / max(seconds, 8.0) * float(rng.choice([-1.0, 1.0]))
    height, pitch = (1.25, np.deg2rad(17.0)) if camera else (0.85, 0.0)

    def sensor_pose(t: float) -> np.ndarray:
        angle = phase + turn * t
        # a camera looks across the room from its circle, a lidar drives along it
        yaw = angle + np.pi if camera else angle + np.sign(turn) * np.pi / 2
        return _pose((0.9 * np.cos(angle), 0.7 * np.sin(angle), height), yaw, pitch)

    layout = _Layout(rng, seconds)
    layout.reserve((-1.2, -1.0), (1.2, 1.0))
    for axis in (0, 1):
        for side in (-1, 1):
            low, high = -half - 1, half + 1
            low[axis], high[axis] = sorted((side * half[axis], side * (half[axis] + 1)))
            layout.reserve(low, high)

    def anywhere() -> tuple:
        return tuple(rng.uniform(-half, half)), float(rng.choice(4) * np.pi / 2 + 0.1 * rng.normal())

    def stroll() -> tuple:
        way = float(rng.choice([-1.0, 1.0]))
        reach = min(0.5 * seconds, half[0])
        x, y = -way * reach / 2, rng.choice([-1.0, 1.0]) * rng.uniform(1.7, half[1] - 1.2)
        return (x, y), 0.0 if way > 0 else np.pi, (way * reach / seconds, 0.0)

    layout.scatter("person", 1, stroll, tries=30, clearance=0.6)
    for name in ("sofa", "bed"):
        layout.scatter(name, 1, anywhere, tries=60, clearance=0.7)
    names = (("table", 2), ("shelf", 2), ("chair", 4), ("lamp", 2), ("plant", 2), ("person", 1), ("bin", 1))
    for name, count in (*names, ("box", 2), ("suitcase", 1), ("dog", 1)):
        layout.scatter(name, count, anywhere, tries=60, clearance=0.6)
    background = room_background(rng, half, 2.7)
    return Scene(tuple(layout.objects), background, lambda x, y: 0.0, sensor_pose)


def build_scene(kind: str, seed: int, seconds: float = 10.0, speed: float = 4.0, sensor: str = "lidar") -> Scene:
    """A scene of one kind, wholly determined by its arguments.

    Args:
        kind: ``street`` or ``room``.
        seconds: how long objects must keep clear of each other and of the sensor.
        speed: of the sensor along a street, m/s.
        sensor: ``lidar`` or ``rgbd``; sets where it is mounted in a room.
    """
    rng = np.random.default_rng([seed, 1])
    if kind == "street":
        return _street(rng, seconds, speed)
    if kind == "room":
        return _room(rng, seconds, sensor == "rgbd")
    raise ValueError(f"unknown scene '{kind}'; choose street or room")
