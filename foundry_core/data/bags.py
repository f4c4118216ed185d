# SPDX-License-Identifier: Apache-2.0
"""rosbag2 recordings (mcap and sqlite3, compressed or not), read without a ROS installation.

The records of a bag are the serialised messages as they were on the wire (CDR), so a replay can publish them
unchanged; :meth:`Bag.decode` turns one into a message object with the field names of the ROS definition.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from foundry_core.errors import InputError

POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
STORAGE = (".mcap", ".db3")


class Topic(NamedTuple):
    """One topic of a bag: its name, its message type and how many messages it has; ``latched``: its publisher kept the
    last ones for late listeners (durability transient_local)."""

    name: str
    type: str
    count: int
    latched: bool = False


@lru_cache(maxsize=1)
def typestore() -> Any:
    """The message definitions of ROS 2 jazzy, for bags that carry none and for writing."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_JAZZY)


def message_class(name: str) -> type:
    """The class of a message type, such as ``std_msgs/msg/String``, to write to a bag."""
    return typestore().types[name]


def _locate(path: Path) -> Path:
    """The folder or storage file to open; a folder without metadata may hold one storage file."""
    if not path.exists():
        raise InputError(f"{path}: no such bag; give a rosbag2 folder, an .mcap or a .db3 file")
    if path.is_file():
        if path.suffix not in STORAGE:
            raise InputError(f"{path}: not a rosbag2 recording; give its folder, an .mcap or a .db3 file")
        return path
    if (path / "metadata.yaml").is_file():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in STORAGE)
    if len(files) == 1:
        return files[0]
    found = f"{len(files)} storage files and no metadata.yaml" if files else "no metadata.yaml and no storage file"
    raise InputError(f"{path}: not a rosbag2 folder ({found}); give the folder that 'ros2 bag record' wrote")


def _latched(connection: Any) -> bool:
    from rosbags.interfaces import QosDurability

    # tf2 listens to this name with that durability; a bare .mcap may not say what was offered
    return connection.topic.endswith("/tf_static") or any(
        profile.durability == QosDurability.TRANSIENT_LOCAL for profile in connection.ext.offered_qos_profiles
    )


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text.rstrip(".")


class Bag:
    """An open bag, as a context manager.

    Attributes:
        path: what was opened.
        topics: name -> :class:`Topic`, sorted by name.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.topics: dict[str, Topic] = {}
        self._reader: Any = None
        self._types: dict[str, Any] = {}

    def __enter__(self) -> Bag:
        from rosbags.rosbag2 import Reader

        located = _locate(self.path)
        try:
            self._reader = Reader(located)
            self._reader.open()
        except Exception as error:  # the storage layers raise what they meet: struct, apsw, zstd, assertion errors
            self._reader = None
            raise InputError(
                f"{self.path}: cannot be opened as a bag ({_reason(error)}); it is damaged or cut short, record it "
                "again or run 'ros2 bag reindex'"
            ) from None
        counts: dict[str, Topic] = {}
        for connection in self._reader.connections:
            name, kind = connection.topic, connection.msgtype
            before = counts.get(name, Topic(name, kind, 0))
            count, latched = before.count + connection.msgcount, before.latched or _latched(connection)
            counts[name] = Topic(name, kind, count, latched)
        self.topics = dict(sorted(counts.items()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def messages(self, topic: str | Collection[str] | None = None) -> Iterator[tuple[str, int, bytes]]:
        """Records in the order of the bag: (topic, receive stamp in ns, serialised message).

        Args:
            topic: only this topic, or these; all when None.

        Raises:
            InputError: no such topic, or the bag breaks off.
        """
        connections = list(self._reader.connections)
        if topic is not None:
            wanted = {topic} if isinstance(topic, str) else set(topic)
            if missing := sorted(wanted - self.topics.keys()):
                raise InputError(f"{self.path}: no topic '{missing[0]}'; it has {self._topic_names()}")
            connections = [connection for connection in connections if connection.topic in wanted]
        expected = sum(connection.msgcount for connection in connections)
        records = self._reader.messages(connections=connections) if connections else iter(())
        read = 0
        while True:
            try:
                connection, stamp_ns, data = next(records)
            except StopIteration:
                break
            except Exception as error:
                raise InputError(
                    f"{self.path}: breaks off after {read} of {expected} messages ({_reason(error)}); record it again"
                ) from None
            read += 1
            yield connection.topic, int(stamp_ns), bytes(data)
        if read < expected:
            raise InputError(
                f"{self.path}: has {read} of the {expected} messages it announces; it is cut short, record it again"
            )

    def decode(self, topic: str, data: bytes) -> Any:
        """The message object of one record; the jazzy definitions first, then the bag's own.

        Raises:
            InputError: unknown message type or a record that does not hold a message of it.
        """
        kind = self.topics[topic].type
        store = self._store(topic, kind)
        try:
            return store.deserialize_cdr(data, kind)
        except Exception as error:
            raise InputError(f"{self.path}: topic '{topic}' has a damaged {kind} ({_reason(error)})") from None

    def _store(self, topic: str, kind: str) -> Any:
        if kind in typestore().types:
            return typestore()
        if kind not in self._types:
            from rosbags.typesys import Stores, get_types_from_msg, get_typestore

            definition = next(c.msgdef.data for c in self._reader.connections if c.topic == topic)
            try:
                store = get_typestore(Stores.ROS2_JAZZY)
                store.register({k: v for k, v in get_types_from_msg(definition, kind).items() if k not in store.types})
                store.types[kind]
            except Exception:
                raise InputError(f"{self.path}: topic '{topic}' has unknown type {kind} and no definition") from None
            self._types[kind] = store
        return self._types[kind]

    def _topic_names(self) -> str:
        return ", ".join(f"{topic.name} ({topic.type})" for topic in self.topics.values()) or "no topics"

    def point_cloud_topics(self) -> list[tuple[str, int]]:
        """(name, message count) of each PointCloud2 topic that has messages, most messages first, then by name."""
        found = [
            (topic.name, topic.count) for topic in self.topics.values() if topic.type == POINT_CLOUD and topic.count
        ]
        return sorted(found, key=lambda item: (-item[1], item[0]))

    def choose_point_cloud_topic(self, topic: str | None = None) -> str:
        """``topic`` when it is a PointCloud2 topic; without one the only such topic, or ``/points`` among several.

        Raises:
            InputError: none, not that one, or several to choose from.
        """
        clouds = [name for name, _ in self.point_cloud_topics()]
        if topic is not None:
            if topic in clouds:
                return topic
            choice = f"choose one of {', '.join(clouds)}" if clouds else f"it has {self._topic_names()}"
            raise InputError(f"{self.path}: no point clouds (PointCloud2) on '{topic}'; {choice}")
        if not clouds:
            raise InputError(f"{self.path}: no PointCloud2 messages; it has {self._topic_names()}")
        if len(clouds) == 1 or "/points" in clouds:
            return "/points" if "/points" in clouds else clouds[0]
        raise InputError(f"{self.path}: several PointCloud2 topics; choose one of {', '.join(clouds)} with --topic")


def open_bag(path: str | Path) -> Bag:
    """A rosbag2 folder, or a single .mcap or .db3 file: ``with open_bag(path) as bag``.

    Raises:
        InputError: on entry, when it is missing, no bag, damaged or cut short.
    """
    return Bag(path)


def read_messages(path: str | Path, topic: str | None = None) -> Iterator[tuple[str, int, Any]]:
    """Decoded messages of a bag: (topic, receive stamp in ns, message object)."""
    with open_bag(path) as bag:
        for name, stamp_ns, data in bag.messages(topic):
            yield name, stamp_ns, bag.decode(name, data)


def point_cloud_topics(path: str | Path) -> list[tuple[str, int]]:
    """See :meth:`Bag.point_cloud_topics`."""
    with open_bag(path) as bag:
        return bag.point_cloud_topics()


def choose_point_cloud_topic(path: str | Path, topic: str | None = None) -> str:
    """See :meth:`Bag.choose_point_cloud_topic`."""
    with open_bag(path) as bag:
        return bag.choose_point_cloud_topic(topic)
