# SPDX-License-Identifier: Apache-2.0
"""`foundry report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foundry_core.cli.common import DEFAULT_MODEL, console, error_console, require_writable
from foundry_core.errors import InputError

if TYPE_CHECKING:
    from foundry_core.card import ModelCard


def _pictured(cards: dict[str, ModelCard], asked: list[str]) -> str | None:
    """The model whose answers are drawn: of those with a head for objects the one asked for first, or the default."""
    able = [name for name in dict.fromkeys([*asked, *cards]) if cards[name].heads.objects]
    if not asked and DEFAULT_MODEL in able:
        return DEFAULT_MODEL
    return able[0] if able else None


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def report(
        out: Annotated[Path, typer.Argument(metavar="OUT.html", help="the page to write")],
        results: Annotated[
            list[Path] | None, typer.Option(help="JSON of `foundry evaluate`, `replay` or `demo`; may be repeated")
        ] = None,
        bench: Annotated[list[Path] | None, typer.Option(help="JSON of `foundry bench`; may be repeated")] = None,
        model: Annotated[
            list[str] | None, typer.Option(help="models to describe; default: those in the files, or the shipped ones")
        ] = None,
        pictures: Annotated[bool, typer.Option(help="draw shapes, their parts and the owners of their points")] = True,
        title: Annotated[str, typer.Option(help="heading of the page")] = "Foundry report",
    ) -> None:
        """Put results on one page: tables, charts, confusion matrices and pictures, in one file that needs no network.

        Figures stand beside their teacher's, with what is lost to it. Latencies of --bench are drawn against
        accuracies of the same models and budgets. The pictures are made here, by the first model that has heads; who
        owns which points is drawn where torch is installed.

        Example: foundry report report.html --results probe.json --results fidelity.json --bench bench.json
        """
        from datetime import date

        from rich.progress import Progress

        from foundry_core.card import list_models
        from foundry_core.cli.main import version
        from foundry_core.evaluation.report.figures import load_cards
        from foundry_core.evaluation.report.page import write_page
        from foundry_core.evaluation.report.read import read_results
        from foundry_core.evaluation.report.shapes import steps
        from foundry_core.files import write_atomically

        require_writable(out, "OUT.html", *(results or []), *(bench or []))
        if out.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"{out}: a report is a page; give a name that ends in .html")
        found = read_results(results or [], bench or [])
        asked = list(dict.fromkeys(model or []))
        named = [row.teacher for row in found.rows if row.teacher] + [row.model for row in found.rows]
        named += [row.model for row in found.bench] + [replay.model for _, replay in found.replays]
        cards = load_cards(asked, [] if asked else named)
        if not cards and not asked:
            cards = {card.name: card for card in list_models()}
        pictured = _pictured(cards, asked) if pictures else None
        made_by = f"Made by foundry {version()} on {date.today().isoformat()}."
        with Progress(console=error_console, transient=True, disable=not error_console.is_terminal) as progress:
            task = progress.add_task("pictures", total=steps(cards, pictured) if pictured else None)
            page = write_page(found, cards, title, made_by, pictured, lambda count: progress.advance(task, count))
        write_atomically(out, page)
        console.print(f"wrote {out}, {len(page) / 2**20:.1f} MB", soft_wrap=True)
