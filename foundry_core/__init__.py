# SPDX-License-Identifier: Apache-2.0
"""Foundation Model Distillation for 3D perception: the ROS-free library of Foundry ROS."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("foundry_ros")  # the one place for the version is package.xml
except PackageNotFoundError:  # run from a bare checkout, without installing it
    __version__ = "0.0.0"
