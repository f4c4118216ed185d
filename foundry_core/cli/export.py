# SPDX-License-Identifier: Apache-2.0
"""`foundry export`: the graph that the robot runs."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from foundry_core.cli.common import console, require_torch


class Format(str, Enum):
    onnx = "onnx"
    openvino = "openvino"


class Precision(str, Enum):
    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def export(
        model: Annotated[str, typer.Option(help="name or directory of the model")],
        format: Annotated[Format, typer.Option(help="file format: onnx runs everywhere")] = Format.onnx,
        precision: Annotated[Precision, typer.Option(help="bf16 needs openvino and a CPU that has it")] = (
            Precision.fp32
        ),
        out: Annotated[Path | None, typer.Option(help="model directory to write to; default: the model's own")] = None,
        check: Annotated[
            Path | None, typer.Option(help="labelled shape set on which a probe may lose at most 0.5 points")
        ] = None,
    ) -> None:
        """Write the graph of a model, with all its heads and budgets, verified against torch before it is written.

        fp32 must agree with torch to 1e-4; bf16 and int8 must keep a mean token cosine of 0.999 on unseen objects.
        int8 is static, calibrated on procedural objects. The file carries preprocessing, class and part names and
        budgets as metadata. onnx: model.onnx or model.int8.onnx, for onnxruntime and OpenVINO; openvino:
        model.PRECISION.xml and .bin. Several of them can share one model directory.

        Example: foundry export --model runs/foundry-base/foundry-base

        Example: foundry export --model foundry-edge --format onnx --precision int8 --out edge-int8 --check shapes.npz
        """
        require_torch("export")
        from foundry_core.export.write import export_model

        done = export_model(model, format.value, precision.value, out, check)
        listed = ", ".join(f"{name} {value:.1e}" for name, value in done.differences.items())
        if precision is Precision.fp32:
            measured = f"largest difference to torch: {listed}"
        else:
            measured = f"token cosine to torch {done.cosine:.5f}"
        if done.drop is not None:
            measured += f"; probe accuracy changes by {-done.drop:+.2f} points"
        console.print(f"wrote {', '.join(map(str, done.files))}; {measured}", soft_wrap=True)
