# SPDX-License-Identifier: Apache-2.0
"""Sheets of figures, benchmark and replays as tables of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from foundry_core.evaluation.report.figures import Line, Sheet, heading, short
from foundry_core.evaluation.report.html import Html, tag
from foundry_core.evaluation.report.read import BenchRow, Metric, Replay

#: points that a student may lose and still count as close, and as near
CLOSE, NEAR = 1.0, 2.5


def number(metric: str, value: float) -> str:
    """A figure with as many decimals as its kind needs."""
    coarse = metric.endswith(("_percent", "_used")) or abs(value) >= 10
    text = f"{value:.1f}" if coarse else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def signed_loss(points: float) -> str:
    """What was lost, as a change: a loss is negative."""
    text = f"{-points:+.1f}"
    return "±0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")


def loss_mark(line: Line, metric: str) -> Html | None:
    """The difference to the teacher, highlighted for a student."""
    points = line.losses.get(metric)
    if points is None:
        return None
    grade = "close" if points <= CLOSE else "near" if points <= NEAR else "far"
    return tag("span", signed_loss(points), class_=f"loss {grade}" if line.role == "student" else "loss")


def scrolling(table: Html, label: str) -> Html:
    """A wide table in a box of its own, which can be scrolled by finger and by keyboard."""
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)


def _cell(line: Line, metric: str, seeds: int) -> Html:
    value: Metric | None = line.metrics.get(metric)
    if value is None:
        return tag("td", class_="none")
    spread = tag("small", f" ± {number(metric, value.std)}") if seeds > 1 and value.std else None
    return tag("td", number(metric, value.mean), spread, loss_mark(line, metric))


def model_cell(model: str, budget: int | None, role: str) -> Html:
    """The first column: whose figures these are."""
    label = tag("span", short(model), class_="name", title=model if short(model) != model else None)
    size = tag("span", f"s = {budget}", class_="budget") if budget is not None else None
    kind = tag("span", "teacher", class_="kind") if role == "teacher" else None
    return tag("th", label, size, kind, scope="row")


def sheet_table(group: Sequence[Sheet]) -> Html:
    """One table for the sheets of a protocol and data set: clean clouds first, then each shift."""
    metrics = list(dict.fromkeys(name for sheet in group for name in sheet.metrics))
    conditions = list(dict.fromkeys(name for sheet in group for line in sheet.lines for name in line.conditions))
    seeds = max(sheet.seeds for sheet in group)
    columns = ["model", *conditions, *map(heading, metrics)]
    head = tag("thead", tag("tr", [tag("th", name, scope="col") for name in columns]))
    bodies = []
    for sheet in group:
        title = None
        if len(group) > 1:
            inner = tag("span", sheet.shift or "as they are")
            title = tag("tr", tag("th", inner, colspan=len(columns), scope="rowgroup"), class_="group")
        lines = [
            tag(
                "tr",
                model_cell(line.model, line.budget, line.role),
                [tag("td", line.conditions.get(name, "")) for name in conditions],
                [_cell(line, metric, seeds) for metric in metrics],
                class_=line.role,
            )
            for line in sheet.lines
        ]
        bodies.append(tag("tbody", title, lines))
    first = group[0]
    said = [first.data, f"{first.split} split" if first.split else None]
    train, test = first.shapes
    if test:
        said.append(f"{train:,} train and {test:,} test shapes" if train else f"{test:,} shapes")
    said.append(f"mean ± deviation over {seeds} seeds" if seeds > 1 else "one seed")
    caption = ", ".join(text for text in said if text)
    return tag(
        "figure",
        tag("figcaption", tag("strong", first.data), caption.removeprefix(first.data)),
        scrolling(tag("table", head, bodies), caption),
    )


def bench_table(rows: Sequence[BenchRow]) -> Html:
    """Every configuration that was timed."""
    many = {
        "outputs": len({tuple(row.outputs) for row in rows}) > 1,
        "threads": len({row.threads for row in rows}) > 1,
        "batch": len({row.batch for row in rows}) > 1,
    }
    columns = ["model", "runtime", *(name for name, varies in many.items() if varies)]
    columns += ["p50 ms", "p95 ms", "MACs", "memory MB", "load s"]
    lines = []
    for row in sorted(rows, key=lambda row: (row.model, row.budget or 0, row.batch, row.threads, row.p50_ms)):
        varied = {"outputs": ", ".join(row.outputs), "threads": row.threads, "batch": row.batch}
        cells = [f"{row.runtime} {row.precision}", *(varied[name] for name in many if many[name])]
        cells += [
            f"{row.p50_ms:.2f}",
            f"{row.p95_ms:.2f}",
            millions(row.macs),
            f"{row.rss_mb:.0f}",
            f"{row.load_s:.2f}",
        ]
        lines.append(tag("tr", model_cell(row.model, row.budget, ""), [tag("td", cell) for cell in cells]))
    head = tag("thead", tag("tr", [tag("th", name, scope="col") for name in columns]))
    same = [f"{name} {getattr(rows[0], name)}" for name in ("threads", "batch") if not many[name]]
    caption = ", ".join(["milliseconds for a whole batch, sampling and grouping included", *same])
    return tag(
        "figure",
        tag("figcaption", tag("strong", "All configurations"), f", {caption}"),
        scrolling(tag("table", head, tag("tbody", lines)), caption),
    )


def millions(count: float) -> str:
    """A number of parameters or operations."""
    value = count / 1e6
    text = f"{value:,.0f} M" if value >= 100 else f"{value:.1f} M" if value >= 1 else f"{count / 1e3:.0f} k"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def replay_figures(replay: Replay) -> Html:
    """The figures of a recording, as terms and values."""

    def ms(key: str) -> str:
        value = replay.latency_ms.get(key)
        return "–" if value is None else f"{value:.1f}"

    timing = "lock-step" if not replay.rate else f"{replay.rate:g} × the recording's own"
    items: list[tuple[str, str]] = [
        ("frames answered", f"{replay.frames_processed} of {replay.frames_sent}"),
        ("dropped", str(replay.frames_dropped)),
        ("latency p50 / p95 / max", f"{ms('p50')} / {ms('p95')} / {ms('max')} ms"),
        ("timing", timing),
    ]
    if replay.objects_per_frame is not None:
        items.append(("objects a frame", f"{replay.objects_per_frame:.1f}"))
    if replay.objects_true and replay.objects_matched is not None:
        items.append(("objects found", f"{replay.objects_matched:,} of {replay.objects_true:,}"))
    if replay.class_accuracy is not None:
        items.append(("class accuracy", f"{100 * replay.class_accuracy:.1f} %"))
    if replay.part_miou is not None:
        items.append(("part mIoU", f"{100 * replay.part_miou:.1f} %"))
    return terms(items)


def terms(items: Iterable[tuple[str, Html | str]]) -> Html:
    """A list of terms and values."""
    return tag("dl", [tag("div", tag("dt", term), tag("dd", value)) for term, value in items])
