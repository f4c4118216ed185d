# SPDX-License-Identifier: Apache-2.0
"""The report without a browser: what is read, what is compared, what is drawn, and that text stays text."""

import importlib.util
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from commands import refused
from matplotlib import image

from foundry_core.card import find_model, load_card
from foundry_core.errors import InputError
from foundry_core.evaluation.report.charts import Mark, Series, line_chart
from foundry_core.evaluation.report.confusion import matrix, mistakes, right_share
from foundry_core.evaluation.report.figures import load_cards, sheets
from foundry_core.evaluation.report.html import Html, join, tag
from foundry_core.evaluation.report.plots import Styles, latency_plots
from foundry_core.evaluation.report.read import BenchRow, Row, read_results
from foundry_core.evaluation.report.splats import draw_points
from foundry_core.evaluation.report.tables import sheet_table

HOSTILE = "<script>alert('x')</script>&\""


def row(model="foundry-edge", budget=8, protocol="probe", data="set", **more):
    metrics = {name: {"mean": mean, "std": 0.2} for name, mean in more.pop("metrics", {"linear": 70.0}).items()}
    return {
        "protocol": protocol,
        "data": data,
        "model": model,
        "budget": budget,
        "seeds": 3,
        "metrics": metrics,
        **more,
    }


def accuracy(mean):
    return {"linear_accuracy_percent": mean}


def bench_row(model, budget, p50, **more):
    same = {"runtime": "onnxruntime", "precision": "fp32", "outputs": ["tokens"], "threads": 1, "batch": 1}
    figures = {"p50_ms": p50, "p95_ms": 2 * p50, "rss_mb": 200.0, "params": 1, "macs": 2, "load_s": 0.1}
    return same | figures | {"model": model, "budget": budget} | more


@pytest.fixture
def written(tmp_path):
    def write(values, name="rows.json"):
        path = tmp_path / name
        path.write_text(values if isinstance(values, str) else json.dumps(values))
        return path

    return write


# -- text and markup -------------------------------------------------------------------------------------------------


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", "a < b", tag("b", "&"), title='"') == '<p title="&quot;">a &lt; b<b>&amp;</b></p>'
    assert join(None, ["x", [Html("<i>")]], 3) == "x<i>3"
    assert tag("img", src="x", width=None) == '<img src="x">'


# -- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, words",
    [
        ("{broken", "not valid JSON"),
        ("[]", "neither rows nor a replay"),
        ('{"what": 1}', "neither rows nor a replay"),
        ("[1, 2]", "neither rows nor a replay"),
        ('[{"protocol": "probe", "data": "d", "model": "m"}]', "row 0: metrics"),
        (json.dumps([row(), row(data="b") | {"metrics": {"x": {"mean": "high"}}}]), "row 1: metrics.x.mean"),
        ('[{"protocol": "p", "data": "d", "model": "m", "metrics": {"x": {"mean": NaN}}}]', "row 0: metrics.x.mean"),
        (json.dumps([bench_row("m", None, 1.0)]), "give it to --bench"),
        ('{"frames_sent": "many"}', "frames_sent"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_no_page(foundry, written, tmp_path, text, words):
    page = tmp_path / "page.html"
    page.write_text("before")
    path = written(text)
    refused(foundry("report", page, "--results", path, "--no-pictures"), path, words)
    assert page.read_text() == "before" and sorted(tmp_path.iterdir()) == sorted([page, path])


def test_other_wrong_input_is_one_line_too(foundry, written, tmp_path):
    page = tmp_path / "page.html"
    refused(foundry("report", page, "--results", tmp_path / "none.json"), "none.json", "no such file")
    refused(foundry("report", page, "--bench", written([row()])), "give it to --results")
    refused(foundry("report", page, "--bench", written([bench_row("m", 1, 1.0) | {"p50_ms": 0}])), "row 0: p50_ms")
    refused(foundry("report", page, "--model", "no-such-model"), "no-such-model")
    refused(foundry("report", tmp_path / "page.pdf"), "ends in .html")
    refused(foundry("report", tmp_path), "is a folder")
    assert not page.exists()


def test_rows_about_the_same_thing_are_joined_and_contradictions_refused(written):
    first = written([row(metrics=accuracy(70.0), confusion={"linear": {"a": {"a": 1}}})], "a.json")
    second = written([row(metrics={"rbf_accuracy_percent": 71.0}), row(metrics=accuracy(70.0))], "b.json")
    (joined,) = read_results([first, second]).rows
    assert set(joined.metrics) == {"linear_accuracy_percent", "rbf_accuracy_percent"} and joined.confusion
    with pytest.raises(InputError, match="c.json.*another linear_accuracy_percent than in .*a.json"):
        read_results([first, written([row(metrics=accuracy(69.0))], "c.json")])
    fewshot = [row(protocol="fewshot", ways=5, shots=shots, metrics=accuracy(80.0 + shots)) for shots in (10, 20)]
    assert len(read_results([written(fewshot, "d.json")]).rows) == 2


# -- what is compared ------------------------------------------------------------------------------------------------


def test_the_teacher_comes_first_and_losses_are_differences_to_it():
    rows = [
        Row(**row(metrics=accuracy(71.25))),
        Row(**row("random:teacher-small", None, metrics=accuracy(57.0))),
        Row(**row("histogram", None, metrics=accuracy(50.0))),
        Row(**row("teacher-small", None, metrics=accuracy(72.75))),
    ]
    (sheet,) = sheets(rows, load_cards([], [item.model for item in rows]))
    assert [line.role for line in sheet.lines] == ["teacher", "student", "baseline", "baseline"]
    assert [dict(line.losses) for line in sheet.lines] == [{}, accuracy(1.5), accuracy(15.75), {}]
    text = sheet_table([sheet])
    assert '71.2<small> ± 0.2</small><span class="loss near">−1.5</span>' in text
    assert '<span class="loss">−15.8</span>' in text  # a floor is no student: not highlighted


def test_fidelity_rows_carry_their_teacher():
    metrics = {"r2": 0.95, "swap_accuracy_percent": 60.0, "teacher_accuracy_percent": 60.5}
    rows = [Row(**row(protocol="fidelity", teacher="teacher-small", metrics=metrics))]
    rows += [Row(**row(protocol="fidelity", teacher="teacher-small", shift="jitter", severity=3, metrics=metrics))]
    clean, shifted = sheets(rows, load_cards([], ["foundry-edge"]))
    teacher, student = clean.lines
    assert {name: value.mean for name, value in teacher.metrics.items()} == {"r2": 1.0, "swap_accuracy_percent": 60.5}
    assert student.losses == {"swap_accuracy_percent": 0.5}
    assert (clean.shift, shifted.shift) == ("", "jitter 3") and "teacher_accuracy_percent" not in clean.metrics


def test_accuracy_meets_latency_of_the_same_model_and_budget():
    rows = [Row(**row("teacher-small", None, metrics=accuracy(73.0)))]
    rows += [Row(**row(budget=size, metrics=accuracy(70.0 + size / 8))) for size in (8, 16)]
    found = sheets(rows, load_cards([], ["foundry-edge", "teacher-small"]))
    bench = [bench_row("teacher-small", None, 3.0), bench_row("foundry-edge", 8, 0.75)]
    bench += [bench_row("foundry-edge", 8, 99.0, batch=16), bench_row("foundry-edge", 8, 0.5, precision="int8")]
    text = latency_plots(found, [BenchRow(**item) for item in bench], Styles(found))
    told = re.findall(r"<title>([^<]*)</title>", text)
    assert told == ["teacher-small: 73 at 3", "foundry-edge, s=8: 71 at 0.75"]
    assert latency_plots(found, [], Styles(found)) is None


# -- what is drawn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", [False, True])
def test_a_chart_keeps_order_and_stays_inside(log):
    rng = np.random.default_rng(0)
    marks = [Mark(float(x), float(y), 0.5, f"s={k}") for k, (x, y) in enumerate(zip(*rng.uniform(0.1, 90, (2, 9))))]
    svg = ElementTree.fromstring(
        line_chart([Series("a", 0, marks), Series("t", None, [Mark(3.0, 50.0)])], "x", "y", log)
    )
    width, height = map(float, svg.get("viewBox").split()[2:])
    places = [(float(item.get("cx")), float(item.get("cy"))) for item in svg.iter("circle")][:9]
    ordered = sorted(marks, key=lambda mark: mark.x)
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert np.array_equal(np.argsort([-y for _, y in places]), np.argsort([mark.y for mark in ordered]))
    assert all(0 < x < width and 0 < y < height for x, y in places)
    numbers = [float(item.text) for item in svg.iter("text") if re.fullmatch(r"[\d.]+", item.text)]
    assert len(numbers) >= 6


def test_a_chart_of_one_mark_is_a_chart():
    assert "circle" in line_chart([Series("a", 0, [Mark(1.0, 0.0)])], "x", "y", True)


def test_mistakes_are_ranked_and_shares_add_up():
    counts = {"cup": {"cup": 6, "bowl": 4}, "bowl": {"bowl": 9, "cup": 1}, "car": {"van": 2, "car": 0}}
    assert right_share(counts) == pytest.approx(100 * 15 / 22)
    assert re.findall(r"<b>([^<]*)</b>", mistakes(counts)) == ["4 of 10", "2 of 2", "1 of 10"]
    svg = ElementTree.fromstring(matrix(counts, "x"))
    cells = [item for item in svg.iter("rect") if item.get("class") in ("right", "wrong")]
    assert [item.get("class") for item in cells].count("right") == 2 and len(cells) == 5


def test_nearer_points_hide_farther_ones_and_colours_are_kept():
    line = np.linspace(-1, 1, 200)
    sheet = np.stack(np.meshgrid([0.0], line, line), axis=-1).reshape(-1, 3)  # across the view, at x = 0
    ahead = np.array([2.2 - np.pi / 2, 0.42])  # where the viewer is: azimuth, elevation
    towards = np.array([np.cos(ahead[1]) * np.cos(ahead[0]), np.cos(ahead[1]) * np.sin(ahead[0]), np.sin(ahead[1])])
    colors = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    for offset, seen in ((0.3, 2), (-0.3, 0)):
        points = np.concatenate([sheet, sheet * 0.5 + offset * towards])
        png = draw_points(points, np.repeat([0, 1], len(sheet)), colors, 0.01)
        picture = image.imread(io.BytesIO(png), format="png")
        middle = picture[170:230, 170:230].reshape(-1, 4)
        assert picture[0, 0, 3] == 0 and (middle[:, 3] == 1).all()
        assert (middle[:, :3].argmax(axis=1) == seen).mean() > 0.95


# -- the page --------------------------------------------------------------------------------------------------------


class Strict(HTMLParser):
    """Elements that were opened, and whether each was closed in its turn."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.addresses = [], [], []

    def handle_starttag(self, name, attributes):
        self.seen.append(name)
        self.addresses += [value for key, value in attributes if key in ("src", "href", "srcset", "data")]
        if name not in ("meta", "link", "img"):
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name


def test_names_from_files_stay_text_and_nothing_is_fetched(foundry, written, tmp_path):
    values = row(HOSTILE, None, HOSTILE, HOSTILE, metrics={HOSTILE: 1.0, **accuracy(3.0)}, note=HOSTILE)
    values |= {"confusion": {HOSTILE: {HOSTILE: {HOSTILE: 3, "b": 1}}}, "teacher": HOSTILE}
    page = tmp_path / "page.html"
    bench = written([bench_row(HOSTILE, None, 1.0), bench_row("b", 2, 2.0, runtime=HOSTILE)], "b.json")
    code, _, err = foundry(
        "report", page, "--results", written([values]), "--bench", bench, "--no-pictures", "--title", HOSTILE
    )
    assert code == 0, err
    text = page.read_text()
    assert "<script" not in text and "alert(" in text
    reader = Strict()
    reader.feed(text)
    assert not reader.open and reader.seen.count("html") == 1
    assert all(address.startswith(("#", "data:")) for address in reader.addresses)
    assert "url(" not in text and "@import" not in text


def test_a_page_is_made_without_torch_and_shows_what_the_model_says(tiny_model, tmp_path):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'sklearn', 'matplotlib'))); "
        "from foundry_core.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    page = tmp_path / "page.html"
    command = [sys.executable, "-c", code, "report", str(page), "--model", str(tiny_model)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 4 and "answers that tests can predict" in text
    assert "<strong>box</strong>" in text or "<strong>pole</strong>" in text
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_owners_are_drawn_at_the_three_largest_budgets():
    from foundry_core.evaluation.report.shapes import can_draw_ownership, ownership_pictures

    card = load_card(find_model("foundry-edge"), verify=False)
    assert can_draw_ownership(card) and not can_draw_ownership(load_card(find_model("teacher-small"), verify=False))
    drawn = []
    text = ownership_pictures("foundry-edge", card, drawn.append)
    assert re.findall(r"s = (\d+)", text) == ["16", "8", "4"] * len(drawn)
    assert text.count("<img") == 3 * len(drawn) > 0
