# SPDX-License-Identifier: Apache-2.0
import shutil

import numpy as np
import pytest

from foundry_core.data import bags
from foundry_core.data.bag_writer import write_bag
from foundry_core.errors import InputError


def _cloud(stamp_ns: int, points: np.ndarray, frame_id: str = "lidar"):
    kinds = {
        name: bags.message_class(name)
        for name in (
            "std_msgs/msg/Header", "builtin_interfaces/msg/Time", "sensor_msgs/msg/PointField", bags.POINT_CLOUD,
        )
    }  # fmt: skip
    time = kinds["builtin_interfaces/msg/Time"](stamp_ns // 10**9, stamp_ns % 10**9)
    fields = [kinds["sensor_msgs/msg/PointField"](name, 4 * i, 7, 1) for i, name in enumerate("xyz")]
    data = np.ascontiguousarray(points, np.float32).view(np.uint8).ravel()
    header = kinds["std_msgs/msg/Header"](time, frame_id)
    return kinds[bags.POINT_CLOUD](header, 1, len(points), fields, False, 12, 12 * len(points), data, True)


def _write(path, topics=("/points",), frames=5, **options):
    rng = np.random.default_rng(0)
    with write_bag(path, **options) as bag:
        bag.add_topic("/labels", "std_msgs/msg/String", latched=True)
        for topic in topics:
            bag.add_topic(topic, bags.POINT_CLOUD)
        bag.write("/labels", 1, bags.message_class("std_msgs/msg/String")("chair"))
        for frame in range(frames):
            for topic in topics:
                bag.write(topic, 10 + frame, _cloud(10 + frame, rng.normal(size=(4000, 3))))
    return path


def _sqlite(path, compression=None):
    from rosbags.rosbag2 import CompressionFormat, StoragePlugin, Writer

    writer = Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/points", bags.POINT_CLOUD, typestore=bags.typestore())
        for frame in range(3):
            message = _cloud(frame, np.full((7, 3), frame))
            writer.write(connection, frame, bags.typestore().serialize_cdr(message, bags.POINT_CLOUD))
    return path


@pytest.mark.parametrize("compress", [True, False])
def test_what_is_written_is_read_back(tmp_path, compress):
    path = _write(tmp_path / "bag", compress=compress)
    rng = np.random.default_rng(0)
    read = list(bags.read_messages(path, "/points"))
    assert [stamp for _, stamp, _ in read] == list(range(10, 15))
    for _, _, message in read:
        points = message.data.view(np.float32).reshape(-1, 3)
        np.testing.assert_array_equal(points, rng.normal(size=(4000, 3)).astype(np.float32))
    assert [message.data for _, _, message in bags.read_messages(path, "/labels")] == ["chair"]
    assert bags.point_cloud_topics(path) == [("/points", 5)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag"]


def test_labels_are_latched_and_clouds_are_not(tmp_path):
    from rosbags.interfaces import QosDurability
    from rosbags.rosbag2 import Reader

    with Reader(_write(tmp_path / "bag")) as reader:
        durability = {c.topic: c.ext.offered_qos_profiles[0].durability for c in reader.connections}
    assert durability == {"/labels": QosDurability.TRANSIENT_LOCAL, "/points": QosDurability.VOLATILE}


def test_a_single_file_and_a_folder_without_metadata_open_too(tmp_path):
    path = _write(tmp_path / "bag")
    (storage,) = path.glob("*.mcap")
    whole = [(topic, stamp) for topic, stamp, _ in bags.read_messages(path)]
    assert [(topic, stamp) for topic, stamp, _ in bags.read_messages(storage)] == whole
    (path / "metadata.yaml").unlink()
    assert [(topic, stamp) for topic, stamp, _ in bags.read_messages(path)] == whole


def test_raw_records_survive_a_copy_byte_for_byte(tmp_path):
    source, copy = _write(tmp_path / "bag"), tmp_path / "copy"
    with bags.open_bag(source) as bag, write_bag(copy) as out:
        out.add_topic("/points", bags.POINT_CLOUD)
        records = list(bag.messages("/points"))
        for topic, stamp_ns, data in records:
            out.write(topic, stamp_ns, data)
    with bags.open_bag(copy) as bag:
        assert list(bag.messages()) == records


@pytest.mark.parametrize("mode", [None, "FILE", "MESSAGE"])
def test_sqlite_bags(tmp_path, mode):
    from rosbags.rosbag2 import CompressionMode

    path = _sqlite(tmp_path / "bag", mode and CompressionMode[mode])
    values = [message.data.view(np.float32) for _, _, message in bags.read_messages(path)]
    assert len(values) == 3 and all((value == frame).all() for frame, value in enumerate(values))


def test_choice_of_the_point_cloud_topic(tmp_path):
    two = _write(tmp_path / "two", topics=("/front", "/rear"))
    assert bags.choose_point_cloud_topic(two, "/rear") == "/rear"
    with pytest.raises(InputError, match="/front, /rear"):
        bags.choose_point_cloud_topic(two)
    with pytest.raises(InputError, match="'/labels'.*/front, /rear"):
        bags.choose_point_cloud_topic(two, "/labels")
    assert bags.choose_point_cloud_topic(_write(tmp_path / "usual", topics=("/points", "/other"))) == "/points"
    with pytest.raises(InputError, match="no PointCloud2 messages.*std_msgs/msg/String"):
        bags.choose_point_cloud_topic(_write(tmp_path / "none", topics=()))


def test_what_is_no_bag_is_named(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    (tmp_path / "folder").mkdir()
    fake = tmp_path / "fake.mcap"
    fake.write_text("not an mcap file at all, only some text that is long enough to look at")
    database = tmp_path / "fake.db3"
    database.write_bytes(b"x" * 4096)
    empty = tmp_path / "empty.mcap"
    empty.touch()
    for path in (tmp_path / "absent", text, tmp_path / "folder", fake, database, empty):
        with pytest.raises(InputError) as error:
            bags.point_cloud_topics(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_bag_is_refused(tmp_path, keep):
    path = _write(tmp_path / "bag", compress=False)
    (storage,) = path.glob("*.mcap")
    data = storage.read_bytes()
    storage.write_bytes(data[: int(keep * len(data))])
    for target in (path, storage):
        with pytest.raises(InputError, match="damaged|cut short|breaks off"):
            list(bags.read_messages(target))


def test_a_truncated_database_is_refused(tmp_path):
    path = _sqlite(tmp_path / "bag")
    (storage,) = path.glob("*.db3")
    data = storage.read_bytes()
    storage.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError):
        list(bags.read_messages(path))


def test_a_bag_that_announces_more_than_it_has_is_refused(tmp_path):
    path = _write(tmp_path / "bag")
    metadata = path / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 5", "message_count: 9"))
    with pytest.raises(InputError, match="5 of the 9"):
        list(bags.read_messages(path, "/points"))


def test_broken_metadata_is_refused(tmp_path):
    path = _write(tmp_path / "bag")
    (path / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    with pytest.raises(InputError, match="cannot be opened"):
        bags.point_cloud_topics(path)


def test_nothing_is_overwritten_unless_forced(tmp_path):
    path = _write(tmp_path / "bag", frames=2)
    with pytest.raises(InputError, match="--force"):
        _write(path)
    _write(path, frames=4, force=True)
    assert bags.point_cloud_topics(path) == [("/points", 4)]
    other = tmp_path / "home"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not a bag"):
        _write(other, force=True)
    assert (other / "thesis.tex").read_text() == "years of work"
    (path / "notes.txt").write_text("what was seen")
    with pytest.raises(InputError, match="notes.txt besides a bag"):
        _write(path, force=True)
    assert (path / "notes.txt").is_file() and bags.point_cloud_topics(path) == [("/points", 4)]
    (tmp_path / "vacant").mkdir()
    assert bags.point_cloud_topics(_write(tmp_path / "vacant")) == [("/points", 5)]


def test_a_failing_write_leaves_nothing_behind(tmp_path):
    kept = _write(tmp_path / "bag", frames=2)
    with pytest.raises(RuntimeError), write_bag(kept, force=True) as bag:
        bag.add_topic("/points", bags.POINT_CLOUD)
        raise RuntimeError("the disk of the simulated robot is full")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag"]
    assert bags.point_cloud_topics(kept) == [("/points", 2)]
    shutil.rmtree(kept)
    with pytest.raises(KeyError), write_bag(kept) as bag:
        bag.write("/undeclared", 0, b"")
    assert list(tmp_path.iterdir()) == []
