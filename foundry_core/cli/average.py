# SPDX-License-Identifier: Apache-2.0
"""`foundry average`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foundry_core.cli.common import console, require_torch
from foundry_core.files import require_new_folder


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def average(
        model: Annotated[list[str], typer.Option(help="name or path of a model; twice or more")],
        share: Annotated[list[float], typer.Option(help="its weight in the mean, in the order of the models")],
        out: Annotated[Path, typer.Option(help="folder of the new model")],
    ) -> None:
        """Average the weights of models of one course of training, an earlier and a later student, say.

        Name and heads are the first model's. `foundry evaluate fidelity --split validation` says whether it was worth
        it, `foundry export` makes its graph.

        Example: foundry average --model runs/later/edge --share 0.7 --model runs/first/edge --share 0.3 --out runs/edge
        """
        require_torch("average")
        from foundry_core.training.soup import average_models

        require_new_folder(out, "--out")
        card = average_models(model, share, out)
        console.print(f"wrote {out}: {card.name}, {card.parameters:,} parameters", soft_wrap=True)
