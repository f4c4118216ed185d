# SPDX-License-Identifier: Apache-2.0
"""`foundry predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundry_core.cli.common import (
    DEFAULT_MODEL,
    Precision,
    PrecisionOption,
    Runtime,
    RuntimeOption,
    print_table,
    require_writable,
    write_json,
)
from foundry_core.cli.evaluate_head import open_heads
from foundry_core.errors import InputError

if TYPE_CHECKING:
    from foundry_core.runtime.head_perceiver import HeadPerceiver
    from foundry_core.runtime.objects import Prediction
    from foundry_core.runtime.pipeline import Pipeline


def _parts(prediction: Prediction, names: list[str]) -> dict[str, int]:
    import numpy as np

    index, count = np.unique(prediction.part_ids, return_counts=True)
    found = sorted(zip(count.tolist(), index.tolist(), strict=True), reverse=True)
    return {names[part]: points for points, part in found if part >= 0}


def _row(prediction: Prediction, names: list[str]) -> dict[str, Any]:
    return {
        "label": prediction.label,
        "probability": float(prediction.probability),
        "top5": [[name, float(probability)] for name, probability in prediction.top5],
        "unknown": bool(prediction.unknown),
        "parts": _parts(prediction, names),
    }


def _predict(
    pipeline: Pipeline | HeadPerceiver, names: list[str], path: Path, scene: bool, denoise: bool
) -> dict[str, Any]:
    """The answer for one file; ``names`` are those of the parts."""
    from foundry_core.clouds import Cloud, read_cloud, require_shape

    cloud = require_shape(read_cloud(path), path)
    row: dict[str, Any] = {"file": str(path), "points": len(cloud), "dropped_nonfinite": cloud.dropped_nonfinite}
    if denoise:
        from foundry_core.strays import stray_points

        stray = stray_points(cloud.points)
        row["strays"] = int(stray.sum())
        cloud = require_shape(Cloud.from_points(cloud.points[~stray]), path)
    if not scene:
        return row | _row(pipeline.classify([cloud.points])[0], names)
    perception = pipeline.perceive(cloud)
    row["phases_ms"] = {phase: float(value) for phase, value in perception.phases_ms.items()}
    row["objects"] = [
        {
            "center": [float(value) + shift for value, shift in zip(item.segment.center, cloud.origin, strict=True)],
            "size": [float(value) for value in item.segment.size],
            "yaw": float(item.segment.yaw),
            "points": len(item.segment.index),
        }
        | _row(item.prediction, names)
        for item in perception.objects
    ]
    return row


def _own_heads(
    model: str, taught: Path | None, budget: int | None, runtime: Runtime, precision: Precision
) -> tuple[Pipeline, list[str]]:
    """The model with the heads that it carries, and the names of its parts."""
    from foundry_core.runtime.perceiver import Perceiver, PerceiverConfig
    from foundry_core.runtime.pipeline import Pipeline
    from foundry_core.runtime.teach import TaughtClasses, ordinary_objects
    from foundry_core.scene.tracks import TracksConfig

    perceiver = Perceiver(model, PerceiverConfig(runtime=runtime.value, precision=precision.value), budget)
    classes = TaughtClasses(perceiver.card) if taught is None else TaughtClasses.load(taught, perceiver.card)
    if len(classes) and not classes.ready:  # saved by a robot before it knew what ordinary objects look like
        classes.set_ordinary(ordinary_objects(perceiver))
    parts = perceiver.card.heads.parts
    return Pipeline(perceiver, TracksConfig(enabled=False), classes), parts.parts if parts else []


def _table(rows: list[dict[str, Any]], scene: bool):
    from rich.table import Table

    from foundry_core.runtime.objects import OTHER

    table = Table("file", *(["x y z [m]", "size [m]"] if scene else []), "label", "probability", "points", "parts")
    for row in rows:
        items = row["objects"] if scene else [row]
        for item in items:
            parts = ", ".join(f"{name} {count}" for name, count in item["parts"].items()) or "-"
            where = [" ".join(f"{v:.1f}" for v in item[key]) for key in ("center", "size")] if scene else []
            label = item["label"]
            if item["unknown"] and item["top5"] and item["top5"][0][0] != OTHER:
                label += f" ({item['top5'][0][0]}?)"
            table.add_row(
                Path(row["file"]).name, *where, label, f"{item['probability']:.2f}", str(item["points"]), parts
            )
        if not items:
            table.add_row(Path(row["file"]).name, "-", "-", "no objects", "-", str(row["points"]), "-")
    return table


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def predict(
        paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help=".ply .pcd .npy .npz .xyz .txt or .bin")],
        model: Annotated[str, typer.Option(help="name of a shipped model, or the path of a model directory")] = (
            DEFAULT_MODEL
        ),
        scene: Annotated[bool, typer.Option("--scene", help="a whole sweep or room: find the objects first")] = False,
        denoise: Annotated[bool, typer.Option("--denoise", help="leave stray points out of an object first")] = False,
        taught: Annotated[Path | None, typer.Option(help="classes taught with `foundry teach` or on a robot")] = None,
        head: Annotated[
            list[Path] | None,
            typer.Option(help="transfer head, in place of the model's own; of classes, of parts"),
        ] = None,
        category: Annotated[str | None, typer.Option(help="of the objects, for a parts head alone")] = None,
        budget: Annotated[int | None, typer.Option(min=1, help="supertokens of a student; default: its own")] = None,
        runtime: RuntimeOption = Runtime.onnxruntime,
        precision: PrecisionOption = Precision.fp32,
        json_file: Annotated[Path | None, typer.Option("--json", help="write the results to this file")] = None,
    ) -> None:
        """Say what a point cloud shows, and which of its points are which part.

        Each file is taken as one object, z up; with --scene it is a whole sweep (metres, z up, REP-103), in which crop
        box, ground and clusters find the objects first. NaN and infinite points are dropped and counted.

        --json writes a list with one entry per file: file, points (those that are finite), dropped_nonfinite, label,
        probability, top5 (pairs of name and probability), unknown (true below the model's threshold, or where the best
        class is other), parts (part name -> number of points) and, with --denoise, strays (number of points that stood
        apart and were left out). With --scene it has file, points, dropped_nonfinite, phases_ms (phase -> milliseconds)
        and a list objects, each with label, probability, top5, unknown, parts and center, size, yaw, points.

        Example: foundry predict chair.ply mug.pcd --json result.json

        Example: foundry predict 000000.bin --scene

        Example: foundry predict new.ply --taught taught.npz

        Example: foundry predict chair.ply --runtime openvino --precision bf16

        Example: foundry predict part.ply --head runs/mlp/mlp-shapes --head runs/parts/parts-shapes
        """
        require_writable(json_file, "--json", *paths, taught)
        if scene and denoise:
            raise InputError("--denoise: is for single objects; --scene tells stray points by itself, leave it out")
        if head:
            if taught is not None:
                raise InputError("--taught: is for the model's own classes; leave --head or --taught out")
            pipeline = open_heads(model, head, budget, category, runtime.value, precision.value)
            names = pipeline.parts.card.parts if pipeline.parts else []
        elif category is not None:
            raise InputError("--category: is for a parts head; give --head, too")
        else:
            pipeline, names = _own_heads(model, taught, budget, runtime, precision)
        rows = [_predict(pipeline, names, path, scene, denoise) for path in paths]
        if json_file is not None:
            write_json(json_file, rows)
        print_table(_table(rows, scene))
