# SPDX-License-Identifier: Apache-2.0
"""What the commands share that run real nodes for a bounded time and write figures (`make soak`, `make beside`)."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from foundry_core.card import share_directory


def prepare() -> None:
    """Keep ROS traffic on this machine, give large clouds room, and let SIGTERM end the nodes too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(share_directory() / "config" / "fastdds.xml"))


def write(report: dict[str, Any], path: Path) -> None:
    """Write the figures, and print them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))
