# SPDX-License-Identifier: Apache-2.0
"""ONNX -> OpenVINO's own files (.xml and .bin), which load faster than the ONNX file that they come from."""

from __future__ import annotations

from pathlib import Path

from foundry_core.card import ModelCard
from foundry_core.export.graph import metadata
from foundry_core.runtime.openvino_session import INFO, openvino, require_openvino


def write_openvino(source: Path, target: Path, card: ModelCard, precision: str) -> None:
    """Write ``target`` (.xml) and its weights (.bin) with float32 or, where the source is quantised, int8 weights."""
    require_openvino()
    model = openvino.Core().read_model(str(source))
    for key, value in metadata(card, precision).items():
        model.set_rt_info(value, [INFO, key])
    openvino.save_model(model, str(target), compress_to_fp16=False)
