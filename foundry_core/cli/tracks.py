# SPDX-License-Identifier: Apache-2.0
"""`foundry evaluate tracks`: objects over time in a simulated world, in process, without ROS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from foundry_core.cli.common import DEFAULT_MODEL, print_table, require_writable, write_json
from foundry_core.cli.world import Place, Sensor, parse_world, progress_bar


def register(group: typer.Typer) -> None:
    """Add the command to the group `evaluate`."""

    @group.command()
    def tracks(
        model: Annotated[list[str] | None, typer.Option(help="a shipped model's name or a model directory")] = None,
        seconds: Annotated[
            float, typer.Option(help="length of a recording, at 10 frames a second", min=0.1, max=600)
        ] = 10.0,
        sensor: Annotated[Sensor, typer.Option(help="spinning lidar, or depth camera")] = Sensor.lidar,
        scene: Annotated[Place | None, typer.Option(help="default: street for lidar, room for rgbd")] = None,
        seed: Annotated[int, typer.Option(min=0, help="first seed of the world")] = 0,
        seeds: Annotated[int, typer.Option(min=1, help="number of recordings, each with a seed of its own")] = 1,
        odometry: Annotated[bool, typer.Option("--odometry", help="tell the tracker how the sensor moves")] = False,
        threads: Annotated[int, typer.Option(min=1, help="threads of the network's runtime")] = 1,
        deadline: Annotated[
            float | None, typer.Option(min=0.001, help="ms to answer a cloud in, as deadline_ms of the node")
        ] = None,
        json: Annotated[Path | None, typer.Option(help="write the rows to this file")] = None,
    ) -> None:
        """Follow the objects of a simulated world, and name them frame by frame and over their tracks.

        Counts id switches, fragmentations, misses and named clutter (and mota, made of them), the changes of a track's
        label and the class accuracy, the latter two for single frames and fused over the tracks. The row's `rule` has
        the definitions. Figures with --deadline depend on the machine. --model may be repeated. Needs neither torch nor
        ROS.

        Example: foundry evaluate tracks --seconds 60 --sensor rgbd --seed 3 --json tracks.json
        """
        require_writable(json, "--json")
        from foundry_core.evaluation.tracking import evaluate_tracks

        place = scene.value if scene else None
        worlds = [parse_world(sensor.value, place, seconds, seed + k, source="foundry evaluate") for k in range(seeds)]
        rows = []
        for name in model or [DEFAULT_MODEL]:
            with progress_bar(f"tracks of {name}") as advance:
                rows.append(evaluate_tracks(name, worlds, None, odometry, threads, deadline, advance))
        table = Table("", *(row["model"] for row in rows), title=rows[0]["data"] + f", {seeds} recordings")
        for name in rows[0]["metrics"]:
            cells = [row["metrics"][name] for row in rows]
            table.add_row(name, *(f"{cell['mean']:.4g} ± {cell['std']:.2g}" for cell in cells))
        print_table(table)
        if json:
            write_json(json, rows)
