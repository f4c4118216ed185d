# SPDX-License-Identifier: Apache-2.0
"""The floor of the benchmark: a model's matrix products and nothing else, float32 in onnxruntime (needs onnx)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from foundry_core.card import ModelCard
from foundry_core.runtime.bench_worker import Run, Spec
from foundry_core.runtime.macs import products


def open_products(spec: Spec, card: ModelCard) -> Run:
    """Runs every product of a configuration once, independent of each other, on random numbers."""
    rng = np.random.default_rng(0)
    inputs, weights, nodes, outputs, given = [], [], [], [], {}
    for number, item in enumerate(products(card, spec.budget, spec.outputs)):
        if item.weight:
            left, right = (item.rows * spec.batch, item.inner), (item.inner, item.columns)
        else:
            count = item.count * spec.batch
            left, right = (count, item.rows, item.inner), (count, item.inner, item.columns)
        a, b, c = f"left_{number}", f"right_{number}", f"product_{number}"
        given[a] = rng.normal(size=left).astype(np.float32)
        value = rng.normal(size=right).astype(np.float32)
        inputs.append(helper.make_tensor_value_info(a, TensorProto.FLOAT, left))
        if item.weight:
            weights.append(numpy_helper.from_array(value, b))
        else:
            given[b] = value
            inputs.append(helper.make_tensor_value_info(b, TensorProto.FLOAT, right))
        nodes.append(helper.make_node("MatMul", [a, b], [c]))
        outputs.append(helper.make_tensor_value_info(c, TensorProto.FLOAT, (*left[:-1], right[-1])))
    graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, value in given.items():
        binding.bind_cpu_input(name, value)
    for output in outputs:
        binding.bind_output(output.name)

    def run(_inputs: Mapping[str, np.ndarray]) -> None:
        session.run_with_iobinding(binding)

    return run
