# SPDX-License-Identifier: Apache-2.0
"""Every form of a model against torch, in a folder that is thrown away: what may be exported, and what is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_core.card import find_model
from foundry_core.data.shapes import data_name
from foundry_core.errors import InputError
from foundry_core.export.graph import convert, serialize
from foundry_core.export.quantize import quantize
from foundry_core.export.verify import Probes, agreement, read_split
from foundry_core.export.write import RUNTIME, disagreement, loss, write_graph
from foundry_core.models.registry import load_model
from foundry_core.runtime.session import PRECISIONS, graph_files, open_session

if TYPE_CHECKING:
    from foundry_core.evaluation.probe import Split


def round_trips(
    models: Sequence[str | Path],
    check: str | Path | None = None,
    precisions: Sequence[str] = PRECISIONS,
    advance: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """A row for each model, format and precision.

    Args:
        check: labelled shape set for the probe accuracy; None: it is not measured.
        advance: called after every row.

    Returns:
        rows {model, format, precision, status ("ok" or "refused"), reason, max_difference (over all outputs and
        budgets), token_cosine (at the worst budget), accuracy_torch, accuracy, drop (percent, points; at the default
        budget), data, megabytes}; what was not measured is None.
    """
    split = None if check is None else read_split(check)
    rows = []
    for name in models:
        for row in _of_model(name, split, precisions):
            rows.append(row)
            advance()
    return rows


def _of_model(name: str | Path, split: Split | None, precisions: Sequence[str]) -> Iterator[dict[str, Any]]:
    network, card = load_model(find_model(name))
    graph = convert(network, card)
    graphs = {"int8": quantize(graph, card)} if "int8" in precisions else {}
    probes = None if split is None else Probes(network, card, split)
    for format in RUNTIME:
        for precision in precisions:
            row = dict.fromkeys(
                ("max_difference", "token_cosine", "accuracy_torch", "accuracy", "drop", "data", "megabytes")
            )
            row = {"model": card.name, "format": format, "precision": precision, "status": "ok", "reason": ""} | row
            try:
                with tempfile.TemporaryDirectory() as folder:
                    data = serialize(graphs.get(precision, graph), card, precision)
                    _measure(row, Path(folder), data, (network, card), probes)
            except InputError as error:
                row["reason"] = str(error)
            if split is not None and row["accuracy"] is not None:
                row["data"] = data_name(split.test.name)
            row["status"] = "refused" if row["reason"] else "ok"
            yield row


def _measure(row: dict[str, Any], folder: Path, data: bytes, model, probes: Probes | None) -> None:
    network, card = model
    format, precision = row["format"], row["precision"]
    names = graph_files(RUNTIME[format], precision)
    files = write_graph(folder, format, precision, data, card, names[0])
    row["megabytes"] = round(sum((folder / name).stat().st_size for name in files) / 1e6, 2)
    session = open_session(folder, RUNTIME[format], precision)
    differences, cosine = agreement(session, network, card)
    row["max_difference"], row["token_cosine"] = max(differences.values()), cosine
    if probes is not None:
        accuracy = probes.of(session)
        row["accuracy_torch"], row["accuracy"] = round(probes.accuracy, 2), round(accuracy, 2)
        row["drop"] = round(probes.accuracy - accuracy, 2)
    row["reason"] = disagreement(precision, differences, cosine) or loss(precision, row["drop"])
