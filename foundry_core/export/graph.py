# SPDX-License-Identifier: Apache-2.0
"""torch -> ONNX: one graph with all outputs of a model directory, verified against torch before it is called done."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from foundry_core import geometry
from foundry_core.card import GRAPH_FILE, ModelCard, find_model, write_card
from foundry_core.data.compositions import compose
from foundry_core.errors import InputError
from foundry_core.export.rewrite import for_inference
from foundry_core.files import write_atomically
from foundry_core.models.heads import Perception
from foundry_core.models.registry import load_model
from foundry_core.runtime.session import INPUTS, OUTPUTS

TOLERANCE = 1e-4


class _Graph(nn.Module):
    """The network with the fixed order of outputs that the graph has."""

    def __init__(self, network: Perception, outputs: list[str]):
        super().__init__()
        self.network, self.outputs = network, outputs

    def forward(self, centers, neighborhoods, points=None, interpolation_index=None, interpolation_weight=None):
        out = self.network(centers, neighborhoods, points, interpolation_index, interpolation_weight)
        return tuple(out[name] for name in self.outputs)


def example_inputs(card: ModelCard, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Graph inputs for ``batch`` procedural compositions."""
    size = card.preprocessing
    names = list(INPUTS) if card.heads.parts else list(INPUTS)[:2]
    columns: dict[str, list[np.ndarray]] = {name: [] for name in INPUTS}
    for number in range(batch):
        points, _ = geometry.prepare(compose(2 * size.points, np.random.default_rng([seed, number])), size.points)
        centers, neighborhoods = geometry.group(points, size.groups, size.neighbors)
        index, weight = geometry.interpolation(points, centers)
        for name, value in zip(INPUTS, (centers, neighborhoods, points, index, weight), strict=True):
            columns[name].append(value)
    return {name: np.stack(columns[name]) for name in names}


def export_graph(name_or_path: str | Path) -> tuple[Path, dict[str, float]]:
    """Write ``model.onnx`` into a model directory and enter it in the card.

    Returns:
        path of the graph, and for each output the largest absolute difference to torch on unseen clouds.

    Raises:
        InputError: an output differs from torch by more than :data:`TOLERANCE`; nothing is written then.
    """
    directory = find_model(name_or_path)
    network, card = load_model(directory)
    outputs = [name for name in OUTPUTS if _has(card, name)]
    examples = {name: torch.from_numpy(value) for name, value in example_inputs(card, 3).items()}
    data = _convert(_Graph(for_inference(network), outputs), examples, outputs, card)
    differences = _verify(data, network, card, outputs)
    worst = max(differences.values())
    if worst > TOLERANCE:
        raise InputError(f"{directory}: the exported graph differs from torch by {worst:.1e}; report this model")
    write_atomically(directory / GRAPH_FILE, data)
    write_card(directory, card)
    return directory / GRAPH_FILE, differences


def _has(card: ModelCard, output: str) -> bool:
    needs = {"supertokens": card.kind == "student", "class_logits": card.heads.objects, "part_logits": card.heads.parts}
    return bool(needs.get(output, True))


def _convert(graph: nn.Module, examples: dict[str, Tensor], outputs: list[str], card: ModelCard) -> bytes:
    batch = torch.export.Dim("batch", min=1, max=4096)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        path = Path(folder) / GRAPH_FILE
        torch.onnx.export(
            graph.eval(),
            tuple(examples.values()),
            path,
            input_names=list(examples),
            output_names=outputs,
            dynamic_shapes=tuple({0: batch} for _ in examples),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        model = onnx.load(path)
    metadata = {
        "foundry.name": card.name,
        "foundry.kind": card.kind,
        "foundry.preprocessing": card.preprocessing.model_dump_json(),
        "foundry.heads": card.heads.model_dump_json(),
    }
    _strip_traces(model)
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _strip_traces(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of the source: stack traces with the paths of the machine that exported."""
    graph = model.graph
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph, model):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    if model.functions:
        raise RuntimeError("the exported graph holds functions; their traces would stay")


def _verify(data: bytes, network: Perception, card: ModelCard, outputs: list[str]) -> dict[str, float]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    inputs = example_inputs(card, 5, seed=1)
    given = dict(zip(outputs, session.run(outputs, inputs), strict=True))
    with torch.no_grad():
        expected = network(*(torch.from_numpy(value) for value in inputs.values()))
    return {name: float(np.abs(given[name] - expected[name].numpy()).max()) for name in outputs}
