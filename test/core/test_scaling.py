# SPDX-License-Identifier: Apache-2.0
"""`foundry bench --scaling`: what is measured along each axis, and the sweep that time and memory are measured on."""

import json

import numpy as np
import pytest

from foundry_core.card import load_card
from foundry_core.cli import bench_plan
from foundry_core.clouds import Cloud
from foundry_core.evaluation.bench_picture import draw_scaling
from foundry_core.runtime.bench import run_benchmark
from foundry_core.runtime.bench_sweep import BOXES, street
from foundry_core.runtime.bench_worker import Spec
from foundry_core.scene.config import SceneConfig
from foundry_core.scene.segment import find_segments


def planned(model, folder, monkeypatch):
    monkeypatch.setattr(bench_plan, "GROUPS", (16,))  # its own: others need weights
    monkeypatch.setattr(bench_plan, "SWEEPS", (20_000,))
    (item,) = bench_plan.models([str(model)], folder, [("onnxruntime", "fp32")])
    return bench_plan.scaling_specs([item], [("onnxruntime", "fp32")], 1, folder)


def test_every_axis_is_planned_and_other_sizes_are_the_cards(tiny_model, tmp_path, monkeypatch):
    specs, _ = planned(tiny_model, tmp_path, monkeypatch)
    values = {axis: [spec.value for spec in specs if spec.axis == axis] for axis in bench_plan.AXES}
    assert values["points"] == list(bench_plan.POINTS) and values["supertokens"] == [1, 2, 4]
    assert values["segments"] == [1, 2, 4, 8, 16, 32, 64] and values["sweep"] == [20_000]
    for spec in specs:
        size = load_card(spec.directory).preprocessing
        assert size.points == (spec.value if spec.axis == "points" else 256) and size.groups == 16
        assert spec.batch == (spec.value if spec.axis == "segments" else 1)
        assert spec.budget == (spec.value if spec.axis == "supertokens" else 4)
        assert spec.at_once == (4 if spec.axis == "segments" else 0)


def test_rows_name_their_axis_and_become_a_picture(tiny_model, tmp_path, monkeypatch):
    specs, _ = planned(tiny_model, tmp_path, monkeypatch)
    chosen = [spec for spec in specs if (spec.axis, spec.value) in (("points", 512), ("segments", 8))]
    chosen += [spec for spec in specs if spec.axis == "sweep"]
    rows, failures = run_benchmark(chosen, rounds=2, repeats=2)
    assert not failures
    assert [(row["axis"], row["value"], row["points"], row["batch"]) for row in rows] == [
        ("points", 512, 512, 1),
        ("segments", 8, 256, 8),
        ("sweep", 20_000, 20_000, 1),
    ]
    assert all(0 < row["geometry_p50_ms"] < row["p50_ms"] and row["rss_mb"] > 20 for row in rows)
    json.dumps(rows)
    draw_scaling(rows, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_segments_go_through_the_network_in_the_perceivers_batches(tiny_model, monkeypatch):
    from foundry_core.runtime import bench_worker

    spec = Spec("tiny", str(tiny_model), "onnxruntime", "fp32", 4, 1, 10, at_once=4)
    sizes = []
    session = type("Session", (), {"run": lambda self, inputs, *_: sizes.append(len(inputs["centers"]))})()
    monkeypatch.setattr("foundry_core.runtime.session.open_session", lambda *_: session)
    subject = bench_worker.open_subject(spec)
    subject.run(subject.prepare(bench_worker.clouds(10, 256)))
    assert sizes == [4, 4, 2]


@pytest.mark.parametrize("points", [30_000, 120_000])
def test_the_street_has_its_ground_and_most_of_its_boxes(points):
    cloud = street(points)
    assert cloud.shape == (points, 3) and cloud.dtype == np.float32
    found = find_segments(Cloud.from_points(cloud), SceneConfig())
    assert 0.6 * BOXES <= len(found.segments) <= 1.2 * BOXES
    assert sum(len(segment.index) for segment in found.segments) <= 0.31 * points


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batch", 4), "--scaling: takes --model, --runtime, --precision and one --threads"),
        (("--threads", 1, "--threads", 2), "--scaling: takes"),
        (("--architecture", "pointnet"), "--scaling: takes"),
        (("--runtime", "gemm"), "--runtime gemm: scaling is measured with onnxruntime and openvino"),
    ],
)
def test_options_that_do_not_fit_are_refused(tiny_model, foundry, arguments, words):
    code, _, err = foundry("bench", "--scaling", "--model", tiny_model, "--quick", *arguments)
    assert code == 2 and words in err
