# SPDX-License-Identifier: Apache-2.0
"""`foundry export`: the graph that the robot runs."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from foundry_core.cli.common import (
    Precision,
    console,
    error_console,
    print_table,
    require_torch,
    require_writable,
    write_json,
)
from foundry_core.errors import InputError


class Format(str, Enum):
    onnx = "onnx"
    openvino = "openvino"


def _all(model: str | None, precisions: list[str], check: Path | None, json_file: Path | None) -> None:
    from rich.progress import Progress
    from rich.table import Table

    from foundry_core.card import list_models
    from foundry_core.export.round_trips import round_trips

    names = [card.name for card in list_models()] if model is None else [model]
    with Progress(console=error_console, transient=True, disable=not error_console.is_terminal) as progress:
        task = progress.add_task("export", total=len(names) * len(Format) * len(precisions))
        rows = round_trips(names, check, precisions, lambda: progress.advance(task))
    columns = {
        "max_difference": "{:.1e}",
        "token_cosine": "{:.5f}",
        "accuracy_torch": "{:.2f}",
        "accuracy": "{:.2f}",
        "drop": "{:+.2f}",
        "megabytes": "{:.1f}",
    }
    table = Table("model", "format", "precision", "largest difference", "token cosine", "torch %", "this form %",
                  "points lost", "MB", "")  # fmt: skip
    for row in rows:
        cells = [form.format(row[key]) if row[key] is not None else "-" for key, form in columns.items()]
        table.add_row(row["model"], row["format"], row["precision"], *cells, row["status"])
    print_table(table, 130)
    for row in rows:
        if row["reason"]:
            console.print(
                f"refused: {row['model']}, {row['format']}, {row['precision']}: {row['reason']}", soft_wrap=True
            )
    if json_file is not None:
        write_json(json_file, rows)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def export(
        model: Annotated[str | None, typer.Option(help="name or directory of the model")] = None,
        format: Annotated[Format | None, typer.Option(help="file format; default: onnx, which runs everywhere")] = None,
        precision: Annotated[
            Precision | None, typer.Option(help="default: fp32; bf16 needs openvino and a CPU that has it")
        ] = None,
        out: Annotated[Path | None, typer.Option(help="model directory to write to; default: the model's own")] = None,
        check: Annotated[
            Path | None, typer.Option(help="labelled shape set on which a probe may lose at most 0.5 points")
        ] = None,
        every: Annotated[
            bool, typer.Option("--all", help="try every format and precision of the model, or of all shipped ones")
        ] = False,
        json_file: Annotated[
            Path | None, typer.Option("--json", help="with --all: write the rows to this file")
        ] = None,
    ) -> None:
        """Write the graph of a model, with all its heads and budgets, verified against torch before it is written.

        fp32 must agree with torch to 1e-4; bf16 and int8 must keep a mean token cosine of 0.999 on unseen objects.
        int8 is static, calibrated on procedural objects; products that lose too much by it stay float32. The file
        carries preprocessing, class and part names and budgets as metadata. onnx: model.onnx or model.int8.onnx, for
        onnxruntime and OpenVINO; openvino: model.PRECISION.xml and .bin. Several of them can share one model directory.

        --check trains a linear probe on torch's features and on the exported form's, with the same strength, three
        seeds. With --all nothing is kept: every form is exported to a temporary folder and verified, and what is
        refused is a row like the others. --json writes model, format, precision, status, reason, max_difference,
        token_cosine, accuracy_torch, accuracy, drop, data, megabytes.

        Example: foundry export --model runs/foundry-base/foundry-base

        Example: foundry export --model foundry-edge --format onnx --precision int8 --out edge-int8 --check shapes.npz

        Example: foundry export --all --check shapes.npz --json forms.json
        """
        require_torch("export")
        if every:
            if out is not None or format is not None:
                raise InputError("--all: keeps no files and tries every format; leave --out and --format out")
            require_writable(json_file, "--json", check)
            precisions = [item.value for item in Precision] if precision is None else [precision.value]
            _all(model, precisions, check, json_file)
            return
        if json_file is not None:
            raise InputError("--json: is for the rows of --all; give --all or leave it out")
        if model is None:
            raise InputError("--model: name the model to export, or give --all")
        from foundry_core.export.write import export_model

        format, precision = format or Format.onnx, precision or Precision.fp32
        done = export_model(model, format.value, precision.value, out, check)
        listed = ", ".join(f"{name} {value:.1e}" for name, value in done.differences.items())
        if precision is Precision.fp32:
            measured = f"largest difference to torch: {listed}"
        else:
            measured = f"token cosine to torch {done.cosine:.5f}"
        if done.drop is not None:
            measured += f"; probe accuracy changes by {-done.drop:+.2f} points"
        console.print(f"wrote {', '.join(map(str, done.files))}; {measured}", soft_wrap=True)
