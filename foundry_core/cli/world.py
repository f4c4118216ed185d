# SPDX-License-Identifier: Apache-2.0
"""``foundry world``: a recording of the simulated world."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from foundry_core.errors import InputError


class Sensor(str, Enum):
    """Simulated sensors."""

    lidar = "lidar"
    rgbd = "rgbd"


class Raycaster(str, Enum):
    """What casts the rays."""

    numba = "numba"
    open3d = "open3d"


class Place(str, Enum):
    """Simulated scenes."""

    street = "street"
    room = "room"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""

    @app.command()
    def world(
        out: Annotated[Path, typer.Option(help="Folder of the new bag.")],
        sensor: Annotated[Sensor, typer.Option(help="Spinning lidar, or depth camera.")] = Sensor.lidar,
        scene: Annotated[Place | None, typer.Option(help="Default: street for lidar, room for rgbd.")] = None,
        seconds: Annotated[float, typer.Option(help="Length, at 10 frames a second.", min=0.1, max=600)] = 10.0,
        seed: Annotated[int, typer.Option(help="Seed of shapes, layout, motion and noise.", min=0)] = 0,
        beams: Annotated[int | None, typer.Option(help="Beams of the lidar: 16, 32 or 64 (default).")] = None,
        raycaster: Annotated[
            Raycaster, typer.Option(help="Our own, or Open3D's where its package is installed.")
        ] = Raycaster.numba,
        force: Annotated[bool, typer.Option("--force", help="Replace a bag that is there.")] = False,
    ) -> None:
        """Write a simulated recording with exact ground truth.

        A street (or a room) of procedural objects, seen by a moving sensor, as a rosbag2 (mcap) with the topics
        /points, /truth/points, /truth/labels and /odom. The same options always give the same bag.

        Example: foundry world --out out/street --seconds 5 --seed 3
        """
        from foundry_core.cli.common import console
        from foundry_core.data.world.bag import write_world_bag

        config = parse_world(sensor.value, scene.value if scene else None, seconds, seed, beams)
        config = config.model_copy(update={"raycaster": raycaster.value})
        with progress_bar("simulating") as advance:
            write_world_bag(out, config, force=force, progress=advance)
        console.print(f"{out}: {config.frames} frames of a {config.kind}, {config.sensor}, seed {config.seed}")


def parse_world(
    sensor: str, scene: str | None, seconds: float, seed: int, beams: int | None = None, source: str = "foundry world"
):
    """The configuration that the options of ``foundry world``, ``demo`` and ``evaluate tracks`` describe."""
    from typing import get_args

    from foundry_core.data.world.config import WorldConfig
    from foundry_core.schema import parse

    kind = scene or ("street" if sensor == "lidar" else "room")
    values = {"kind": kind, "sensor": sensor, "seconds": seconds, "seed": seed}
    if beams is not None:
        if sensor != "lidar":
            raise InputError(f"--beams {beams}: is for the lidar; leave it out, or give --sensor lidar")
        known = get_args(WorldConfig.model_fields["beams"].annotation)
        if beams not in known:
            raise InputError(f"--beams {beams}: no such lidar; give one of {', '.join(map(str, known))}")
        values["beams"] = beams
    return parse(WorldConfig, values, source)


class progress_bar:
    """A bar on stderr that ``advance(done, total)`` moves; nothing is drawn when it is not a terminal."""

    def __init__(self, title: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from foundry_core.cli.common import error_console as console

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._progress.add_task(title, total=None)

    def __enter__(self):
        self._progress.start()
        return lambda done, total: self._progress.update(self._task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
