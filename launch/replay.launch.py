# SPDX-License-Identifier: Apache-2.0
"""perception_node and bag_replay: ``ros2 launch foundry_ros replay.launch.py bag:=/path/to/bag fast:=true``."""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
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
    {
        "name": "rate",
        "default": "",
        "description": "times the bag's own speed; 0.0: lock-step; empty: as in replay_params_file",
    },
    {"name": "fast", "default": "false", "description": "throughput: the next frame is sent before an answer"},
    {"name": "start", "default": "", "description": "s of the bag to leave out at the beginning; empty: none"},
    {"name": "duration", "default": "", "description": "s of the bag to play; empty: all"},
    {"name": "loop", "default": "", "description": "times to play; empty: once"},
    {"name": "also", "default": "", "description": "topics to publish too, separated by commas, or all"},
    {
        "name": "clock",
        "default": "",
        "description": "publish /clock; perception_node takes its time from it; empty: as in the parameter files",
    },
    {"name": "report", "default": "", "description": "JSON file for the figures"},
    {"name": "plot", "default": "", "description": ".png file for latencies and drops over time"},
    {"name": "results", "default": "", "description": ".npz file for every frame's objects and parts"},
    {
        "name": "replay_params_file",
        "default": PathJoinSubstitution([SHARE, "config", "replay.yaml"]),
        "description": "ROS parameter file of bag_replay",
    },
    {"name": "model", "default": "", "description": "shipped model or model directory; empty: as in params_file"},
    {"name": "budget", "default": "", "description": "supertokens to run with; empty: as in params_file"},
    {
        "name": "params_file",
        "default": PathJoinSubstitution([SHARE, "config", "perception.yaml"]),
        "description": "ROS parameter file of perception_node",
    },
    {"name": "rviz", "default": "false", "description": "start RViz with this package's view"},
    {"name": "frame", "default": "lidar", "description": "frame that RViz shows: the clouds' own, or target_frame"},
    {"name": "namespace", "default": "", "description": "namespace of both nodes and of the topic between them"},
]
PASSED_ON = ("model", "budget", "params_file", "rviz", "frame", "namespace")
NUMBERS = {"rate": float, "start": float, "duration": float, "loop": int}
TEXTS = ("bag", "topic", "also", "report", "plot", "results")


def overrides(context):
    """Parameters of bag_replay from the arguments that were given; what cannot be used raises a ValueError."""
    value = {item["name"]: LaunchConfiguration(item["name"]).perform(context) for item in ARGUMENTS}
    on = {name: value[name].lower() in ("true", "1") for name in ("fast", "clock")}
    if on["fast"] and value["rate"]:
        raise ValueError("fast: sends as fast as the node answers; leave rate out")
    if value["budget"]:
        int(value["budget"])
    given = {name: kind(value[name]) for name, kind in NUMBERS.items() if value[name]}
    # as text, whatever it looks like: a bag may be called 2026
    given |= {name: ParameterValue(value[name], value_type=str) for name in TEXTS if value[name]}
    if on["fast"]:
        given |= {"rate": 0.0, "in_flight": 2}
    if value["clock"]:
        given["clock"] = on["clock"]
    return given


def refuse(context):
    """Nothing, or the error of an argument, before anything runs: launch would leave behind what it has started."""
    overrides(context)
    return []


def bag_replay(context):
    """The node, whose end ends the launch."""
    replay = Node(
        package="foundry_ros",
        executable="bag_replay",
        name="bag_replay",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        sigterm_timeout="30",  # s, to write the report and the picture
        # the perception node of this launch listens there
        parameters=[LaunchConfiguration("replay_params_file"), {"output": "points"}, overrides(context)],
    )
    return [replay, RegisterEventHandler(OnProcessExit(target_action=replay, on_exit=[EmitEvent(event=Shutdown())]))]


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(item["name"], default_value=item.get("default"), description=item["description"])
        for item in ARGUMENTS
    ]
    value = {item["name"]: LaunchConfiguration(item["name"]) for item in ARGUMENTS}
    perception = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, "launch", "perception.launch.py"])),
        launch_arguments=[
            ("input", "points"),  # in the namespace, as what bag_replay publishes
            ("use_sim_time", value["clock"]),
            *((name, value[name]) for name in PASSED_ON),
        ],
    )
    # bag_replay comes last: perception.launch.py sets the Fast DDS profile, for both
    return LaunchDescription(
        [*declared, OpaqueFunction(function=refuse), perception, OpaqueFunction(function=bag_replay)]
    )
