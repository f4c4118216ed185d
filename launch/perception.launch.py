# SPDX-License-Identifier: Apache-2.0
"""perception_node, optionally with RViz: ``ros2 launch foundry_ros perception.launch.py input:=/lidar/points``."""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("foundry_ros")

ARGUMENTS = [
    {"name": "input", "default": "/points", "description": "PointCloud2 topic"},
    {"name": "model", "default": "", "description": "shipped model or model directory; empty: as in params_file"},
    {"name": "budget", "default": "", "description": "supertokens to run with; empty: as in params_file"},
    {
        "name": "params_file",
        "default": PathJoinSubstitution([SHARE, "config", "perception.yaml"]),
        "description": "ROS parameter file of perception_node",
    },
    {"name": "rviz", "default": "false", "description": "start RViz with this package's view"},
    {"name": "frame", "default": "lidar", "description": "frame that RViz shows: the clouds' own, or target_frame"},
    {"name": "use_sim_time", "default": "", "description": "take the time from /clock; empty: as in params_file"},
    {"name": "namespace", "default": "", "description": "namespace of the node"},
]


def is_true(text):
    """Whether an argument says yes."""
    return text.lower() in ("true", "1")


def nodes(context):
    """The node, and RViz where it is wanted; only arguments that were given override the parameter file."""
    value = {item["name"]: LaunchConfiguration(item["name"]).perform(context) for item in ARGUMENTS}
    time = {"use_sim_time": is_true(value["use_sim_time"])} if value["use_sim_time"] else {}
    overrides = dict(time)
    if value["model"]:
        overrides["model"] = ParameterValue(value["model"], value_type=str)  # a folder may be called 2026
    if value["budget"]:
        overrides["budget"] = int(value["budget"])
    perception = Node(
        package="foundry_ros",
        executable="perception_node",
        name="perception_node",
        namespace=value["namespace"],
        output="screen",
        parameters=[value["params_file"], overrides],
        remappings=[("~/input", value["input"])],
    )
    return [perception, rviz(value, time)] if is_true(value["rviz"]) else [perception]


def rviz(value, time):
    """RViz in the node's namespace; the absolute topics of its view become those of the node."""
    view = PathJoinSubstitution([SHARE, "config", "foundry.rviz"])
    outputs = [(f"/perception_node/{name}", f"perception_node/{name}") for name in ("parts", "markers")]
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=value["namespace"],
        arguments=["-d", view, "-f", value["frame"]],
        parameters=[time],
        remappings=[("/points", value["input"]), *outputs],
    )


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(item["name"], default_value=item["default"], description=item["description"])
        for item in ARGUMENTS
    ]
    actions = [*declared, OpaqueFunction(function=nodes)]
    if "FASTRTPS_DEFAULT_PROFILES_FILE" not in os.environ:
        # best-effort clouds of 120,000 points need its larger shared-memory segment
        profile = PathJoinSubstitution([SHARE, "config", "fastdds.xml"])
        actions.insert(0, SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile))
    return LaunchDescription(actions)
