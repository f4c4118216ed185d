# SPDX-License-Identifier: Apache-2.0
"""The training loop: it learns, it survives a kill, and a resumed run equals an uninterrupted one."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

from foundry_core.card import Heads, ObjectHead, load_card  # noqa: E402
from foundry_core.cli.main import main  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.heads import Perception  # noqa: E402
from foundry_core.models.registry import create_model, load_model, save_model  # noqa: E402
from foundry_core.schema import parse  # noqa: E402
from foundry_core.training.config import DistillConfig, PretrainConfig  # noqa: E402
from foundry_core.training.distill import Distillation, distill, r_squared  # noqa: E402
from foundry_core.training.precision import fast_bfloat16, mixed_precision  # noqa: E402
from foundry_core.training.pretrain import pretrain  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = {
    "tokenizer": {"first": 8, "second": 16, "third": 16},
    "encoder": {"width": 24, "depth": 2, "heads": 3, "position_hidden": 8},
}
LOOP = {"steps": 60, "batch": 4, "precision": "fp32", "workers": 0, "learning_rate": 2e-3}
PRETRAIN = {
    "name": "tiny",
    "architecture": ARCHITECTURE,
    "preprocessing": {"points": 64, "groups": 8, "neighbors": 8},
    "objective": {"kind": "mae", "decoder_depth": 1},
    "loop": LOOP,
}


def log_losses(folder: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in map(json.loads, (folder / "log.jsonl").read_text().splitlines())}


def weights(folder: Path) -> dict:
    return load_model(folder)[0].state_dict()


def test_pretraining_writes_a_model_and_says_what_it_saw(tmp_path):
    card = pretrain(parse(PretrainConfig, PRETRAIN, "test"), tmp_path / "run")
    assert card == load_card(tmp_path / "run" / "tiny")
    assert card.kind == "teacher" and card.training[0].steps == 60
    assert [data.name for data in card.training[0].data] == ["procedural compositions", "procedural categories"]
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["name"] == "tiny"
    assert all(np.isfinite(list(log_losses(tmp_path / "run").values())))


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path):
    settings = {**PRETRAIN, "loop": {**LOOP, "steps": 100, "checkpoint_seconds": 1e-6}}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    whole = parse(PretrainConfig, settings, "test")
    pretrain(whole, tmp_path / "whole")
    # a process that is killed once its checkpoint is well on the way
    command = [sys.executable, "-m", "foundry_core.cli.main", "pretrain", "--config", str(config)]
    process = subprocess.Popen([*command, "--out", str(tmp_path / "killed")], cwd=ROOT, stdout=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    step = torch.load(checkpoint, weights_only=True)["step"]
    assert 0 < step < 100, "the kill came too late to test anything"
    pretrain(whole, tmp_path / "killed")
    expected, resumed = weights(tmp_path / "whole" / "tiny"), weights(tmp_path / "killed" / "tiny")
    for name, value in expected.items():
        assert torch.equal(value, resumed[name]), name


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    config = parse(PretrainConfig, PRETRAIN, "test")
    hold = "import fcntl, sys; f = open(sys.argv[1], 'wb'); fcntl.lockf(f, 2); print(1, flush=True); input()"
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", hold, str(tmp_path / "run" / "log.jsonl")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(InputError, match="another process trains in this folder"):
            pretrain(config, tmp_path / "run")
        other.kill()
    assert pretrain(config, tmp_path / "run").name == "tiny"  # a killed process holds nothing


def test_a_torn_checkpoint_is_refused_by_name(tmp_path):
    config = parse(PretrainConfig, PRETRAIN, "test")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(InputError, match="checkpoint.pt: torn or no checkpoint"):
        pretrain(config, tmp_path / "run")


def test_distillation_explains_more_of_the_teacher_as_it_goes_on(tmp_path):
    pretrain(parse(PretrainConfig, PRETRAIN, "test"), tmp_path / "teacher")
    values = {
        "name": "student",
        "teacher": str(tmp_path / "teacher" / "tiny"),
        "architecture": {**ARCHITECTURE, "supertokens": {"count": 4}},
        "loop": {**LOOP, "steps": 300, "batch": 8},
    }
    card = distill(parse(DistillConfig, values, "test"), tmp_path / "student")
    rows = [json.loads(line) for line in (tmp_path / "student" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["r2"] > rows[0]["r2"] + 0.05
    assert card.kind == "student" and card.budgets == [4]
    assert (tmp_path / "student" / "curves.png").is_file()
    assert card.training[-1].parent == "tiny" and len(card.training[-1].parent_sha256) == 64
    teacher, student = weights(tmp_path / "teacher" / "tiny"), weights(tmp_path / "student" / "student")
    for name, value in teacher.items():
        if ".tokenizer." in name:  # shared and frozen, its batch statistics too
            assert torch.equal(student[name], value), name


def test_elastic_students_learn_from_one_cache_of_teacher_features(tmp_path):
    pretrain(parse(PretrainConfig, PRETRAIN, "test"), tmp_path / "teacher")
    values = {
        "name": "student",
        "teacher": str(tmp_path / "teacher" / "tiny"),
        "architecture": {
            **ARCHITECTURE,
            "tokenizer": {"first": 4, "second": 8, "third": 8, "stride": 2, "pool": "before"},
            "supertokens": {"count": 4, "alone": True, "noise": False, "spread": "soft"},
        },
        "budgets": [1, 2, 4],
        "losses": {"pooled": 0.5, "supertokens": 0.25, "alone": 0.5, "tokenizer": 0.5},
        "cache": 64,
        "loop": {**LOOP, "steps": 200, "batch": 8},
    }
    config = parse(DistillConfig, values, "test")
    card = distill(config, tmp_path / "student", cache=tmp_path / "cache")
    rows = [json.loads(line) for line in (tmp_path / "student" / "log.jsonl").read_text().splitlines()]
    for name in ("features", "pooled", "supertokens", "alone", "tokenizer"):
        assert rows[-1][name] < rows[0][name], name
    assert card.budgets == [1, 2, 4]
    half = parse(DistillConfig, {**values, "loop": {**LOOP, "steps": 100, "batch": 8}}, "test")
    distill(half, tmp_path / "resumed", cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1  # one cache for every student
    with pytest.raises(InputError, match="losses.alone"):
        distill(parse(DistillConfig, {**values, "losses": {}}, "test"), tmp_path / "bad", cache=tmp_path / "cache")
    supertokens = {**values["architecture"]["supertokens"], "gate": 8, "bypass": 0.25}
    values["architecture"] = {**values["architecture"], "supertokens": supertokens}
    with pytest.raises(InputError, match="losses.gate"):
        distill(parse(DistillConfig, values, "test"), tmp_path / "bad", cache=tmp_path / "cache")
    values["losses"] = {**values["losses"], "gate": 10.0}
    values["loop"] = {**LOOP, "steps": 60, "batch": 8}
    distill(parse(DistillConfig, values, "test"), tmp_path / "gated", cache=tmp_path / "cache")
    last = json.loads((tmp_path / "gated" / "log.jsonl").read_text().splitlines()[-1])
    assert 0 < last["bypass"] < 0.5 and last["gate"] >= 0


def test_r_squared_of_known_cases():
    target = torch.randn(4, 8, 16)
    assert r_squared(target, target) == 1
    assert abs(float(r_squared(target.mean(dim=(0, 1)).expand_as(target), target))) < 1e-5


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_parse(path):
    from foundry_core.cli.train import data_sets
    from foundry_core.schema import load_settings
    from foundry_core.training.config import HeadConfig

    values = yaml.safe_load(path.read_text())
    if "files" in values:
        assert data_sets([str(path)], Path("root"))["files"][0].path.parts[0] == "root"
        return
    schema = DistillConfig if "teacher" in values else HeadConfig if "model" in values else PretrainConfig
    assert load_settings(path, schema).name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rat": 1}, "learning_rat: unknown key"),
        ({"loop": {"stpes": 1}}, "loop.stpes: unknown key"),
        ({"architecture": {"encoder": {"width": 25, "heads": 3}}}, "width 25 is not a multiple of heads 3"),
        ({"objective": {"kind": "mae", "mask_ratio": 1.5}}, "objective.mae.mask_ratio: "),
        ({"mask_ratio": 0.7}, "'mask_ratio' was removed: write it as objective: {kind: mae, mask_ratio: ...}"),
        ({"objective": {"kind": "mea"}}, "objective: "),
        ({"objective": {"kind": "jepa", "target_ratio": [0.3, 0.3]}}, "leave no context"),
        ({"objective": {"kind": "point2vec", "target_blocks": 3}}, "target_blocks 3 exceeds the depth 2"),
        ({"objective": {"kind": "jepa", "predictor_width": 10}}, "10 is not a multiple of heads 3"),
        ({"objective": {"kind": "point2vec", "decay": [0.9, 0.8]}}, "decay must rise"),
        ({"objective": {"kind": "mae", "mask_ratio": 0.05}}, "masks all or none"),
    ],
)
def test_bad_configurations_name_the_key(change, message):
    with pytest.raises(InputError, match=message):
        parse(PretrainConfig, {**PRETRAIN, **change}, "config.yaml")


def test_a_student_goes_on_from_an_earlier_one_of_its_architecture(tmp_path):
    pretrain(parse(PretrainConfig, PRETRAIN, "test"), tmp_path / "teacher")
    values = {
        "name": "student",
        "teacher": str(tmp_path / "teacher" / "tiny"),
        "architecture": {**ARCHITECTURE, "supertokens": {"count": 4}},
        "losses": {"pooled": 1.0},
        "loop": {**LOOP, "steps": 200, "batch": 8},
    }
    first = distill(parse(DistillConfig, values, "test"), tmp_path / "first")
    again = {**values, "start": str(tmp_path / "first" / "student"), "loop": {**LOOP, "steps": 50, "batch": 8}}
    second = distill(parse(DistillConfig, again, "test"), tmp_path / "second")
    rows = [json.loads((tmp_path / run / "log.jsonl").read_text().splitlines()[0]) for run in ("first", "second")]
    assert rows[1]["features"] < rows[0]["features"]  # it does not begin anew
    assert second.training[:-1] == first.training and second.training[-1].parent == "tiny"
    other = {**again, "architecture": {**ARCHITECTURE, "supertokens": {"count": 2}}}
    with pytest.raises(InputError, match="another architecture"):
        distill(parse(DistillConfig, other, "test"), tmp_path / "other")
    with pytest.raises(InputError, match="no student of tiny"):
        copy = tmp_path / "copy"
        pretrain(parse(PretrainConfig, {**PRETRAIN, "loop": {**LOOP, "steps": 2}}, "test"), copy)
        distill(parse(DistillConfig, {**again, "teacher": str(copy / "tiny")}, "test"), tmp_path / "stranger")


def test_an_adapted_student_keeps_its_heads_and_is_measured_on_what_it_did_not_learn(tmp_path):
    pretrain(parse(PretrainConfig, PRETRAIN, "test"), tmp_path / "teacher")
    teacher = str(tmp_path / "teacher" / "tiny")
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 64, 3)) * rng.uniform(0.3, 1, (12, 1, 3))
    np.savez(tmp_path / "seen.npz", points=points.astype(np.float32), split=np.arange(12) % 3 == 2)
    values = {
        "name": "student",
        "teacher": teacher,
        "architecture": {**ARCHITECTURE, "supertokens": {"count": 4}},
        "budgets": [2, 4],
        "default_budget": 2,
        "loop": {**LOOP, "steps": 20, "batch": 8},
    }
    distill(parse(DistillConfig, values, "test"), tmp_path / "first")
    network, card = load_model(tmp_path / "first" / "student")
    headed = Perception(network.backbone, 24, classes=3)
    head = ObjectHead(classes=["box", "rod", "ball"], temperature=1.5)
    save_model(tmp_path / "headed", headed, card.model_copy(update={"heads": Heads(objects=head)}))
    again = {**values, "start": str(tmp_path / "headed"), "loop": {**LOOP, "steps": 120, "batch": 8}}
    held_out, out = tmp_path / "seen.npz", tmp_path / "second"
    card = distill(parse(DistillConfig, again, "test"), out, held_out=held_out, measure_every=100)
    adapted, _ = load_model(out / "student")
    assert card.heads.objects == head
    assert all(
        torch.equal(a, b) for a, b in zip(adapted.objects.parameters(), headed.objects.parameters(), strict=True)
    )
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    measured = {row["step"]: row["held_out_r2"] for row in rows if "held_out_r2" in row}
    assert set(measured) == {0, 100, 120} and measured[120] > measured[0]
    judged = foundry_fidelity(str(out / "student"), teacher, held_out, tmp_path / "rows.json")
    assert {metric.name: metric.value for metric in card.metrics} == pytest.approx(judged, abs=1e-4)
    assert measured[120] == pytest.approx(judged["r2"], abs=1e-4)


def foundry_fidelity(model: str, teacher: str, shapes: Path, out: Path) -> dict[str, float]:
    """R² and cosine at s=2 as the command gives them for a set without labels; it has no accuracies."""
    arguments = ["evaluate", "fidelity", "--model", model, "--teacher", teacher, "--data", str(shapes)]
    with contextlib.suppress(SystemExit):
        main([*arguments, "--budget", "2", "--seeds", "1", "--json", str(out)])
    metrics = json.loads(out.read_text())[0]["metrics"]
    assert "neighbor_same_percent" in metrics and not [name for name in metrics if "accuracy" in name]
    return {name: metrics[name]["mean"] for name in ("r2", "cosine")}


@pytest.mark.parametrize(("share", "expected"), [(None, 1 / 3), (0.6, 0.6), (1.0, 1.0), (0.0, 0.0)])
def test_the_default_budget_is_trained_in_its_share_of_the_steps(share, expected):
    values = {
        "name": "student",
        "teacher": "none",
        "architecture": {**ARCHITECTURE, "supertokens": {"count": 8}},
        "budgets": [1, 2, 4, 8],
        "default_budget": 4,
        "default_share": share,
    }
    config = parse(DistillConfig, values, "test")
    architecture = config.architecture
    teacher = create_model(architecture.model_copy(update={"supertokens": None}))
    task = Distillation(config, teacher, create_model(architecture))
    torch.manual_seed(0)
    draws = [task.budgets() for _ in range(2000)]
    assert {full for full, _ in draws} == {8}
    shares = {budget: sum(other == budget for _, other in draws) / 2000 for budget in (1, 2, 4)}
    assert shares[4] == pytest.approx(expected, abs=0.04)
    assert shares[1] == pytest.approx((1 - expected) / 2, abs=0.04)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", False), ("bf16", True), ("auto", fast_bfloat16())])
def test_mixed_precision_follows_the_wish_and_the_processor(precision, expected):
    with mixed_precision(precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert (product.dtype == torch.bfloat16) is expected
