# SPDX-License-Identifier: Apache-2.0
"""Peers of the benchmark that need torch: token merging on a teacher, and a PointNet-class specialist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from foundry_core.card import GRAPH_FILE, Heads, ModelCard, load_card
from foundry_core.errors import InputError
from foundry_core.export.graph import BATCH, to_onnx
from foundry_core.export.quantize import quantize_graph
from foundry_core.files import write_atomically
from foundry_core.models.merging import Merged
from foundry_core.models.registry import load_model, save_model
from foundry_core.runtime.bench_pointnet import HEAD, POINTS, SHARED
from foundry_core.runtime.bench_worker import Run, Spec, clouds
from foundry_core.runtime.session import graph_files


def write_merged(teacher: Path, name: str, supertokens: int, directory: Path, precisions: list[str]) -> ModelCard:
    """A model directory of a teacher without heads, whose graphs merge its tokens to ``supertokens``.

    Its weights are the teacher's own, so that eager torch can be opened from it too.
    """
    from foundry_core.export.bench_torch import write_graphs

    network, card = load_model(teacher)
    if card.kind != "teacher":
        raise InputError(f"{name}: {card.name} is a student; ToMe merges the tokens of a teacher, name one")
    network.objects = network.parts = None
    directory.mkdir(parents=True, exist_ok=True)
    card = save_model(directory, network, card.model_copy(update={"name": name, "heads": Heads()}))
    write_graphs(merged(network, supertokens), card, directory, precisions, every=True)
    return load_card(directory)


def merged(network, supertokens: int):
    """The network with its tokens merged to ``supertokens``."""
    network.backbone = Merged(network.backbone, "tome", supertokens).eval()
    return network


class PointNet(nn.Module):
    """points [B,N,3] to logits [B,C], as published: 1x1 convolutions and linear layers, each with its batch norm."""

    def __init__(self):
        super().__init__()
        shared: list[nn.Module] = []
        for a, b in zip(SHARED, SHARED[1:], strict=False):
            shared += [nn.Conv1d(a, b, 1), nn.BatchNorm1d(b), nn.ReLU()]
        head: list[nn.Module] = []
        for a, b in zip(HEAD, HEAD[1:], strict=False):
            head += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
        self.shared, self.head = nn.Sequential(*shared), nn.Sequential(*head[:-2])

    def forward(self, points: Tensor) -> Tensor:
        return self.head(self.shared(points.transpose(1, 2)).amax(dim=2))


class FusedPointNet(nn.Module):
    """The same in evaluation mode: batch norms folded, one row per point; a maximum commutes with ReLU and bias."""

    def __init__(self, network: PointNet):
        super().__init__()
        self.shared, self.head = nn.ModuleList(_folded(network.shared)), nn.ModuleList(_folded(network.head))

    def forward(self, points: Tensor) -> Tensor:
        b, n, _ = points.shape
        x = points.reshape(b * n, 3)
        for layer in self.shared[:-1]:
            x = torch.relu(layer(x))
        last = self.shared[-1]
        x = (x @ last.weight.T).view(b, n, -1).amax(dim=1) + last.bias
        for layer in self.head:
            x = layer(torch.relu(x))
        return x


def _folded(layers: nn.Sequential) -> Iterator[nn.Linear]:
    modules = list(layers)
    for number, layer in enumerate(modules):
        if not isinstance(layer, (nn.Conv1d, nn.Linear)):
            continue
        weight, bias = layer.weight.flatten(1), layer.bias
        norm = modules[number + 1] if number + 1 < len(modules) else None
        if norm is not None:
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            weight, bias = scale[:, None] * weight, scale * (bias - norm.running_mean) + norm.bias
        folded = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            folded.weight.copy_(weight)
            folded.bias.copy_(bias)
        yield folded.requires_grad_(False)


def create_pointnet() -> PointNet:
    """With random weights, the same each time."""
    torch.manual_seed(0)
    return PointNet().eval()


def write_pointnet(directory: Path, precisions: list[str]) -> None:
    """Write the graphs."""
    directory.mkdir(parents=True, exist_ok=True)
    network = FusedPointNet(create_pointnet()).eval()
    batch = torch.export.Dim(BATCH, min=1, max=4096)
    model = to_onnx(
        network, {"points": torch.zeros(2, POINTS, 3)}, {"points": {0: batch}}, ["points"], ["class_logits"]
    )
    write_atomically(directory / GRAPH_FILE, model.SerializeToString())
    if "int8" in precisions:
        batches = [{"points": np.stack(clouds(4, POINTS, seed))} for seed in range(8)]
        (name,) = graph_files("onnxruntime", "int8")
        write_atomically(directory / name, quantize_graph(model, batches).SerializeToString())


def open_pointnet(spec: Spec) -> Run:
    """The network in eager torch, rewritten or ``torch, as published``."""
    torch.set_num_threads(spec.threads)
    torch.set_num_interop_threads(1)
    network = create_pointnet()
    if spec.runtime == "torch":
        network = FusedPointNet(network).eval()

    def run(inputs: Mapping[str, np.ndarray]) -> None:
        with torch.inference_mode():
            network(torch.from_numpy(inputs["points"]))

    return run
