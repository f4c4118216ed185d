# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import yaml
from pydantic import Field

from foundry_core.card import find_model, load_card, share_directory
from foundry_core.data.procedural import CATEGORY_PLACES
from foundry_core.errors import InputError
from foundry_core.scene import config as scene
from foundry_core.schema import Settings
from foundry_ros import parameters
from foundry_ros.parameters import DistillParameters, PerceptionParameters, ReplayParameters
from foundry_ros.ros_parameters import POLICIES, check_ros_parameter


class Inner(Settings):
    size: float = Field(0.5, gt=0, description="m")
    corner: tuple[float, float] = (1.0, 2.0)


class Outer(Settings):
    name: str = "a"
    limit: float | None = None
    inner: Inner = Inner()


def write(path, content) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def test_schema_becomes_dotted_parameters():
    found = {item.name: item.default for item in parameters.node_parameters(Outer)}
    assert found == {"name": "a", "limit": None, "inner.size": 0.5, "inner.corner": [1.0, 2.0]}
    assert parameters.flatten(Outer()) == {"name": "a", "inner.size": 0.5, "inner.corner": [1.0, 2.0]}
    changed = parameters.from_dotted(Outer, {"inner.size": 2, "limit": 0.1, "use_sim_time": True}, "here")
    assert changed == Outer(limit=0.1, inner=Inner(size=2.0))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"nam": "x"}, "here: nam: unknown key"),
        ({"inner.sise": 1.0}, "here: inner.sise: unknown key"),
        ({"other.size": 1.0}, "here: other.size: unknown key"),
        ({"inner.size": -1.0}, "here: inner.size: .*greater than 0"),
        ({"inner.corner": [1.0]}, "here: inner.corner"),
        ({"name.x": 1}, "here: name.x: unknown key"),
    ],
)
def test_unknown_and_bad_parameters_are_named(values, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        parameters.from_dotted(Outer, values, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["points", "/lidar/points", "~/points", "a1/_b"])
def test_names_that_ros_takes(name):
    settings = parameters.from_dotted(ReplayParameters, {"output": name, "node": name}, "here")
    assert settings.output == settings.node == name


@pytest.mark.parametrize("name", ["a b", "/x/", "/", "x//y", "1a", "a/1", "~", "é", "a\n", "a" * 300, ""])
@pytest.mark.parametrize("key", ["output", "node"])
def test_names_that_ros_does_not_take_are_refused(key, name):
    with pytest.raises(InputError, match=f"here: {key}: ") as caught:
        parameters.from_dotted(ReplayParameters, {key: name}, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schema", parameters.NODES.values())
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_every_number_of_every_node_is_finite(schema, value):
    known = list(parameters.node_parameters(schema))
    numbers = [item.name for item in known if isinstance(item.default, float)]
    numbers += [item.name for item in known if item.default is None and not item.whole]
    assert len(numbers) >= 4
    for name in numbers:
        with pytest.raises(InputError, match=f"here: {name}: .*finite"):
            parameters.from_dotted(schema, {name: value}, "here")


def test_documented_parameters_are_the_schemas():
    import node_tables

    text = node_tables.PAGE.read_text(encoding="utf-8")
    assert node_tables.filled(text) == text, "run: PYTHONPATH=.:test python -m node_tables"


def test_the_lists_of_when_parameters_act_name_parameters_and_do_not_overlap():
    names = [item.name for item in parameters.node_parameters(PerceptionParameters)]
    for start in (*parameters.AT_CONFIGURATION, *parameters.AT_ONCE):
        assert any(name.startswith(start) for name in names), start
    assert all(parameters.changes_at_run_time(name) for name in names if name.startswith(parameters.AT_ONCE))


def test_descriptors_have_the_bounds_of_the_schema():
    descriptors = pytest.importorskip("foundry_ros.declared", reason="rclpy is not installed")
    for node, schema in parameters.NODES.items():
        for item in parameters.node_parameters(schema):
            found = descriptors.describe(item, node)
            ranges = [*found.integer_range, *found.floating_point_range]
            assert len(ranges) == (item.low is not None or item.high is not None)
            for bounds in ranges:
                assert bounds.from_value <= (item.default if item.default is not None else bounds.to_value)
                assert bounds.from_value == item.low or item.low is None
                assert bounds.to_value == item.high or item.high is None


def test_every_node_parameter_is_described():
    for schema in parameters.NODES.values():
        for item in parameters.node_parameters(schema):
            assert len(item.description) > 3, f"{schema.__name__}.{item.name} has no description"


def test_defaults_survive_a_ros_parameter_file(tmp_path):
    for name, schema in parameters.NODES.items():
        path = parameters.write_parameters(name, parameters.flatten(schema()), tmp_path)
        assert parameters.read_parameters(path)[name] == schema()


def test_strings_stay_strings_in_a_ros_parameter_file(tmp_path):
    path = parameters.write_parameters("bag_replay", {"bag": "007", "topic": "/on: #x", "report": "ünï"}, tmp_path)
    settings = parameters.read_parameters(path)["bag_replay"]
    assert (settings.bag, settings.topic, settings.report) == ("007", "/on: #x", "ünï")


def test_nested_and_dotted_and_wildcard_sections(tmp_path):
    content = {
        "perception_node": {"ros__parameters": {"model": "mine"}},
        "/robot": {"bag_replay": {"ros__parameters": {"rate": 2}}},
        "/**": {"ros__parameters": {"use_sim_time": True}},
    }
    settings = parameters.read_parameters(write(tmp_path / "p.yaml", content))
    assert settings == {
        "perception_node": PerceptionParameters(model="mine"),
        "bag_replay": ReplayParameters(rate=2.0),
        "distill_trainer": DistillParameters(),
    }
    first = next(item for item in parameters.node_parameters(PerceptionParameters) if item.name.startswith("scene."))
    group, key = first.name.split(".", 1)
    for form in ({first.name: first.default}, {group: {key: first.default}}):
        parameters.read_parameters(write(tmp_path / "p.yaml", {"perception_node": {"ros__parameters": form}}))


def test_parameters_of_ros_itself_are_read_for_each_node(tmp_path):
    qos = {"/lidar/points": {"subscription": {"reliability": "reliable", "depth": 2}}}
    content = {
        "/**": {"ros__parameters": {"use_sim_time": True}},
        "perception_node": {"ros__parameters": {"threads": 2, "qos_overrides": qos}},
        "distill_trainer": {"ros__parameters": {"use_sim_time": False}},
    }
    prefix = "qos_overrides./lidar/points.subscription"
    assert parameters.read_ros_parameters(write(tmp_path / "p.yaml", content)) == {
        "perception_node": {"use_sim_time": True, f"{prefix}.reliability": "reliable", f"{prefix}.depth": 2},
        "bag_replay": {"use_sim_time": True},
        "distill_trainer": {"use_sim_time": False},
    }
    for name, value in (("use_sim_time", "maybe"), ("use_sim_time", None), (f"{prefix}.reliability", "best_efort")):
        content = {"perception_node": {"ros__parameters": {name: value}}}
        with pytest.raises(InputError, match=f"p.yaml: {name}: must be"):
            parameters.read_ros_parameters(write(tmp_path / "p.yaml", content))


RELIABILITIES = "must be reliable, best_effort, best_available or system_default, not "


@pytest.mark.parametrize(
    ("policy", "value", "complaint"),
    [
        ("reliability", "best_efort", RELIABILITIES + "'best_efort'"),
        ("reliability", "unknown", RELIABILITIES + "'unknown'"),
        ("reliability", 1, RELIABILITIES + "1"),
        ("history", "last", "must be keep_last, keep_all or system_default, not 'last'"),
        ("depth", -1, "must be a whole number from 0 to 2147483647, not -1"),
        ("depth", 2**31, "must be a whole number from 0"),
        ("depth", 2.0, "must be a whole number from 0"),
        ("depth", True, "must be a whole number from 0"),
        ("depth", [1], "must be a whole number from 0"),
        ("durability", [1], "must be a word or a number"),
    ],
)
def test_qos_that_ros_does_not_know_is_refused_with_what_it_knows(policy, value, complaint):
    name = f"qos_overrides./points.subscription.{policy}"
    with pytest.raises(InputError) as caught:
        check_ros_parameter(name, value, "here")
    assert str(caught.value).startswith(f"here: {name}: {complaint}")


def test_qos_that_ros_knows_is_taken_in_any_case():
    qos = pytest.importorskip("rclpy.qos", reason="rclpy is not installed")
    for policy, kind in (("reliability", qos.ReliabilityPolicy), ("history", qos.HistoryPolicy)):
        assert set(POLICIES[policy]) == {name.lower() for name in kind.__members__} - {"unknown"}
        for value in (*POLICIES[policy], *kind.__members__.keys() - {"UNKNOWN"}):
            check_ros_parameter(f"qos_overrides./points.publisher.{policy}", value, "here")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"perception_node": {"ros__parameters": {"modle": "x"}}}, "modle: unknown key"),
        ({"perception_node": {"ros__parameters": {"scene": {"crop": {"typo": 1}}}}}, "scene.crop.typo: unknown key"),
        ({"perception_node": {"ros__parameters": {"scene": {"nothing": 1}}}}, "scene.nothing: unknown key"),
        ({"perception_node": {"ros__parameters": {"threads": "many"}}}, "threads"),
        ({"percepton_node": {"ros__parameters": {}}}, "percepton_node: unknown node"),
        ({"perception_node": {"model": "x"}}, "perception_node/model: unknown key outside ros__parameters"),
        ({"/**": {"ros__parameters": {"rate": 1.0}}}, "rate: unknown key"),
        ({"ros__parameters": {"model": "x"}}, "ros__parameters must be a mapping inside a node's name"),
        ("[1, 2]", "not a ROS parameter file"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_parameter_files_are_refused_in_one_line(tmp_path, content, complaint):
    path = write(tmp_path / "bad.yaml", content)
    with pytest.raises(InputError, match=complaint) as caught:
        parameters.read_parameters(path)
    assert "bad.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["street", "room", "tabletop"])
def test_parameter_files_of_places(name):
    file = share_directory() / "config" / f"{name}.yaml"
    settings = parameters.read_parameters(file)["perception_node"]
    assert settings.scene == getattr(scene, f"{name}_config")()
    classes = settings.classes.split(", ")
    place = "room" if name == "tabletop" else name
    there = {category for category, places in CATEGORY_PLACES.items() if place in places}
    assert set(classes) <= there and (name == "tabletop" or set(classes) == there)
    assert set(classes) <= set(load_card(find_model(settings.model)).heads.objects.classes)


@pytest.mark.parametrize("name", ["perception.yaml", "replay.yaml", "distill.yaml"])
def test_shipped_parameter_files_are_valid_and_hold_the_defaults(name):
    settings = parameters.read_parameters(share_directory() / "config" / name)
    assert settings == {node: schema() for node, schema in parameters.NODES.items()}
