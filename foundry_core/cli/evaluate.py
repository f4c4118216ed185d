# SPDX-License-Identifier: Apache-2.0
"""`foundry evaluate ...`: what a model is worth, beside its floors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from foundry_core.cli.common import console, require_torch, require_writable, write_json
from foundry_core.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name="evaluate")

    @group.callback()
    def evaluate() -> None:
        """Measure a model on a shape set (needs torch).

        Example: foundry evaluate probe --model teacher-small --data shapes.npz
        """

    @group.command()
    def probe(
        model: Annotated[list[str], typer.Option(help="model, `random:<model>` or `histogram`; may be repeated")],
        data: Annotated[list[Path], typer.Option(help="shape set .npz; may be repeated")],
        train: Annotated[Path | None, typer.Option(help="learn from this set instead of the train split")] = None,
        seed: Annotated[int, typer.Option(min=0, help="first seed")] = 0,
        seeds: Annotated[int, typer.Option(min=1, help="number of seeds")] = 3,
        kind: Annotated[list[str] | None, typer.Option(help="linear (default) or rbf; may be repeated")] = None,
        json: Annotated[Path | None, typer.Option(help="write the rows to this file")] = None,
    ) -> None:
        """Classify a shape set from frozen features: standardised logistic regression, or an RBF-SVM.

        Example: foundry evaluate probe --model teacher-small --model random:teacher-small --data shapes.npz
        """
        require_torch("evaluate")
        require_writable(json, "--json")
        from foundry_core.data.shapes import load_shapes
        from foundry_core.evaluation.probe import GRIDS, Split
        from foundry_core.evaluation.probe import probe as run

        kinds = kind or ["linear"]
        for name in kinds:
            if name not in GRIDS:
                raise InputError(f"--kind {name}: unknown probe; use {' or '.join(GRIDS)}")
        rows = []
        table = Table(title=f"probe accuracy in percent, mean ± deviation over {seeds} seeds")
        for column in ("data", "model", *kinds):
            table.add_column(column)
        for path in data:
            split = Split.of(load_shapes(path), load_shapes(train) if train else None)
            for name in model:
                metrics, budget = run(name, split, list(range(seed, seed + seeds)), kinds)
                rows.append(
                    {
                        "protocol": "probe",
                        "data": path.stem,
                        "train_shapes": len(split.train),
                        "test_shapes": len(split.test),
                        "model": name,
                        "budget": budget,
                        "seed": seed,
                        "seeds": seeds,
                        "metrics": metrics,
                    }
                )
                table.add_row(path.stem, name, *(f"{m['mean']:.1f} ± {m['std']:.1f}" for m in metrics.values()))
        console.print(table)
        if json:
            write_json(json, rows)
