# SPDX-License-Identifier: Apache-2.0
"""rosbag2 recordings (mcap and sqlite3, compressed or not), read and written without a ROS installation.

The records of a bag are the serialised messages as they were on the wire (CDR), so a replay can publish them
unchanged; :meth:`Bag.decode` turns one into a message object with the field names of the ROS definition.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from foundry_core.errors import InputError

POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
_STORAGE = (".mcap", ".db3")


class Topic(NamedTuple):
    """One topic of a bag: its name, its message type and how many messages it has."""

    name: str
    type: str
    count: int


@lru_cache(maxsize=1)
def typestore() -> Any:
    """The message definitions of ROS 2 jazzy, for bags that carry none and for writing."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_JAZZY)


def message_class(name: str) -> type:
    """The class of a message type, such as ``std_msgs/msg/String``, for :meth:`BagWriter.write`."""
    return typestore().types[name]


def _locate(path: Path) -> Path:
    """The folder or storage file to open; a folder without metadata may hold one storage file."""
    if not path.exists():
        raise InputError(f"{path}: no such bag; give a rosbag2 folder, an .mcap or a .db3 file")
    if path.is_file():
        if path.suffix not in _STORAGE:
            raise InputError(f"{path}: not a rosbag2 recording; give its folder, an .mcap or a .db3 file")
        return path
    if (path / "metadata.yaml").is_file():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in _STORAGE)
    if len(files) == 1:
        return files[0]
    found = f"{len(files)} storage files and no metadata.yaml" if files else "no metadata.yaml and no storage file"
    raise InputError(f"{path}: not a rosbag2 folder ({found}); give the folder that 'ros2 bag record' wrote")


def _belongs(file: Path) -> bool:
    return file.is_file() and (file.name == "metadata.yaml" or any(kind in _STORAGE for kind in file.suffixes))


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
            before = counts[connection.topic].count if connection.topic in counts else 0
            counts[connection.topic] = Topic(connection.topic, connection.msgtype, before + connection.msgcount)
        self.topics = dict(sorted(counts.items()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def messages(self, topic: str | None = None) -> Iterator[tuple[str, int, bytes]]:
        """Records in the order of the bag: (topic, receive stamp in ns, serialised message).

        Args:
            topic: only this topic; all when None.

        Raises:
            InputError: no such topic, or the bag breaks off.
        """
        connections = list(self._reader.connections)
        if topic is not None:
            connections = [connection for connection in connections if connection.topic == topic]
            if not connections:
                raise InputError(f"{self.path}: no topic '{topic}'; it has {self._topic_names()}")
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


def _qos(latched: bool) -> Any:
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    forever = QosTime(9223372036, 854775807)
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    return Qos(
        QosHistory.KEEP_LAST, 1 if latched else 10, QosReliability.RELIABLE, durability, forever, forever,
        QosLiveliness.AUTOMATIC, forever, False,
    )  # fmt: skip


class BagWriter:
    """A new mcap bag, as a context manager: written beside ``path`` under a temporary name, then moved into place.

    When the body raises, nothing is left behind and what was at ``path`` stays.

    Args:
        path: folder of the new bag; must not exist, or be empty, unless ``force``.
        force: replace a bag that is there (only a folder with a metadata.yaml and nothing but a bag is ever replaced).
        compress: zstd in the mcap chunks, which every rosbag2 reader understands.
    """

    def __init__(self, path: str | Path, force: bool = False, compress: bool = True) -> None:
        self.path = Path(path)
        self._force = force
        self._compress = compress
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

        path = self.path
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file; a bag is a folder, give another name")
        if path.is_dir() and any(path.iterdir()):
            if not self._force:
                raise InputError(f"{path}: exists already; give another name, or --force to replace it")
            if not (path / "metadata.yaml").is_file():
                raise InputError(f"{path}: exists and is not a bag, so it is not replaced; give another name")
            foreign = sorted(file.name for file in path.iterdir() if not _belongs(file))
            if foreign:
                raise InputError(f"{path}: holds {foreign[0]} besides a bag, so it is not replaced; give another name")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); give another folder") from None
        self._writer = Writer(
            self._temporary / path.name, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP
        )
        if self._compress:
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        return self

    def add_topic(self, topic: str, type: str, latched: bool = False) -> None:
        """Declare a topic; a latched one (transient local, depth 1) reaches subscribers that join later."""
        self._connections[topic] = self._writer.add_connection(
            topic, type, typestore=typestore(), offered_qos_profiles=[_qos(latched)]
        )

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Append one message: an object of :func:`message_class`, or serialised bytes as read from a bag."""
        connection = self._connections[topic]
        if not isinstance(message, bytes | bytearray | memoryview):
            message = typestore().serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, int(stamp_ns), message)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
            if kind is None:
                if self.path.is_dir():
                    os.replace(self.path, self._temporary / "replaced")
                os.replace(self._temporary / self.path.name, self.path)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)


def write_bag(path: str | Path, force: bool = False, compress: bool = True) -> BagWriter:
    """``with write_bag(path) as bag``: see :class:`BagWriter`."""
    return BagWriter(path, force, compress)
