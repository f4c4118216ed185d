# SPDX-License-Identifier: Apache-2.0
"""`foundry evaluate fewshot`: new classes from a few shapes each, in episodes."""

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
    def fewshot(
        model: Annotated[list[str], typer.Option(help="model, baseline or `histogram`; may be repeated")],
        data: Annotated[list[Path], typer.Option(help="labelled shape set or data set folder; may be repeated")],
        train: TrainOption = None,
        teacher: Annotated[str | None, typer.Option(help="default: the one that the students' cards name")] = None,
        budget: Annotated[list[int] | None, typer.Option(min=1, help="supertokens; default: a student's own")] = None,
        ways: Annotated[list[int] | None, typer.Option(min=2, help="classes; default: 5 and 10")] = None,
        shots: Annotated[list[int] | None, typer.Option(min=1, help="shapes of each; default: 10 and 20")] = None,
        queries: Annotated[int, typer.Option(min=1, help="shapes of each class to be answered")] = 20,
        folds: Annotated[int, typer.Option(min=1, help="episodes of each seed")] = 10,
        seed: FirstSeed = 0,
        seeds: Annotated[int, typer.Option(min=1, help="number of seeds; each draws its own episodes")] = 3,
        threads: Annotated[int, typer.Option(min=1, help="threads of torch and of the linear algebra")] = 1,
        json: Annotated[Path | None, typer.Option(help="write the rows to this file")] = None,
    ) -> None:
        """Classify shapes of classes that were learned from a few shapes each, from frozen features, in episodes.

        An episode draws classes with shots + queries shapes or more, from both splits, twins left out. With --train
        the shots are of that set, and the queries of --data's test split or, where it has none, of all of it; classes
        are matched by name. cosine, standardised: nearest class mean; linear: logistic regression. All models see the
        same episodes; in brackets the difference to the teacher, mean over the episodes. Deviations are over episodes,
        of differences too.

        Example: foundry evaluate fewshot --model foundry-base --model histogram --data shapes.npz
        """
        require_writable(json, "--json", *data, train)
        prepare_torch("evaluate", threads)
        from foundry_core.data.shapes import data_name, load_shapes
        from foundry_core.evaluation.features import progress_bar
        from foundry_core.evaluation.fewshot import CLASSIFIERS, Material, Setting
        from foundry_core.evaluation.fewshot import fewshot as run

        settings = [Setting(w, s, queries, folds) for w in ways or (5, 10) for s in shots or (10, 20)]
        learned = load_shapes(train) if train else None
        sets = {data_name(path): Material.of(load_shapes(path), learned) for path in data}
        if len(sets) < len(data):
            raise InputError("--data: two sets of the same name; rename one")
        table = Table(title=f"few-shot accuracy in percent, {folds} folds of {seeds} seeds, {queries} queries a class")
        for column in ("data", "ways", "shots", "model", "s", *(kind.replace("_", " ") for kind in CLASSIFIERS)):
            table.add_column(column)
        rows = []
        with progress_bar() as progress:
            for row in run(model, sets, settings, budget or (), range(seed, seed + seeds), teacher, progress):
                rows.append(row | {"train": data_name(train) if train else None})
                cells = [row["data"], row["ways"], row["shots"], row["model"], row["budget"] or ""]
                table.add_row(*map(str, cells), *(_cell(row["metrics"], kind) for kind in CLASSIFIERS))
        print_table(table)
        if json:
            write_json(json, rows)


def _cell(metrics: dict, kind: str) -> str:
    reached, lost = metrics[f"{kind}_accuracy_percent"], metrics.get(f"{kind}_minus_teacher_points")
    text = f"{reached['mean']:.1f} ± {reached['std']:.1f}"
    return text if lost is None else f"{text} ({lost['mean']:+.1f} ± {lost['std']:.1f})"
