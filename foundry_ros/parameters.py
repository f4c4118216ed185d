# SPDX-License-Identifier: Apache-2.0
"""Node parameters from the settings schemas: one schema for the YAML file, the node, the command line and the docs.

A nested setting is a dotted ROS parameter (``scene.cell``). A setting whose default is None is a parameter that is not
set. Types are checked by the schema alone, so ``5`` is as good as ``5.0``.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import Field, field_validator

from foundry_core.errors import InputError
from foundry_core.runtime.perceiver import PerceiverConfig
from foundry_core.scene.config import SceneConfig
from foundry_core.scene.tracks import TracksConfig
from foundry_core.schema import Settings, parse, read_yaml
from foundry_ros.health import HealthConfig
from foundry_ros.ros_parameters import check_ros_parameter, is_ros_parameter

#: parameters of perception_node, or groups of them, that take effect at configuration
AT_CONFIGURATION = (
    "model", "runtime", "precision", "threads", "tracks.", "teach_file", "target_frame", "transform_timeout",
)  # fmt: skip
#: those that act when they are set; what is in neither list acts with the next frame
AT_ONCE = ("diagnostics_period", "health.", "teach_label", "teach_tolerance")
#: parameters that are read once, when a node starts
READ_ONLY = {"perception_node": ("autostart",)}


def changes_at_run_time(name: str) -> bool:
    """Whether a parameter of a configured perception_node may change."""
    return not name.startswith(AT_CONFIGURATION)


S = TypeVar("S", bound=Settings)

#: a topic or a node, relative, private or from the root on
_NAME = re.compile(r"(~?/)?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")


def ros_name(name: str) -> str:
    """The name of a topic or a node; a ValueError where ROS would not take it."""
    if len(name) > 180 or not _NAME.fullmatch(name):  # ROS allows 247 with a namespace before it and a topic behind it
        raise ValueError(f"{name!r}: a name has letters, digits, _ and single slashes, such as /lidar/points")
    return name


class PerceptionParameters(PerceiverConfig):
    """Parameters of ``perception_node``: the perceiver's settings and those of the node itself."""

    model: str = Field("foundry-edge", description="a shipped model's name (`foundry models`) or a model directory")
    budget: int | None = Field(None, ge=1, description="supertokens to run with; not set: the model's own")
    keep_up: bool = Field(
        True, description="give clouds that come before the last one is answered a deadline, unless deadline_ms is set"
    )
    autostart: bool = Field(True, description="configure and activate at start, without a lifecycle manager")
    diagnostics_period: float = Field(1.0, gt=0, le=60, description="s between messages on /diagnostics")
    marker_lifetime: float = Field(0.5, gt=0, le=60, description="s that a marker stays when no newer frame comes")
    tracks: TracksConfig = TracksConfig()
    teach_label: str = Field(
        "", max_length=64, description="class that a click on /clicked_point teaches, at any time; empty: ignore clicks"
    )
    teach_file: str = Field("", description=".npz file of the taught classes: read at configuration if it is there")
    target_frame: str = Field(
        "", max_length=256, description="frame to move clouds into with tf2 before all else; empty: the clouds' own"
    )
    transform_timeout: float = Field(0.1, ge=0, le=10, description="s to wait for a transform")
    health: HealthConfig = HealthConfig()
    teach_tolerance: float = Field(0.5, gt=0, le=10, description="farthest click from a point of an object, metres")


class ReplayParameters(Settings):
    """Parameters of ``bag_replay``."""

    bag: str = Field("", description="rosbag2 folder, .mcap or .db3 file")
    topic: str = Field("", description="PointCloud2 topic of the bag; empty: the only one, or /points among several")
    rate: float = Field(1.0, ge=0, le=1000, description="times the bag's own speed; 0: lock-step, every frame in turn")
    in_flight: int = Field(
        1, ge=1, le=2, description="lock-step: frames sent and not yet answered; 2 keeps the node busy (throughput)"
    )
    start: float = Field(0.0, ge=0, description="s from the first message of the played topics that are left out")
    duration: float | None = Field(None, gt=0, description="s of the bag to play; not set: all")
    loop: int = Field(1, ge=1, le=100_000, description="times to play")
    also: str = Field(
        "", description="topics to publish beside the clouds, with commas between; all: what is installed"
    )
    clock: bool = Field(False, description="publish /clock with the bag's time, for nodes with use_sim_time")
    output: str = Field("points", min_length=1, description="topic to publish on")
    node: str = Field("perception_node", min_length=1, description="name of the node that answers")
    match_timeout: float = Field(60.0, gt=0, description="s to wait until the node, once loaded, is connected")
    frame_timeout: float = Field(10.0, gt=0, description="s after which an unanswered frame counts as dropped")
    report: str = Field("", description="JSON file for the figures; empty: none")
    plot: str = Field("", description=".png file for latencies and drops over time; empty: none")
    results: str = Field("", description=".npz file for every frame's objects and parts; empty: none")
    progress: bool = Field(False, description="one JSON line per frame on the standard output")

    _names = field_validator("output", "node")(ros_name)


class DistillParameters(Settings):
    """Parameters of ``distill_trainer``."""

    config: str = Field(
        "foundry-edge-adapt", min_length=1, description="a configuration in config/train, or a YAML file"
    )
    teacher: str = Field("teacher-small", min_length=1, description="a shipped model's name or a model directory")
    data: str = Field("", description=".npz shape set or rosbag2 recording; empty: collect from ~/input")
    topic: str = Field("", description="PointCloud2 topic of the bag; empty: the only one, or /points among several")
    out: str = Field("runs/distill", min_length=1, description="run folder: segments, checkpoint, log and model")
    minutes: float | None = Field(None, ge=0.01, description="length of the training; not set: the config's steps")
    max_segments: int = Field(4000, ge=1, le=100_000, description="segments kept; a random sample of more")
    points: int = Field(1024, ge=128, le=8192, description="points of each kept segment")
    sweep_period: float = Field(0.5, ge=0, le=3600, description="s between sweeps that are cut into segments")
    hold_out: float = Field(0.2, ge=0, le=0.5, description="share of these sweeps that fidelity is measured on instead")
    scene: SceneConfig = SceneConfig()
    nice: int = Field(10, ge=0, le=19, description="niceness of cutting and training; perception has 0")
    autostart: bool = Field(
        False, description="train as soon as the data is complete: a shape set, a bag that is read, max_segments kept"
    )
    diagnostics_period: float = Field(1.0, gt=0, le=60, description="s between messages on /diagnostics")


class NodeParameter(NamedTuple):
    """One ROS parameter: dotted name, default value (None: not set), description, and bounds where it has any."""

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    whole: bool = False
    above: bool = False  # low itself is out


NODES: dict[str, type[Settings]] = {
    "perception_node": PerceptionParameters,
    "bag_replay": ReplayParameters,
    "distill_trainer": DistillParameters,
}


def _is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)


def node_parameters(schema: type[Settings], prefix: str = "") -> Iterator[NodeParameter]:
    """The ROS parameters of a schema, in its order."""
    for name, field in schema.model_fields.items():
        if _is_settings(field.annotation):
            yield from node_parameters(field.annotation, f"{prefix}{name}.")
        else:
            default = field.get_default(call_default_factory=True)
            # a group whose keys speak for themselves has only a docstring
            description = field.description or f"{name}: {(schema.__doc__ or schema.__name__).strip().splitlines()[0]}"
            low, high = _bound(field, "ge", "gt"), _bound(field, "le", "lt")
            whole = field.annotation in (int, int | None)
            above = _bound(field, "gt") is not None
            yield NodeParameter(prefix + name, _plain(default), description, low, high, whole, above)


def _bound(field: Any, *keys: str) -> float | None:
    return next((getattr(item, key) for item in field.metadata for key in keys if hasattr(item, key)), None)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def flatten(settings: Settings) -> dict[str, Any]:
    """Settings as dotted parameters with plain values; those that are None are left out."""
    return {key: _plain(value) for key, value in _dotted(settings.model_dump()).items() if value is not None}


def _dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out.update(_dotted(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = value
    return out


def from_dotted(schema: type[S], values: Mapping[str, Any], source: str | Path) -> S:
    """Settings from dotted parameters.

    Raises:
        InputError: an unknown name or a bad value; one line with ``source`` and the name.
    """
    known = {parameter.name for parameter in node_parameters(schema)}
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if is_ros_parameter(name):
            continue
        group, _, key = name.rpartition(".")
        if name in known or not group:
            target = nested
            for part in group.split(".") if group else ():
                target = target.setdefault(part, {})
            target[key] = value
        else:
            raise InputError(f"{source}: {name}: unknown key; remove it or correct its spelling")
    return parse(schema, nested, source)


def read_parameters(path: str | Path) -> dict[str, Settings]:
    """Read a ROS parameter file (``node: {ros__parameters: {...}}``) into the settings of every node in ``NODES``.

    Sections of ``/**`` apply to every node. Nested and dotted names mean the same.

    Raises:
        InputError: not such a file, an unknown node or an unknown or ill-typed key; one line that names it.
    """
    values = _of_nodes(path)
    return {name: from_dotted(schema, values[name], path) for name, schema in NODES.items()}


def read_ros_parameters(path: str | Path) -> dict[str, dict[str, Any]]:
    """What a ROS parameter file says of the parameters that ROS itself gives to every node, dotted, for each node.

    Raises:
        InputError: as :func:`read_parameters`, and one whose value ROS could not use.
    """
    found = {}
    for node, values in _of_nodes(path).items():
        found[node] = {name: value for name, value in values.items() if is_ros_parameter(name)}
        for name, value in found[node].items():
            check_ros_parameter(name, value, path)
    return found


def _of_nodes(path: str | Path) -> dict[str, dict[str, Any]]:
    """Dotted parameters of each node; its own sections come after those of ``/**``."""
    values: dict[str, dict[str, Any]] = {name: {} for name in NODES}
    for section, entries in sorted(_sections(path), key=lambda item: "*" not in item[0]):
        node = section.rsplit("/", 1)[-1]
        if node in ("*", "**"):
            for name in NODES:
                values[name].update(entries)
        elif node in NODES:
            values[node].update(entries)
        else:
            raise InputError(f"{path}: {section}: unknown node; expected {', '.join(NODES)} or /**")
    return values


def _sections(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a ROS parameter file; write 'perception_node: {{ros__parameters: {{...}}}}'")
    found: list[tuple[str, dict[str, Any]]] = []

    def walk(prefix: str, mapping: dict[Any, Any]) -> None:
        for key, value in mapping.items():
            if key == "ros__parameters":
                if not isinstance(value, dict | None) or not prefix:
                    raise InputError(f"{path}: {prefix or key}: ros__parameters must be a mapping inside a node's name")
                found.append((prefix, _dotted({str(name): item for name, item in (value or {}).items()})))
            elif isinstance(value, dict):
                walk(f"{prefix}/{key}" if prefix else str(key), value)
            else:
                where = f"{prefix}/{key}" if prefix else key
                raise InputError(f"{path}: {where}: unknown key outside ros__parameters; move or remove it")

    walk("", content)
    return found


class _QuotingDumper(yaml.SafeDumper):
    """Quotes every string: to rcl ``y``, ``1e5`` and ``nan`` are other things than to PyYAML."""


_QuotingDumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def write_parameters(node: str, values: Mapping[str, Any], directory: str | Path | None = None) -> Path:
    """Write dotted parameters of one node as a temporary ROS parameter file; strings stay strings, for rcl, too."""
    for name, value in values.items():
        if isinstance(value, list) and not value:
            raise InputError(f"{node}: {name}: an empty list cannot be a ROS parameter; leave the key out")
    handle, name = tempfile.mkstemp(prefix=f"{node}_", suffix=".yaml", dir=directory)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        # '**/' finds the node whatever its namespace
        content = {f"/**/{node}": {"ros__parameters": dict(values)}}
        yaml.dump(content, stream, Dumper=_QuotingDumper, allow_unicode=True)
    return Path(name)
