# SPDX-License-Identifier: Apache-2.0
"""`foundry export`: the graph that the robot runs."""

from __future__ import annotations

from typing import Annotated

import typer

from foundry_core.cli.common import console, require_torch


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def export(model: Annotated[str, typer.Option(help="name or directory of the model")]) -> None:
        """Write model.onnx into a model directory, verified against torch.

        Example: foundry export --model runs/foundry-base/foundry-base
        """
        require_torch("export")
        from foundry_core.export.graph import export_graph

        path, differences = export_graph(model)
        listed = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
        console.print(f"wrote {path}; largest difference to torch: {listed}")
