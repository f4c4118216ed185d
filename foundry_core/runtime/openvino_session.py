# SPDX-License-Identifier: Apache-2.0
"""Exported graphs in OpenVINO, an optional extra: ``pip install 'foundry_ros[openvino]'``."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from foundry_core.errors import InputError
from foundry_core.runtime.session import Precision, Runtime, Session, find_graph

try:
    import openvino
except ImportError:
    openvino = None

#: rt_info entry of an OpenVINO file that holds what the metadata of an ONNX file holds
INFO = "foundry"


def require_openvino() -> None:
    """Raise the one line that says how to get OpenVINO, where it is missing."""
    if openvino is None:
        raise InputError("runtime openvino is not installed: pip install 'foundry_ros[openvino]'")


def read_info(model) -> dict[str, str]:
    """The ``foundry.<key>`` entries of a model that was read from OpenVINO's own file, without the prefix."""
    return dict(model.get_rt_info([INFO]).value) if model.has_rt_info([INFO]) else {}


def cut(model, outputs: Iterable[str], budget: int | None) -> None:
    """Reduce an ``openvino.Model`` to what computes ``outputs``, with its budget fixed.

    In place: a second model of the same nodes has brought the CPU plugin of OpenVINO 2026.4 down.
    """
    from openvino import opset13

    kept = set(outputs)
    for result in list(model.get_results()):
        if not kept & result.input_value(0).get_names():
            model.remove_result(result)
    parameters = {parameter.output(0).get_any_name(): parameter for parameter in model.get_parameters()}
    if budget is not None and "budget" in parameters:
        constant = opset13.constant(np.array(budget, np.int64))
        for target in parameters["budget"].output(0).get_target_inputs():
            target.replace_source_output(constant.output(0))
    reached, waiting = set(), list(model.get_results())
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name()
        if name not in reached:
            reached.add(name)
            waiting += [value.get_node() for value in node.input_values()]
    for parameter in parameters.values():
        if parameter.get_friendly_name() not in reached:
            model.remove_parameter(parameter)


def properties(precision: Precision, threads: int) -> dict[str, int | str]:
    """How a graph is compiled for the CPU."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }


class OpenVinoSession(Session):
    """A graph in OpenVINO. Shapes are fixed before it is compiled, which makes it faster: one compiled graph for each
    set of outputs and each budget, run row by row; several threads may ask, their rows take turns."""

    runtime: Runtime = "openvino"

    def __init__(
        self,
        directory: str | Path,
        threads: int = 1,
        precision: Precision = "fp32",
        outputs: Iterable[str] | None = None,
    ) -> None:
        require_openvino()
        self.path = find_graph(directory, "openvino", precision)
        self._properties = properties(precision, threads)
        self._core = openvino.Core()
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise InputError("bf16: this CPU has no bfloat16 instructions; take fp32 or int8")
        self._compiled: dict[tuple[tuple[str, ...], int | None], openvino.InferRequest] = {}
        self._one_at_a_time = threading.Lock()  # a request holds one answer: it serves one thread until that is copied
        model = self._read()
        kinds = {"f32": "float32", "i64": "int64"}
        ports = {port.get_any_name(): port for port in (*model.inputs, *model.outputs)}
        sizes = {}
        for name, port in ports.items():
            kind = port.get_element_type().get_type_name()
            shape = [size.get_length() if size.is_static else "?" for size in port.get_partial_shape()]
            sizes[name] = (kinds.get(kind, kind), tuple(shape))
        information = self._information(model)
        budgets = json.loads(information.get("budgets", "[]")), json.loads(information.get("budget", "null"))
        names = [port.get_any_name() for port in model.inputs]
        super().__init__(self.path, names, [port.get_any_name() for port in model.outputs], budgets, sizes)
        self._compile(*self._choose(outputs, None))

    def _information(self, model) -> dict[str, str]:
        if self.path.suffix == ".onnx":
            from foundry_core.runtime.graph_file import GraphFile

            metadata = GraphFile(self.path).metadata
            return {key.removeprefix("foundry."): value for key, value in metadata.items()}
        return read_info(model)

    def _read(self):
        try:
            return self._core.read_model(str(self.path))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self.path}: not a usable graph ({reason}); export the model again") from None

    def _compile(self, outputs: tuple[str, ...], budget: int | None):
        model = self._read()
        cut(model, outputs, budget)
        model.reshape({port.get_any_name(): [1, *list(port.get_partial_shape())[1:]] for port in model.inputs})
        request = self._core.compile_model(model, "CPU", self._properties).create_infer_request()
        self._compiled[outputs, budget] = request
        return request

    def run(
        self, inputs: Mapping[str, np.ndarray], outputs: Iterable[str] | None = None, budget: int | None = None
    ) -> dict[str, np.ndarray]:
        chosen, budget = self._choose(outputs, budget)
        with self._one_at_a_time:
            request = self._compiled.get((chosen, budget)) or self._compile(chosen, budget)
        names = [port.get_any_name() for port in request.model_inputs]
        columns: dict[str, list[np.ndarray]] = {name: [] for name in chosen}
        for row in range(len(inputs["centers"])):
            given = {name: np.ascontiguousarray(inputs[name][row : row + 1]) for name in names}
            with self._one_at_a_time:  # for a row only, so that a large batch does not hold up a frame
                request.infer(given)
                for name in chosen:
                    columns[name].append(request.get_tensor(name).data.copy())
        return {name: np.concatenate(values) for name, values in columns.items()}
