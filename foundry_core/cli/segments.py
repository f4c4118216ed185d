# SPDX-License-Identifier: Apache-2.0
"""`foundry evaluate segments`: what crop, ground and clusters are worth, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from foundry_core.cli.common import print_table, require_writable, write_json
from foundry_core.cli.world import Sensor, parse_world, progress_bar


def register(group: typer.Typer) -> None:
    """Add the command to the group `evaluate`."""

    @group.command()
    def segments(
        sensor: Annotated[Sensor, typer.Option(help="lidar: a street; rgbd: a room")] = Sensor.lidar,
        seconds: Annotated[float, typer.Option(min=0.1, max=600, help="length, at 10 frames a second")] = 5.0,
        seed: Annotated[int, typer.Option(min=0, help="first seed of the world")] = 0,
        seeds: Annotated[int, typer.Option(min=1, help="number of worlds")] = 3,
        beams: Annotated[int | None, typer.Option(help="beams of the lidar: 16, 32 or 64 (default)")] = None,
        json: Annotated[Path | None, typer.Option(help="write the row to this file")] = None,
    ) -> None:
        """Crop, ground and clusters on the simulated world, against its ground truth.

        Precision, recall, over- and under-segmentation; the settings are the defaults for the sensor.

        Example: foundry evaluate segments --seconds 5 --seeds 3 --json segments.json
        """
        require_writable(json, "--json")
        from foundry_core.evaluation.segments import RULE, evaluate_segments
        from foundry_core.scene.config import room_config, street_config

        worlds = [parse_world(sensor.value, None, seconds, number, beams) for number in range(seed, seed + seeds)]
        kind = worlds[0].kind
        with progress_bar("segmenting") as advance:
            metrics, counts = evaluate_segments(worlds, street_config() if kind == "street" else room_config(), advance)
        table = Table(title=f"segments of a simulated {kind} in percent, mean ± deviation over {seeds} seeds")
        for name in metrics:
            table.add_column(name.replace("_", " "))
        table.add_row(*(f"{m['mean']:.1f} ± {m['std']:.1f}" for m in metrics.values()))
        print_table(table)
        row = {
            "protocol": "segments",
            "data": f"world-{kind}-{sensor.value}" + (f"-{worlds[0].beams}" if sensor is Sensor.lidar else ""),
            "frames": sum(world.frames for world in worlds),
            "objects": counts.objects,
            "segments": counts.segments,
            "model": f"{kind} settings",
            "budget": None,
            "seed": seed,
            "seeds": seeds,
            "metrics": metrics,
            "rule": RULE,
        }
        if json:
            write_json(json, [row])
