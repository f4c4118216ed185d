# SPDX-License-Identifier: Apache-2.0
"""`foundry models`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foundry_core.cli.common import console, print_table, require_writable, write_json

if TYPE_CHECKING:
    from foundry_core.card import ModelCard


def _table(cards: list[ModelCard], folder: Path):
    from rich.table import Column, Table

    titles = ("model", "kind", "parameters", "MiB", "budgets", "heads", "licence")
    table = Table(*(Column(title, no_wrap=title != "heads") for title in titles))
    for card in cards:
        files = [folder / card.name / name for name in card.files]
        size = sum(file.stat().st_size for file in files if file.is_file())
        heads = [f"{len(card.heads.objects.classes)} classes"] if card.heads.objects else []
        heads += [f"{len(card.heads.parts.parts)} parts"] if card.heads.parts else []
        table.add_row(
            card.name,
            card.kind,
            f"{card.parameters:,}",
            f"{size / 2**20:.1f}",
            ", ".join(map(str, card.budgets)) or "-",
            ", ".join(heads) or "-",
            card.licence,
        )
    return table


def _data(card: ModelCard) -> str:
    data = dict.fromkeys(f"{data.name} ({data.licence})" for training in card.training for data in training.data)
    return f"{card.name} was trained on: {'; '.join(data) or 'not stated'}"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def models(
        json_file: Annotated[Path | None, typer.Option("--json", help="write the full cards to this file")] = None,
    ) -> None:
        """List the shipped models: size, budgets, heads, training data and licence.

        The sizes are those of the files on disk: weights and exported graphs. --json writes a list of the cards, with
        architecture, preprocessing, class and part names, metrics and file hashes.

        Example: foundry models --json models.json
        """
        from foundry_core.card import list_models, models_directory

        require_writable(json_file, "--json")
        cards = list_models()
        if json_file is not None:
            write_json(json_file, [card.model_dump() for card in cards])
        if cards:
            print_table(_table(cards, models_directory()))
            for card in cards:
                console.print(_data(card), highlight=False, soft_wrap=True)
        else:
            console.print(f"no models in {models_directory()}")
