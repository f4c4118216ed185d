# SPDX-License-Identifier: Apache-2.0
"""Which charts a report has: accuracy against latency, and fidelity against the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from foundry_core.evaluation.report.charts import Mark, Series, legend, line_chart
from foundry_core.evaluation.report.figures import Line, Sheet, heading, is_accuracy, short
from foundry_core.evaluation.report.html import Html, tag
from foundry_core.evaluation.report.read import BenchRow

#: figures that are drawn over the budget, where there are
_OVER_BUDGET = ("r2", "swap_accuracy_percent", "probe_accuracy_percent", "supertoken_accuracy_percent")
#: the runtime whose latencies are drawn where it was timed
_RUNTIME = ("onnxruntime", "fp32")


def family(model: str) -> str:
    """A model, or a baseline whatever its number of tokens: ``tome:16:teacher-small`` and ``tome:8:teacher-small``."""
    parts = model.split(":", 2)
    if len(parts) == 3 and parts[1].isdecimal():
        return f"{parts[0]}, {Path(parts[2]).name}"
    return short(model)


class Styles:
    """One colour and form for each family of models, the same in every chart of a page."""

    def __init__(self, sheets: Sequence[Sheet]) -> None:
        lines = sorted((line for sheet in sheets for line in sheet.lines), key=lambda line: line.role != "student")
        names = dict.fromkeys(family(line.model) for line in lines if line.role != "teacher")
        self._number = {name: number for number, name in enumerate(names)}

    def series(self, line: Line) -> Series:
        """An empty series for the family of a line."""
        name = family(line.model)
        return Series(name, None if line.role == "teacher" else self._number[name])


def clean(sheets: Sequence[Sheet]) -> list[Sheet]:
    """One sheet for each protocol: that of clean clouds, averaged over the data sets where that was done."""
    best: dict[str, Sheet] = {}
    for sheet in sheets:
        if not sheet.shift and (sheet.protocol not in best or sheet.data == "average"):
            best[sheet.protocol] = sheet
    return list(best.values())


def budget_plots(sheets: Sequence[Sheet], styles: Styles) -> Html | None:
    """A panel for each figure that a student has at several budgets."""
    panels, drawn = [], []
    for sheet in clean(sheets):
        for metric in _OVER_BUDGET:
            found: dict[str, Series] = {}
            teacher = None
            for line in sheet.lines:
                if metric not in line.metrics:
                    continue
                value = line.metrics[metric]
                if line.role == "teacher":
                    teacher = styles.series(line), value
                elif line.budget is not None:
                    series = found.setdefault(family(line.model), styles.series(line))
                    series.marks.append(Mark(float(line.budget), value.mean, value.std))
            budgets = sorted({mark.x for series in found.values() for mark in series.marks})
            if len(budgets) < 2:
                continue
            shown = list(found.values())
            if teacher is not None:
                shown.insert(0, replace(teacher[0], marks=[Mark(budgets[-1], teacher[1].mean)], level=True))
            drawn += shown
            chart = line_chart(shown, "supertokens s", heading(metric), True, budgets)
            panels.append(_panel(heading(metric), sheet.data, chart))
    return tag("div", legend(drawn), tag("div", panels, class_="charts")) if panels else None


def latency_plots(sheets: Sequence[Sheet], bench: Sequence[BenchRow], styles: Styles) -> Html | None:
    """A panel for each kind of accuracy, of the models that were timed."""
    timed, runtime = latencies(bench)
    panels, drawn = [], []
    for sheet in clean(sheets):
        for metric in filter(is_accuracy, sheet.metrics):
            found: dict[str, Series] = {}
            for line in sheet.lines:
                key = Path(line.model).name, line.budget
                if metric not in line.metrics or key not in timed or line.conditions:
                    continue
                label = "" if line.budget is None else f"s={line.budget}"
                value = line.metrics[metric]
                series = found.setdefault(family(line.model), styles.series(line))
                series.marks.append(Mark(timed[key], value.mean, value.std, label))
            if sum(len(series.marks) for series in found.values()) < 2:
                continue
            drawn += found.values()
            chart = line_chart(list(found.values()), f"ms for a cloud, {runtime}", heading(metric), True)
            panels.append(_panel(heading(metric), f"{sheet.data}, {sheet.protocol}", chart))
    return tag("div", legend(drawn), tag("div", panels, class_="charts")) if panels else None


def latencies(bench: Sequence[BenchRow]) -> tuple[dict[tuple[str, int | None], float], str]:
    """Median milliseconds by model and budget in one runtime, for one cloud on the fewest threads; which runtime."""
    if not bench:
        return {}, ""
    batch, threads = min(row.batch for row in bench), min(row.threads for row in bench)
    rows = [row for row in bench if row.batch == batch and row.threads == threads]
    forms = dict.fromkeys((row.runtime, row.precision) for row in rows)
    form = _RUNTIME if _RUNTIME in forms else next(iter(forms))
    rows = [row for row in rows if (row.runtime, row.precision) == form]
    least = min(rows, key=lambda row: len(row.outputs)).outputs
    timed = {(row.model, row.budget): row.p50_ms / batch for row in rows if row.outputs == least}
    return timed, f"{' '.join(form)}, {threads} thread" + "s" * (threads > 1)


def _panel(title: str, detail: str, chart: Html) -> Html:
    return tag("figure", tag("figcaption", tag("strong", title), f" {detail}"), chart, class_="panel")
