# SPDX-License-Identifier: Apache-2.0
"""`foundry evaluate ...`: what a model is worth, beside its teacher, its baselines and its floors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from foundry_core.cli import evaluate_head, evaluate_teach, fewshot, parts, segments, tracks
from foundry_core.cli.common import (
    FirstSeed,
    TrainOption,
    console,
    prepare_torch,
    print_table,
    require_picture,
    require_writable,
    write_json,
)
from foundry_core.errors import InputError

#: columns of the fidelity table: heading, metric, decimals
COLUMNS = (
    ("R²", "r2", 3),
    ("cos", "cosine", 3),
    ("CKA", "cka", 3),
    ("NN", "neighbor_same_percent", 1),
    ("10-NN", "neighbor_overlap_percent", 1),
    ("teacher", "teacher_accuracy_percent", 1),
    ("swap", "swap_accuracy_percent", 1),
    ("re-probe", "probe_accuracy_percent", 1),
    ("super", "supertoken_accuracy_percent", 1),
    ("used", "supertokens_used", 1),
    ("A S", "r2_supertokens_alone", 3),
    ("shuffled", "r2_shuffled", 3),
    ("s=0", "r2_without_supertokens", 3),
)
PARTS = ("test", "validation")

Split = Annotated[str, typer.Option(help="test, or validation: a quarter of train; the test split stays unseen")]
Json = Annotated[Path | None, typer.Option(help="write the rows to this file")]
Shifts = Annotated[
    list[str] | None, typer.Option(help="corruption, or corruption:severity (1-5), of the test clouds, too")
]
Threads = Annotated[int, typer.Option(min=1, help="threads of torch and of the linear algebra")]


def _prepare(split: str, threads: int) -> bool:
    """Check the part and set the threads; whether it is the validation part."""
    if split not in PARTS:
        raise InputError(f"--split {split}: unknown part; use {' or '.join(PARTS)}")
    prepare_torch("evaluate", threads)
    return split == "validation"


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name="evaluate")
    evaluate_head.register(group)
    evaluate_teach.register(group)
    fewshot.register(group)
    parts.register(group)
    segments.register(group)
    tracks.register(group)

    @group.callback()
    def evaluate() -> None:
        """Measure a model, its heads, and what a robot makes of a simulated world and of what it is taught (head,
        segments, tracks, teach and tradeoff need no torch).

        Beside the name or path of a model, `random:MODEL` is that model's teacher with random weights. Baselines
        without training, written METHOD:NUMBER:TEACHER: tome, pitome, kmeans and fps merge the teacher's tokens to so
        many; pca, rank and cluster compress its features themselves, and are bounds.

        Example: foundry evaluate probe --model teacher-small --data shapes.npz
        """

    @group.command()
    def probe(
        model: Annotated[list[str], typer.Option(help="model, baseline or `histogram`; may be repeated")],
        data: Annotated[list[Path], typer.Option(help="shape set: .npz or data set folder; may be repeated")],
        train: TrainOption = None,
        budget: Annotated[list[int] | None, typer.Option(min=1, help="supertokens; default: a student's own")] = None,
        shift: Shifts = None,
        denoise: Annotated[bool, typer.Option("--denoise", help="leave stray points out of every cloud first")] = False,
        split: Split = "test",
        seed: FirstSeed = 0,
        seeds: Annotated[int, typer.Option(min=1, help="number of seeds")] = 3,
        kind: Annotated[list[str] | None, typer.Option(help="linear (default) or rbf; may be repeated")] = None,
        threads: Threads = 1,
        json: Json = None,
    ) -> None:
        """Classify a shape set from frozen features: standardised logistic regression, or an RBF-SVM.

        --shift: jitter, outliers, dropout-global, dropout-local, occlusion, density, rotation. The probe learns from
        clean clouds and is tested on corrupted ones, the same for all models; `mean` is over the kinds of a severity.

        Shapes without a label (-1) are left out. With --train another set is learned from, classes matched by name:
        simulated shapes, say, for real test data. docs/data.md lists the data sets whose folders are read as they are.

        Example: foundry evaluate probe --model teacher-small --model random:teacher-small --data shapes.npz
        """
        require_writable(json, "--json", *data, train)
        validation = _prepare(split, threads)
        from foundry_core.data.shapes import data_name, load_shapes
        from foundry_core.evaluation.corruptions import parse_shifts
        from foundry_core.evaluation.features import HISTOGRAM, progress_bar
        from foundry_core.evaluation.probe import GRIDS, Split, SplitClouds
        from foundry_core.evaluation.probe import probe as run
        from foundry_core.evaluation.subjects import subjects

        kinds = kind or ["linear"]
        for name in kinds:
            if name not in GRIDS:
                raise InputError(f"--kind {name}: unknown probe; use {' or '.join(GRIDS)}")
        shifts = parse_shifts(shift or ())
        found = subjects(model, budget or (), seed, [HISTOGRAM])
        rows = []
        table = Table(title=f"probe accuracy in percent, {split} split, mean ± deviation over {seeds} seeds")
        for column in ("data", "shift", "model", "s", *kinds):
            table.add_column(column)
        for path in data:
            parts = Split.of(load_shapes(path), load_shapes(train) if train else None, validation)
            clouds = SplitClouds(parts, shifts, seed, denoise)
            for subject in found:
                with progress_bar() as progress:
                    reached = run(subject, clouds, range(seed, seed + seeds), kinds, progress)
                for corruption, probed in reached.items():
                    rows.append(
                        {
                            "protocol": "probe",
                            "data": data_name(path),
                            "train": data_name(train) if train else None,
                            "split": split,
                            "shift": corruption[0] if corruption else None,
                            "severity": corruption[1] if corruption else None,
                            "denoise": denoise,
                            "train_shapes": len(parts.train),
                            "test_shapes": len(parts.test),
                            "unlabelled_shapes": parts.unlabelled,
                            "model": subject.name,
                            "budget": subject.budget,
                            "seed": seed,
                            "seeds": seeds,
                            "metrics": probed.metrics,
                            **({"confusion": probed.confusion} if probed.confusion else {}),
                        }
                    )
                    cells = (
                        data_name(path),
                        " ".join(map(str, corruption or ())),
                        subject.name,
                        str(subject.budget or ""),
                    )
                    table.add_row(*cells, *(f"{m['mean']:.1f} ± {m['std']:.1f}" for m in probed.metrics.values()))
        print_table(table)
        if json:
            write_json(json, rows)

    @group.command()
    def fidelity(
        model: Annotated[list[str], typer.Option(help="student or baseline; may be repeated")],
        data: Annotated[list[Path], typer.Option(help="shape set: .npz or data set folder; may be repeated")],
        train: TrainOption = None,
        teacher: Annotated[str | None, typer.Option(help="default: the one that the students' cards name")] = None,
        budget: Annotated[list[int] | None, typer.Option(min=1, help="supertokens; default: all of a card")] = None,
        shift: Shifts = None,
        split: Split = "test",
        seed: FirstSeed = 0,
        seeds: Annotated[int, typer.Option(min=1, help="number of seeds of probes and of the shuffle control")] = 3,
        threads: Threads = 1,
        json: Json = None,
    ) -> None:
        """How faithfully students rebuild their teacher, at each budget, and what their supertokens carry.

        R², cosine: token features against the teacher's. CKA, NN, 10-NN: pooled features. teacher, swap, re-probe,
        super: percent of test shapes that a linear classifier gets right: the teacher's own, the same one applied
        unchanged to the student, one learned on the student, one learned on its supertokens alone. used: supertokens
        that own a token of a cloud. Controls are R² too: A S, of a decoder that sees the supertokens alone; shuffled,
        with the supertokens of another cloud; s=0, with supertokens of zeros. A set without labels has no accuracies.

        With --train the classifiers are learned from another set, classes matched by name, as `evaluate probe` does.

        --shift: jitter, outliers, dropout-global, dropout-local, occlusion, density, rotation; teacher and student
        then see the same corrupted clouds, the classifiers stay those of the clean ones.

        Example: foundry evaluate fidelity --model foundry-base --model tome:16:teacher-small --data shapes.npz
        """
        require_writable(json, "--json", *data, train)
        validation = _prepare(split, threads)
        from foundry_core.data.shapes import data_name, load_shapes
        from foundry_core.evaluation import fidelity as judging
        from foundry_core.evaluation.corruptions import parse_shifts
        from foundry_core.evaluation.features import progress_bar

        shifts = parse_shifts(shift or ())
        sources = judging.load_sources(model, seed)
        reference = judging.choose_teacher(sources, teacher)
        learned = load_shapes(train) if train else None
        splits = {}
        for path in data:
            if data_name(path) in splits:
                raise InputError(f"{path}: a second set of this name; rename one")
            splits[data_name(path)] = judging.split_of(load_shapes(path), validation, learned)
        table = Table(title=f"fidelity to {reference.name}, {split} split, mean over {seeds} seeds")
        for column in ("data", "shift", "model", "s", *(heading for heading, _, _ in COLUMNS)):
            table.add_column(column, overflow="fold", no_wrap=column in ("R²", "swap"))
        rows = []
        with progress_bar() as progress:
            for row in judging.fidelity(
                sources, reference, splits, budget or (), range(seed, seed + seeds), shifts, split, progress
            ):
                rows.append(row.json() | {"train": data_name(train) if train else None})
                table.add_row(
                    row.data,
                    f"{row.shift[0]} {row.shift[1]}" if row.shift else "",
                    row.model,
                    str(row.budget or ""),
                    *(_cell(row.metrics().get(name), decimals) for _, name, decimals in COLUMNS),
                )
        print_table(table)
        if json:
            write_json(json, rows)

    @group.command()
    def ownership(
        model: Annotated[list[str], typer.Option(help="student, or token merging as tome:16:TEACHER; repeatable")],
        data: Annotated[Path, typer.Option(help="shape set: .npz or data set folder")],
        out: Annotated[Path, typer.Option(help="the picture to write, .png")],
        index: Annotated[int, typer.Option(min=0, help="number of the shape in the set")] = 0,
        budget: Annotated[list[int] | None, typer.Option(min=1, help="supertokens; default: all of a card")] = None,
    ) -> None:
        """Draw which points of a shape each supertoken owns: a row for each model, a column for each budget.

        Example: foundry evaluate ownership --model foundry-base --data shapes.npz --index 3 --out owners.png
        """
        require_picture(out, "--out", data)
        _prepare("test", 1)
        from foundry_core.data.shapes import load_shapes
        from foundry_core.evaluation.fidelity import load_sources
        from foundry_core.evaluation.ownership import draw_ownership

        shapes = load_shapes(data)
        if index >= len(shapes):
            raise InputError(f"--index {index}: {data} has {len(shapes)} shapes; give a smaller number")
        named = shapes.label is not None and shapes.class_names and shapes.label[index] >= 0
        title = shapes.class_names[shapes.label[index]] if named else f"shape {index}"
        draw_ownership(load_sources(model, 0), shapes.points[index], budget or (), out, title)
        console.print(f"wrote {out}", soft_wrap=True)

    @group.command()
    def tradeoff(
        fidelity: Annotated[Path, typer.Option(help="rows that `foundry evaluate fidelity --json` wrote")],
        bench: Annotated[Path, typer.Option(help="rows that `foundry bench --json` wrote, same models and budgets")],
        out: Annotated[Path, typer.Option(help="the picture to write, .png")],
        metric: Annotated[str, typer.Option(help="figure on the vertical axis")] = "swap_accuracy_percent",
        data: Annotated[str | None, typer.Option(help="data set of the rows; default: their average")] = None,
    ) -> None:
        """Draw fidelity against latency, one panel for each runtime.

        Example: foundry evaluate tradeoff --fidelity fidelity.json --bench bench.json --out tradeoff.png
        """
        require_picture(out, "--out", fidelity, bench)
        from foundry_core.evaluation.tradeoff import draw_tradeoff, join, read_rows

        rows = read_rows(fidelity, "data", "model", "teacher", "budget", "metrics")
        points = join(rows, read_rows(bench, "model", "budget", "p50_ms"), metric, data)
        draw_tradeoff(points, metric, out)
        console.print(f"wrote {out}", soft_wrap=True)


def _cell(value: dict[str, float] | None, decimals: int) -> str:
    return "" if value is None else f"{value['mean']:.{decimals}f}"
