# SPDX-License-Identifier: Apache-2.0
"""Foundation Model Distillation for 3D perception: the ROS-free library of Foundry ROS."""


def __getattr__(name: str) -> str:
    """``__version__``, looked up when it is asked for: this module is imported before signals are taken care of."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("foundry_ros")  # the one place for the version is package.xml
    except PackageNotFoundError:  # run from a bare checkout, without installing it
        return "0.0.0"
