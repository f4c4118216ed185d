# SPDX-License-Identifier: Apache-2.0
"""Which records of a bag are published, and when: start, duration, loops and rate; /clock; topics beside the clouds."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock

from foundry_core.data.bags import Bag
from foundry_core.errors import InputError
from foundry_ros.messages import to_time
from foundry_ros.node import overridable


class Due(NamedTuple):
    """A record: its topic, receive stamp (ns), bytes, and when it is due (s from the beginning; None: in its turn)."""

    topic: str
    stamp_ns: int
    data: bytes
    due_s: float | None


class _Times:
    """The first and last of some moments (s), and how many they are."""

    def __init__(self) -> None:
        self.count, self._first, self._last = 0, 0.0, 0.0

    def add(self, moment: float) -> None:
        if self.count == 0:
            self._first = moment
        self._last = moment
        self.count += 1

    @property
    def span(self) -> float:
        return self._last - self._first


def schedule(bag: Bag, topics: list[str], settings: Any) -> Iterator[Due]:
    """The records of ``topics`` between ``start`` and ``start + duration`` of the first, ``loop`` times.

    The times of a loop follow those of the one before, with the mean period of the first topic between its last record
    and its first one again; stamps are the bag's own each time.
    """
    rate, offset = settings.rate, 0.0
    for _ in range(settings.loop):
        first = None
        every, paced = _Times(), _Times()  # of all records, and of those of the first topic
        for topic, stamp_ns, data in bag.messages(topics):
            if first is None:
                first = stamp_ns
            elapsed = (stamp_ns - first) * 1e-9 - settings.start
            if elapsed < 0:
                continue
            if settings.duration is not None and elapsed >= settings.duration:
                break
            every.add(elapsed)
            if topic == topics[0]:
                paced.add(elapsed)
            yield Due(topic, stamp_ns, data, (offset + elapsed) / rate if rate else None)
        if not every.count:
            raise InputError(f"{bag.path}: nothing on {', '.join(topics)} from {settings.start:g} s on; lower start")
        period = paced.span / (paced.count - 1) if paced.count > 1 else 0.0
        offset += max(every.span, paced.span + period)


def expected(bag: Bag, topics: list[str], settings: Any) -> int:
    """Records of the first of ``topics`` that :func:`schedule` will give; counted in the bag only where a part of it is
    played."""
    if settings.start == 0 and settings.duration is None:
        return bag.topics[topics[0]].count * settings.loop
    once = settings.model_copy(update={"loop": 1})
    return settings.loop * sum(item.topic == topics[0] for item in schedule(bag, topics, once))


#: topics that a replay publishes itself, or that every node does
_SHARED = ("/clock", "/diagnostics", "/parameter_events", "/rosout")


class Beside(NamedTuple):
    """Topic -> message class of what is published beside the clouds, and topic -> why it is not, of other topics."""

    types: dict[str, type]
    left_out: dict[str, str]


def beside(bag: Bag, also: str, clouds: str, output: str, node: str) -> Beside:
    """What is published beside the clouds: nothing that the replay publishes itself, or the node that answers.

    Args:
        also: topics, separated by commas; ``all`` for those whose types are installed.
        clouds: topic of the bag whose clouds are played.
        output: topic that they are published on, and
        node: name of the node that answers, both from the root on.

    Raises:
        InputError: no such topic, or its type is not installed.
    """
    wanted = list(bag.topics) if also == "all" else [name.strip() for name in also.split(",") if name.strip()]
    found = Beside({}, {})
    for name in wanted:
        if name not in bag.topics:
            raise InputError(f"{bag.path}: no topic '{name}'; it has {', '.join(bag.topics)}")
        package, _, kind = bag.topics[name].type.partition("/msg/")
        if name == clouds:
            continue
        if name in (output, *_SHARED) or name.startswith(f"{node}/"):
            found.left_out[name] = "the replay or the node publishes it itself"
            continue
        try:
            found.types[name] = getattr(importlib.import_module(f"{package}.msg"), kind)
        except (ImportError, AttributeError):
            why = f"{package} is not installed" if kind else f"{package} is of an action or a service"
            if also != "all":
                raise InputError(f"{bag.path}: topic '{name}': {why}; leave it out") from None
            found.left_out[name] = why
    return found


#: messages of a latched topic that are kept for late listeners: of /tf_static there is one for each broadcaster
KEPT = 100


def _profile(latched: bool) -> QoSProfile:
    if latched:
        return QoSProfile(depth=KEPT, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    return QoSProfile(depth=10)


class Companions:
    """Publishers of /clock and of the topics beside the clouds.

    Args:
        types: topic -> message class.
        latched: topics whose messages late listeners get, too; others would not be heard by who listens so.
    """

    def __init__(self, node: Any, types: Mapping[str, type], clock: bool, latched: Collection[str] = ()) -> None:
        self._others = {
            name: node.create_publisher(kind, name, _profile(name in latched), qos_overriding_options=overridable())
            for name, kind in types.items()
        }
        self._clock = node.create_publisher(Clock, "/clock", 10) if clock else None
        self.published = 0

    @property
    def topics(self) -> list[str]:
        return list(self._others)

    def tick(self, stamp_ns: int) -> None:
        """Tell the time of the bag."""
        if self._clock is not None:
            self._clock.publish(Clock(clock=to_time(stamp_ns)))

    def publish(self, item: Due) -> bool:
        """Publish a record that is no cloud; False where it is none of these topics."""
        if item.topic not in self._others:
            return False
        self._others[item.topic].publish(item.data)
        self.published += 1
        return True
