# SPDX-License-Identifier: Apache-2.0
"""What the benchmark needs torch for: eager networks, architectures with random weights, and missing graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from foundry_core.architecture import (
    Architecture,
    EncoderConfig,
    ShallowTokenizerConfig,
    SupertokenConfig,
    TokenizerConfig,
)
from foundry_core.card import ModelCard, write_card
from foundry_core.export.bench_peers import merged
from foundry_core.export.graph import convert, perceive, serialize
from foundry_core.export.quantize import quantize
from foundry_core.export.rewrite import for_inference
from foundry_core.files import write_atomically
from foundry_core.models.heads import Perception
from foundry_core.models.registry import create_perception, load_model, save_model
from foundry_core.models.tokenizer import Tokenizer
from foundry_core.runtime.bench_worker import Run, Spec
from foundry_core.runtime.session import graph_files

VIT_S = Architecture(
    tokenizer=TokenizerConfig(first=128, second=256, third=512), encoder=EncoderConfig(width=384, depth=12, heads=6)
)
#: a teacher and its edge configuration, by the name that `foundry bench --architecture` takes; the latter is the
#: shipped foundry-edge of twice the width, with a third of its teacher's blocks
ARCHITECTURES: dict[str, dict[str, Architecture]] = {
    "vits": {
        "vits-teacher": VIT_S,
        "vits-edge": Architecture(
            tokenizer=ShallowTokenizerConfig(kind="shallow", directions=128, hidden=512),
            encoder=EncoderConfig(width=384, depth=4, heads=6),
            supertokens=SupertokenConfig(count=8, mlp_ratio=2.0),
        ),
    }
}


class PublishedTokenizer(nn.Module):
    """The mini-PointNet as Point-MAE and point2vec publish it: 1x1 convolutions on [B*G,C,K], the maximum repeated."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        joint = torch.cat([tokenizer.from_patch.weight, tokenizer.from_point.weight], dim=1)
        self.first = nn.Sequential(
            _convolution(tokenizer.point.weight, tokenizer.point.bias),
            tokenizer.point_norm,
            nn.ReLU(),
            _convolution(tokenizer.local.weight, tokenizer.local.bias),
        )
        self.second = nn.Sequential(
            _convolution(joint, tokenizer.from_point.bias),
            tokenizer.joint_norm,
            nn.ReLU(),
            _convolution(tokenizer.token.weight, tokenizer.token.bias),
        )

    def forward(self, neighborhoods: Tensor) -> Tensor:
        b, g, k, _ = neighborhoods.shape
        x = self.first(neighborhoods.reshape(b * g, k, 3).transpose(2, 1))  # (B*G, second, K)
        patch = x.max(dim=2, keepdim=True)[0]
        x = self.second(torch.cat([patch.expand(-1, -1, k), x], dim=1))  # (B*G, d, K)
        return x.max(dim=2)[0].reshape(b, g, -1)


def _convolution(weight: Tensor, bias: Tensor) -> nn.Conv1d:
    layer = nn.Conv1d(weight.shape[1], weight.shape[0], 1)
    with torch.no_grad():
        layer.weight.copy_(weight[:, :, None])
        layer.bias.copy_(bias)
    return layer


def open_eager(spec: Spec) -> Run:
    """The network of a configuration in eager torch, rewritten or ``torch, as published``."""
    torch.set_num_threads(spec.threads)
    torch.set_num_interop_threads(1)
    network, _ = load_model(spec.directory)
    tokenizer = network.backbone.tokenizer
    budget = spec.budget
    if spec.peer == "tome":
        network, budget = merged(network, spec.budget), None
    if spec.runtime == "torch":
        network = for_inference(network)
    else:
        holder = network.backbone.teacher if spec.peer == "tome" else network.backbone
        if isinstance(tokenizer, Tokenizer):
            holder.tokenizer = PublishedTokenizer(tokenizer)
    network.eval()
    if "class_logits" not in spec.outputs:
        network.objects = None
    if "part_logits" not in spec.outputs:
        network.parts = None

    def run(inputs: Mapping[str, np.ndarray]) -> None:
        with torch.inference_mode():
            perceive(network, [torch.from_numpy(value) for value in inputs.values()], budget)

    return run


def write_random(architecture: Architecture, name: str, directory: Path, precisions: list[str]) -> ModelCard:
    """A model directory with random weights and its graphs: what it costs does not depend on the weights."""
    student = architecture.supertokens
    card = ModelCard(
        name=name,
        kind="student" if student else "teacher",
        architecture=architecture,
        budgets=[student.count] if student else [],
    )
    torch.manual_seed(0)
    network = create_perception(card).eval()
    card = save_model(directory, network, card)
    write_graphs(network, card, directory, precisions, every=True)
    return write_card(directory, card)


def write_graphs(network: Perception, card: ModelCard, out: Path, precisions: list[str], every: bool = False) -> None:
    """Write the graphs of a network to ``out``, unverified: they are only timed; ``every``: as of :func:`quantize`."""
    model = convert(network, card)
    for precision in precisions:
        if precision != "bf16":
            (name,) = graph_files("onnxruntime", precision)
            graph = quantize(model, card, every=every) if precision == "int8" else model
            write_atomically(out / name, serialize(graph, card, precision))


def add_graphs(directory: Path, out: Path, precisions: list[str], groups: int | None = None) -> None:
    """Write the graphs of a model to ``out`` beside a copy of its card, cutting clouds into ``groups`` if given."""
    network, card = load_model(directory)
    if groups is not None:
        size = card.preprocessing.model_copy(update={"groups": groups})
        card = card.model_copy(update={"preprocessing": size})
    out.mkdir(parents=True, exist_ok=True)
    write_graphs(network, card, out, precisions)
    for name in card.files:
        if name.endswith(".safetensors") and not (out / name).exists():
            write_atomically(out / name, (directory / name).read_bytes())
    write_card(out, card)
