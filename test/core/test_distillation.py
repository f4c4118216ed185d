# SPDX-License-Identifier: Apache-2.0
"""Distillation: students learn, go on from one another, and what is said of them is measured."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from head_family import save  # noqa: E402
from test_models import TINY  # noqa: E402
from tiny_training import ARCHITECTURE, LOOP, PRETRAIN, weights  # noqa: E402

from foundry_core.card import Heads, ObjectHead  # noqa: E402
from foundry_core.cli.main import main  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.heads import Perception  # noqa: E402
from foundry_core.models.registry import create_model, load_model, save_model  # noqa: E402
from foundry_core.schema import parse  # noqa: E402
from foundry_core.training.config import DistillConfig, PretrainConfig  # noqa: E402
from foundry_core.training.distill import Distillation, distill, r_squared  # noqa: E402
from foundry_core.training.pretrain import pretrain  # noqa: E402


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    """Its directory; no test changes it."""
    folder = tmp_path_factory.mktemp("teacher")
    pretrain(parse(PretrainConfig, PRETRAIN, "test"), folder)
    return str(folder / "tiny")


@pytest.fixture
def beginning(teacher) -> dict:
    """What every student's settings begin with."""
    return {"name": "student", "teacher": teacher}


def test_distillation_explains_more_of_the_teacher_as_it_goes_on(beginning, tmp_path):
    values = {
        **beginning,
        "architecture": {**ARCHITECTURE, "supertokens": {"count": 4}},
        "loop": {**LOOP, "steps": 300, "batch": 8},
    }
    card = distill(parse(DistillConfig, values, "test"), tmp_path / "student")
    rows = [json.loads(line) for line in (tmp_path / "student" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["r2"] > rows[0]["r2"] + 0.05
    assert card.kind == "student" and card.budgets == [4]
    assert (tmp_path / "student" / "curves.png").is_file()
    assert card.training[-1].parent == "tiny" and len(card.training[-1].parent_sha256) == 64
    theirs, student = weights(beginning["teacher"]), weights(tmp_path / "student" / "student")
    for name, value in theirs.items():
        if ".tokenizer." in name:  # shared and frozen, its batch statistics too
            assert torch.equal(student[name], value), name


def test_a_student_is_no_teacher(tmp_path):
    values = {"name": "student", "teacher": "foundry-edge", "architecture": ARCHITECTURE, "loop": LOOP}
    with pytest.raises(InputError, match="teacher: foundry-edge is a student; name a teacher"):
        distill(parse(DistillConfig, values, "test"), tmp_path / "student")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokenizer_share": 0.5}, "tokenizer_share: .*frozen; leave it out"),
        ({"budgets": [4, 2, 4]}, "budgets: .*twice; give each once"),
    ],
)
def test_settings_that_contradict_each_other_are_named(tmp_path, change, said):
    save(tmp_path / "tiny", TINY)
    architecture = {**TINY.model_dump(), "supertokens": {"count": 4}}
    values = {"name": "student", "teacher": str(tmp_path / "tiny"), "architecture": architecture, "loop": LOOP}
    with pytest.raises(InputError, match=f"test: {said}"):
        distill(parse(DistillConfig, {**values, **change}, "test"), tmp_path / "student", source="test")


def test_elastic_students_learn_from_one_cache_of_teacher_features(beginning, tmp_path):
    values = {
        **beginning,
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


def test_a_student_goes_on_from_an_earlier_one_of_its_architecture(beginning, tmp_path):
    values = {
        **beginning,
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


def test_a_student_goes_on_from_a_deeper_one_with_some_of_its_blocks(beginning, tmp_path):
    deep = {**ARCHITECTURE, "encoder": {**ARCHITECTURE["encoder"], "depth": 4}, "supertokens": {"count": 4}}
    values = {**beginning, "architecture": deep, "loop": {**LOOP, "steps": 2}}
    first = distill(parse(DistillConfig, values, "test"), tmp_path / "first")
    shallow = {**deep, "encoder": {**deep["encoder"], "depth": 2}}
    again = {**values, "architecture": shallow, "start": str(tmp_path / "first" / "student")}
    again["loop"] = {**LOOP, "steps": 1, "learning_rate": 1e-12}  # it hardly moves
    second = distill(parse(DistillConfig, again, "test"), tmp_path / "second")
    assert second.architecture.encoder.depth == 2 and second.training[:-1] == first.training
    before, after = weights(tmp_path / "first" / "student"), weights(tmp_path / "second" / "student")
    assert any("encoder.blocks.1." in name for name in after)
    for name, value in after.items():
        source = (
            name.replace("blocks.0.", "blocks.1.") if "blocks.0." in name else name.replace("blocks.1.", "blocks.3.")
        )
        assert torch.allclose(value.double(), before[source].double(), atol=1e-6), name


def test_a_student_goes_on_with_the_teachers_tokens_and_infers_with_them(beginning, tmp_path):
    values = {**beginning, "architecture": {**ARCHITECTURE, "supertokens": {"count": 4}}}
    values |= {"freeze_tokenizer": False, "loop": {**LOOP, "steps": 4}}
    distill(parse(DistillConfig, values, "test"), tmp_path / "first")
    again = {**values, "freeze_tokenizer": True, "start": str(tmp_path / "first" / "student")}
    distill(parse(DistillConfig, again, "test"), tmp_path / "second")
    theirs, first, second = map(weights, (values["teacher"], tmp_path / "first/student", tmp_path / "second/student"))
    names = [name for name in theirs if ".tokenizer." in name]
    assert names and any(not torch.equal(first[name], theirs[name]) for name in names)
    assert all(torch.equal(second[name], theirs[name]) for name in names)


def test_a_student_goes_on_with_another_tokenizer_which_is_learned_first(beginning, tmp_path):
    values = {
        **beginning,
        "architecture": {
            **ARCHITECTURE,
            "tokenizer": {"first": 4, "second": 8, "third": 8},
            "supertokens": {"count": 4},
        },
        "losses": {"tokenizer": 0.5},
        "loop": {**LOOP, "steps": 100, "batch": 8, "log_steps": 10},
    }
    first = distill(parse(DistillConfig, values, "test"), tmp_path / "first")
    values["start"] = str(tmp_path / "first" / "student")
    values["architecture"] = {**values["architecture"], "tokenizer": {"kind": "shallow", "directions": 8, "hidden": 16}}
    with pytest.raises(InputError, match="test: start: .*tokenizer_share"):
        distill(parse(DistillConfig, values, "test"), tmp_path / "other", source="test")
    again = parse(DistillConfig, {**values, "tokenizer_share": 0.5}, "test")
    second = distill(again, tmp_path / "second")
    assert second.training[:-1] == first.training and second.architecture.tokenizer.kind == "shallow"
    rows = [json.loads(line) for line in (tmp_path / "second" / "log.jsonl").read_text().splitlines()]
    assert rows[4]["tokenizer"] < rows[0]["tokenizer"]
    assert ["features" in row for row in rows] == [False] * 5 + [True] * 5
    # while the tokenizer learns, nothing else moves
    halfway = parse(DistillConfig, {**values, "tokenizer_share": 0.999}, "test")
    distill(halfway, tmp_path / "third")
    before, after = weights(tmp_path / "first" / "student"), weights(tmp_path / "third" / "student")
    assert all(torch.equal(before[name], after[name]) for name in after if ".tokenizer." not in name)


def test_an_adapted_student_keeps_its_heads_and_is_measured_on_what_it_did_not_learn(teacher, tmp_path):
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
