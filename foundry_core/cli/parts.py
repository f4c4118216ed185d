# SPDX-License-Identifier: Apache-2.0
"""`foundry evaluate parts`: part segmentation from frozen features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from foundry_core.cli.common import FirstSeed, TrainOption, prepare_torch, print_table, require_writable, write_json
from foundry_core.errors import InputError


def register(group: typer.Typer) -> None:
    """Add the command to the group `evaluate`."""

    @group.command()
    def parts(
        model: Annotated[list[str], typer.Option(help="model, baseline, `coordinates` or `majority`; may be repeated")],
        data: Annotated[
            list[str], typer.Option(help="shape set or folder with parts, or `procedural`; may be repeated")
        ],
        train: TrainOption = None,
        teacher: Annotated[str | None, typer.Option(help="default: the one that the students' cards name")] = None,
        budget: Annotated[list[int] | None, typer.Option(min=1, help="supertokens; default: a student's own")] = None,
        levels: Annotated[str, typer.Option(help="token features: last, or all depths beside them")] = "last",
        steps: Annotated[int, typer.Option(min=1, help="steps that the head learns for")] = 600,
        votes: Annotated[int, typer.Option(min=1, help="views of a test shape; reported apart from a single one")] = 1,
        split: Annotated[str, typer.Option(help="test, or validation: a quarter of train; test stays unseen")] = "test",
        seed: FirstSeed = 0,
        seeds: Annotated[int, typer.Option(min=1, help="number of seeds, of the head")] = 3,
        threads: Annotated[int, typer.Option(min=1, help="threads of torch and of the linear algebra")] = 1,
        by_category: Annotated[bool, typer.Option("--by-category", help="a second table, by category")] = False,
        json: Annotated[Path | None, typer.Option(help="write the rows to this file")] = None,
    ) -> None:
        """Segment shapes into parts: a small head is learned on frozen token features of the train split.

        instance, category: mIoU as ShapeNetPart counts it, an absent part as 1. strict: over the parts that are there.
        Categories are those of which at least half of the train shapes, and at least ten, show two parts or more; they
        have the parts that a tenth of these shapes show, points of others count as unknown. In brackets the difference
        to the teacher. `procedural`: 40 train and 15 test shapes of every parametric category, seed 0.

        With --train the head is learned from another set, which also says what the categories and their parts are;
        names must be the same, and points of parts that it does not have count as unknown.

        Example: foundry evaluate parts --model foundry-base --model coordinates --data procedural
        """
        require_writable(json, "--json", *data, train)
        prepare_torch("evaluate", threads)
        from foundry_core.data.procedural_set import PROCEDURAL, procedural_shapes
        from foundry_core.data.shapes import data_name, load_shapes
        from foundry_core.evaluation.features import progress_bar
        from foundry_core.evaluation.part_features import LEVELS
        from foundry_core.evaluation.part_head import PartProbeConfig
        from foundry_core.evaluation.part_task import PartTask
        from foundry_core.evaluation.parts import PartSettings
        from foundry_core.evaluation.parts import parts as run

        for option, value, known in (("--levels", levels, LEVELS), ("--split", split, ("test", "validation"))):
            if value not in known:
                raise InputError(f"{option} {value}: unknown; use {' or '.join(known)}")
        learned = load_shapes(train) if train else None
        tasks = {}
        for name in data:
            shapes = procedural_shapes() if name == PROCEDURAL else load_shapes(name)
            tasks[data_name(name)] = PartTask.of(shapes, learned, split == "validation")
        if len(tasks) < len(data):
            raise InputError("--data: two sets of the same name; rename one")
        settings = PartSettings(levels, votes, split, PartProbeConfig(steps=steps))
        kinds = [f"{vote}{kind}" for vote in ("", "voted_")[: min(votes, 2)] for kind in ("instance", "category")]
        table = Table(title=f"part mIoU in percent, {split} split, mean ± deviation over {seeds} seeds")
        for column in ("data", "model", "s", *(kind.replace("_", " ") for kind in kinds), "strict"):
            table.add_column(column)
        rows = []
        with progress_bar() as progress:
            for row in run(model, tasks, budget or (), range(seed, seed + seeds), teacher, settings, progress):
                rows.append(row | {"train": data_name(train) if train else None})
                metrics = row["metrics"]
                cells = [_cell(metrics, kind) for kind in kinds] + [_value(metrics["strict_instance_miou_percent"])]
                table.add_row(row["data"], row["model"], str(row["budget"] or ""), *cells)
        print_table(table)
        if by_category:
            print_table(_categories(rows))
        if json:
            write_json(json, rows)


def _value(metric: dict[str, float]) -> str:
    return f"{metric['mean']:.1f} ± {metric['std']:.1f}"


def _cell(metrics: dict, kind: str) -> str:
    if f"{kind}_miou_percent" not in metrics:
        return ""
    text, lost = _value(metrics[f"{kind}_miou_percent"]), metrics.get(f"{kind}_minus_teacher_points")
    return text if lost is None else f"{text} ({lost['mean']:+.1f} ± {lost['std']:.1f})"


def _categories(rows: list[dict]) -> Table:
    """A line for each category of each set, a column for each model."""
    models = list(dict.fromkeys((row["model"], row["budget"]) for row in rows))
    reached = {(row["data"], row["model"], row["budget"]): row["categories"] for row in rows}
    table = Table(title="mIoU by category")
    for column in (
        "data",
        "category",
        "parts",
        "shapes",
        *(f"{name} {budget or ''}".strip() for name, budget in models),
    ):
        table.add_column(column)
    for data in dict.fromkeys(row["data"] for row in rows):
        for category, about in reached[(data, *models[0])].items():
            values = (_value(reached[(data, *model)][category]["miou_percent"]) for model in models)
            table.add_row(data, category, ", ".join(about["parts"]), str(about["shapes"]), *values)
    return table
