# SPDX-License-Identifier: Apache-2.0
"""`foundry bench`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from foundry_core.cli import bench_plan
from foundry_core.cli.bench_plan import OUTPUTS
from foundry_core.cli.common import (
    DEFAULT_MODEL,
    error_console,
    print_table,
    require_picture,
    require_writable,
    write_json,
)
from foundry_core.errors import InputError


def _table(rows: list[dict[str, Any]], scaling: bool):
    from rich.table import Table

    if scaling:
        title = "ms for one cloud, for all segments, or for a sweep (there geometry is the scene); MMAC of one cloud"
        table = Table(title=title)
        for column in ("axis", "value", "model", "s", "runtime", "form", "threads"):
            table.add_column(column)
    else:
        table = Table(title="ms for a batch, geometry included; MMAC of one cloud; CPU: ms for one cloud")
        for column in ("model", "s", "runtime", "form", "outputs", "threads", "batch"):
            table.add_column(column)
    for column in ("p50", "p95", "network", "geometry", "MMAC", "RSS MB", "load s", "CPU"):
        table.add_column(column, justify="right")
    for row in rows:
        budget = "-" if row["budget"] is None else str(row["budget"])
        which = [row["model"], budget, row["runtime"], row["precision"]]
        if scaling:
            cells = [row["axis"], str(row["value"]), *which, str(row["threads"])]
        else:
            outputs = next(name for name, outputs in OUTPUTS.items() if list(outputs) == row["outputs"])
            cells = [*which, outputs, str(row["threads"]), str(row["batch"])]
        table.add_row(
            *cells,
            *(f"{row[key]:.2f}" for key in ("p50_ms", "p95_ms", "network_p50_ms", "geometry_p50_ms")),
            f"{row['macs'] / 1e6:.0f}",
            f"{row['rss_mb']:.0f}",
            f"{row['load_s']:.2f}",
            f"{1e3 * row['cpu_s_per_cloud']:.2f}",
        )
    return table


def _draw(rows: list[dict[str, Any]], path: Path, scaling: bool) -> None:
    from foundry_core.evaluation.bench_picture import draw_benchmark, draw_scaling

    (draw_scaling if scaling else draw_benchmark)(rows, path)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def bench(
        model: Annotated[
            list[str] | None,
            typer.Option(help="repeat it; tome:16:teacher-small is a teacher, its tokens merged. Default: all shipped"),
        ] = None,
        architecture: Annotated[
            list[str] | None,
            typer.Option(
                help="random weights: vits, a ViT-S-shaped teacher and its edge form; pointnet, a supervised specialist"
            ),
        ] = None,
        point_mae: Annotated[
            Path | None, typer.Option(help="your checkout of the original Point-MAE code, to measure it beside them")
        ] = None,
        runtime: Annotated[
            list[str] | None, typer.Option(help="torch, onnxruntime, openvino, gemm; default: all that are installed")
        ] = None,
        precision: Annotated[list[str] | None, typer.Option(help="fp32, bf16, int8; default: all")] = None,
        outputs: Annotated[list[str] | None, typer.Option(help="features, classes, parts; default: features")] = None,
        threads: Annotated[list[int] | None, typer.Option(min=1, help="threads; repeat it. Default: 1")] = None,
        batch: Annotated[list[int] | None, typer.Option(min=1, help="clouds at once; default: 1 and 16")] = None,
        scaling: Annotated[
            bool, typer.Option("--scaling", help="one model along points, groups, supertokens, segments and sweeps")
        ] = False,
        rounds: Annotated[int, typer.Option(min=1, help="turns of every configuration")] = 5,
        repeats: Annotated[int, typer.Option(min=1, help="runs in a turn")] = 20,
        quick: Annotated[bool, typer.Option("--quick", help="two rounds of three runs: to try the command")] = False,
        json_file: Annotated[Path | None, typer.Option("--json", help="write the rows to this file")] = None,
        plot: Annotated[Path | None, typer.Option(help="write a picture (.png) of the medians")] = None,
    ) -> None:
        """Measure models on this machine: latency, memory, load time and CPU time of every runtime and budget.

        Each configuration runs in a process of its own; all take turns, so that what disturbs the machine disturbs
        them alike. Times are those of a whole batch from points to outputs; network and geometry (sampling, neighbours)
        are also given apart. `torch, as published` is the eager network with 1x1 convolutions, `torch` its rewritten
        form, `gemm` the same matrix products in float32 onnxruntime and nothing else: the floor. int8 graphs that are
        missing are made for the measurement where torch is installed. Times depend on what else the machine does.

        Peers: tome:NUMBER:TEACHER as a model; --architecture pointnet; --point-mae with your own checkout, which runs
        on the CPU with its compiled operators replaced by torch ones, and groups the points itself.

        --scaling: foundry-edge, or the models named, in onnxruntime float32 or the runtimes named: points of a cloud
        256 to 8,192; groups 16 to 256; supertokens; segments of a frame 1 to 64, in the perceiver's batches; and whole
        sweeps of 30,000 to 300,000 points from crop to labels, with the peak memory of their process.

        Example: foundry bench --model teacher-small --model foundry-edge --threads 1 --json bench.json --plot bench.png

        Example: foundry bench --scaling --json scaling.json --plot scaling.png
        """
        from rich.progress import Progress

        from foundry_core.card import list_models
        from foundry_core.runtime.bench import run_benchmark

        require_writable(json_file, "--json")
        require_picture(plot, "--plot")
        if scaling and (architecture or point_mae or outputs or batch or len(threads or []) > 1):
            raise InputError(
                "--scaling: takes --model, --runtime, --precision and one --threads; leave the other options out"
            )
        bench_plan.check_outputs(outputs or [])
        if scaling:
            forms = bench_plan.forms(runtime or ["onnxruntime"], precision or ["fp32"])
        else:
            forms = bench_plan.forms(runtime or [], precision or [])
        names = model or []
        if not names and not architecture and point_mae is None:
            names = [DEFAULT_MODEL] if scaling else [card.name for card in list_models()]
        with tempfile.TemporaryDirectory() as folder:
            candidates = bench_plan.architectures(architecture or [], Path(folder), forms)
            candidates += bench_plan.models(names, Path(folder), forms)
            if point_mae is not None:
                candidates.append(bench_plan.point_mae(point_mae))
            if scaling:
                chosen, left_out = bench_plan.scaling_specs(candidates, forms, (threads or [1])[0], Path(folder))
            else:
                left_out = []
                chosen = bench_plan.specs(candidates, forms, outputs or ["features"], threads or [1], batch or [1, 16])
            turns, runs = (2, 3) if quick else (rounds, repeats)
            quiet = not error_console.is_terminal
            with Progress(console=error_console, transient=True, disable=quiet) as progress:
                task = progress.add_task("bench", total=turns * len(chosen))
                rows, failures = run_benchmark(chosen, turns, runs, lambda name: progress.advance(task))
        for line in [*left_out, *failures]:
            error_console.print(f"not measured: {line}", soft_wrap=True)
        if not rows:
            raise InputError("nothing could be measured; see the lines above")
        print_table(_table(rows, scaling), 160)
        if json_file is not None:
            write_json(json_file, rows)
        if plot is not None:
            _draw(rows, plot, scaling)
