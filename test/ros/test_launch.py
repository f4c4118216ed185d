# SPDX-License-Identifier: Apache-2.0
"""Launch files, checked without a launch installation: its classes are replaced by ones that record their arguments."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import sys
import types
from pathlib import Path

import pytest
import yaml

from foundry_core.card import share_directory
from foundry_ros import parameters
from foundry_ros.cli.ros import replay

LAUNCH = sorted((share_directory() / "launch").glob("*.launch.py"))
MODULES = {
    "launch": ["LaunchDescription"],
    "launch.actions": [
        "DeclareLaunchArgument", "EmitEvent", "IncludeLaunchDescription", "OpaqueFunction", "RegisterEventHandler",
        "SetEnvironmentVariable",
    ],
    "launch.event_handlers": ["OnProcessExit"],
    "launch.events": ["Shutdown"],
    "launch.launch_description_sources": ["PythonLaunchDescriptionSource"],
    "launch.substitutions": ["LaunchConfiguration", "PathJoinSubstitution"],
    "launch_ros": [],
    "launch_ros.actions": ["Node"],
    "launch_ros.parameter_descriptions": ["ParameterValue"],
    "launch_ros.substitutions": ["FindPackageShare"],
}  # fmt: skip


class Recorded:
    """Stands for any launch class: keeps what it was made of."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs
        self.kind = type(self).__name__

    def perform(self, context):
        return context[self.args[0]]


@pytest.fixture
def launch_modules(monkeypatch):
    for name, classes in MODULES.items():
        module = types.ModuleType(name)
        for entry in classes:
            setattr(module, entry, type(entry, (Recorded,), {}))
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.name.replace(".", "_"), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def walk(value):
    """Every recorded object inside ``value``."""
    if isinstance(value, Recorded):
        yield value
        yield from walk(value.args)
        yield from walk(value.kwargs)
    elif isinstance(value, dict):
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from walk(item)


def defaults(module) -> dict[str, str]:
    return {item["name"]: item.get("default", "") for item in module.ARGUMENTS}


def actions(module, **given) -> list[Recorded]:
    """The actions of a launch file, opaque functions carried out."""
    found = list(walk(module.generate_launch_description()))
    for action in [item for item in found if item.kind == "OpaqueFunction"]:
        found += walk(action.kwargs["function"]({**defaults(module), **given}))
    return found


def test_there_are_launch_files():
    assert {"perception.launch.py", "replay.launch.py"} <= {path.name for path in LAUNCH}


@pytest.mark.parametrize("path", LAUNCH, ids=lambda path: path.name)
def test_imports_launch_only(path):
    allowed = {"launch", "launch_ros", "os"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module]
            assert set(alias.name for alias in node.names) <= set(MODULES[node.module]), "teach the fakes this class"
        assert {name.split(".")[0] for name in names} <= allowed


@pytest.mark.parametrize("path", LAUNCH, ids=lambda path: path.name)
def test_arguments_are_declared_described_and_used(path, launch_modules):
    module = load(path)
    found = actions(module)
    declared = [item for item in found if item.kind == "DeclareLaunchArgument"]
    assert [item.args[0] for item in declared] == [item["name"] for item in module.ARGUMENTS]
    assert all(item.kwargs["description"] for item in declared)
    assert len(set(defaults(module))) == len(module.ARGUMENTS)
    text = path.read_text(encoding="utf-8")
    for name in [item.args[0] for item in found if item.kind == "LaunchConfiguration"]:
        assert name in defaults(module), f"{name} is not declared"
    for name in defaults(module):
        used = text.count(f'"{name}"') > 1
        assert used, f"argument {name} is declared and never used"


@pytest.mark.parametrize("path", LAUNCH, ids=lambda path: path.name)
def test_files_executables_and_parameters_exist(path, launch_modules):
    share = share_directory()
    found = actions(load(path), model="mine", budget="4")
    files = [item for item in found if item.kind == "PathJoinSubstitution"]
    assert files
    for item in files:
        package, *parts = item.args[0]
        assert package.kind == "FindPackageShare" and package.args == ("foundry_ros",)
        assert share.joinpath(*parts).is_file(), parts
    nodes = [item for item in found if item.kind == "Node" and item.kwargs["package"] == "foundry_ros"]
    assert nodes
    for node in nodes:
        name = node.kwargs["executable"]
        executable = Path(parameters.__file__).parent / "executables" / name
        assert os.access(executable, os.X_OK) and name == node.kwargs["name"]
        known = {item.name for item in parameters.node_parameters(parameters.NODES[name])} | {"use_sim_time"}
        for group in node.kwargs["parameters"]:
            if isinstance(group, dict):
                assert set(group) <= known


def overrides(file: str, executable: str, **given) -> dict:
    """Parameters that a launch file sets beside the parameter file's; texts must be said to be texts."""
    module = load(share_directory() / "launch" / file)
    node = next(item for item in actions(module, **given) if item.kwargs.get("executable") == executable)
    found = {}
    for name, value in node.kwargs["parameters"][-1].items():
        assert not isinstance(value, str), f"{name}: launch_ros would read '2026' as a number"
        if isinstance(value, Recorded):
            assert value.kind == "ParameterValue" and value.kwargs == {"value_type": str}
            value = value.args[0]
        found[name] = value
    return found


def test_launch_waits_for_the_nodes_that_have_something_to_write_at_their_end(launch_modules):
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    from foundry_ros.distill_trainer import END_PATIENCE

    longest = END_PATIENCE + 10.0  # what is killed in the end takes its time at low priority
    for file, executable in (("distill.launch.py", "distill_trainer"), ("replay.launch.py", "bag_replay")):
        found = actions(load(share_directory() / "launch" / file))
        nodes = [item for item in found if item.kind == "Node" and item.kwargs["executable"] == executable]
        assert nodes and all(float(node.kwargs["sigterm_timeout"]) > longest for node in nodes)


def test_given_arguments_override_the_file_and_others_do_not(launch_modules):
    perception = "perception.launch.py", "perception_node"
    assert overrides(*perception) == {}
    given = overrides(*perception, model="2026", budget="4", use_sim_time="true")
    assert given == {"use_sim_time": True, "model": "2026", "budget": 4}
    assert overrides(*perception, use_sim_time="false") == {"use_sim_time": False}
    distill = "distill.launch.py", "distill_trainer"
    assert overrides(*distill) == {}
    given = {"data": "d", "config": "c", "teacher": "t", "out": "2026"}
    booleans = {"use_sim_time": True, "autostart": False}
    texts = {name: str(value).lower() for name, value in booleans.items()}
    assert overrides(*distill, **given, **texts, minutes="5") == {**given, **booleans, "minutes": 5.0}


def replay_overrides(**given) -> dict:
    return overrides("replay.launch.py", "bag_replay", **given)


def test_every_option_of_a_replay_is_an_argument(launch_modules):
    assert replay_overrides(bag="2026") == {"bag": "2026"}
    given = {
        "bag": "b", "topic": "/t", "rate": "2", "start": "1.5", "duration": "3", "loop": "4", "also": "all",
        "clock": "true", "report": "r.json", "plot": "p.png", "results": "r.npz",
    }  # fmt: skip
    assert replay_overrides(**given) == {
        **given, "rate": 2.0, "start": 1.5, "duration": 3.0, "loop": 4, "clock": True,
    }  # fmt: skip
    assert replay_overrides(bag="b", clock="false") == {"bag": "b", "clock": False}
    assert replay_overrides(bag="b", fast="true") == {"bag": "b", "rate": 0.0, "in_flight": 2}
    with pytest.raises(ValueError, match="leave rate out"):
        replay_overrides(bag="b", fast="true", rate="1.0")
    for name in ("loop", "budget"):
        with pytest.raises(ValueError, match="many"):
            replay_overrides(**{"bag": "b", name: "many"})

    options = set(inspect.signature(replay).parameters) - {"params", "json_file", "picture"}
    module = load(share_directory() / "launch" / "replay.launch.py")
    assert options <= set(defaults(module)), "foundry replay has learnt what the launch file has not"


def description_arguments(description) -> list[str]:
    return [item.args[0] for item in description.args[0] if item.kind == "DeclareLaunchArgument"]


def test_a_replay_refuses_arguments_before_anything_runs(launch_modules):
    description = load(share_directory() / "launch" / "replay.launch.py").generate_launch_description()
    acting = [item for item in description.args[0] if item.kind != "DeclareLaunchArgument"]
    kinds = [item.kind for item in acting]
    assert kinds == ["OpaqueFunction", "IncludeLaunchDescription", "OpaqueFunction"]  # the profile before bag_replay
    arguments = {"bag": "b", "fast": "true", "rate": "1.0"}
    with pytest.raises(ValueError, match="leave rate out"):
        acting[0].kwargs["function"]({**dict.fromkeys(description_arguments(description), ""), **arguments})


def test_a_replay_with_a_clock_gives_the_node_its_time(launch_modules):
    module = load(share_directory() / "launch" / "replay.launch.py")
    include = next(item for item in actions(module) if item.kind == "IncludeLaunchDescription")
    passed = dict(include.kwargs["launch_arguments"])
    assert passed["use_sim_time"].args == ("clock",) and passed["namespace"].args == ("namespace",)
    assert passed["input"] == parameters.ReplayParameters().output


def test_included_arguments_exist(launch_modules):
    player = load(share_directory() / "launch" / "replay.launch.py")
    perception = load(share_directory() / "launch" / "perception.launch.py")
    include = next(item for item in actions(player) if item.kind == "IncludeLaunchDescription")
    assert {name for name, _ in include.kwargs["launch_arguments"]} <= set(defaults(perception))


def test_a_profile_of_the_user_is_respected(launch_modules, monkeypatch):
    module = load(share_directory() / "launch" / "perception.launch.py")
    assert any(item.kind == "SetEnvironmentVariable" for item in actions(module))
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/mine.xml")
    assert not any(item.kind == "SetEnvironmentVariable" for item in actions(module))


@pytest.mark.parametrize(
    ("given", "cloud", "node"),
    [
        ({}, "/points", "/perception_node"),
        ({"input": "/lidar/points"}, "/lidar/points", "/perception_node"),
        ({"input": "/lidar/points", "namespace": "robot"}, "/lidar/points", "/robot/perception_node"),
        ({"input": "points", "namespace": "robot"}, "/robot/points", "/robot/perception_node"),
    ],
)
def test_rviz_shows_the_topics_of_the_node(launch_modules, given, cloud, node):
    view = yaml.safe_load((share_directory() / "config" / "foundry.rviz").read_text(encoding="utf-8"))
    topics = {item["Topic"]["Value"] for item in view["Visualization Manager"]["Displays"] if "Topic" in item}
    module = load(share_directory() / "launch" / "perception.launch.py")
    rviz = next(item for item in actions(module, rviz="true", **given) if item.kwargs.get("executable") == "rviz2")
    rules = dict(rviz.kwargs["remappings"])
    namespace = rviz.kwargs["namespace"]

    def resolved(topic: str) -> str:
        target = rules.get(topic, topic)
        return target if target.startswith("/") else "/" + "/".join(filter(None, (namespace, target)))

    assert {resolved(topic) for topic in topics} == {cloud, f"{node}/parts", f"{node}/markers"}
    assert set(rules) <= topics


def test_rviz_is_started_only_where_it_is_wanted_with_the_frame_and_the_time_of_the_node(launch_modules):
    module = load(share_directory() / "launch" / "perception.launch.py")

    def rviz(**given):
        return [item for item in actions(module, **given) if item.kwargs.get("executable") == "rviz2"]

    assert not rviz() and not rviz(rviz="false")
    (view,) = rviz(rviz="true", frame="base_link", use_sim_time="true")
    assert view.kwargs["parameters"] == [{"use_sim_time": True}]
    assert view.kwargs["arguments"][2:] == ["-f", "base_link"]
    fixed = yaml.safe_load((share_directory() / "config" / "foundry.rviz").read_text(encoding="utf-8"))
    assert defaults(module)["frame"] == fixed["Visualization Manager"]["Global Options"]["Fixed Frame"]
    assert rviz(rviz="true")[0].kwargs["parameters"] == [{}]
