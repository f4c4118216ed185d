# SPDX-License-Identifier: Apache-2.0
"""Models by name or path: the card decides the network, safetensors the weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import nn

from foundry_core.architecture import Architecture
from foundry_core.card import WEIGHTS_FILE, ModelCard, find_model, graphs_in, load_card, write_card
from foundry_core.errors import InputError
from foundry_core.models.heads import Perception
from foundry_core.models.student import Student
from foundry_core.models.teacher import Teacher


def create_model(architecture: Architecture) -> nn.Module:
    """A freshly initialised teacher or student."""
    return Student(architecture) if architecture.supertokens else Teacher(architecture)


def create_perception(card: ModelCard) -> Perception:
    """The network of a card, its heads included, with random weights."""
    objects, parts = card.heads.objects, card.heads.parts
    return Perception(
        create_model(card.architecture),
        card.architecture.token_width,
        classes=len(objects.classes) if objects else 0,
        parts=len(parts.parts) if parts else 0,
        part_hidden=parts.hidden if parts else 0,
    )


def load_model(name_or_path: str | Path) -> tuple[Perception, ModelCard]:
    """A shipped model by name, or any model directory by path: the network in evaluation mode, and its card.

    ``network.backbone`` is the teacher or the student alone.

    Raises:
        InputError: unknown name, damaged directory, or weights that do not fit the card, by name.
    """
    directory = find_model(name_or_path)
    card = load_card(directory)
    network = create_perception(card)
    path = directory / WEIGHTS_FILE
    try:
        weights = load_file(path)
    except FileNotFoundError:
        if graphs := graphs_in(directory):
            holds = f"the directory holds exported graphs alone ({', '.join(graphs)})"
            raise InputError(f"{path}: missing; {holds}; give the one that they were exported from") from None
        raise InputError(f"{path}: missing; restore the model directory") from None
    except Exception as error:  # safetensors has an exception type of its own for torn files
        raise InputError(f"{path}: not readable as safetensors ({error}); restore the model directory") from None
    expected = network.state_dict()
    for key in expected.keys() ^ weights.keys():
        raise InputError(
            f"{path}: {'missing' if key in expected else 'unknown'} tensor '{key}'; it does not fit the card"
        )
    for key, value in expected.items():
        if weights[key].shape != value.shape:
            shape = tuple(weights[key].shape)
            raise InputError(f"{path}: tensor '{key}' is {shape}, the card asks for {tuple(value.shape)}")
    network.load_state_dict(weights)
    return network.eval(), card


def save_model(directory: str | Path, network: Perception, card: ModelCard) -> ModelCard:
    """Write ``model.safetensors`` and ``card.json``; graphs exported from earlier weights are removed."""
    directory = Path(directory)
    state = {key: value.detach().contiguous() for key, value in network.state_dict().items()}
    count = sum(parameter.numel() for parameter in network.parameters())
    card = card.model_copy(update={"parameters": count, "files": {}, "weights_sha256": ""})
    card = write_card(directory, card, {WEIGHTS_FILE: save(state)})
    for suffix in (".onnx", ".xml", ".bin"):
        for graph in directory.glob(f"model*{suffix}"):
            graph.unlink()
    return card


def random_teacher(card: ModelCard, seed: int) -> Teacher:
    """The floor of every table: the card's teacher with random weights, in training mode until it is calibrated."""
    torch.manual_seed(seed)
    return Teacher(card.architecture)
