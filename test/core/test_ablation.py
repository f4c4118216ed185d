# SPDX-License-Identifier: Apache-2.0
"""Ablations: rows differ from their base in what they name, and are trained once."""

from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

from test_models import TINY, card  # noqa: E402

from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.registry import create_perception, load_model, save_model  # noqa: E402
from foundry_core.schema import parse, read_yaml  # noqa: E402
from foundry_core.training.ablation import ablate, chosen, configurations, merged, with_seeds  # noqa: E402
from foundry_core.training.cost import flops_per_sample  # noqa: E402

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "config/train/ablations").glob("*.yaml"))


def write(folder: Path, rows: dict) -> Path:
    torch.manual_seed(0)
    save_model(folder / "teacher", create_perception(card(TINY)), card(TINY))
    base = {
        "name": "base",
        "teacher": str(folder / "teacher"),
        "architecture": {**TINY.model_dump(exclude={"output_width"}), "supertokens": {"count": 4}},
        "budgets": [2, 4],
        "loop": {"batch": 4, "workers": 0, "precision": "fp32"},
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    path = folder / "ablation.yaml"
    path.write_text(yaml.safe_dump({"base": "base.yaml", "steps": 4, "rows": rows}, sort_keys=False))
    return path


def test_a_change_replaces_what_it_names_and_nothing_else():
    base = {"a": {"b": 1, "c": 2}, "d": [1, 2]}
    assert merged(base, {"a": {"c": 3}, "d": [5]}) == {"a": {"b": 1, "c": 3}, "d": [5]}
    assert base == {"a": {"b": 1, "c": 2}, "d": [1, 2]}


def test_rows_are_trained_with_equal_steps_and_only_once(tmp_path):
    path = write(tmp_path, {"same": {}, "fps": {"architecture": {"supertokens": {"assignment": "fps"}}}})
    first = ablate(configurations(path), tmp_path / "runs", "test", tmp_path / "cache")
    assert [directory.name for directory in first] == ["same", "fps"]
    cards = [load_model(directory)[1] for directory in first]
    assert [made.training[-1].steps for made in cards] == [4, 4]
    assert [made.architecture.supertokens.assignment for made in cards] == ["sinkhorn", "fps"]
    kept = [(directory / "model.safetensors").stat().st_mtime_ns for directory in first]
    ablate(configurations(path), tmp_path / "runs", "test", tmp_path / "cache")
    assert [(directory / "model.safetensors").stat().st_mtime_ns for directory in first] == kept


def test_a_row_that_was_trained_with_another_configuration_is_refused(tmp_path):
    path, runs = write(tmp_path, {"same": {}, "other": {"loop": {"weight_decay": 0.0}}}), tmp_path / "runs"
    made = configurations(path)

    def again(config):
        return ablate({"same": config}, runs, "plan", tmp_path / "cache")

    again(made["same"])
    again(made["same"].model_copy(update={"loop": made["same"].loop.model_copy(update={"threads": 2})}))
    longer = configurations(path, steps=6)["same"]
    with pytest.raises(InputError, match="^plan: same: .*loop.steps: 4 -> 6.; choose another --out"):
        again(longer)
    (runs / "same/same/card.json").unlink()  # half trained: the checkpoint is there
    with pytest.raises(InputError, match="loop.weight_decay: 0.05 -> 0.0"):
        again(made["other"].model_copy(update={"name": "same"}))
    (runs / "same/checkpoint.pt").unlink()  # nothing of it is left
    assert load_model(*again(longer))[1].training[-1].steps == 6


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"x": {"budgts": [1]}}, r"rows.x: budgts: unknown key"),
        ({"x": {"architecture": {"supertokens": {"spred": "soft"}}}}, "spred: unknown key"),
        ({"../x": {}}, "no folder name"),
    ],
)
def test_a_bad_row_is_named_before_anything_is_trained(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        configurations(write(tmp_path, {"good": {}, **rows}))


def test_a_plan_without_rows_is_refused(tmp_path):
    with pytest.raises(InputError, match="rows: .*at least 1"):
        configurations(write(tmp_path, {}))


def test_a_base_that_is_no_mapping_is_named(tmp_path):
    (tmp_path / "base.yaml").write_text("- teacher")
    (tmp_path / "plan.yaml").write_text("{base: base.yaml, steps: 1, rows: {a: {}}}")
    with pytest.raises(InputError, match="base.yaml: expected keys and their values"):
        configurations(tmp_path / "plan.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_ablations_hold_their_base_unchanged_as_one_row(path):
    data = {"data": {"files": [{"path": "some.npz"}]}}
    rows, values = configurations(path, data), yaml.safe_load(path.read_text())
    base = parse(type(next(iter(rows.values()))), merged(read_yaml(path.parent / values["base"]), data), path)
    same = {"name", "loop"}
    (first, *_) = [row for row in rows.values() if row.model_dump(exclude=same) == base.model_dump(exclude=same)]
    assert first.loop.steps == values["steps"]
    if values.get("equal") == "compute":
        costs = [row.loop.steps * row.loop.batch * flops_per_sample(row) for row in rows.values()]
        assert max(costs) < 1.01 * min(costs) and len({row.loop.steps for row in rows.values()}) > 3
    else:
        assert {row.loop.steps for row in rows.values()} == {values["steps"]}


def test_teachers_that_differ_in_objective_and_width_are_trained_with_equal_compute(tmp_path):
    points = np.random.default_rng(0).normal(size=(8, 64, 3)).astype(np.float32)
    np.savez(tmp_path / "set.npz", points=points)
    base = {
        "name": "base",
        "architecture": TINY.model_dump(exclude={"output_width", "supertokens"}),
        "preprocessing": {"points": 64, "groups": 8, "neighbors": 8},
        "objective": {"kind": "mae", "decoder_depth": 1},
        "data": {"compositions": 0, "categories": 0, "partial": 0},
        "loop": {"batch": 4, "workers": 0, "precision": "fp32"},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    rows = {
        "mae": {},
        "jepa": {"objective": {"kind": "jepa", "predictor_depth": 1}},
        "wide": {"architecture": {"encoder": {"width": 48}}},
        "none": {"data": {"files": []}},
    }
    path = tmp_path / "ablation.yaml"
    text = {"base": "base.yaml", "steps": 9, "equal": "compute", "rows": rows}
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    data = {"data": {"files": [{"path": str(tmp_path / "set.npz")}]}}
    with pytest.raises(InputError, match="rows.none: data: nothing to train on"):
        configurations(path, data)
    del rows["none"]
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    made = configurations(path, data)
    cards = [load_model(directory)[1] for directory in ablate(made, tmp_path / "runs", "test", tmp_path / "cache")]
    assert [card.training[-1].steps for card in cards] == [row.loop.steps for row in made.values()]
    assert made["mae"].loop.steps == 9 > made["wide"].loop.steps and "Point-JEPA" in cards[1].training[0].task


def test_seeds_repeat_every_row_with_weights_of_its_own_on_the_same_clouds(tmp_path):
    rows = with_seeds(configurations(write(tmp_path, {"a": {}, "b": {}})), 2)
    assert list(rows) == ["a", "b", "a-seed1", "b-seed1"]
    assert [row.loop.seed for row in rows.values()] == [0, 0, 1, 1]
    assert all(row.name == name for name, row in rows.items())
    assert len({row.stream_seed for row in rows.values()}) == 1


def test_what_does_not_fit_the_teacher_is_found_before_any_row_is_trained(tmp_path):
    path = write(
        tmp_path, {"good": {}, "bad": {"tokenizer_share": 0.5}, "asked": {"task": "ldraw", "losses": {"logits": 1}}}
    )
    made = configurations(path)
    for name, message in (("bad", "plan: bad: tokenizer_share: .*leave it out"), ("asked", "plan: asked: task: ldraw")):
        with pytest.raises(InputError, match=message):
            ablate({"good": made["good"], name: made[name]}, tmp_path / "runs", "plan", tmp_path / "cache")
    assert not (tmp_path / "runs").exists()


def test_rows_are_chosen_by_name(tmp_path):
    rows = with_seeds(configurations(write(tmp_path, {"a": {}, "b": {}})), 2)
    assert list(chosen(rows, ["b-seed1", "a"], "plan")) == ["b-seed1", "a"] and chosen(rows, [], "plan") is rows
    with pytest.raises(InputError, match="plan: rows: there is no 'c'; choose from a, b, a-seed1, b-seed1"):
        chosen(rows, ["a", "c"], "plan")
