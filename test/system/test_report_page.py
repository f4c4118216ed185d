# SPDX-License-Identifier: Apache-2.0
"""The report in a real browser: on a phone, on a desk, in the dark and on paper."""

import json

import pytest
from browser import PROGRAM, Browser

from foundry_core.cli.main import main

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs chromium or chrome (apt install chromium)")

#: text that is cut off: of drawings beyond their edge, and of the page outside its scrolling boxes beyond the window's
CUT_OFF = """
[...document.querySelectorAll('svg text')].filter(text => {
  const own = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect();
  return own.left < all.left - 1 || own.right > all.right + 1 || own.top < all.top - 1 || own.bottom > all.bottom + 1;
}).map(text => text.textContent).concat(
[...document.querySelectorAll('body *')].filter(item => !item.closest('.scroll') &&
  (item.getBoundingClientRect().right > document.documentElement.clientWidth + 1 ||
   item.getBoundingClientRect().left < -1)).map(item => item.tagName + ' ' + item.textContent.slice(0, 40)))
"""
#: height of the smallest letters on the screen, in pixels of CSS
SMALLEST = """
Math.min(...[...document.querySelectorAll('.chart text, .matrix text')].map(text => {
  const svg = text.ownerSVGElement;
  return parseFloat(getComputedStyle(text).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
}), ...[...document.querySelectorAll('p, td, th, dd, dt, li, small, figcaption')]
  .map(item => parseFloat(getComputedStyle(item).fontSize)))
"""
IMAGES = "Promise.all([...document.images].map(item => item.decode().then(() => item.naturalWidth)))"


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


def _rows():
    names = [f"class number {k}" for k in range(30)]
    confusion = {true: {true: 8, names[(k + 1) % 30]: 2, names[(k * 7) % 30]: 1} for k, true in enumerate(names)}
    small = {"box": {"box": 90, "a long name of a class": 10}, "a long name of a class": {"box": 3}}
    rows = []
    for model, budget, value in (("teacher-small", None, 72.9), ("foundry-base", 16, 72.0), ("foundry-edge", 8, 71.3)):
        metrics = {f"{kind}_accuracy_percent": {"mean": value, "std": 0.3} for kind in ("linear", "rbf")}
        same = {"protocol": "probe", "data": "psb53", "split": "test", "seeds": 3, "train_shapes": 800}
        kinds = {"linear": confusion, "rbf": small}
        rows.append({**same, "model": model, "budget": budget, "metrics": metrics, "confusion": kinds})
    for model in ("foundry-base", "foundry-edge", "tome:16:teacher-small"):
        for budget in (16, 8, 4) if model.startswith("foundry") else (16,):
            for shift in (None, "rotation"):
                figures = {"r2": 0.9 + budget / 200, "cosine": 0.98, "cka": 0.9912, "neighbor_same_percent": 81.0}
                figures |= {f"{kind}_accuracy_percent": 58.0 + budget / 8 for kind in ("swap", "probe", "supertoken")}
                figures |= {"teacher_accuracy_percent": 63.5, "supertokens_used": float(budget), "r2_shuffled": -0.93}
                rows.append(
                    {
                        "protocol": "fidelity", "data": "average", "split": "test", "shift": shift, "seeds": 3,
                        "severity": 3 if shift else None, "model": model, "teacher": "teacher-small",
                        "budget": budget, "metrics": {name: {"mean": m, "std": 0.1} for name, m in figures.items()},
                    }
                )  # fmt: skip
    return rows


def _bench():
    timed = {("teacher-small", None): 3.0, ("foundry-base", 16): 2.27, ("foundry-base", 8): 2.05}
    timed |= {("foundry-edge", 16): 0.85, ("foundry-edge", 8): 0.74, ("foundry-edge", 4): 0.67}
    same = {"runtime": "onnxruntime", "precision": "fp32", "outputs": ["tokens"], "threads": 1, "batch": 1}
    same |= {"rss_mb": 230.0, "params": 2_672_653, "macs": 60_000_000, "load_s": 0.06}
    return [
        {**same, "model": model, "budget": budget, "p50_ms": p50, "p95_ms": 1.4 * p50}
        for (model, budget), p50 in timed.items()
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    replay = {
        "frames_sent": 100, "frames_processed": 100, "frames_dropped": 0, "objects_per_frame": 41.3,
        "latency_ms": {"p50": 55.0, "p95": 82.0, "max": None}, "phases_ms": {"network": 42.5, "ground": 1.2},
        "model": "foundry-edge", "budget": 8, "rate": 1.0,
    }  # fmt: skip
    for name, values in (("rows", _rows()), ("bench", _bench()), ("replay", replay)):
        (folder / f"{name}.json").write_text(json.dumps(values))
    arguments = ["report", f"{folder / 'page.html'}", "--results", f"{folder / 'rows.json'}"]
    arguments += ["--results", f"{folder / 'replay.json'}", "--bench", f"{folder / 'bench.json'}"]
    try:
        code = main(arguments)
    except SystemExit as done:
        code = done.code
    assert not code
    return folder / "page.html"


@pytest.mark.parametrize("width, height", [(390, 844), (1280, 900)])
def test_everything_fits_is_legible_and_comes_from_the_file(browser, page, width, height):
    browser.open(page, width, height)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate(CUT_OFF) == []
    assert browser.evaluate(SMALLEST) >= 9
    sizes = browser.evaluate(IMAGES)
    assert len(sizes) > 12 and min(sizes) > 100
    assert {address.split(":")[0] for address in browser.requests} <= {"file", "data"}
    assert [address for address in browser.requests if address.startswith("file:")] == [page.resolve().as_uri()]
    assert browser.complaints == []


def test_all_sections_are_there_and_reached_from_the_top(browser, page):
    browser.open(page, 1280, 900)
    titles = browser.evaluate("[...document.querySelectorAll('section > h2')].map(item => item.textContent)")
    wanted = ["Models", "Probe", "Fidelity", "Fidelity and budget", "Accuracy and latency", "What is taken for what"]
    wanted += ["Shapes and their parts", "On a robot", "Speed"]
    assert [title for title in titles if title != "Who owns which points"] == wanted
    links = browser.evaluate("[...document.querySelectorAll('nav a')].map(a => document.querySelector(a.hash).id)")
    assert len(links) == len(titles)
    tall = browser.evaluate("[...document.querySelectorAll('section')].map(item => item.offsetHeight)")
    assert min(tall) > 100
    assert browser.evaluate("document.querySelectorAll('script').length") == 0


def test_wide_tables_scroll_in_their_own_box_and_keep_their_first_column(browser, page):
    browser.open(page, 390, 844)
    box = "[...document.querySelectorAll('#results-1 .scroll')][0]"
    assert browser.evaluate(f"{box}.scrollWidth > {box}.clientWidth + 100")
    left = f"{box}.querySelector('tbody th[scope=row]').getBoundingClientRect().left"
    before = browser.evaluate(left)
    browser.evaluate(f"{box}.scrollLeft = 200")
    assert browser.evaluate(f"{box}.scrollLeft") == 200 and browser.evaluate(left) == before


def test_it_follows_the_light_and_is_white_on_paper(browser, page):
    light = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3"
    text = light.replace("backgroundColor", "color")
    browser.open(page, 1280, 900)
    assert browser.evaluate(light) > 230 and browser.evaluate(text) < 70
    browser.open(page, 1280, 900, dark=True)
    assert browser.evaluate(light) < 50 and browser.evaluate(text) > 200
    browser.open(page, 688, 900, dark=True, media="print")  # A4 within its margins
    assert browser.evaluate(light) > 230
    assert browser.evaluate("document.documentElement.scrollWidth") == 688
    assert browser.evaluate("[...document.querySelectorAll('table, svg')].filter(item => "
                            "item.getBoundingClientRect().right > 689).length") == 0  # fmt: skip


def test_the_checks_see_what_they_look_for(browser, tmp_path):
    """A page with every fault that the tests above would have to find."""
    faulty = tmp_path / "faulty.html"
    faulty.write_text(
        "<meta name=viewport content='width=device-width'><p style='width:900px;font-size:5px'>wide"
        "<svg class=chart viewBox='0 0 10 10' width=10><text x=9 y=5>out</text></svg>"
        "<img src='http://127.0.0.1:9/a.png'><img src='data:image/png;base64,AAAA'>"
    )
    browser.open(faulty, 390, 844)
    assert browser.evaluate("document.documentElement.scrollWidth") > 390
    assert {"out"} < set(browser.evaluate(CUT_OFF)) and browser.evaluate(SMALLEST) < 9
    assert "http://127.0.0.1:9/a.png" in browser.requests and browser.complaints
    with pytest.raises(RuntimeError, match="decode"):
        browser.evaluate(IMAGES)
