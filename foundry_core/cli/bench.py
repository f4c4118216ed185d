# SPDX-License-Identifier: Apache-2.0
"""`foundry bench`."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from foundry_core.cli.common import console, error_console, require_torch, require_writable, write_json
from foundry_core.errors import InputError

if TYPE_CHECKING:
    from foundry_core.card import ModelCard
    from foundry_core.runtime.bench_worker import Spec

WIDTH = 160  # columns of the table

#: runtime -> precisions that it has on a CPU
FORMS = {
    "torch, as published": ("fp32",),
    "torch": ("fp32",),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "gemm": ("fp32",),
}
OUTPUTS = {
    "features": ("tokens",),
    "classes": ("class_logits",),
    "parts": ("class_logits", "part_logits"),
}


def _forms(chosen: list[str], precisions: list[str]) -> list[tuple[str, str]]:
    """(runtime, precision) pairs to measure: all that are installed, or those that the options name."""
    packages = {"torch": "torch", "openvino": "openvino", "gemm": "onnx"}
    missing = {name for name, package in packages.items() if importlib.util.find_spec(package) is None}
    if strange := sorted(set(precisions) - {"fp32", "bf16", "int8"}):
        raise InputError(f"--precision {strange[0]}: unknown; use fp32, bf16 or int8")
    chosen_forms = precisions or ["fp32", "bf16", "int8"]
    forms = [(runtime, form) for runtime, known in FORMS.items() for form in known if form in chosen_forms]
    known = {runtime.split(",")[0] for runtime in FORMS}
    for name in chosen:
        if name not in known:
            raise InputError(f"--runtime {name}: unknown; use {', '.join(sorted(known))}")
        if name in missing:
            extra = "openvino" if name == "openvino" else "train"
            raise InputError(f"--runtime {name}: not installed: pip install 'foundry_ros[{extra}]'")
    return [
        (runtime, precision)
        for runtime, precision in forms
        if runtime.split(",")[0] in (chosen or known) and runtime.split(",")[0] not in missing
    ]


def _directories(models: list[str], architectures: list[str], folder: Path, forms) -> list[tuple[str, Path]]:
    """Name and directory of every model, with the graphs that the forms need."""
    from foundry_core.card import WEIGHTS_FILE, find_model, load_card
    from foundry_core.runtime.session import graph_files

    precisions = sorted({precision for runtime, precision in forms if runtime in ("onnxruntime", "openvino")})
    found = []
    for name in architectures:
        require_torch("bench --architecture")
        from foundry_core.export.bench_torch import ARCHITECTURES, add_graphs, write_random

        if name not in ARCHITECTURES:
            raise InputError(f"--architecture {name}: unknown; use {', '.join(ARCHITECTURES)}")
        for title, architecture in ARCHITECTURES[name].items():
            write_random(architecture, title, folder / title)
            add_graphs(folder / title, folder / title, precisions)
            found.append((title, folder / title))
    for name in models:
        directory = find_model(name)
        card = load_card(directory)
        missing = [
            precision
            for precision in precisions
            if not any(
                (directory / file).is_file()
                for file in graph_files("openvino" if precision == "bf16" else "onnxruntime", precision)
            )
        ]
        weights = (directory / WEIGHTS_FILE).is_file()
        if missing and weights and importlib.util.find_spec("torch") is not None:
            from foundry_core.export.bench_torch import add_graphs

            add_graphs(directory, folder / card.name, precisions)
            directory = folder / card.name
        found.append((card.name, directory))
    return found


def _specs(
    directories: list[tuple[str, Path]], forms, outputs: list[str], threads: list[int], batches: list[int]
) -> list[Spec]:
    from foundry_core.card import load_card
    from foundry_core.runtime.bench_worker import Spec

    specs = []
    for name, directory in directories:
        card = load_card(directory, verify=False)
        for asked in outputs:
            if asked not in OUTPUTS:
                raise InputError(f"--outputs {asked}: unknown; use {', '.join(OUTPUTS)}")
            if not _has(card, OUTPUTS[asked]):
                continue
            specs += [
                Spec(name, str(directory), runtime, precision, budget, thread, batch, OUTPUTS[asked])
                for batch in batches
                for thread in threads
                for budget in card.budgets or [None]
                for runtime, precision in forms
            ]
    return specs


def _has(card: ModelCard, outputs: tuple[str, ...]) -> bool:
    return not (
        ("class_logits" in outputs and card.heads.objects is None)
        or ("part_logits" in outputs and card.heads.parts is None)
    )


def _table(rows: list[dict[str, Any]]):
    from rich.table import Table

    table = Table(title="ms for a batch, geometry included; MMAC of one cloud; CPU: ms for one cloud")
    for column in ("model", "s", "runtime", "form", "outputs", "threads", "batch"):
        table.add_column(column)
    for column in ("p50", "p95", "network", "geometry", "MMAC", "RSS MB", "load s", "CPU"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["model"],
            "-" if row["budget"] is None else str(row["budget"]),
            row["runtime"],
            row["precision"],
            next(name for name, outputs in OUTPUTS.items() if list(outputs) == row["outputs"]),
            str(row["threads"]),
            str(row["batch"]),
            *(f"{row[key]:.2f}" for key in ("p50_ms", "p95_ms", "network_p50_ms", "geometry_p50_ms")),
            f"{row['macs'] / 1e6:.0f}",
            f"{row['rss_mb']:.0f}",
            f"{row['load_s']:.2f}",
            f"{1e3 * row['cpu_s_per_cloud']:.2f}",
        )
    return table


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def bench(
        model: Annotated[list[str] | None, typer.Option(help="repeat it; default: all shipped models")] = None,
        architecture: Annotated[
            list[str] | None, typer.Option(help="vits: a ViT-S-shaped teacher and its edge form, random weights")
        ] = None,
        runtime: Annotated[
            list[str] | None, typer.Option(help="torch, onnxruntime, openvino, gemm; default: all that are installed")
        ] = None,
        precision: Annotated[list[str] | None, typer.Option(help="fp32, bf16, int8; default: all")] = None,
        outputs: Annotated[list[str] | None, typer.Option(help="features, classes, parts; default: features")] = None,
        threads: Annotated[list[int] | None, typer.Option(min=1, help="threads; repeat it. Default: 1")] = None,
        batch: Annotated[list[int] | None, typer.Option(min=1, help="clouds at once; default: 1 and 16")] = None,
        rounds: Annotated[int, typer.Option(min=1, help="turns of every configuration")] = 5,
        repeats: Annotated[int, typer.Option(min=1, help="runs in a turn")] = 20,
        quick: Annotated[bool, typer.Option("--quick", help="two rounds of three runs: to try the command")] = False,
        json_file: Annotated[Path | None, typer.Option("--json", help="write the rows to this file")] = None,
        plot: Annotated[Path | None, typer.Option(help="write a picture (.png) of the medians at batch 1")] = None,
    ) -> None:
        """Measure models on this machine: latency, memory, load time and CPU time of every runtime and budget.

        Each configuration runs in a process of its own; all take turns, so that what disturbs the machine disturbs
        them alike. Times are those of a whole batch from points to outputs; network and geometry (sampling, neighbours)
        are also given apart. `torch, as published` is the eager network with 1x1 convolutions, `torch` its rewritten
        form, `gemm` the same matrix products in float32 onnxruntime and nothing else: the floor. int8 graphs that are
        missing are made for the measurement where torch is installed. Times depend on what else the machine does.

        Example: foundry bench --model teacher-small --model foundry-edge --threads 1 --json bench.json --plot bench.png
        """
        from rich.progress import Progress

        from foundry_core.card import list_models
        from foundry_core.runtime.bench import run_benchmark

        for path, option in ((json_file, "--json"), (plot, "--plot")):
            require_writable(path, option)
        if plot is not None and plot.suffix != ".png":
            raise InputError(f"{plot}: pictures are written as .png; give --plot a name that ends so")
        forms = _forms(runtime or [], precision or [])
        models = model or ([] if architecture else [card.name for card in list_models()])
        with tempfile.TemporaryDirectory() as folder:
            directories = _directories(models, architecture or [], Path(folder), forms)
            specs = _specs(directories, forms, outputs or ["features"], threads or [1], batch or [1, 16])
            turns, runs = (2, 3) if quick else (rounds, repeats)
            quiet = not error_console.is_terminal
            with Progress(console=error_console, transient=True, disable=quiet) as progress:
                task = progress.add_task("bench", total=turns * len(specs))
                rows, failures = run_benchmark(specs, turns, runs, lambda name: progress.advance(task))
        for line in failures:
            error_console.print(f"not measured: {line}", soft_wrap=True)
        if not rows:
            raise InputError("nothing could be measured; see the lines above")
        wide = Console(width=max(console.width, WIDTH), markup=False, emoji=False)  # in a file too
        wide.print(_table(rows))
        if json_file is not None:
            write_json(json_file, rows)
        if plot is not None:
            from foundry_core.evaluation.bench_picture import draw_benchmark

            draw_benchmark(rows, plot)
