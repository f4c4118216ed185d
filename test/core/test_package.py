# SPDX-License-Identifier: Apache-2.0
"""The package as pip and colcon see it: manifest, version, data files, executables, pins."""

import ast
import os
import runpy
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import setuptools
from catkin_pkg.package import parse_package
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SHARE = "share/foundry_ros"
PYTHONS = ("3.10", "3.11", "3.12")


@pytest.fixture(scope="module")
def manifest():
    return parse_package(str(ROOT / "package.xml"))


@pytest.fixture(scope="module")
def configuration():
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def arguments():
    """What setup.py hands to setuptools."""
    found = {}
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **given: found.update(given))
        try:
            runpy.run_path(str(ROOT / "setup.py"))
        finally:
            os.chdir(before)
    return found


def installed(arguments):
    """Destination -> source for every data file."""
    return {f"{folder}/{Path(file).name}": file for folder, files in arguments["data_files"] for file in files}


def tracked(*patterns):
    """Files in the tree that match, hidden ones and caches left out."""
    paths = [path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()]
    return {path.relative_to(ROOT).as_posix() for path in paths if not path.name.startswith(".")}


def test_manifest_is_a_format_3_ament_python_package(manifest):
    assert manifest.name == "foundry_ros" and manifest.package_format == 3
    assert manifest.get_build_type() == "ament_python"
    assert [str(licence) for licence in manifest.licenses] == ["Apache-2.0"]
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    needed = {dependency.name for dependency in manifest.exec_depends}
    assert {"rclpy", "rmw_fastrtps_cpp", "sensor_msgs", "launch_ros"} <= needed


def ros_imports():
    """Top-level modules that foundry_ros imports and that are neither Python's own nor this project's."""
    found = set()
    for path in (ROOT / "foundry_ros").glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"foundry_core", "foundry_ros"}


def test_every_ros_package_that_is_imported_is_a_dependency(manifest, configuration):
    declared = {dependency.name for dependency in manifest.exec_depends}
    declared |= {name.removeprefix("python3-").removesuffix("_py") for name in declared}
    declared |= {
        Requirement(line).name.replace("-", "_") for line in lines(configuration["options"]["install_requires"])
    }
    assert ros_imports() <= declared, ros_imports() - declared


def test_the_version_stands_in_one_place(manifest, arguments, configuration):
    assert arguments["version"] == manifest.version
    assert "version" not in configuration["metadata"]
    assert "version" not in {line.split("=")[0].strip() for line in (ROOT / "pyproject.toml").read_text().splitlines()}
    said = subprocess.run(
        [sys.executable, "-m", "foundry_core.cli.main", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == f"foundry {manifest.version}"
    assert f"## {manifest.version} " in (ROOT / "CHANGELOG.md").read_text()


def test_everything_that_ros2_run_and_launch_look_for_is_installed(arguments):
    files = installed(arguments)
    assert files["share/ament_index/resource_index/packages/foundry_ros"] == "resource/foundry_ros"
    assert files[f"{SHARE}/package.xml"] == "package.xml"
    for source in tracked("launch/*.py", "config/**/*", "resource/models/*/*"):
        assert files.get(f"{SHARE}/{source}") == source
    for name in ("perception_node", "bag_replay", "distill_trainer"):
        assert f"lib/foundry_ros/{name}" in files
    for source in files.values():
        assert (ROOT / source).is_file()
        assert not source.endswith((".pyc", ".tmp")) and "/." not in source


def test_executables_run_from_anywhere(arguments):
    sources = [file for folder, files in arguments["data_files"] if folder == "lib/foundry_ros" for file in files]
    for source in sources:
        path = ROOT / source
        module = f"foundry_ros.{path.name}"
        assert path.read_text().startswith("#!/usr/bin/env python3\n")
        assert os.access(path, os.X_OK), f"{source} lost its executable bit"
        assert f"from {module} import main" in path.read_text()
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{source} starts {module}, which is not there"


def lines(text):
    return [line.split("#")[0].strip() for line in text.splitlines() if line.split("#")[0].strip()]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_has_exactly_one_pin_that_fits(configuration, python):
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    pins = {}
    for line in lines((ROOT / "constraints.txt").read_text()):
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate(environment):
            name = pin.name.lower().replace("_", "-")
            assert name not in pins, f"{name} is pinned twice"
            (clause,) = pin.specifier
            assert clause.operator == "=="
            pins[name] = clause.version
    extras = configuration["options.extras_require"]
    wanted = lines(configuration["options"]["install_requires"]) + [
        line for key in extras for line in lines(extras[key])
    ]
    for line in wanted:
        requirement = Requirement(line)
        pin = pins[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(pin), f"{line}: pinned to {pin}"


def test_the_base_installation_has_no_torch(configuration):
    base = {Requirement(line).name for line in lines(configuration["options"]["install_requires"])}
    ros = {Requirement(line).name for line in lines(configuration["options.extras_require"]["ros"])}
    assert not {"torch", "scikit-learn", "onnx"} & (base | ros)
    assert all(name.startswith("ros-") for name in ros)


COLCON = """
import setuptools
from distutils.core import run_setup
distribution = run_setup("setup.py", script_args=("--dry-run",), stop_after="config")
skipped = {"cmdclass", "distclass", "ext_modules", "metadata", *distribution.display_option_names}
print(repr({
    key: value for key, value in vars(distribution).items()
    if not key.startswith("_") and not callable(value) and key not in skipped
}))
"""


def test_colcon_can_read_what_setuptools_makes_of_it():
    """As colcon-python-setup-py does: whatever it finds must be plain values."""
    said = subprocess.run([sys.executable, "-c", COLCON], cwd=ROOT, capture_output=True, text=True, check=True)
    found = ast.literal_eval(said.stdout.splitlines()[-1])
    assert found["python_requires"] == ">=3.10" and len(found["data_files"]) > 5


def test_packages_and_entry_point(configuration):
    found = set(
        setuptools.find_packages(ROOT, include=["foundry_core", "foundry_core.*", "foundry_ros", "foundry_ros.*"])
    )
    for folder in ("foundry_core", "foundry_ros"):
        for path in (ROOT / folder).glob("**/*.py"):
            assert ".".join(path.relative_to(ROOT).parent.parts) in found, (
                f"{path} is in no package: __init__.py missing?"
            )
    name, target = configuration["options.entry_points"]["console_scripts"].strip().split(" = ")
    module, function = target.split(":")
    assert name == "foundry" and callable(getattr(__import__(module, fromlist=[function]), function))
