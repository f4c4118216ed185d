# SPDX-License-Identifier: Apache-2.0
"""The page: what was measured, from the models down to the pictures, in one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path

from foundry_core.card import ModelCard
from foundry_core.evaluation.report import confusion, shapes
from foundry_core.evaluation.report.figures import Sheet, heading, is_accuracy, sheets, short, teacher_of
from foundry_core.evaluation.report.html import Html, tag
from foundry_core.evaluation.report.plots import Styles, budget_plots, clean, latencies, latency_plots
from foundry_core.evaluation.report.read import Results
from foundry_core.evaluation.report.tables import (
    CLOSE,
    NEAR,
    bench_table,
    loss_mark,
    millions,
    model_cell,
    number,
    replay_figures,
    scrolling,
    sheet_table,
    terms,
)  # fmt: skip
from foundry_core.runtime.macs import macs

#: what a protocol measures, where that needs words
_EXPLAINED = {
    "probe": "A classifier learned on frozen features: how well they tell classes apart that no model was taught.",
    "fidelity": (
        "Students against the features of their teacher. R², cosine: per token. CKA, neighbours: of pooled features. "
        "Head swap: the teacher's classifier, unchanged, on the student's features. Re-probe: a new one. Supertokens "
        "only: one that sees nothing else. A S alone, shuffled, s = 0: controls, with the supertokens alone, with "
        "those of another cloud, with none."
    ),
    "parts": "Part segmentation with a head on frozen features.",
    "fewshot": "Classes learned from a few shapes each.",
    "segments": "What crop, ground and clusters find in simulated sweeps, before any model looks at it.",
    "tracks": "Objects followed over the frames of simulated recordings.",
}  # fmt: skip
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(
    results: Results,
    cards: dict[str, ModelCard],
    title: str,
    made_by: str,
    pictured: str | None,
    advance: shapes.Advance = lambda number: None,
) -> bytes:
    """The finished page.

    Args:
        cards: by the names that rows and options use.
        made_by: the line at the foot.
        pictured: the model whose answers on procedural shapes are drawn; None for no pictures at all.
        advance: called with the number of pictures drawn.
    """
    found = sheets(results.rows, cards)
    styles = Styles(found)
    sections = [
        _section("models", "Models", _models(found, results, cards), _cards(cards)),
        *_protocols(found),
        _section("budget", "Fidelity and budget", _fidelity_words(), budget_plots(found, styles)),
        _section("latency", "Accuracy and latency", None, latency_plots(found, results.bench, styles)),
        _section("confusion", "What is taken for what", _confusion_words(), _confusions(found, results)),
        *([] if pictured is None else _pictures(pictured, cards, advance)),
        _section("robot", "On a robot", None, _replays(results)),
        _section("speed", "Speed", None, bench_table(results.bench) if results.bench else None),
    ]
    sections = [section for section in sections if section is not None]
    links = [tag("a", name, href=f"#{anchor}") for anchor, name, _ in sections]
    files = tag("ul", [tag("li", tag("code", name), f": {what}") for name, what in results.sources])
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(_style())),
    )
    body = tag(
        "body",
        tag("header", tag("h1", title), tag("p", _summary(found, results, cards)), tag("nav", links)),
        tag("main", [section for _, _, section in sections]),
        tag("footer", tag("p", made_by), [tag("p", "Made from:"), files] if results.sources else None),
    )
    page = "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"
    return page.encode("utf-8", "xmlcharrefreplace")  # a file name that is no UTF-8 holds surrogates


def _style() -> str:
    return resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")


def _section(anchor: str, name: str, words: Html | None, *content: Html | None) -> tuple[str, str, Html] | None:
    if not any(content):
        return None
    return anchor, name, tag("section", tag("h2", name), words, content, id=anchor)


def _summary(found: Sequence[Sheet], results: Results, cards: dict[str, ModelCard]) -> str:
    students = [short(name) for name, card in cards.items() if card.kind == "student"]
    teachers = [short(name) for name, card in cards.items() if card.kind == "teacher"]
    told = [", ".join(students), f"beside {', '.join(teachers)}" if teachers else ""]
    protocols = list(dict.fromkeys(sheet.protocol for sheet in found))
    data = list(dict.fromkeys(sheet.data for sheet in found if sheet.data != "average"))
    if protocols:
        told.append(f"in {', '.join(protocols)} on {', '.join(data)}")
    return " ".join(part for part in told if part)


# -- models ----------------------------------------------------------------------------------------------------------


def _models(found: Sequence[Sheet], results: Results, cards: dict[str, ModelCard]) -> Html | None:
    """One line for each model at its own budget: what it costs, and what it loses."""
    if not cards:
        return None
    timed, runtime = latencies(results.bench)
    columns: list[tuple[Sheet, str]] = []
    for sheet in clean(found):
        columns += [(sheet, metric) for metric in sheet.metrics if is_accuracy(metric)][:2]
    heads = ["model", "parameters", "MACs"]
    heads += [f"ms, {runtime}", "× teacher"] if timed else []
    heads += [f"{sheet.protocol}, {sheet.data}: {heading(metric)}" for sheet, metric in columns]
    lines = []
    for name, card in sorted(cards.items(), key=lambda item: item[1].kind != "teacher"):
        key = Path(name).name, card.budget
        cells: list[Html] = [
            tag("td", millions(card.parameters)),
            tag("td", millions(macs(card, card.budget, ["tokens"]))),
        ]
        if timed:
            parent = teacher_of(name, cards)
            slow = timed.get((Path(parent).name, None)) if parent else None
            own = timed.get(key)
            cells.append(tag("td", f"{own:.2f}") if own else tag("td", class_="none"))
            cells.append(tag("td", f"{slow / own:.1f}×") if own and slow else tag("td", class_="none"))
        for sheet, metric in columns:
            line = next((item for item in sheet.lines if (Path(item.model).name, item.budget) == key), None)
            if line is None or metric not in line.metrics or line.conditions:
                cells.append(tag("td", class_="none"))
            else:
                cells.append(tag("td", number(metric, line.metrics[metric].mean), loss_mark(line, metric)))
        lines.append(tag("tr", model_cell(name, card.budget, card.kind), cells, class_=card.kind))
    head = tag("thead", tag("tr", [tag("th", text, scope="col") for text in heads]))
    table = scrolling(tag("table", head, tag("tbody", lines)), "models at a glance")
    note = None
    if columns:
        grades = [("close", f"up to {CLOSE:g}"), ("near", f"up to {NEAR:g}"), ("far", "more")]
        keys = [[tag("span", text, class_=f"loss {grade}"), " "] for grade, text in grades]
        note = tag("p", "Marked: points lost to the teacher. ", keys, class_="note")
    return tag("div", table, note, class_="glance")


def _cards(cards: dict[str, ModelCard]) -> Html | None:
    return tag("div", [_card(name, card) for name, card in cards.items()], class_="cards") if cards else None


def _card(name: str, card: ModelCard) -> Html:
    encoder = card.architecture.encoder
    operations = [f"{millions(macs(card, size, ['tokens']))} at s = {size}" for size in sorted(card.budgets)[-3:]]
    heads = [f"{len(card.heads.objects.classes)} classes"] if card.heads.objects else []
    heads += [f"{len(card.heads.parts.parts)} parts"] if card.heads.parts else []
    items = [
        ("parameters", millions(card.parameters)),
        ("MACs", ", ".join(operations) or millions(macs(card, None, ["tokens"]))),
        ("encoder", f"{encoder.width} wide, {encoder.depth} blocks"),
        ("input", f"{card.preprocessing.points:,} points, {card.preprocessing.groups} patches"),
        ("budgets", ", ".join(map(str, card.budgets)) + (f"; {card.budget} by default" if card.budgets else "")),
        ("heads", ", ".join(heads)),
        ("licence", card.licence),
    ]
    stages = [
        tag("li", run.task, tag("small", f"{run.steps:,} steps, {run.minutes:g} minutes, seed {run.seed}"))
        for run in card.training
    ]
    data = {(item.name, item.licence): item.attribution for run in card.training for item in run.data}
    sources = [tag("li", source, tag("small", licence), title=said) for (source, licence), said in data.items()]
    return tag(
        "article",
        tag("h3", card.name, tag("span", card.kind, class_="kind")),
        tag("p", card.description) if card.description else None,
        terms([(term, value) for term, value in items if value]),
        [tag("h4", "Training"), tag("ol", stages)] if stages else None,
        [tag("h4", "Data and licences"), tag("ul", sources)] if sources else None,
    )


# -- protocols -------------------------------------------------------------------------------------------------------


def _protocols(found: Sequence[Sheet]) -> Iterable[tuple[str, str, Html]]:
    order = {name: number for number, name in enumerate(dict.fromkeys(sheet.protocol for sheet in found))}
    for protocol, group in groupby(sorted(found, key=lambda sheet: order[sheet.protocol]), lambda s: s.protocol):
        tables = [sheet_table(list(same)) for _, same in groupby(group, lambda sheet: (sheet.data, sheet.split))]
        words = _EXPLAINED.get(protocol)
        name = protocol.replace("_", " ").replace("-", " ").capitalize()
        yield _section(f"results-{order[protocol]}", name, tag("p", words) if words else None, *tables)


def _fidelity_words() -> Html:
    return tag("p", "What more supertokens buy. The line across is the teacher.")


def _confusion_words() -> Html:
    return tag(
        "p", "Rows are true classes, columns answers, shaded by share of the row. ",
        tag("span", "Right", class_="key right"), " ", tag("span", "wrong", class_="key wrong"),
    )  # fmt: skip


def _confusions(found: Sequence[Sheet], results: Results) -> Html | None:
    """The matrices of teachers and students, not those of the baselines; and those of recordings with ground truth."""
    figures = []
    for sheet in found:
        shown = {line.model for line in sheet.lines if line.role != "baseline"}
        shown = shown or {line.model for line in sheet.lines}
        for row in sheet.rows:
            if row.model not in shown or not row.confusion:
                continue
            for kind, counts in row.confusion.items():
                size = "" if row.budget is None else f", s = {row.budget}"
                where = ", ".join(filter(None, (sheet.data, sheet.shift, kind)))
                figures.append(_matrix(counts, short(row.model) + size, where))
    for name, replay in results.replays:
        if replay.confusion:
            figures.append(_matrix(replay.confusion, replay.model, name))
    return tag("div", figures, class_="matrices") if figures else None


def _matrix(counts, model: str, where: str) -> Html:
    caption = tag("figcaption", tag("strong", model), f" {where}, {confusion.right_share(counts):.1f} % right")
    words = tag("div", tag("h4", "Most frequent mistakes"), confusion.mistakes(counts))
    return tag("figure", caption, confusion.matrix(counts, model), words)


# -- pictures and recordings -----------------------------------------------------------------------------------------


def _pictures(model: str, cards: dict[str, ModelCard], advance: shapes.Advance) -> list:
    card = cards[model]
    words = tag(
        "p", f"What {card.name} makes of procedural shapes: class, probability and parts. The first of each category "
        "that a generator gives, whole and without noise; none was picked.",
    )  # fmt: skip
    parts = _section("shapes", "Shapes and their parts", words, shapes.part_pictures(model, advance))
    owned = [
        tag("div", tag("h3", item.name), shapes.ownership_pictures(name, item, advance))
        for name, item in cards.items()
        if shapes.can_draw_ownership(item)
    ]
    words = tag("p", "The points that each supertoken stands for, a colour each. Fewer supertokens, larger patches.")
    return [parts, _section("supertokens", "Who owns which points", words, *owned)]


def _replays(results: Results) -> Html | None:
    blocks = []
    for name, replay in results.replays:
        size = "" if replay.budget is None else f", s = {replay.budget}"
        title = tag("h3", replay.model + size, tag("small", name))
        blocks.append(tag("div", title, replay_figures(replay), _phases(replay.phases_ms), class_="replay"))
    return tag("div", blocks) if blocks else None


def _phases(phases: dict[str, float]) -> Html | None:
    """Where the time of a frame goes, as one bar."""
    total = sum(value for value in phases.values() if value > 0)
    if not total:
        return None
    shown = [(name, value) for name, value in phases.items() if value > 0]
    bar = [
        tag("i", class_=f"c{number % 8}", style=f"flex-grow:{value / total:.4f}", title=f"{name} {value:.1f} ms")
        for number, (name, value) in enumerate(shown)
    ]
    names = [
        tag("li", tag("i", class_=f"c{number % 8}"), f"{name} {value:.1f} ms")
        for number, (name, value) in enumerate(shown)
    ]
    return tag("div", tag("div", bar, class_="bar"), tag("ul", names, class_="parts"), class_="phases")
