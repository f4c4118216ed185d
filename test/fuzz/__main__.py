# SPDX-License-Identifier: Apache-2.0
"""``PYTHONPATH=.:test python -m fuzz``: see ``make fuzz``. Exit code 1 when a fault was found."""

from __future__ import annotations

import argparse
import faulthandler
import importlib.util
import json
import sys
from pathlib import Path

from fuzz import clouds, files


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000, help="PointCloud2 messages through decoding")
    parser.add_argument("--files", type=int, default=500, help="damaged files of each format")
    parser.add_argument("--dds", type=int, default=2000, help="messages through the real perception_node; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("out/fuzz.json"))
    options = parser.parse_args()
    faulthandler.enable()  # where a crash would be
    report = {}
    if options.messages:
        report["decoding"] = clouds.run(options.messages, options.seed)
        print(json.dumps(report["decoding"], indent=1), flush=True)
    if options.dds and importlib.util.find_spec("rclpy") is None:
        report["dds"] = {"messages": 0, "faults": [], "skipped": "rclpy is not installed"}
    elif options.dds:
        from fuzz import dds

        report["dds"] = dds.run(options.dds, options.seed, tell=lambda line: print(line, flush=True))
        print(json.dumps(report["dds"], indent=1), flush=True)
    if options.files:
        report["files"] = files.run(options.files, tell=lambda line: print(line, flush=True))
    faults = [fault for part in report.values() for fault in part["faults"]]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for fault in faults:
        print(f"FAULT {fault}")
    print(f"{len(faults)} faults; figures in {options.json}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
