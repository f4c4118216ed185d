# SPDX-License-Identifier: Apache-2.0
"""The benchmark: rows, refusals, and the counted products against what torch executes."""

import json
import shutil

import pytest

from foundry_core.card import load_card
from foundry_core.cli import bench_plan
from foundry_core.cli.main import main
from foundry_core.runtime.bench import run_benchmark
from foundry_core.runtime.bench_worker import Spec
from foundry_core.runtime.macs import macs

KEYS = {"model", "runtime", "precision", "budget", "threads", "batch", "points", "p50_ms", "p95_ms", "rss_mb", "params",
        "macs", "load_s", "cpu_s_per_cloud"}  # fmt: skip

FP32 = ("--runtime", "onnxruntime", "--precision", "fp32")


def foundry(*arguments) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as done:
        return int(done.code or 0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_budget_and_form_is_a_row(tiny_model, tmp_path, capsys):
    code = foundry(
        "bench", "--model", tiny_model, "--runtime", "onnxruntime", "--runtime", "gemm", "--outputs", "parts",
        "--batch", 3, "--quick", "--json", tmp_path / "rows.json", "--plot", tmp_path / "bench.png",
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert code == 0, err
    rows = json.loads((tmp_path / "rows.json").read_text())
    forms = {(row["runtime"], row["precision"], row["budget"], row["batch"]) for row in rows}
    assert forms >= {(runtime, "fp32", s, b) for runtime in ("onnxruntime", "gemm") for s in (1, 2, 4) for b in (3,)}
    for row in rows:
        assert row.keys() >= KEYS and row["runs"] == 6
        assert 0 < row["geometry_p50_ms"] < row["p50_ms"] <= row["p95_ms"] and row["network_p50_ms"] < row["p50_ms"]
        assert 20 < row["rss_mb"] < 4000 and row["load_s"] > 0 and row["cpu_s_per_cloud"] > 0
        assert row["macs"] == macs(load_card(tiny_model), row["budget"], ("class_logits", "part_logits"))
    assert "int8" in err  # there is no int8 graph of this model, and no weights to make one from
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_a_configuration_that_fails_is_named_and_the_others_are_measured(tiny_model):
    good = Spec("tiny", str(tiny_model), "onnxruntime", "fp32", 2, 1, 1)
    bad = Spec("tiny", str(tiny_model), "onnxruntime", "int8", 2, 1, 1)
    rows, failures = run_benchmark([bad, good], rounds=2, repeats=1)
    assert [row["precision"] for row in rows] == ["fp32"] and rows[0]["runs"] == 2
    assert len(failures) == 1 and "tiny, onnxruntime, int8, budget 2" in failures[0] and "missing" in failures[0]
    assert "Error" not in failures[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--runtime", "tensorrt"), "--runtime tensorrt: unknown"),
        (("--outputs", "everything"), "--outputs everything: unknown"),
        (("--plot", "bench.jpg"), "bench.jpg: pictures are written as .png"),
        (("--model", "no-such-model"), "no-such-model: neither a shipped model"),
        (("--runtime", "onnxruntime", "--precision", "bf16"), "bf16: --runtime onnxruntime has no such form; take"),
        (("--runtime", "gemm", "--precision", "int8"), "--precision int8: --runtime gemm has no such form; take fp32"),
        (
            ("--model", "teacher-small", *FP32, "--outputs", "classes"),
            "classes: no such head: teacher-small; take features",
        ),
    ],
)
def test_bad_options_end_with_one_line(tiny_model, capsys, arguments, words):
    model = () if "--model" in arguments else ("--model", tiny_model)
    assert foundry("bench", *model, "--quick", *arguments) == 2
    assert words in capsys.readouterr().err


def test_an_unknown_output_is_found_before_any_model_is_made(tiny_model, capsys, monkeypatch):
    monkeypatch.setattr(bench_plan, "models", lambda *_: pytest.fail("graphs were made first"))
    assert foundry("bench", "--model", tiny_model, "--outputs", "everything") == 2
    assert "--outputs everything" in capsys.readouterr().err


def test_models_of_one_name_are_told_apart_and_each_directory_is_measured_once(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copytree(tiny_model, tmp_path / name / "tiny")
    names = ["one/tiny", "two/tiny", "one/tiny", str(tmp_path / "two" / "tiny")]
    form = ("onnxruntime", "fp32")
    found = bench_plan.models(names, tmp_path, [form])
    places = [tmp_path / "one" / "tiny", tmp_path / "two" / "tiny"]
    assert [(item.name, item.directory) for item in found] == list(zip(("one/tiny", "two/tiny"), places, strict=True))
    assert [item.name for item in bench_plan.models(["one/tiny"], tmp_path, [form])] == ["tiny"]
    monkeypatch.setattr(bench_plan, "GROUPS", (16,))  # its own: others need weights
    planned, _ = bench_plan.scaling_specs(found, [form], 1, tmp_path)
    made = {spec.directory for spec in planned if spec.axis == "points"}
    assert len(made) == 2 * len(bench_plan.POINTS)


def test_missing_graphs_of_models_of_one_name_are_made_apart(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from test_models import TINY, card

    from foundry_core.export import bench_torch
    from foundry_core.models.registry import create_perception, save_model

    monkeypatch.setattr(bench_torch, "write_graphs", lambda *_, **__: None)
    for name in ("one", "two"):
        save_model(tmp_path / name, create_perception(card(TINY)), card(TINY))
    one, two = bench_plan.models([str(tmp_path / "one"), str(tmp_path / "two")], tmp_path, [("onnxruntime", "fp32")])
    weights = [load_card(item.directory).files["model.safetensors"] for item in (one, two)]
    assert weights == [load_card(tmp_path / name).files["model.safetensors"] for name in ("one", "two")]
    assert weights[0] != weights[1]


@pytest.mark.parametrize("options", [None, {}, {"upsampling": "none", "mlp_ratio": 2.0}, {"assignment": "fps"}])
def test_counted_products_are_those_that_torch_executes(options):
    torch = pytest.importorskip("torch")
    from test_models import TINY, card, tiny_student
    from torch.utils.flop_counter import FlopCounterMode

    from foundry_core.export.graph import example_inputs, perceive
    from foundry_core.export.rewrite import for_inference
    from foundry_core.models.registry import create_perception

    architecture = TINY if options is None else tiny_student(**options)
    model_card = card(architecture)
    network = for_inference(create_perception(model_card))
    inputs = [torch.from_numpy(value) for value in example_inputs(model_card, 1).values()]
    for budget in (1, 3) if architecture.supertokens else (None,):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            perceive(network, inputs, budget)
        counted = macs(model_card, budget, ("class_logits", "part_logits"))
        assert counter.get_total_flops() == 2 * counted
