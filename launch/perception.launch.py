# SPDX-License-Identifier: Apache-2.0
"""perception_node, optionally with RViz: ``ros2 launch foundry_ros perception.launch.py input:=/lidar/points``."""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
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
    {"name": "use_sim_time", "default": "false", "description": "take the time from /clock"},
    {"name": "namespace", "default": "", "description": "namespace of the node"},
]


def perception_node(context):
    """The node; only arguments that were given override the parameter file."""
    value = {item["name"]: LaunchConfiguration(item["name"]).perform(context) for item in ARGUMENTS}
    overrides = {"use_sim_time": value["use_sim_time"].lower() in ("true", "1")}
    if value["model"]:
        overrides["model"] = value["model"]
    if value["budget"]:
        overrides["budget"] = int(value["budget"])
    return [
        Node(
            package="foundry_ros",
            executable="perception_node",
            name="perception_node",
            namespace=value["namespace"],
            output="screen",
            parameters=[value["params_file"], overrides],
            remappings=[("~/input", value["input"])],
        )
    ]


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(item["name"], default_value=item["default"], description=item["description"])
        for item in ARGUMENTS
    ]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", PathJoinSubstitution([SHARE, "config", "foundry.rviz"])],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    actions = [*declared, OpaqueFunction(function=perception_node), rviz]
    if "FASTRTPS_DEFAULT_PROFILES_FILE" not in os.environ:
        # best-effort clouds of 120,000 points need its larger shared-memory segment
        profile = PathJoinSubstitution([SHARE, "config", "fastdds.xml"])
        actions.insert(0, SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile))
    return LaunchDescription(actions)
