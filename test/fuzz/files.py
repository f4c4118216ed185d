# SPDX-License-Identifier: Apache-2.0
"""Damaged files of every kind that the project reads: each is read, or refused with an InputError of one line."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundry_core import cdr, pointcloud2
from foundry_core.card import CARD_FILE, GRAPH_FILE, load_card, share_directory, write_card
from foundry_core.clouds import Cloud, read_cloud, write_ply
from foundry_core.data.bag_writer import write_bag
from foundry_core.data.bags import POINT_CLOUD, open_bag, typestore
from foundry_core.data.shapes import load_shapes
from foundry_core.errors import InputError
from foundry_core.runtime.graph_file import GraphFile
from foundry_core.runtime.teach import TaughtClasses
from foundry_core.schema import load_settings, read_yaml
from fuzz import guard


class Format(NamedTuple):
    """``make`` writes a good file (or folder, of which ``part`` is damaged) at a path; ``read`` reads it."""

    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    name: str
    part: str = ""


def _points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


def _columns(path: Path) -> None:
    pcd = "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 40\nHEIGHT 1\nPOINTS 40\nDATA binary\n"
    path.write_bytes(pcd.encode() + _points().tobytes())


def _message(number: int) -> bytes:
    from fuzz.clouds import serialise

    cloud = pointcloud2.encode(dict(zip("xyz", _points().T)))
    header = cdr.Header(cdr.Stamp(number, 0), "lidar")
    return serialise(cdr.StampedCloud(header, *cloud[:6], bytes(cloud.data), True))


def _mcap(path: Path) -> None:
    with write_bag(path) as bag:
        bag.add_topic("/points", POINT_CLOUD)
        for number in range(3):
            bag.write("/points", number, _message(number))


def _sqlite(path: Path) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/points", POINT_CLOUD, typestore=typestore())
        for number in range(3):
            writer.write(connection, number, _message(number))


def _read_bag(path: Path) -> None:
    with open_bag(path) as bag:
        for name, _, data in bag.messages():
            message = bag.decode(name, data)
            if bag.topics[name].type == POINT_CLOUD:
                pointcloud2.to_cloud(message, name)
                pointcloud2.to_cloud(cdr.read_point_cloud(data, name), name)


def _model(path: Path) -> None:
    from tiny_model import write_tiny_model

    write_tiny_model(path)


def _read_graph(path: Path) -> None:
    graph = GraphFile(path / GRAPH_FILE)
    graph.value("budgets")
    for output in graph.outputs:
        graph.cut([output])


def _run_graph(path: Path) -> None:
    """The damage is sealed: what does the runtime itself make of such a graph?"""
    from foundry_core.runtime.perceiver import Perceiver

    write_card(path, load_card(path, verify=False))
    Perceiver(path)


def _weights(path: Path) -> None:
    from foundry_core.architecture import Architecture, EncoderConfig, Preprocessing, TokenizerConfig
    from foundry_core.card import ModelCard
    from foundry_core.models.registry import create_perception, save_model

    small = Architecture(
        tokenizer=TokenizerConfig(first=4, second=4, third=4), encoder=EncoderConfig(width=4, depth=1, heads=1)
    )
    card = ModelCard(name="small", kind="teacher", architecture=small, preprocessing=Preprocessing())
    save_model(path, create_perception(card), card)


def _read_weights(path: Path) -> None:
    from foundry_core.models.registry import load_model

    write_card(path, load_card(path, verify=False))
    load_model(path)


@functools.cache
def _tiny_card() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        _model(Path(folder) / "tiny")
        return load_card(Path(folder) / "tiny")


def _taught(path: Path) -> None:
    taught = TaughtClasses(_tiny_card())
    taught.add("hydrant", np.ones(12, np.float32), 0.5)
    taught.save(path)


def _shapes(path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(3, 8, 3)).astype(np.float32)
    np.savez(path, points=points, label=np.arange(3), class_names=np.array(["a", "b", "c"]))


def _shipped(name: str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes((share_directory() / "config" / name).read_bytes())


def _read_parameters(path: Path) -> None:
    from foundry_ros.parameters import read_parameters

    read_parameters(path)


def _read_config(path: Path) -> None:
    from foundry_core.training.config import DistillConfig

    load_settings(path, DistillConfig)


FORMATS: dict[str, Format] = {
    "YAML, any": Format(_shipped("perception.yaml"), read_yaml, "any.yaml"),
    "YAML, node parameters": Format(_shipped("perception.yaml"), _read_parameters, "perception.yaml"),
    "YAML, training": Format(_shipped("train/foundry-edge.yaml"), _read_config, "distill.yaml"),
    "model card": Format(_model, load_card, "tiny", CARD_FILE),
    "ONNX graph": Format(_model, _read_graph, "tiny", GRAPH_FILE),
    "ONNX graph, in onnxruntime": Format(_model, _run_graph, "tiny", GRAPH_FILE),
    "safetensors": Format(_weights, _read_weights, "small", "model.safetensors"),
    "bag, mcap": Format(_mcap, _read_bag, "bag", "bag.mcap"),
    "bag, sqlite3": Format(_sqlite, _read_bag, "bag", "bag.db3"),
    "bag, metadata": Format(_mcap, _read_bag, "bag", "metadata.yaml"),
    "taught classes": Format(_taught, lambda path: TaughtClasses.load(path, _tiny_card()), "taught.npz"),
    "shape set": Format(_shapes, load_shapes, "shapes.npz"),
    "PLY": Format(lambda path: write_ply(path, Cloud.from_points(_points())), read_cloud, "cloud.ply"),
    "PCD": Format(_columns, read_cloud, "cloud.pcd"),
    "NPY": Format(lambda path: np.save(path, _points()), read_cloud, "cloud.npy"),
    "NPZ": Format(lambda path: np.savez(path, points=_points()), read_cloud, "cloud.npz"),
    "text": Format(lambda path: np.savetxt(path, _points()), read_cloud, "cloud.xyz"),
    "KITTI": Format(lambda path: path.write_bytes(_points()[:36].tobytes()), read_cloud, "cloud.bin"),
}

_WORDS = (b"-1", b"1e999", b"99999999999999999999", b"null", b"[", b"{", b"}", b'"', b"&a *a", b"!!python/object:os.x",
          b"..", b"/", b"\n", b"\0", b"\xff\xff\xff\x7f", b"\xff" * 8, b"\x80" * 12, b"NaN", b"0")  # fmt: skip
_PIECES = st.one_of(st.sampled_from(_WORDS), st.binary(min_size=0, max_size=9))
#: where (a share of the file), how many bytes go, what comes in their place; None cuts the rest off
_EDIT = st.tuples(st.floats(0, 1), st.integers(0, 16), st.one_of(_PIECES, _PIECES, _PIECES, st.none()))
_EDITS = st.lists(_EDIT, min_size=1, max_size=4)


def apply_edits(data: bytes, edits: list[tuple[float, int, bytes | None]]) -> bytes:
    """The bytes after each edit in turn."""
    for share, length, piece in edits:
        at = int(share * len(data))
        data = data[:at] if piece is None else data[:at] + piece + data[at + length :]
    return data


def check(name: str, examples: int, seconds_each: float = 10.0) -> dict[str, int]:
    """Damage files of one format and read them; hypothesis shrinks what fails and raises it.

    Returns:
        how many were read, and how many refused.
    """
    kind = FORMATS[name]
    outcomes = {"read": 0, "refused": 0}
    with tempfile.TemporaryDirectory(prefix="foundry_fuzz_") as folder:
        good = Path(folder) / "good" / kind.name
        good.parent.mkdir()
        kind.make(good)
        kind.read(good)
        tried = Path(folder) / kind.name
        target = tried / kind.part if kind.part else tried
        original = (good / kind.part if kind.part else good).read_bytes()
        if good.is_dir():
            shutil.copytree(good, tried)

        @settings(max_examples=examples, deadline=None, database=None, derandomize=True, report_multiple_bugs=False,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(_EDITS)
        def reads_or_refuses(edits: list[tuple[float, int, bytes | None]]) -> None:
            target.write_bytes(apply_edits(original, edits))
            if (good / CARD_FILE).is_file() and kind.part != CARD_FILE:
                shutil.copyfile(good / CARD_FILE, tried / CARD_FILE)
            outcomes["read"] += 1
            try:
                with guard.time_limit(seconds_each), guard.strict(2048):
                    kind.read(tried)
            except InputError as error:
                outcomes["read"] -= 1
                outcomes["refused"] += 1
                text = str(error)
                assert "\n" not in text and len(text) < 4000, f"not one line: {text[:300]!r}"
                assert str(Path(folder)) in text or "." in text or "topic" in text, f"names nothing: {text}"

        reads_or_refuses()
    return outcomes


def run(examples: int, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Every format; returns outcomes by format and faults [text]."""
    outcomes: dict[str, Any] = {}
    faults: list[str] = []
    for name in FORMATS:
        try:
            outcomes[name] = check(name, examples)
        except ModuleNotFoundError as error:
            outcomes[name] = f"skipped: {error.name} is not installed"
        except (Exception, guard.Hang) as error:
            outcomes[name] = "FAULT"
            notes = [note for note in getattr(error, "__notes__", []) if "edits" in note]
            faults.append(f"{name}: {type(error).__name__}: {str(error)[:300]} {' '.join(notes)[:600]}")
        tell(f"{name}: {json.dumps(outcomes[name])}")
    return {"examples": examples, "outcomes": outcomes, "faults": faults}
