# SPDX-License-Identifier: Apache-2.0
"""`foundry throughput`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from foundry_core.cli.common import print_table, require_torch, require_writable, write_json
from foundry_core.schema import load_settings


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def throughput(
        config: Annotated[Path, typer.Option("--config", help="YAML configuration of a pre-training")],
        workers: Annotated[int | None, typer.Option(min=1, help="data processes; default: the configuration's")] = None,
        rounds: Annotated[int, typer.Option(min=1, help="of both, by turns; medians are printed")] = 5,
        json: Annotated[Path | None, typer.Option("--json", help="write the figures to this file")] = None,
    ) -> None:
        """Clouds per second that the training stream gives, against what the trainer consumes.

        Example: foundry throughput --config config/train/teacher-small.yaml
        """
        require_torch("throughput")
        require_writable(json, "--json", config)
        from foundry_core.training.config import PretrainConfig
        from foundry_core.training.throughput import measure

        settings = load_settings(config, PretrainConfig)
        row = measure(settings, workers or max(1, settings.loop.workers), rounds).row()
        table = Table("", "stream", "trainer", "ratio", title=f"{settings.name}, {row['workers']} data process(es)")
        for title, stream, trainer, ratio in (
            ("clouds per second", "stream_per_second", "trainer_per_second", "ratio"),
            ("ms of processor time a cloud", "stream_cpu_ms", "trainer_cpu_ms", "cpu_ratio"),
        ):
            table.add_row(title, *(f"{row[key]:.2f}" for key in (stream, trainer, ratio)))
        print_table(table)
        if json:
            write_json(json, [row])
