# SPDX-License-Identifier: Apache-2.0
"""torch -> ONNX: one graph with all outputs and all budgets of a model directory."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from foundry_core import geometry
from foundry_core.card import GRAPH_FILE, ModelCard
from foundry_core.errors import InputError
from foundry_core.export.rewrite import for_inference
from foundry_core.export.rewrite_student import BASELINES
from foundry_core.models.heads import Perception
from foundry_core.runtime.session import INPUTS, OUTPUTS
from foundry_core.training.sightings import shape_sighting

BATCH = "batch"


class InferenceGraph(nn.Module):
    """The rewritten network with the inputs and outputs of the graph in their fixed order; ``slots`` is 0 ... s-1."""

    def __init__(self, network: Perception, outputs: list[str]):
        super().__init__()
        self.network, self.outputs = for_inference(network), outputs

    def forward(self, centers, neighborhoods, points=None, index=None, weight=None, slots=None) -> tuple[Tensor, ...]:
        out = perceive(self.network, (centers, neighborhoods, points, index, weight), slots)
        return tuple(out[name] for name in self.outputs)


def perceive(network: Perception, inputs, budget: int | Tensor | None) -> dict[str, Tensor]:
    """All outputs of a network, rewritten or not, at a budget; ``inputs`` are those of :data:`INPUTS` before it."""
    centers, neighborhoods, *interpolation = inputs
    backbone = network.backbone
    out = backbone(centers, neighborhoods) if budget is None else backbone(centers, neighborhoods, budget)
    if network.objects is not None:
        out["class_logits"] = network.objects(out["tokens"])
    if network.parts is not None:
        out["part_logits"] = network.parts(out["tokens"], centers, *interpolation)
    return out


def example_inputs(card: ModelCard, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Graph inputs, without the budget, for ``batch`` procedural objects as a robot meets them."""
    size = card.preprocessing
    names = list(INPUTS)[: 5 if card.heads.parts else 2]
    columns: dict[str, list[np.ndarray]] = {name: [] for name in INPUTS if name != "budget"}
    for number in range(batch):
        points = shape_sighting(number, seed, size.points).points
        centers, neighborhoods = geometry.group(points, size.groups, size.neighbors)
        index, weight = geometry.interpolation(points, centers)
        for name, value in zip(columns, (centers, neighborhoods, points, index, weight), strict=True):
            columns[name].append(value)
    return {name: np.stack(columns[name]) for name in names}


def output_names(card: ModelCard) -> list[str]:
    """The outputs that a card's graph has."""
    needs = {"supertokens": card.kind == "student", "class_logits": card.heads.objects, "part_logits": card.heads.parts}
    return [name for name in OUTPUTS if needs.get(name, True)]


def convert(network: Perception, card: ModelCard) -> onnx.ModelProto:
    """The ONNX graph of a network; a student's has the scalar input ``budget`` and serves every budget of the card."""
    supertokens = card.architecture.supertokens
    if supertokens is not None and supertokens.assignment in BASELINES:
        raise InputError(f"{card.name}: assignment {supertokens.assignment} is a baseline for tables and has no graph")
    if supertokens is not None and supertokens.gate:
        raise InputError(f"{card.name}: a gate lets by as many tokens as a cloud needs; no graph can; use torch")
    outputs = output_names(card)
    examples = {name: torch.from_numpy(value) for name, value in example_inputs(card, 3).items()}
    arguments = dict(zip(("centers", "neighborhoods", "points", "index", "weight"), examples.values()))
    batch = torch.export.Dim(BATCH, min=1, max=4096)
    shapes = {name: {0: batch} for name in arguments}
    names = list(examples)
    if card.budgets and max(card.budgets) > 1:
        largest = max(card.budgets)
        arguments["slots"] = torch.arange(largest)
        shapes["slots"] = {0: torch.export.Dim("supertokens", min=1, max=largest)}
        names.append("slots")
    model = to_onnx(InferenceGraph(network, outputs).eval(), arguments, shapes, names, outputs)
    _constant_shapes(model)
    if "slots" in arguments:
        _number_to_slots(model)
    return model


def to_onnx(
    module: nn.Module, arguments: dict[str, Tensor], shapes: dict, inputs: list[str], outputs: list[str]
) -> onnx.ModelProto:
    """The graph of any module, quietly, without what the exporter notes of the source."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        path = Path(folder) / GRAPH_FILE
        torch.onnx.export(
            module,
            (),
            path,
            kwargs=arguments,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        model = onnx.load(path)
    _strip_traces(model)
    return model


def serialize(model: onnx.ModelProto, card: ModelCard, precision: str) -> bytes:
    """The file: the graph with all that is needed to run it, and to read its answers, as metadata."""
    helper.set_model_props(model, {f"foundry.{key}": value for key, value in metadata(card, precision).items()})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def metadata(card: ModelCard, precision: str) -> dict[str, str]:
    """What an exported file says of itself; all but name, kind and precision are JSON."""
    return {
        "name": card.name,
        "kind": card.kind,
        "precision": precision,
        "licence": card.licence,
        "preprocessing": card.preprocessing.model_dump_json(),
        "heads": card.heads.model_dump_json(),
        "budgets": json.dumps(card.budgets),
        "budget": json.dumps(card.budget),
    }


def _number_to_slots(model: onnx.ModelProto) -> None:
    """Replace the input ``slots`` by the scalar ``budget``, from which the graph counts."""
    graph = model.graph
    (slots,) = (value for value in graph.input if value.name == "slots")
    graph.input.remove(slots)
    graph.input.append(helper.make_tensor_value_info("budget", TensorProto.INT64, []))
    for name, value in (("budget_first", 0), ("budget_step", 1)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    graph.node.insert(0, helper.make_node("Range", ["budget_first", "budget", "budget_step"], ["slots"]))


def _constant_shapes(model: onnx.ModelProto) -> None:
    """Give every Reshape with one free size a constant shape, and remove the nodes that computed it."""
    graph = model.graph
    shapes = {}
    for value in (*graph.value_info, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        shapes[value.name] = [size.dim_value if size.HasField("dim_value") else -1 for size in sizes]
    for number, node in enumerate(graph.node):
        shape = shapes.get(node.output[0], [])
        if node.op_type == "Reshape" and shape.count(-1) == 1 and 0 not in shape:
            name = f"shape_{number}"
            graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
            node.input[1] = name
    needed = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if needed & set(node.output):
            needed.update(node.input)
        else:
            graph.node.remove(node)
    for tensor in list(graph.initializer):
        if tensor.name not in needed:
            graph.initializer.remove(tensor)


def _strip_traces(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of the source: stack traces with the paths of the machine that exported."""
    graph = model.graph
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph, model):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    if model.functions:
        raise RuntimeError("the exported graph holds functions; their traces would stay")
