# SPDX-License-Identifier: Apache-2.0
"""Package ``foundry_ros`` for pip and for colcon (ament_python); everything static is in setup.cfg.

The version is read from package.xml, its only place. The data files are what ``ros2 run`` and ``ros2 launch`` look for.
``python_requires`` stands here, as plain text: from setup.cfg setuptools makes an object that colcon cannot read.
"""

import os
from pathlib import Path
from xml.etree import ElementTree

from setuptools import setup

NAME = "foundry_ros"
ROOT = Path(__file__).resolve().parent
SHARE = f"share/{NAME}"


def version() -> str:
    """The version in package.xml."""
    return ElementTree.parse(ROOT / "package.xml").getroot().findtext("version").strip()


def shipped(pattern: str) -> dict:
    """Destination folder under share/ -> files that match, in the folders they have in the source tree."""
    folders = {}
    for path in sorted(ROOT.glob(pattern)):
        relative = path.relative_to(ROOT)
        hidden = any(part.startswith((".", "__")) for part in relative.parts)
        if path.is_file() and not hidden and path.suffix != ".tmp":
            folders.setdefault(f"{SHARE}/{relative.parent.as_posix()}", []).append(relative.as_posix())
    return folders


def data_files() -> list:
    """The ament marker, the manifest, launch files, configuration, models and the nodes' executables."""
    folders = {
        "share/ament_index/resource_index/packages": [f"resource/{NAME}"],
        SHARE: ["package.xml"],
        f"lib/{NAME}": sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / NAME / "executables").glob("*")),
    }
    for pattern in ("launch/*.py", "config/**/*", "resource/models/*/*"):
        folders.update(shipped(pattern))
    return sorted(folders.items())


os.chdir(ROOT)  # relative paths above hold wherever the build is started from
setup(version=version(), python_requires=">=3.10", data_files=data_files())
