# SPDX-License-Identifier: Apache-2.0
"""`foundry evaluate teach`: new classes from a few clicks each, and what the old ones lose by them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from foundry_core.cli.common import DEFAULT_MODEL, FirstSeed, print_table, require_writable, write_json
from foundry_core.cli.world import progress_bar
from foundry_core.errors import InputError


def register(group: typer.Typer) -> None:
    """Add the command to the group `evaluate`."""

    @group.command()
    def teach(
        data: Annotated[Path, typer.Option(help="labelled shape set that is taught from and asked")],
        old: Annotated[Path, typer.Option(help="labelled shape set of classes that the model has")],
        model: Annotated[list[str] | None, typer.Option(help="a shipped model's name or a model directory")] = None,
        classes: Annotated[
            list[str] | None,
            typer.Option("--class", help="NAME or NAME=CLASS+CLASS; may be repeated; default: all the model lacks"),
        ] = None,
        old_classes: Annotated[
            list[str] | None,
            typer.Option("--old-class", help="the same, of --old; default: all of its classes that the model has"),
        ] = None,
        exemplars: Annotated[int, typer.Option(min=1, max=100, help="examples of each class, as clicks give")] = 5,
        possible: Annotated[str, typer.Option(help="classes of the model that can occur; empty: all")] = "",
        split: Annotated[str, typer.Option(help="test, or validation: the rest of the train split is asked")] = "test",
        seed: FirstSeed = 0,
        seeds: Annotated[int, typer.Option(min=1, help="number of seeds; each draws other examples")] = 10,
        threads: Annotated[int, typer.Option(min=1, help="threads of the network's runtime")] = 1,
        json: Annotated[Path | None, typer.Option(help="write the rows to this file")] = None,
    ) -> None:
        """Teach a model classes from a few shapes each, as clicks do, and ask it for others of them.

        Clouds are taken as `foundry teach` takes them. A class whose name the model has needs another one
        (carton=box). --possible, with commas, is the parameter `classes` of perception_node. --model may be repeated;
        the row's `rule` has the definitions. Needs neither torch nor ROS.

        Example: foundry evaluate teach --data table.npz --class cylinder --class carton=box --old views.npz
        """
        require_writable(json, "--json", data, old)
        if split not in ("test", "validation"):
            raise InputError(f"--split {split}: unknown part; use test or validation")
        from foundry_core.data.shapes import data_name, load_shapes
        from foundry_core.evaluation.teaching import RULE, choose, evaluate_teaching
        from foundry_core.runtime.perceiver import Perceiver, PerceiverConfig

        shapes, old_shapes = load_shapes(data), load_shapes(old)
        table = Table(title=f"percent, {exemplars} examples of each class, {split} split, {seeds} seeds")
        can_occur = {name.strip() for name in possible.split(",")} - {""}
        rows = []
        for name in model or [DEFAULT_MODEL]:
            perceiver = Perceiver(name, PerceiverConfig(classes=possible, threads=threads))
            own = set(perceiver.card.heads.objects.classes)
            taught = choose(shapes, classes or (), "--class", set(shapes.class_names) - own)
            known = choose(old_shapes, old_classes or (), "--old-class", (can_occur or own) & own)
            with progress_bar(f"teaching {name}") as advance:
                reached = evaluate_teaching(
                    perceiver, taught, known, exemplars, range(seed, seed + seeds), split == "validation", advance
                )
            same = {"protocol": "teach", "data": data_name(data), "split": split, "old": data_name(old), "model": name}
            same |= {"budget": perceiver.budget, "exemplars": exemplars, "possible": possible}
            rows.append({**same, "seed": seed, "seeds": seeds, **reached, "rule": RULE})
        table.add_column("")
        for row in rows:
            table.add_column(row["model"])
        for key in rows[0]["metrics"]:
            name = key.removesuffix("_percent").replace("_", " ")
            table.add_row(name, *(_cell(row["metrics"][key]) for row in rows))
        for key in rows[0]["recognised_by_class"]:
            table.add_row(f"recognised: {key}", *(_cell(row["recognised_by_class"][key]) for row in rows))
        print_table(table)
        if json:
            write_json(json, rows)


def _cell(value: dict[str, float]) -> str:
    return f"{value['mean']:.1f} ± {value['std']:.1f}"
