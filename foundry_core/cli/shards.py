# SPDX-License-Identifier: Apache-2.0
"""`foundry shards`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foundry_core.cli.common import console


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def shards(
        data: Annotated[list[Path], typer.Argument(help="shape sets .npz; their train splits are written")],
        out: Annotated[Path, typer.Option(help="folder of the shards")],
        per_shard: Annotated[int, typer.Option(min=1, help="shapes in one shard")] = 1000,
        licence: Annotated[list[str] | None, typer.Option(help="only shapes under it; may be repeated")] = None,
        seed: Annotated[int, typer.Option(min=0, help="of the order of the shapes")] = 0,
    ) -> None:
        """Write shape sets as tar shards for `foundry pretrain --data` and `foundry distill --data`.

        Example: foundry shards shapes.npz --out shards --per-shard 1000
        """
        from foundry_core.data.shapes import load_shapes
        from foundry_core.data.shards import write_shards

        shapes = []
        for path in data:
            chosen = load_shapes(path).train()
            shapes += list((chosen.with_licences(licence) if licence else chosen).points)
        console.print(f"wrote {len(shapes)} shapes: --data '{write_shards(shapes, out, per_shard, seed)}'")
