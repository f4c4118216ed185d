# SPDX-License-Identifier: Apache-2.0
"""Clouds in a frame of choice, by way of tf2 where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np

from foundry_core.cdr import Header
from foundry_core.errors import InputError

#: s by which a cloud is older than one before it when time itself has stepped back; tf2 keeps transforms for 10 s
STEP_BACK = 5.0


def rotation(x: float, y: float, z: float, w: float) -> np.ndarray:
    """Rotation matrix [3,3] of a quaternion.

    Raises:
        InputError: its length is not 1 within 0.01.
    """
    length = float(np.sqrt(x * x + y * y + z * z + w * w))
    if not abs(length - 1) < 0.01:
        raise InputError(f"transform: quaternion of length {length:.3g}; fix its publisher")
    x, y, z, w = (value / length for value in (x, y, z, w))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


class TargetFrame:
    """Moves clouds into ``frame_id``; where tf2 cannot be imported, one warning, and they stay as they are.

    Args:
        node: its /tf and /tf_static are listened to.
        patience: s to wait for a transform that is not there yet.
    """

    def __init__(self, node: Any, frame_id: str, patience: float) -> None:
        self._frame_id, self._patience = frame_id, patience
        self._newest = 0.0  # s
        self._listener = self._buffer = None
        try:
            import tf2_ros
        except ImportError:
            node.get_logger().warning(
                f"target_frame '{frame_id}' is ignored: tf2_ros is not installed; answers are in the clouds' own frame"
            )
            return
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def move(self, points: np.ndarray, header: Header) -> tuple[np.ndarray, Header]:
        """Points float32 [N,3] and their header in the target frame at the header's time; call in a worker thread.

        Raises:
            InputError: no transform.
        """
        if self._buffer is None or header.frame_id == self._frame_id:
            return points, header
        from rclpy.duration import Duration
        from rclpy.time import Time

        stamp = Time(seconds=max(header.stamp.sec, 0), nanoseconds=header.stamp.nanosec)
        self._forget_the_future(1e-9 * stamp.nanoseconds)
        try:
            found = self._buffer.lookup_transform(
                self._frame_id, header.frame_id, stamp, timeout=Duration(seconds=self._patience)
            ).transform
        except Exception as error:  # tf2 has several, without a base of their own
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"no transform from '{header.frame_id}' to '{self._frame_id}': {reason}") from None
        q, t = found.rotation, found.translation
        moved = points @ rotation(q.x, q.y, q.z, q.w).T + np.array([t.x, t.y, t.z])
        return moved.astype(np.float32), header._replace(frame_id=self._frame_id)

    def _forget_the_future(self, seconds: float) -> None:
        """Forget all but static transforms when time has stepped back, as in a bag that is played again.

        tf2 would refuse those that are older than what it keeps.
        """
        if seconds < self._newest - STEP_BACK:
            self._buffer.clear()
            self._newest = seconds
        self._newest = max(self._newest, seconds)

    def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.unregister()
            self._listener = self._buffer = None
