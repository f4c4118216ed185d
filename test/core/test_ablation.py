# SPDX-License-Identifier: Apache-2.0
"""Ablations: rows differ from their base in what they name, and are trained once."""

from pathlib import Path

import pytest
import yaml

torch = pytest.importorskip("torch")

from test_models import TINY, card  # noqa: E402

from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.registry import create_perception, load_model, save_model  # noqa: E402
from foundry_core.schema import load_settings  # noqa: E402
from foundry_core.training.ablation import ablate, merged, students, with_seeds  # noqa: E402
from foundry_core.training.config import DistillConfig  # noqa: E402

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
    first = ablate(students(path), tmp_path / "runs", "test", tmp_path / "cache")
    assert [directory.name for directory in first] == ["same", "fps"]
    cards = [load_model(directory)[1] for directory in first]
    assert [made.training[-1].steps for made in cards] == [4, 4]
    assert [made.architecture.supertokens.assignment for made in cards] == ["sinkhorn", "fps"]
    kept = [(directory / "model.safetensors").stat().st_mtime_ns for directory in first]
    ablate(students(path), tmp_path / "runs", "test", tmp_path / "cache")
    assert [(directory / "model.safetensors").stat().st_mtime_ns for directory in first] == kept


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
        students(write(tmp_path, {"good": {}, **rows}))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_ablations_hold_their_base_unchanged_as_one_row(path):
    rows = students(path)
    base = load_settings(path.parent / yaml.safe_load(path.read_text())["base"], DistillConfig)
    same = {"name", "loop"}
    assert any(row.model_dump(exclude=same) == base.model_dump(exclude=same) for row in rows.values())
    assert len({row.loop.steps for row in rows.values()}) == 1


def test_seeds_repeat_every_row_with_weights_of_its_own_on_the_same_clouds(tmp_path):
    rows = with_seeds(students(write(tmp_path, {"a": {}, "b": {}})), 2)
    assert list(rows) == ["a", "b", "a-seed1", "b-seed1"]
    assert [row.loop.seed for row in rows.values()] == [0, 0, 1, 1]
    assert all(row.name == name for name, row in rows.items())
    assert len({row.stream_seed for row in rows.values()}) == 1
