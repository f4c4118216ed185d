# SPDX-License-Identifier: Apache-2.0
"""`foundry evaluate head`, and what `foundry predict --head` shares with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from foundry_core.cli.common import error_console, print_table, require_torch, require_writable, write_json
from foundry_core.errors import InputError

if TYPE_CHECKING:
    from foundry_core.runtime.head_perceiver import HeadPerceiver

#: heading, metric, decimals
COLUMNS = (
    ("accuracy %", "accuracy_percent", 1),
    ("ECE", "ece", 3),
    ("uncalibrated", "ece_uncalibrated", 3),
    ("perfect", "ece_of_perfect", 3),
    ("AUROC unknown", "unknown_auroc", 3),
    ("known rejected %", "known_rejected_percent", 1),
    ("unknown rejected %", "unknown_rejected_percent", 1),
    ("points right %", "point_accuracy_percent", 1),
    ("instance mIoU %", "instance_miou_percent", 1),
    ("category mIoU %", "category_miou_percent", 1),
)


def open_heads(
    model: str,
    heads: Sequence[Path],
    budget: int | None = None,
    category: str | None = None,
    runtime: str = "onnxruntime",
    precision: str = "fp32",
) -> HeadPerceiver:
    """A model with transfer heads; torch is asked for only by heads that read inner features.

    Raises:
        InputError: such heads and another runtime or precision than the defaults, or see :class:`HeadPerceiver`.
    """
    from foundry_core.card import find_model
    from foundry_core.head_card import load_head_card
    from foundry_core.runtime.head_perceiver import HeadPerceiver

    tokens = None
    inner = [card for card in map(load_head_card, heads) if card.own_backbone_only]
    if inner:
        if (runtime, precision) != ("onnxruntime", "fp32"):
            raise InputError("--runtime, --precision: a head of inner features runs in torch; leave both out")
        require_torch("head (of inner features)")
        from foundry_core.models.transfer import inner_tokens

        tokens = inner_tokens(find_model(model), inner[0], budget)
    return HeadPerceiver(model, heads, budget, category, tokens, runtime=runtime, precision=precision)


def register(group: typer.Typer) -> None:
    """Add the command."""

    @group.command("head")
    def evaluate_head(
        head: Annotated[list[Path], typer.Option(help="head directory; repeated: seeds of one head, or several heads")],
        model: Annotated[list[str], typer.Option(help="backbone of the head's family; may be repeated")],
        data: Annotated[Path, typer.Option(help="labelled shape set .npz; its test split is judged on")],
        budget: Annotated[int | None, typer.Option(min=1, help="supertokens of a student; default: its own")] = None,
        json: Annotated[Path | None, typer.Option(help="write the rows to this file")] = None,
    ) -> None:
        """Measure transfer heads on the test split, twins left out, without torch.

        Classes: accuracy and expected calibration error (ECE, 15 bins) over shapes of the head's classes, beside that
        without its temperature and what exactly right probabilities would show on as few shapes. Shapes of other
        classes are the unknown ones: AUROC of the head's unknown score, and the shares of known and unknown shapes
        above its threshold. Parts: accuracy of points and mean IoU over the parts of a category (absent ones count as
        1), by instance and by category; a head that is told the category is told the true one. Heads of one name, kind
        and number of left-out classes are taken as seeds: mean and deviation.

        Example: foundry evaluate head --head runs/linear/linear-shapes --model teacher-small --model foundry-edge \
--data shapes.npz
        """
        require_writable(json, "--json", data)
        import numpy as np
        from rich.progress import Progress

        from foundry_core.data.shapes import data_name, load_shapes
        from foundry_core.evaluation.heads import Read, read_shapes
        from foundry_core.evaluation.heads import evaluate_head as run

        shapes = load_shapes(data)
        shapes = shapes if shapes.split is None else shapes.test()
        shapes = shapes if shapes.label is None else shapes.labelled()
        found: dict[tuple, list[dict[str, float]]] = {}
        budgets: dict[str, int | None] = {}
        reads: dict[tuple, Read] = {}  # a backbone runs once for all heads that read the same of it
        with Progress(console=error_console, transient=True, disable=not error_console.is_terminal) as progress:
            for name in model:
                for place in head:
                    perceiver = open_heads(name, [place], budget)
                    card = (perceiver.classes or perceiver.parts).card
                    what = (name, tuple(card.depths), card.supertokens)
                    if what not in reads:
                        task = progress.add_task(f"features of {name}", total=len(shapes))
                        reads[what] = read_shapes(perceiver, shapes, lambda n, task=task: progress.advance(task, n))
                    metrics = run(perceiver, shapes, reads[what])
                    key = (name, card.name, card.kind, card.backbone.name, len(card.left_out))
                    found.setdefault(key, []).append(metrics)
                    budgets[name] = perceiver.budget
        rows = []
        shown = [column for column in COLUMNS if any(column[1] in row for runs in found.values() for row in runs)]
        table = Table(title=f"transfer heads on {data_name(data)}, test split")
        for title in ("model", "head", "trained on", "left out", *(column[0] for column in shown)):
            table.add_column(title)
        for (name, title, kind, trained, left), runs in found.items():
            metrics = {
                key: {"mean": round(float(np.mean(values)), 4), "std": round(float(np.std(values)), 4)}
                for key in runs[0]
                if (values := [row[key] for row in runs])
            }
            rows.append(
                {
                    "protocol": "head",
                    "data": data_name(data),
                    "split": "test",
                    "test_shapes": len(shapes),
                    "model": name,
                    "budget": budgets[name],
                    "head": title,
                    "kind": kind,
                    "trained_on": trained,
                    "left_out": left,
                    "seeds": len(runs),
                    "metrics": metrics,
                }
            )
            cells = (_cell(metrics.get(metric), digits, len(runs)) for _, metric, digits in shown)
            table.add_row(name, title, trained, str(left), *cells)
        print_table(table)
        if json:
            write_json(json, rows)


def _cell(value: dict[str, float] | None, digits: int, seeds: int) -> str:
    if value is None:
        return ""
    return f"{value['mean']:.{digits}f}" + (f" ± {value['std']:.{digits}f}" if seeds > 1 else "")
