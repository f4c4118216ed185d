# SPDX-License-Identifier: Apache-2.0
"""perception_node and bag_replay: ``ros2 launch foundry_ros replay.launch.py bag:=/path/to/bag rate:=0.0``."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, IncludeLaunchDescription, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("foundry_ros")

ARGUMENTS = [
    {"name": "bag", "description": "rosbag2 folder, .mcap or .db3 file"},
    {"name": "topic", "default": "", "description": "PointCloud2 topic of the bag; empty: the only one, or /points"},
    {"name": "rate", "default": "1.0", "description": "times the bag's own speed; 0.0: lock-step"},
    {"name": "report", "default": "", "description": "JSON file for the figures"},
    {"name": "model", "default": "", "description": "shipped model or model directory; empty: as in params_file"},
    {"name": "budget", "default": "", "description": "supertokens to run with; empty: as in params_file"},
    {
        "name": "params_file",
        "default": PathJoinSubstitution([SHARE, "config", "perception.yaml"]),
        "description": "ROS parameter file of perception_node",
    },
    {"name": "rviz", "default": "false", "description": "start RViz with this package's view"},
]
PASSED_ON = ("model", "budget", "params_file", "rviz")


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(item["name"], default_value=item.get("default"), description=item["description"])
        for item in ARGUMENTS
    ]
    value = {item["name"]: LaunchConfiguration(item["name"]) for item in ARGUMENTS}
    perception = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, "launch", "perception.launch.py"])),
        launch_arguments=[("input", "/points"), *((name, value[name]) for name in PASSED_ON)],
    )
    replay = Node(
        package="foundry_ros",
        executable="bag_replay",
        name="bag_replay",
        output="screen",
        parameters=[
            PathJoinSubstitution([SHARE, "config", "replay.yaml"]),
            {
                "bag": ParameterValue(value["bag"], value_type=str),
                "topic": ParameterValue(value["topic"], value_type=str),
                "rate": ParameterValue(value["rate"], value_type=float),
                "report": ParameterValue(value["report"], value_type=str),
            },
        ],
    )
    ending = RegisterEventHandler(OnProcessExit(target_action=replay, on_exit=[EmitEvent(event=Shutdown())]))
    return LaunchDescription([*declared, perception, replay, ending])
