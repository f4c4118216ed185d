# SPDX-License-Identifier: Apache-2.0
"""`foundry shapes ...`: labelled shape sets, made or read."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from foundry_core.cli.common import console, require_writable
from foundry_core.errors import InputError

Out = Annotated[Path, typer.Option(help="the .npz file to write")]


class Kind(str, Enum):
    """What is drawn of a shape."""

    full = "full"
    rgbd = "rgbd"
    lidar = "lidar"


def _check_out(out: Path, *inputs: Path | None) -> None:
    if out.suffix != ".npz":
        raise InputError(f"{out}: shape sets are written as .npz; give --out a name that ends so")
    require_writable(out, "--out", *inputs)


def parse_up(text: str | None) -> tuple[float, ...] | None:
    """The direction X,Y,Z of ``--up``; InputError where it is none."""
    if text is None:
        return None
    try:
        up = tuple(float(number) for number in text.split(","))
    except ValueError:
        up = ()
    if len(up) != 3 or not 1e-6 < sum(value * value for value in up) < 1e12:
        raise InputError(f"--up {text}: give the direction that points upwards in the data as X,Y,Z, such as 0,1,0")
    return up


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name="shapes")

    @group.callback()
    def shapes() -> None:
        """Labelled shape sets: simulated ones, and those of public data sets in one file.

        Example: foundry shapes draw --kind rgbd --count 300 --out views.npz
        """

    @group.command()
    def draw(
        out: Out,
        kind: Annotated[Kind, typer.Option(help="whole surfaces, or single views of a sensor")] = Kind.full,
        classes: Annotated[
            list[str] | None,
            typer.Option("--class", help="category, or NAME=CATEGORY+CATEGORY; may be repeated; default: all"),
        ] = None,
        count: Annotated[int, typer.Option(min=1, help="shapes of each class")] = 200,
        test: Annotated[int, typer.Option(min=0, help="further shapes of each class, as a test split")] = 0,
        points: Annotated[int, typer.Option(min=16, help="points of each shape")] = 1024,
        mount: Annotated[
            Path | None, typer.Option(help="YAML of a depth camera whose place is known, see config/views")
        ] = None,
        seed: Annotated[int, typer.Option(min=0, help="seed of shapes, places and noise")] = 0,
    ) -> None:
        """Draw a labelled shape set of parametric categories, with parts, to train on or to test with.

        full: area samples of the whole surface, as from CAD. rgbd, lidar: what a depth camera or a spinning lidar
        returns from one random place, with pattern, noise, losses, and often without the foot that ground removal
        takes. The same options always give the same set.

        --mount gives a depth camera's distance and tilt, and sizes and proportions that are the same for all classes,
        with another object in the way of some; of `full` it gives the proportions alone.

        Example: foundry shapes draw --kind rgbd --class box --class cylinder=can --out views.npz
        """
        from foundry_core.cli.world import progress_bar
        from foundry_core.data.mounted import Mount
        from foundry_core.data.shapes import save_shapes
        from foundry_core.data.simulated_set import draw_shapes, parse_classes
        from foundry_core.schema import load_settings

        _check_out(out, mount)
        wanted = parse_classes(classes or [])
        mounted = load_settings(mount, Mount) if mount else None
        total, done = len(wanted) * (count + test), 0
        with progress_bar(f"drawing {kind.value}") as progress:

            def advance(number: int) -> None:
                nonlocal done
                progress(done := done + number, total)

            drawn = draw_shapes(kind.value, wanted, count, test, points, seed, advance, mounted)
        save_shapes(out, drawn)
        console.print(f"wrote {out}: {len(drawn)} shapes of {len(wanted)} classes, {kind.value}", soft_wrap=True)

    @group.command()
    def convert(
        data: Annotated[Path, typer.Argument(help="data set folder, LAYOUT:FOLDER, or shape set .npz")],
        out: Out,
        up: Annotated[str | None, typer.Option(help="direction that points upwards in the data, X,Y,Z")] = None,
    ) -> None:
        """Write a data set as one .npz shape set: other commands then open it in a moment.

        Folders are read with z up. --up turns a set whose vertical is another direction, so that it becomes z.

        Example: foundry shapes convert ModelNet40 --out modelnet40.npz
        """
        from foundry_core.data.shapes import load_shapes, save_shapes

        _check_out(out, data)
        direction = parse_up(up)
        shapes = load_shapes(data)
        save_shapes(out, shapes.turned(direction) if direction else shapes)
        console.print(f"wrote {out}: {len(shapes)} shapes of {len(shapes.class_names)} classes", soft_wrap=True)
