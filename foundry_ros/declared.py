# SPDX-License-Identifier: Apache-2.0
"""The schemas' parameters on an rclpy node: declared with descriptors and bounds, read back as settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult

from foundry_core.errors import InputError
from foundry_core.schema import Settings
from foundry_ros.parameters import (
    NODES,
    READ_ONLY,
    NodeParameter,
    changes_at_run_time,
    from_dotted,
    node_parameters,
)
from foundry_ros.ros_parameters import check_ros_parameter, is_ros_parameter

S = TypeVar("S", bound=Settings)


def describe(parameter: NodeParameter, node: str) -> ParameterDescriptor:
    """The descriptor of a parameter of a node of this package.

    Its range is closed, the schema's may be open: the schema is the judge. So it is of types: 5 is as good as 5.0.
    """
    descriptor = ParameterDescriptor(description=parameter.description, dynamic_typing=True)
    low, high = parameter.low, parameter.high
    if (low is not None or high is not None) and parameter.whole:
        least, most = -(2**63), 2**63 - 1
        bounds = least if low is None else int(low), most if high is None else int(high)
        descriptor.integer_range = [IntegerRange(from_value=bounds[0], to_value=bounds[1])]
    elif low is not None or high is not None:
        most = sys.float_info.max
        bounds = -most if low is None else float(low), most if high is None else float(high)
        descriptor.floating_point_range = [FloatingPointRange(from_value=bounds[0], to_value=bounds[1])]
    descriptor.read_only = parameter.name in READ_ONLY.get(node, ())
    if node == "perception_node":
        late = descriptor.read_only or not changes_at_run_time(parameter.name)
        descriptor.additional_constraints = "fixed while the node is configured" if late else "may change at any time"
    return descriptor


def declare(node: Any, schema: type[Settings]) -> None:
    """Declare the schema's parameters on an rclpy node that was made with
    ``automatically_declare_parameters_from_overrides=True``; an optional one that is unset later stays declared.

    Raises:
        InputError: the node was given a parameter that the schema does not have, or a bad value.
    """
    parameters = {parameter.name: parameter for parameter in node_parameters(schema)}
    given: dict[str, Any] = {}
    for name, parameter in node.get_parameters_by_prefix("").items():
        if is_ros_parameter(name):
            check_ros_parameter(name, _of_ros(parameter.value), node.get_name())
        elif name not in parameters:
            raise InputError(f"{node.get_name()}: {name}: unknown parameter; remove it or correct its spelling")
        else:
            given[name] = _of_ros(parameter.value)
    from_dotted(schema, given, node.get_name())
    kind = next(name for name, known in NODES.items() if known is schema)
    for name in given:
        node.undeclare_parameter(name)  # was declared without a description
    for parameter in parameters.values():
        node.declare_parameter(parameter.name, parameter.default, describe(parameter, kind))

    def keep_unset(changes: list[Any]) -> None:
        """rclpy takes a parameter that is unset (`ros2 param delete`) away, and would refuse the next value."""
        for change in changes:
            if change.name in parameters and not node.has_parameter(change.name):
                described = describe(parameters[change.name], kind)
                node.declare_parameter(change.name, None, described, ignore_override=True)

    node.add_post_set_parameters_callback(keep_unset)


def _of_ros(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def current(node: Any, schema: type[S], changes: Mapping[str, Any] | None = None) -> S:
    """The settings that a node's parameters make, with ``changes`` (dotted) applied.

    Raises:
        InputError: a bad value, by name.
    """
    values: dict[str, Any] = {}
    for parameter in node_parameters(schema):
        value = node.get_parameter_or(parameter.name).value  # one that was unset is not there for a moment
        if value is not None:
            values[parameter.name] = _of_ros(value)
    values.update(changes or {})
    return from_dotted(schema, values, node.get_name())


def judge_changes(
    node: Any, schema: type[S], fixed: Callable[[str], str], check: Callable[[S], None] = lambda settings: None
) -> None:
    """From now on refuse changes of a node's parameters that cannot be made, all that are set together.

    Args:
        fixed: why the parameter of this name may not change now; empty where it may.
        check: raises InputError for settings that fit the schema, but not the node.
    """

    def judge(changes: list[Any]) -> SetParametersResult:
        ours = {change.name: change.value for change in changes if not is_ros_parameter(change.name)}
        reason = next(filter(None, map(fixed, ours)), "")
        try:
            for change in changes:
                if is_ros_parameter(change.name) and change.value is not None:
                    check_ros_parameter(change.name, _of_ros(change.value), node.get_name())
            if not reason:
                check(current(node, schema, ours))
        except InputError as error:
            reason = str(error)
        return SetParametersResult(successful=not reason, reason=reason)

    node.add_on_set_parameters_callback(judge)
