# SPDX-License-Identifier: Apache-2.0
"""`foundry export`: write a graph of a model directory, verified against torch first."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from foundry_core.card import (
    CARD_FILE,
    GRAPH_FILE,
    WEIGHTS_FILE,
    ModelCard,
    check_files,
    find_model,
    load_card,
    sha256,
    write_card,
)
from foundry_core.errors import InputError
from foundry_core.export.graph import convert, serialize
from foundry_core.export.quantize import quantize
from foundry_core.export.verify import accuracy_drop, agreement, read_split
from foundry_core.files import require_writable
from foundry_core.models.registry import load_model
from foundry_core.runtime.openvino_session import require_openvino
from foundry_core.runtime.session import Precision, graph_files, open_session

Format = Literal["onnx", "openvino"]
RUNTIME = {"onnx": "onnxruntime", "openvino": "openvino"}
TOLERANCE = 1e-4
MIN_COSINE = 0.999
MAX_DROP = 0.5  # points of probe accuracy


@dataclass
class Export:
    """What was written and how well it agrees with torch.

    Attributes:
        files: the graph, and for OpenVINO its weights.
        differences: fp32: for each output the largest absolute difference to torch over all budgets.
        cosine: mean cosine between the token features and those of torch, at the worst budget.
        drop: points of probe accuracy lost on the shape set of ``check``; None where none was given.
    """

    files: list[Path]
    differences: dict[str, float] = field(default_factory=dict)
    cosine: float = 1.0
    drop: float | None = None


def export_graph(name_or_path: str | Path) -> tuple[Path, dict[str, float]]:
    """Write ``model.onnx`` into a model directory and enter it in the card; its path and differences to torch."""
    export = export_model(name_or_path)
    return export.files[0], export.differences


def export_model(
    name_or_path: str | Path,
    format: Format = "onnx",
    precision: Precision = "fp32",
    out: str | Path | None = None,
    check: str | Path | None = None,
) -> Export:
    """Write one graph of a model.

    Args:
        out: model directory to write to, made where it is missing; by default the model's own. Several formats and
            precisions of one model can share it.
        check: shape set on which a linear probe may not lose more than :data:`MAX_DROP` points.

    Raises:
        InputError: the graph does not agree with torch as well as its precision must, or a runtime is missing;
            nothing is written then. A missing runtime, a bad shape set or an ``out`` that cannot be written is found
            before any work.
    """
    names = graph_files(RUNTIME[format], precision)
    if format == "openvino":
        require_openvino()
    split = None if check is None else read_split(check)
    directory = find_model(name_or_path)
    network, card = load_model(directory)
    target = directory if out is None else Path(out)
    card_there = _card_there(target, card, sha256(directory / WEIGHTS_FILE), written(names[0]))
    require_writable(target / CARD_FILE, "--out")
    model = convert(network, card)
    if precision == "int8":
        model = quantize(model, card)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder)
        files = write_graph(draft, format, precision, serialize(model, card, precision), card, names[0])
        session = open_session(draft, RUNTIME[format], precision)
        differences, cosine = agreement(session, network, card)
        if reason := disagreement(precision, differences, cosine):
            raise InputError(f"{directory}: {reason}")
        drop = None if check is None else accuracy_drop(session, network, card, split)
        if reason := loss(precision, drop):
            raise InputError(f"{check}: {reason}")
        write_card(target, card_there, {name: (draft / name).read_bytes() for name in files})
    return Export([target / name for name in files], differences, cosine, drop)


def disagreement(precision: Precision, differences: dict[str, float], cosine: float) -> str:
    """Why a form that differs so from torch is refused; empty where it is not."""
    worst = max(differences.values())
    if precision == "fp32" and worst > TOLERANCE:
        return f"the exported graph differs from torch by {worst:.1e}; report this model"
    if cosine < MIN_COSINE:
        return f"{precision}: token cosine to torch {cosine:.5f}, below {MIN_COSINE}; take fp32"
    return ""


def loss(precision: Precision, drop: float | None) -> str:
    """Why a form that loses so many points of probe accuracy is refused; empty where it is not."""
    if drop is None or drop <= MAX_DROP:
        return ""
    return f"{precision}: probe accuracy drops by {drop:.2f} points, above {MAX_DROP}"


def _card_there(target: Path, card: ModelCard, weights: str, replaced: list[str]) -> ModelCard:
    """The card that ``target`` will have: the model's own, with the files there that are not going to be replaced.

    A card already there must equal it but for its files and be of the same weights (SHA-256), and files that stay must
    be whole.
    """
    kept: dict[str, str] = {}
    if (target / CARD_FILE).is_file():
        there = load_card(target, verify=False)
        plain = {"files": {}, "weights_sha256": ""}
        same = there.model_copy(update=plain) == card.model_copy(update=plain)
        if not same or (there.files.get(WEIGHTS_FILE) or there.weights_sha256) != weights:
            what = f"other weights of {there.name}" if same else f"another model, {there.name}"
            raise InputError(f"{target}: holds {what}; give another --out")
        kept = {name: digest for name, digest in there.files.items() if name not in replaced}
        check_files(target, kept)
    elif target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: is no model directory and not empty; give another --out")
    return card.model_copy(update={"files": kept, "weights_sha256": "" if WEIGHTS_FILE in kept else weights})


def written(name: str) -> list[str]:
    """The files of a graph of this name: OpenVINO's weights are in one of their own."""
    return [name, str(Path(name).with_suffix(".bin"))] if name.endswith(".xml") else [name]


def write_graph(
    draft: Path, format: Format, precision: Precision, data: bytes, card: ModelCard, name: str
) -> list[str]:
    """Write a serialized ONNX graph in its format to the folder ``draft`` as ``name``; the names of the files."""
    if format == "onnx":
        (draft / name).write_bytes(data)
        return written(name)
    from foundry_core.export.to_openvino import write_openvino

    source = draft / f"source.{GRAPH_FILE}"
    source.write_bytes(data)
    write_openvino(source, draft / name, card, precision)
    source.unlink()
    return written(name)
