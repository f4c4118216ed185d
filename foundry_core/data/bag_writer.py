# SPDX-License-Identifier: Apache-2.0
"""rosbag2 recordings in mcap, written without a ROS installation."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from foundry_core.data.bags import STORAGE, typestore
from foundry_core.errors import InputError
from foundry_core.files import replace_folder


def _belongs(file: Path) -> bool:
    return file.is_file() and (file.name == "metadata.yaml" or any(kind in STORAGE for kind in file.suffixes))


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
        """Append one message: an object of a :func:`~foundry_core.data.bags.message_class`, or bytes as in a bag."""
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
                replace_folder(self._temporary / self.path.name, self.path, self._temporary / "replaced")
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)


def write_bag(path: str | Path, force: bool = False, compress: bool = True) -> BagWriter:
    """``with write_bag(path) as bag``: see :class:`BagWriter`."""
    return BagWriter(path, force, compress)
