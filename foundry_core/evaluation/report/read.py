# SPDX-License-Identifier: Apache-2.0
"""The JSON files that a report is made from: rows of ``evaluate`` and ``bench``, reports of ``replay`` and ``demo``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, FiniteFloat

from foundry_core.errors import InputError
from foundry_core.schema import Settings, parse

Counts = dict[str, dict[str, Annotated[int, Field(ge=0)]]]


class Metric(Settings):
    """A figure over seeds."""

    mean: FiniteFloat
    std: FiniteFloat = 0.0


class Row(Settings):
    """A row of ``foundry evaluate ... --json``; keys of its protocol alone stay in ``model_extra``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    protocol: str
    data: str
    model: str
    budget: int | None = None
    seed: int | None = None
    seeds: int = 1
    split: str | None = None
    shift: str | None = None
    severity: int | None = None
    teacher: str | None = None
    train_shapes: int | None = None
    test_shapes: int | None = None
    metrics: dict[str, Metric]
    confusion: dict[str, Counts] | None = Field(None, description="what was learned -> true -> told -> number")

    @property
    def conditions(self) -> dict[str, Any]:
        """What else tells this row from others: the protocol's own plain values, as ways and shots."""
        extra = self.model_extra or {}
        return {key: value for key, value in extra.items() if isinstance(value, (str, int)) and key != "rule"}

    @property
    def key(self) -> tuple:
        """Rows with the same key are about the same thing."""
        same = (self.protocol, self.data, self.split, self.shift, self.severity, self.model, self.budget)
        return (*same, tuple(sorted((key, str(value)) for key, value in self.conditions.items())))


class BenchRow(Settings):
    """A row of ``foundry bench --json``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    runtime: str
    precision: str
    budget: int | None
    outputs: list[str] = ["tokens"]
    threads: int = Field(ge=1)
    batch: int = Field(ge=1)
    p50_ms: FiniteFloat = Field(gt=0)
    p95_ms: FiniteFloat = Field(gt=0)
    rss_mb: FiniteFloat
    params: int
    macs: int
    load_s: FiniteFloat


class Replay(Settings):
    """``foundry replay --json``, and ``report.json`` of ``foundry demo``, which has ground truth too."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    frames_sent: int
    frames_processed: int
    frames_dropped: int
    latency_ms: dict[str, FiniteFloat | None]
    phases_ms: dict[str, FiniteFloat] = {}
    objects_per_frame: FiniteFloat | None = None
    model: str
    budget: int | None = None
    rate: FiniteFloat | None = None
    objects_true: int | None = None
    objects_matched: int | None = None
    class_accuracy: FiniteFloat | None = None
    part_miou: FiniteFloat | None = None
    confusion: Counts | None = None
    rule: str | None = None


@dataclass
class Results:
    """Everything that was read."""

    rows: list[Row] = field(default_factory=list)
    bench: list[BenchRow] = field(default_factory=list)
    replays: list[tuple[str, Replay]] = field(default_factory=list)  # file name, report
    sources: list[tuple[str, str]] = field(default_factory=list)  # file name, what it holds


def read_results(results: Iterable[Path], bench: Iterable[Path] = ()) -> Results:
    """Read and check all files.

    Raises:
        InputError: a file is missing, broken or of another kind, or two rows contradict each other; by name.
    """
    found = Results()
    seen: dict[tuple, tuple[int, Path]] = {}
    for path in results:
        values = _load(path, "foundry evaluate, replay or demo")
        if isinstance(values, dict) and "frames_sent" in values:
            found.replays.append((path.name, parse(Replay, values, path)))
            found.sources.append((path.name, f"a recording of {values['frames_sent']} frames"))
            continue
        rows = _rows(values, path)
        if any("p50_ms" in row for row in rows):
            raise InputError(f"{path}: has rows of `foundry bench`; give it to --bench")
        for number, row in enumerate(rows):
            if "protocol" not in row:
                raise InputError(f"{path}: row {number}: has no protocol; give what `foundry evaluate --json` wrote")
            _add(found.rows, seen, parse(Row, row, f"{path}: row {number}"), path)
        protocols = ", ".join(dict.fromkeys(str(row["protocol"]) for row in rows))
        found.sources.append((path.name, f"{_count(len(rows))} of {protocols}"))
    for path in bench:
        rows = _rows(_load(path, "foundry bench"), path)
        if any("metrics" in row for row in rows):
            raise InputError(f"{path}: has rows of `foundry evaluate`; give it to --results")
        found.bench += [parse(BenchRow, row, f"{path}: row {number}") for number, row in enumerate(rows)]
        found.sources.append((path.name, f"{_count(len(rows))} of the benchmark"))
    return found


def _add(rows: list[Row], seen: dict[tuple, tuple[int, Path]], row: Row, path: Path) -> None:
    """Append a row, or add its figures to the row about the same thing."""
    if row.key not in seen:
        seen[row.key] = len(rows), path
        rows.append(row)
        return
    number, first = seen[row.key]
    known = rows[number]
    for name, value in row.metrics.items():
        if known.metrics.get(name, value) != value:
            what = f"{row.protocol} of {row.model} on {row.data}"
            raise InputError(f"{path}: {what}: another {name} than in {first}; leave one of the two out")
    confusion = (known.confusion or {}) | (row.confusion or {})
    update = {"metrics": known.metrics | row.metrics, "confusion": confusion or None}
    rows[number] = known.model_copy(update=update)


def _count(rows: int) -> str:
    return f"{rows} row" + "s" * (rows != 1)


def _load(path: Path, commands: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a JSON file that {commands} wrote") from None
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{path}: not valid JSON; give a file that {commands} wrote with --json") from None


def _rows(values: Any, path: Path) -> list[dict[str, Any]]:
    if not isinstance(values, list) or not values or not all(isinstance(row, dict) for row in values):
        raise InputError(f"{path}: neither rows nor a replay; give a file that `foundry evaluate --json` wrote, say")
    return values
