# SPDX-License-Identifier: Apache-2.0
"""Static int8 quantisation of a graph: tokenizer, transformer and part head, calibrated on procedural objects.

The result is in QDQ form, which onnxruntime and OpenVINO both fuse into int8 kernels. What decides (the assignment of
tokens to supertokens, the class logits) and what is tiny (maps of a few coordinates) stays float32.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from foundry_core.card import ModelCard
from foundry_core.export.graph import example_inputs

CALIBRATION_SEED = 7
CALIBRATION_CLOUDS = 48
_BATCH = 4
_KEPT = ("assignment.logits", ".objects.")
_MIN_INPUTS = 16


def quantize(model: onnx.ModelProto, card: ModelCard) -> onnx.ModelProto:
    """The graph with int8 weights (per output channel) and uint8 activations where that pays."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    split = onnx.ModelProto()
    split.CopyFrom(model)
    _split_free_bias(split)
    chosen = _chosen(split)
    logging.disable(logging.WARNING)  # it advises steps of its own that this graph does not need
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            split,
            path,
            _Calibration(card),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=chosen,
            op_types_to_quantize=["Gemm", "MatMul"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"MatMulConstBOnly": True},
        )
        logging.disable(logging.NOTSET)
        return onnx.load(path)


class _Calibration:
    """Batches of graph inputs, every budget in turn (onnxruntime's CalibrationDataReader)."""

    def __init__(self, card: ModelCard) -> None:
        self._card, self._number = card, 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        number = self._number
        if number * _BATCH >= CALIBRATION_CLOUDS:
            return None
        self._number += 1
        inputs = example_inputs(self._card, _BATCH, CALIBRATION_SEED + number)
        if len(self._card.budgets) and max(self._card.budgets) > 1:
            inputs["budget"] = np.array(self._card.budgets[number % len(self._card.budgets)], np.int64)
        return inputs


def _split_free_bias(model: onnx.ModelProto) -> None:
    """Turn products that a computed matrix is added to into product and sum: only constant biases can be quantised."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    for number, node in enumerate(list(graph.node)):
        if node.op_type == "Gemm" and len(node.input) == 3 and node.input[2] not in constants:
            if any(item.name in ("transA", "transB") and item.i for item in node.attribute):
                continue
            product = f"{node.name}_product"
            nodes = [
                helper.make_node("MatMul", node.input[:2], [product], name=product),
                helper.make_node("Add", [product, node.input[2]], node.output, name=f"{node.name}_sum"),
            ]
            graph.node.remove(node)
            for shift, item in enumerate(nodes):
                graph.node.insert(number + shift, item)
            return _split_free_bias(model)
    return None


def _chosen(model: onnx.ModelProto) -> list[str]:
    weights = {tensor.name: numpy_helper.to_array(tensor).shape for tensor in model.graph.initializer}
    chosen = []
    for node in model.graph.node:
        if node.op_type not in ("Gemm", "MatMul") or node.input[1] not in weights:
            continue
        name, shape = node.input[1], weights[node.input[1]]
        if len(shape) == 2 and min(shape) >= _MIN_INPUTS and not any(part in name for part in _KEPT):
            chosen.append(node.name)
    return chosen
