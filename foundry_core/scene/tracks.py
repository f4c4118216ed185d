# SPDX-License-Identifier: Apache-2.0
"""Objects keep an identity from frame to frame: gated assignment and one constant-velocity filter per track.

Each axis has the same Kalman filter (position and velocity, white acceleration), so one 2x2 covariance serves a track's
three axes and turns of the sensor leave it as it is. Frames and tracks are joined at least total cost, where leaving a
track alone costs as much as the gate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields

import numpy as np
from pydantic import Field

from foundry_core.scene.assignment import assign, warm_up
from foundry_core.schema import Settings

_LEAST_SIZE = 0.1  # metres; below it edges differ by noise alone
_SIZE_MEMORY = 0.7  # share of a track's size that a new sighting leaves


class TracksConfig(Settings):
    """Objects keep an identity over frames, and their classes are fused over it."""

    enabled: bool = Field(True, description="off: every frame stands alone, track_id is -1")
    birth_hits: int = Field(2, ge=1, le=100, description="sightings in a row after which a track gets its id")
    coast: float = Field(0.8, gt=0, le=60, description="s that a track with an id outlives its last sighting")
    gate: float = Field(4.5, gt=0, le=20, description="farthest sighting of a track, in standard deviations")
    size_weight: float = Field(1.5, ge=0, le=100, description="weight of squared log ratios of the edges in the cost")
    position_noise: float = Field(0.15, gt=0, le=10, description="standard deviation of a centre, metres")
    size_noise: float = Field(0.08, ge=0, le=1, description="and its growth with an object's longest edge")
    acceleration: float = Field(3.0, gt=0, le=100, description="standard deviation of an acceleration, m/s^2")
    initial_speed: float = Field(4.0, gt=0, le=100, description="standard deviation of a new track's velocity, m/s")
    memory: float = Field(0.95, ge=0, lt=1, description="weight of the past when a new sighting's classes are fused in")
    independence: float = Field(
        0.7, ge=0, le=1, description="n sightings count as n to this power: 0 their mean, 1 independent witnesses"
    )
    floor: float = Field(
        0.02, gt=0, le=0.5, description="least probability of a class in one sighting; caps what a single frame can say"
    )


@dataclass
class _State:
    """Tracks as columns over T rows."""

    key: np.ndarray  # int64, unique in the tracker's life
    track_id: np.ndarray  # int32, -1 until confirmed
    hits: np.ndarray  # int64
    seen_ns: np.ndarray  # int64, time of the last sighting, see _Time
    position: np.ndarray  # (T, 3) metres, in the sensor's present frame
    velocity: np.ndarray  # (T, 3) m/s
    size: np.ndarray  # (T, 3) metres
    covariance: np.ndarray  # (T, 3): position variance, covariance, velocity variance, of each axis

    @classmethod
    def empty(cls) -> _State:
        none = np.empty((0, 3))
        return cls(*(np.empty(0, kind) for kind in (np.int64, np.int32, np.int64, np.int64)), *(none,) * 4)

    def take(self, rows: np.ndarray) -> _State:
        return _State(*(getattr(self, item.name)[rows] for item in fields(self)))

    def join(self, other: _State) -> _State:
        return _State(*(np.concatenate([getattr(self, item.name), getattr(other, item.name)]) for item in fields(self)))


@dataclass(frozen=True)
class Tracked:
    """The answer for n sightings.

    Attributes:
        key: int64 [n], each one's track, tentative ones included; never used twice by a tracker.
        track_id: int32 [n], 0, 1, ...; -1 while the track is tentative.
        alive: keys of all tracks that are left, those that coast included.
        reset: why all tracks were given up before this frame: ``clock`` (it jumped back) or ``frame`` (another
            frame_id); None otherwise.
    """

    key: np.ndarray
    track_id: np.ndarray
    alive: np.ndarray = field(repr=False)
    reset: str | None = None


class _Time:
    """The time of frames (ns): it goes as their stamps do, and as ``clock`` does while a stamp comes again and again.

    Some drivers write no stamps, and tracks must age all the same. A stamp that comes twice does not hurry the time: it
    counts from the moment at which the stamp was new.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.stamp_ns: int | None = None
        self.now_ns = self._new_ns = self._heard_ns = 0

    def advance(self, stamp_ns: int) -> int:
        """A frame with this stamp came, which is no older than the one before; returns ns since that one."""
        before, heard = self.now_ns, self._clock()
        if stamp_ns == self.stamp_ns:
            self.now_ns = max(before, self._new_ns + heard - self._heard_ns)
        else:
            if self.stamp_ns is not None:
                self.now_ns = max(before, self._new_ns + stamp_ns - self.stamp_ns)
            self.stamp_ns, self._new_ns, self._heard_ns = stamp_ns, self.now_ns, heard
        return self.now_ns - before


class Tracker:
    """Tracks over frames, in the frame of the sensor.

    Attributes:
        resets: how often all tracks were given up, by reason.

    Args:
        clock: ns; is looked at for frames whose stamps stand still.
    """

    def __init__(self, config: TracksConfig | None = None, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.config = config or TracksConfig()
        self.resets: dict[str, int] = {}
        self._next_key = self._next_id = 0
        self._clock = clock
        self.clear()
        warm_up()

    def clear(self) -> None:
        """Give up all tracks; ids are not used again."""
        self._state = _State.empty()
        self._time = _Time(self._clock)
        self._frame_id = ""

    @property
    def confirmed(self) -> int:
        """Number of tracks that have an id, those that coast included."""
        return int((self._state.track_id >= 0).sum())

    def update(
        self, stamp_ns: int, center: np.ndarray, size: np.ndarray, motion: np.ndarray | None = None, frame_id: str = ""
    ) -> Tracked:
        """Join the sightings of one frame to the tracks.

        Args:
            stamp_ns: of the frame. A step back gives up all tracks; while it stands still, tracks age by the clock.
            center, size: [n,3] metres, of the boxes, in the sensor's frame.
            motion: T_now_before [4,4], takes coordinates of the previous frame's sensor to the present one's (its own
                motion, from odometry); None: the sensor stands still, or the tracks' velocities take its motion up.
            frame_id: another one than before gives up all tracks.

        Raises:
            ValueError: shapes that do not fit, or a motion that is not rigid.
        """
        center, size = np.asarray(center, float).reshape(-1, 3), np.asarray(size, float).reshape(-1, 3)
        if center.shape != size.shape or not (np.isfinite(center).all() and np.isfinite(size).all()):
            raise ValueError(f"expected finite centres and sizes [n,3], got {center.shape} and {size.shape}")
        motion = None if motion is None else _rigid(motion)
        reset = self._reset_reason(stamp_ns, frame_id)
        if reset is not None:
            self.resets[reset] = self.resets.get(reset, 0) + 1
            self.clear()
        self._frame_id = frame_id
        elapsed_ns = self._time.advance(stamp_ns)
        self._bury()
        self._predict(elapsed_ns * 1e-9, motion)
        size = np.maximum(size, _LEAST_SIZE)
        noise = (self.config.position_noise + self.config.size_noise * size.max(axis=1, initial=0.0)) ** 2  # (n)
        rows, columns = self._assign(center, size, noise)
        self._correct(rows, center[columns], size[columns], noise[columns])
        key, track_id = np.empty(len(center), np.int64), np.empty(len(center), np.int32)
        key[columns], track_id[columns] = self._state.key[rows], self._state.track_id[rows]
        missed = np.ones(len(self._state.key), bool)
        missed[rows] = False
        self._state = self._state.take(np.flatnonzero(~missed | (self._state.track_id >= 0)))  # a tentative one ends
        fresh = np.setdiff1d(np.arange(len(center)), columns)
        born = self._born(center[fresh], size[fresh], noise[fresh])
        key[fresh], track_id[fresh] = born.key, born.track_id
        self._state = self._state.join(born)
        return Tracked(key, track_id, self._state.key, reset)

    def _reset_reason(self, stamp_ns: int, frame_id: str) -> str | None:
        if self._time.stamp_ns is None:
            return None
        if stamp_ns < self._time.stamp_ns:
            return "clock"
        return "frame" if frame_id != self._frame_id else None

    def _predict(self, dt: float, motion: np.ndarray | None) -> None:
        state, variance = self._state, self.config.acceleration**2
        state.position = state.position + dt * state.velocity
        p, c, v = state.covariance.T
        state.covariance = np.stack(
            [
                p + 2 * dt * c + dt**2 * v + variance * dt**4 / 4,
                c + dt * v + variance * dt**3 / 2,
                v + variance * dt**2,
            ],
            axis=1,
        )
        if motion is not None:
            state.position = state.position @ motion[:3, :3].T + motion[:3, 3]
            state.velocity = state.velocity @ motion[:3, :3].T

    def _assign(self, center, size, noise) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the tracks and of the sightings that belong together, int64 [m] each."""
        state, limit = self._state, self.config.gate**2
        if not len(state.key) or not len(center):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        offset = ((center[None] - state.position[:, None]) ** 2).sum(axis=2)  # (T, n)
        cost = offset / (state.covariance[:, :1] + noise)
        cost += self.config.size_weight * (np.log(size[None] / state.size[:, None]) ** 2).sum(axis=2)
        rows, columns = assign(np.minimum(cost, limit))
        near = cost[rows, columns] < limit
        return rows[near], columns[near]

    def _correct(self, rows, center, size, noise) -> None:
        state = self._state
        p, c, v = state.covariance[rows].T
        position_gain, velocity_gain = p / (p + noise), c / (p + noise)
        error = center - state.position[rows]
        state.position[rows] += position_gain[:, None] * error
        state.velocity[rows] += velocity_gain[:, None] * error
        state.covariance[rows] = np.stack(
            [p * (1 - position_gain), c * (1 - position_gain), v - velocity_gain * c], axis=1
        )
        state.size[rows] = _SIZE_MEMORY * state.size[rows] + (1 - _SIZE_MEMORY) * size
        state.hits[rows] += 1
        state.seen_ns[rows] = self._time.now_ns
        self._confirm(state, rows)

    def _confirm(self, state: _State, rows: np.ndarray) -> None:
        ripe = rows[(state.track_id[rows] < 0) & (state.hits[rows] >= self.config.birth_hits)]
        state.track_id[ripe] = np.arange(self._next_id, self._next_id + len(ripe))
        self._next_id += len(ripe)

    def _bury(self) -> None:
        """Drop the tracks that were not seen for too long."""
        alive = self._time.now_ns - self._state.seen_ns <= round(self.config.coast * 1e9)
        self._state = self._state.take(np.flatnonzero(alive))

    def _born(self, center, size, noise) -> _State:
        count = len(center)
        key = np.arange(self._next_key, self._next_key + count)
        self._next_key += count
        born = _State(
            key,
            np.full(count, -1, np.int32),
            np.ones(count, np.int64),
            np.full(count, self._time.now_ns, np.int64),
            center,
            np.zeros((count, 3)),
            size,
            np.stack([noise, np.zeros(count), np.full(count, self.config.initial_speed**2)], axis=1),
        )
        self._confirm(born, np.arange(count))
        return born


def _rigid(motion: np.ndarray) -> np.ndarray:
    motion = np.asarray(motion, float)
    if motion.shape != (4, 4) or not np.isfinite(motion).all():
        raise ValueError(f"expected a finite motion [4,4], got shape {motion.shape}")
    rotation = motion[:3, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise ValueError("the motion's rotation is not orthonormal")
    return motion
