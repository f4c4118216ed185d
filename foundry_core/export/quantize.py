# SPDX-License-Identifier: Apache-2.0
"""Static int8 quantisation of a graph: where the time goes, less what its accuracy needs; procedural calibration.

The result is in QDQ form, which onnxruntime and OpenVINO both fuse into int8 kernels. What decides (the assignment of
tokens to supertokens, the heads for classes and parts) and what is tiny (maps of a few coordinates) stays float32. Of
the other products each is quantised alone first: those whose int8 form costs the token features most, for the
arithmetic that it saves, stay float32 too, until the rest is within :data:`MAX_ERROR`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from foundry_core.card import ModelCard
from foundry_core.export.graph import example_inputs

CALIBRATION_SEED = 7
CALIBRATION_CLOUDS = 48
TRIAL_SEED, TRIAL_CLOUDS = 500_009, 16  # of the clouds that products are tried on
MAX_ERROR = 5e-4  # mean square of the tokens' error over their variance, summed over the quantised products
_BATCH = 4
_KEPT = ("assignment.logits", ".objects.", ".parts.")
_MIN_INPUTS = 16


def quantize(model: onnx.ModelProto, card: ModelCard, every: bool = False) -> onnx.ModelProto:
    """The graph of a model with int8 weights (per output channel) and uint8 activations where that pays.

    Args:
        every: also where it costs accuracy: for random weights, which have none.
    """
    if every:
        return quantize_graph(model, calibration(card))
    trial = example_inputs(card, TRIAL_CLOUDS, TRIAL_SEED)
    if _takes_budget(card):
        trial["budget"] = np.array(card.budget, np.int64)
    return quantize_graph(model, calibration(card), trial)


def quantize_graph(
    model: onnx.ModelProto, batches: Iterable[dict[str, np.ndarray]], trial: dict[str, np.ndarray] | None = None
) -> onnx.ModelProto:
    """Any graph, the ranges of its activations taken from batches of inputs.

    Args:
        trial: inputs on which each product is tried by its effect on the first output; None: all are quantised.
    """
    split = onnx.ModelProto()
    split.CopyFrom(model)
    _split_free_bias(split)
    logging.disable(logging.WARNING)  # it advises steps of its own that this graph does not need
    try:
        ranges = _ranges(split, batches)
        chosen = _chosen(split)
        if trial is not None:
            chosen = _bearable(split, ranges, chosen, trial)
        return _quantized(split, ranges, chosen)
    finally:
        logging.disable(logging.NOTSET)


def _ranges(model: onnx.ModelProto, batches: Iterable[dict[str, np.ndarray]]):
    """Smallest and largest value of every activation."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        onnx.save(model, path)
        calibrator = create_calibrator(
            path,
            ["Gemm", "MatMul"],
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(_Reader(batches))
        return calibrator.compute_data()


def _quantized(model: onnx.ModelProto, ranges, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of the graph in which the named products are int8."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not names:  # which the quantizer would take for all
        return copy
    options = {"MatMulConstBOnly": True}
    quantizer = QDQQuantizer(
        copy, True, False, QuantType.QInt8, QuantType.QUInt8, ranges, list(names), [], ["Gemm", "MatMul"], options
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _bearable(model: onnx.ModelProto, ranges, names: list[str], trial: dict[str, np.ndarray]) -> list[str]:
    """The products that may be int8: the others cost most accuracy for each operation that they save."""
    products = {node.name: node for node in model.graph.node if node.name in names}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    outputs = [node.output[0] for node in products.values()]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    first = model.graph.output[0].name
    expected, *values = _answers(watched, trial, [first, *outputs])
    variance = expected.var(axis=tuple(range(expected.ndim - 1))).mean()
    operations, errors = {}, {}
    for node, value in zip(products.values(), values, strict=True):
        rows = value.size // value.shape[-1]
        operations[node.name] = rows * int(np.prod(weights[node.input[1]].dims))
        (found,) = _answers(_quantized(model, ranges, [node.name]), trial, [first])
        errors[node.name] = float(((found - expected) ** 2).mean() / variance)
    kept = sorted(names, key=lambda name: errors[name] / operations[name])
    while kept and sum(errors[name] for name in kept) > MAX_ERROR:
        kept.pop()
    return [name for name in names if name in kept]


def _answers(model: onnx.ModelProto, inputs: dict[str, np.ndarray], names: list[str]) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(names, {node.name: inputs[node.name] for node in session.get_inputs()})


def _takes_budget(card: ModelCard) -> bool:
    return max(card.budgets, default=1) > 1


class _Reader:
    """onnxruntime's CalibrationDataReader."""

    def __init__(self, batches: Iterable[dict[str, np.ndarray]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def calibration(card: ModelCard) -> Iterator[dict[str, np.ndarray]]:
    """Batches of graph inputs, every budget in turn."""
    for number in range(CALIBRATION_CLOUDS // _BATCH):
        inputs = example_inputs(card, _BATCH, CALIBRATION_SEED + number)
        if _takes_budget(card):
            inputs["budget"] = np.array(card.budgets[number % len(card.budgets)], np.int64)
        yield inputs


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
