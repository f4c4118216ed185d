# SPDX-License-Identifier: Apache-2.0
"""`foundry convert`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foundry_core.cli.common import console, require_torch, require_writable, write_json
from foundry_core.files import require_new_folder

if TYPE_CHECKING:
    from foundry_core.card import ModelCard
    from foundry_core.models.checkpoints.convert import Conversion


class Arch(str, Enum):
    """The code base that wrote the checkpoint."""

    point_jepa = "point-jepa"
    point2vec = "point2vec"
    point_mae = "point-mae"


def _size(what: str, released: str) -> typer.models.OptionInfo:
    return typer.Option(min=1, help=f"{what}; default: the file's own setting, else {released}")


def write_model(out: Path, done: Conversion) -> ModelCard:
    """Weights, card and graph; the finished directory appears at once, made beside ``out`` and then renamed."""
    from foundry_core.card import load_card
    from foundry_core.export.write import export_graph
    from foundry_core.models.registry import save_model

    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=f".{out.name}.", suffix=".tmp"))
    try:
        save_model(folder, done.network, done.card)
        export_graph(folder)
        folder.chmod(0o755)
        os.replace(folder, out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return load_card(out)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def convert(
        checkpoint: Annotated[Path, typer.Argument(help="file of pre-trained weights, as the authors released it")],
        arch: Annotated[Arch, typer.Option(help="the code base that wrote it")],
        out: Annotated[Path, typer.Option(help="the model directory to write; must not exist")],
        depth: Annotated[int | None, _size("blocks of the encoder", "12")] = None,
        heads: Annotated[int | None, _size("attention heads", "6")] = None,
        points: Annotated[int | None, _size("points per cloud", "1024")] = None,
        groups: Annotated[int | None, _size("patches per cloud", "64")] = None,
        neighbors: Annotated[int | None, _size("points per patch", "32")] = None,
        json_file: Annotated[
            Path | None, typer.Option("--json", help="write the keys that were used and left out to this file")
        ] = None,
    ) -> None:
        """Turn a Point-MAE, point2vec or Point-JEPA checkpoint into a teacher, with the original's token features.

        Only tensors and plain values are read from the file: pickled code is refused, never run. Every key must be one
        that the released files have, in its shape: the encoder's are used (of point2vec and Point-JEPA the student's,
        as their own downstream code does), those of decoders, predictors and EMA copies are left out. The result is a
        model directory as any other: weights, card and ONNX graph.

        Example: foundry convert pretrain.pth --arch point-mae --out models/point-mae
        """
        require_torch("convert")
        require_writable(json_file, "--json", checkpoint)
        from foundry_core.models.checkpoints.convert import convert as run

        require_new_folder(out, "--out")
        sizes = {"depth": depth, "heads": heads, "points": points, "groups": groups, "neighbors": neighbors}
        done = run(checkpoint, arch.value, out.resolve().name, **sizes)
        card = write_model(out, done)
        if json_file is not None:
            write_json(json_file, {"used": done.used, "left_out": done.left_out, "beside": done.beside})
        encoder = card.architecture.encoder
        size = card.preprocessing
        console.print(
            f"wrote {out}: {encoder.depth} blocks of width {encoder.width}, {encoder.heads} heads,"
            f" {card.parameters:,} parameters; {size.points} points in {size.groups} patches of {size.neighbors}",
            soft_wrap=True,
        )
        parts = Counter(key.split(".")[0] for key in done.left_out)
        listed = ", ".join(f"{name} {count}" for name, count in parts.items())
        console.print(f"{len(done.used)} keys used, {len(done.left_out)} left out: {listed}", soft_wrap=True)
