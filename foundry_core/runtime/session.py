# SPDX-License-Identifier: Apache-2.0
"""Exported graphs in onnxruntime or OpenVINO, behind one interface."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from foundry_core.card import GRAPH_FILE, WEIGHTS_FILE, ModelCard, graphs_in
from foundry_core.errors import InputError
from foundry_core.runtime.graph_file import GraphFile

Runtime = Literal["onnxruntime", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]
RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")

#: graph input -> numpy type and shape; a letter is a size that the card sets, B is the batch
INPUTS: dict[str, tuple[type, tuple]] = {
    "centers": (np.float32, ("B", "G", 3)),
    "neighborhoods": (np.float32, ("B", "G", "K", 3)),
    "points": (np.float32, ("B", "N", 3)),
    "interpolation_index": (np.int64, ("B", "N", 3)),
    "interpolation_weight": (np.float32, ("B", "N", 3)),
    "budget": (np.int64, ()),
}
OUTPUTS: dict[str, tuple] = {
    "tokens": ("B", "G", "d"),
    "supertokens": ("B", "s", "d"),
    "class_logits": ("B", "C"),
    "part_logits": ("B", "N", "P"),
}


def graph_files(runtime: Runtime, precision: Precision) -> tuple[str, ...]:
    """Names of the files in a model directory that can be run so, the preferred one first.

    Raises:
        InputError: onnxruntime has no bfloat16 on a CPU.
    """
    if runtime == "onnxruntime" and precision == "bf16":
        raise InputError("bf16: onnxruntime has no bfloat16 kernels on a CPU; take openvino, or fp32 or int8")
    onnx = "model.int8.onnx" if precision == "int8" else GRAPH_FILE
    if runtime == "onnxruntime":
        return (onnx,)
    return (f"model.{precision}.xml", onnx)  # OpenVINO reads ONNX files too, and takes bfloat16 when it compiles


class Session(ABC):
    """An exported graph on the CPU with exactly ``threads`` threads.

    Attributes:
        path: the graph's file.
        inputs, outputs: names, in the graph's order; ``budget`` is none of the inputs here.
        budgets: supertoken counts that the graph runs with, empty for a teacher; budget: the one used by default.

    Raises:
        InputError: the graph is missing, damaged, or not one of this project's.
    """

    runtime: Runtime

    def __init__(
        self, path: Path, inputs: list[str], outputs: list[str], budgets: tuple[list[int], int | None], sizes: dict
    ) -> None:
        self.path, self.outputs = path, outputs
        fixed = sizes["supertokens"][1][1:2] if "supertokens" in sizes and "budget" not in inputs else ()
        self.budgets = [size for size in fixed if isinstance(size, int)] or budgets[0]
        self.budget = budgets[1] if budgets[1] in self.budgets else max(self.budgets, default=None)
        self.inputs = [name for name in inputs if name != "budget"]
        self._takes_budget = "budget" in inputs
        self._sizes = sizes
        for needed, found, known in (
            ({"centers", "neighborhoods"}, inputs, INPUTS),
            ({"tokens"}, outputs, OUTPUTS),
        ):
            if missing := sorted(needed - set(found)):
                self._refuse(f"the graph lacks {', '.join(missing)}")
            if strange := sorted(set(found) - set(known)):
                self._refuse(f"the graph has {', '.join(strange)}, which this version does not know")
        for name in inputs:
            kind, shape = INPUTS[name]
            given, found = sizes[name]
            if given != np.dtype(kind).name or len(found) != len(shape):
                expected = f"{np.dtype(kind).name} {list(shape)}"
                self._refuse(f"input {name} is {given} {list(found)}, expected {expected}")
        if self._takes_budget and not self.budgets:
            self._refuse("its metadata does not say which budgets it has")

    def _refuse(self, reason: str) -> None:
        raise InputError(f"{self.path}: {reason}; export the model again")

    def check(self, card: ModelCard) -> None:
        """Compare the graph with the card of its directory.

        Raises:
            InputError: the card does not seal the graph, an output of a head is missing, or a fixed size differs.
        """
        if self.path.name not in card.files:
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
        for name in (*self.inputs, *self.outputs):
            found = self._sizes[name][1]
            for value, letter in zip(found, shapes[name], strict=False):
                expected = sizes.get(letter, letter)
                if isinstance(value, int) and isinstance(expected, int) and value != expected:
                    self._refuse(f"{name} has shape {list(found)}, the card asks for {letter} = {expected}")
        if missing := sorted(set(card.budgets) - set(self.budgets)) if self._takes_budget else []:
            self._refuse(f"the card has the budget {missing[0]}, which the graph lacks")

    def _choose(self, outputs: Iterable[str] | None, budget: int | None) -> tuple[tuple[str, ...], int | None]:
        """Outputs in the graph's order, and the budget to feed; None for a graph that has no such input."""
        asked = set(self.outputs if outputs is None else outputs)
        if missing := sorted(asked - set(self.outputs)):
            self._refuse(f"the graph lacks {', '.join(missing)}")
        chosen = tuple(name for name in self.outputs if name in asked)
        budget = self.budget if budget is None else budget
        if budget is not None and budget not in self.budgets:
            listed = f"{', '.join(map(str, self.budgets)) or 'no'} supertokens"
            raise InputError(f"{self.path}: budget {budget}: the graph runs with {listed}; export the model again")
        return chosen, budget if self._takes_budget else None

    @abstractmethod
    def run(
        self, inputs: Mapping[str, np.ndarray], outputs: Iterable[str] | None = None, budget: int | None = None
    ) -> dict[str, np.ndarray]:
        """Answers for a batch; several threads may ask at the same time.

        Args:
            inputs: arrays by name; those that the outputs do not need may be absent.
            outputs: only these are computed; all by default. Each set is compiled when it is first asked for.
            budget: supertokens of a student, one of :attr:`budgets`; by default the model's own choice.
        """


def session_options(threads: int) -> Any:
    """How onnxruntime runs a graph: on so many threads, which do not spin between runs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


class OnnxSession(Session):
    """A graph in onnxruntime; its threads do not spin between runs. One compiled graph serves all budgets."""

    runtime: Runtime = "onnxruntime"

    def __init__(
        self,
        directory: str | Path,
        threads: int = 1,
        precision: Precision = "fp32",
        outputs: Iterable[str] | None = None,
    ) -> None:
        path = find_graph(directory, "onnxruntime", precision)
        file = GraphFile(path)
        budgets = file.value("budgets") or [], file.value("budget")
        super().__init__(path, file.inputs, file.outputs, budgets, file.signature)
        self._options = session_options(threads)
        self._compiled: dict[tuple[str, ...], Any] = {}
        chosen = self._choose(outputs, None)[0]
        model = file.cut(chosen)
        del file  # as large as the model
        self._compile(chosen, model)

    def _compile(self, outputs: tuple[str, ...], model: bytes) -> Any:
        import onnxruntime

        try:
            session = onnxruntime.InferenceSession(model, self._options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen exception classes without a common base
            reason = (str(error).splitlines() or [error.__class__.__name__])[0][:200]
            self._refuse(f"not a usable ONNX graph ({reason})")
        session._model_bytes = None  # its Python side would keep them for a change of providers
        self._compiled[outputs] = session
        return session

    def run(
        self, inputs: Mapping[str, np.ndarray], outputs: Iterable[str] | None = None, budget: int | None = None
    ) -> dict[str, np.ndarray]:
        chosen, budget = self._choose(outputs, budget)
        session = self._compiled.get(chosen) or self._compile(chosen, GraphFile(self.path).cut(chosen))
        given = dict(inputs) if budget is None else {**inputs, "budget": np.array(budget, np.int64)}
        values = session.run(list(chosen), {node.name: given[node.name] for node in session.get_inputs()})
        return dict(zip(chosen, values, strict=True))


def check_budget(card: ModelCard, budget: int | None, where: str = "budget:") -> None:
    """Raise InputError unless the model runs with ``budget`` supertokens (None: its own number)."""
    if budget is None or budget in card.budgets:
        return
    if not card.budgets:
        raise InputError(f"{where} {budget}: {card.name} is a teacher and has no supertokens; leave it out")
    known = ", ".join(map(str, card.budgets))
    raise InputError(f"{where} {budget}: {card.name} runs with {known} supertokens; give one of these")


def find_graph(directory: str | Path, runtime: Runtime, precision: Precision) -> Path:
    """The graph of a model directory for a runtime and precision.

    Raises:
        InputError: there is none.
    """
    names = graph_files(runtime, precision)
    for name in names:
        if (Path(directory) / name).is_file():
            return Path(directory) / name
    holds = ", ".join(graphs_in(directory)) or "no graph"
    model = shlex.quote(str(directory))
    if not (Path(directory) / WEIGHTS_FILE).is_file():
        holds, model = f"{holds}, and no weights: MODEL is one with {WEIGHTS_FILE}", "MODEL"
    form = f"--format openvino --precision {precision}" if runtime == "openvino" else f"--precision {precision}"
    raise InputError(
        f"{Path(directory) / names[0]}: missing; export it with `foundry export --model {model} {form} --out DIR` and "
        f"give that DIR; the directory holds {holds}"
    )


def open_session(
    directory: str | Path,
    runtime: Runtime = "onnxruntime",
    precision: Precision = "fp32",
    threads: int = 1,
    outputs: Iterable[str] | None = None,
) -> Session:
    """The graph of a model directory, compiled for these outputs (all by default) and ready to run.

    Raises:
        InputError: no such graph, one that is not usable, or a runtime that is not installed.
    """
    if runtime == "openvino":
        from foundry_core.runtime.openvino_session import OpenVinoSession

        return OpenVinoSession(directory, threads, precision, outputs)
    return OnnxSession(directory, threads, precision, outputs)
