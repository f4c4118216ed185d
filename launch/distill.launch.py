# SPDX-License-Identifier: Apache-2.0
"""distill_trainer: ``ros2 launch foundry_ros distill.launch.py input:=/lidar/points out:=/data/run minutes:=60``."""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("foundry_ros")

ARGUMENTS = [
    {"name": "input", "default": "/points", "description": "PointCloud2 topic to collect from"},
    {"name": "data", "default": "", "description": ".npz shape set or rosbag2 recording; empty: collect from input"},
    {"name": "config", "default": "", "description": "training configuration; empty: as in params_file"},
    {"name": "teacher", "default": "", "description": "shipped model or model directory; empty: as in params_file"},
    {"name": "out", "default": "", "description": "run folder; empty: as in params_file"},
    {"name": "minutes", "default": "", "description": "length of the training; empty: as in params_file"},
    {
        "name": "autostart",
        "default": "",
        "description": "train without ~/start once the data is complete; empty: as in params_file",
    },
    {
        "name": "params_file",
        "default": PathJoinSubstitution([SHARE, "config", "distill.yaml"]),
        "description": "ROS parameter file of distill_trainer",
    },
    {"name": "use_sim_time", "default": "", "description": "take the time from /clock; empty: as in params_file"},
    {"name": "namespace", "default": "", "description": "namespace of the node"},
]


def distill_trainer(context):
    """The node; only arguments that were given override the parameter file."""
    value = {item["name"]: LaunchConfiguration(item["name"]).perform(context) for item in ARGUMENTS}
    overrides = {name: value[name].lower() in ("true", "1") for name in ("use_sim_time", "autostart") if value[name]}
    for name in ("data", "config", "teacher", "out"):
        if value[name]:
            overrides[name] = ParameterValue(value[name], value_type=str)  # a folder may be called 2026
    if value["minutes"]:
        overrides["minutes"] = float(value["minutes"])
    return [
        Node(
            package="foundry_ros",
            executable="distill_trainer",
            name="distill_trainer",
            namespace=value["namespace"],
            output="screen",
            sigterm_timeout="30",  # s; what trains at low priority may take long to save its checkpoint
            parameters=[value["params_file"], overrides],
            remappings=[("~/input", value["input"])],
        )
    ]


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(item["name"], default_value=item["default"], description=item["description"])
        for item in ARGUMENTS
    ]
    actions = [*declared, OpaqueFunction(function=distill_trainer)]
    if "FASTRTPS_DEFAULT_PROFILES_FILE" not in os.environ:
        # best-effort clouds of 120,000 points need its larger shared-memory segment
        profile = PathJoinSubstitution([SHARE, "config", "fastdds.xml"])
        actions.insert(0, SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile))
    return LaunchDescription(actions)
