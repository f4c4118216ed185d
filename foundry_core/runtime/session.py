# SPDX-License-Identifier: Apache-2.0
"""Exported graphs in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from foundry_core.card import GRAPH_FILE, ModelCard
from foundry_core.errors import InputError

#: graph input -> numpy type and shape; a letter is a size that the card sets, B is the batch
INPUTS: dict[str, tuple[type, tuple]] = {
    "centers": (np.float32, ("B", "G", 3)),
    "neighborhoods": (np.float32, ("B", "G", "K", 3)),
    "points": (np.float32, ("B", "N", 3)),
    "interpolation_index": (np.int64, ("B", "N", 3)),
    "interpolation_weight": (np.float32, ("B", "N", 3)),
}
OUTPUTS: dict[str, tuple] = {
    "tokens": ("B", "G", "d"),
    "supertokens": ("B", "s", "d"),
    "class_logits": ("B", "C"),
    "part_logits": ("B", "N", "P"),
}
_TYPES = {np.float32: "tensor(float)", np.int64: "tensor(int64)"}


class OnnxSession:
    """``model.onnx`` of a model directory on the CPU, with exactly ``threads`` threads, which do not spin between runs.

    Attributes:
        inputs, outputs: names, in the graph's order.

    Raises:
        InputError: the graph is missing, damaged, or not one of this project's.
    """

    def __init__(self, directory: str | Path, threads: int = 1) -> None:
        self.path = Path(directory) / GRAPH_FILE
        if not self.path.is_file():
            raise InputError(f"{self.path}: missing; export it with `foundry export` or restore the model directory")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen exception classes without a common base
            reason = (str(error).splitlines() or [error.__class__.__name__])[0][:200]
            raise InputError(f"{self.path}: not a usable ONNX graph ({reason}); export the model again") from None
        self.inputs = [node.name for node in self._session.get_inputs()]
        self.outputs = [node.name for node in self._session.get_outputs()]
        self._check_signature()

    def _refuse(self, reason: str) -> None:
        raise InputError(f"{self.path}: {reason}; export the model again")

    def _check_signature(self) -> None:
        for needed, found, known in (
            ({"centers", "neighborhoods"}, self.inputs, INPUTS),
            ({"tokens"}, self.outputs, OUTPUTS),
        ):
            if missing := sorted(needed - set(found)):
                self._refuse(f"the graph lacks {', '.join(missing)}")
            if strange := sorted(set(found) - set(known)):
                self._refuse(f"the graph has {', '.join(strange)}, which this version does not know")
        for node in self._session.get_inputs():
            kind, shape = INPUTS[node.name]
            if node.type != _TYPES[kind] or len(node.shape) != len(shape):
                self._refuse(f"input {node.name} is {node.type} {node.shape}, expected {_TYPES[kind]} {list(shape)}")

    def check(self, card: ModelCard) -> None:
        """Compare the graph with the card of its directory.

        Raises:
            InputError: the card does not seal the graph, an output of a head is missing, or a fixed size differs.
        """
        if GRAPH_FILE not in card.files:
            self._refuse("the card has no SHA-256 of it")
        size, heads = card.preprocessing, card.heads
        sizes = {"G": size.groups, "K": size.neighbors, "N": size.points}
        wanted = {"tokens"}
        if heads.objects:
            wanted.add("class_logits")
            sizes["C"] = len(heads.objects.classes)
        if heads.parts:
            wanted.add("part_logits")
            sizes["P"] = len(heads.parts.parts)
        if missing := sorted(wanted - set(self.outputs)):
            self._refuse(f"the card has heads whose output {', '.join(missing)} the graph lacks")
        shapes = {name: shape for name, (_, shape) in INPUTS.items()} | OUTPUTS
        for node in [*self._session.get_inputs(), *self._session.get_outputs()]:
            for found, letter in zip(node.shape, shapes[node.name], strict=False):
                expected = sizes.get(letter, letter)
                if isinstance(found, int) and isinstance(expected, int) and found != expected:
                    self._refuse(f"{node.name} has shape {node.shape}, the card asks for {letter} = {expected}")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs for a batch; inputs that the graph does not take are ignored."""
        values = self._session.run(self.outputs, {name: inputs[name] for name in self.inputs})
        return dict(zip(self.outputs, values, strict=True))
