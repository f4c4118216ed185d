# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, checked in fresh interpreters in which the forbidden packages cannot be imported."""

import importlib.util
import pkgutil
import subprocess
import sys

import pytest

import foundry_core

_BLOCKER = """
import importlib, sys
blocked = set(sys.argv[1].split(","))
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError(f"{name} is behind the wall")
sys.meta_path.insert(0, Wall())
for name in sys.argv[2:]:
    importlib.import_module(name)
assert not blocked & {name.split(".")[0] for name in sys.modules}
"""

ROS = ("rclpy", "rcl_interfaces", "builtin_interfaces", "sensor_msgs", "std_msgs", "geometry_msgs", "lifecycle_msgs")
LEARNING = ("torch", "torchvision", "sklearn", "matplotlib", "onnxscript", "scipy")
ROBOT = ["foundry_core.clouds", "foundry_core.pointcloud2", "foundry_core.card", "foundry_core.geometry"]


def _import(blocked, names):
    command = [sys.executable, "-c", _BLOCKER, ",".join(blocked), *names]
    return subprocess.run(command, capture_output=True, text=True)


def _modules(prefix=""):
    every = [module.name for module in pkgutil.walk_packages(foundry_core.__path__, "foundry_core.")]
    return sorted(name for name in every if name.startswith(f"foundry_core.{prefix}"))


def test_the_wall_holds():
    assert "json is behind the wall" in _import(["json"], ["json"]).stderr


def test_core_imports_without_ros():
    names = _modules()
    assert len(names) > 20
    if importlib.util.find_spec("torch") is None:
        names = [name for name in names if name.split(".")[1] not in ("models", "training", "evaluation", "export")]
    done = _import((*ROS, "foundry_ros"), names)
    assert done.returncode == 0, done.stderr


def test_scene_and_runtime_import_without_torch():
    names = [*_modules("scene"), *_modules("runtime"), *ROBOT]
    assert {"foundry_core.scene.segment", "foundry_core.runtime.perceiver"} <= set(names)
    done = _import((*ROS, *LEARNING), names)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is None, reason="needs rclpy")
def test_the_perception_node_imports_without_torch():
    done = _import(LEARNING, ["foundry_ros.perception_node", "foundry_ros.bag_replay"])
    assert done.returncode == 0, done.stderr
