# SPDX-License-Identifier: Apache-2.0
"""`foundry evaluate teach`: which shapes are taught and asked, what is counted, and the command."""

from __future__ import annotations

import json
import sys
from collections import Counter

import numpy as np
import pytest

from foundry_core.cli.main import main
from foundry_core.data.shapes import ShapeSet, save_shapes
from foundry_core.errors import InputError
from foundry_core.evaluation.teaching import choose, draw, evaluate_teaching
from foundry_core.runtime.perceiver import Perceiver
from foundry_core.runtime.pipeline import Pipeline
from foundry_core.runtime.teach import TaughtClasses

pytest.importorskip("onnx")


def solids(count: int = 8, kinds: tuple[str, ...] = ("disc", "ball", "box", "pole"), split: bool = True) -> ShapeSet:
    """Flat discs, balls, flat boxes and upright poles of 200 points; the second half of each is the test split."""
    rng = np.random.default_rng(0)
    clouds = {
        "disc": lambda: np.column_stack([_ring(rng), rng.normal(0, 0.01, 200)]),
        "ball": lambda: (lambda p: p / np.linalg.norm(p, axis=1, keepdims=True))(rng.normal(size=(200, 3))),
        "box": lambda: rng.uniform(-1, 1, (200, 3)) * [1, rng.uniform(0.4, 0.7), 0.1],
        "pole": lambda: np.column_stack([0.05 * _ring(rng), rng.uniform(-1, 1, 200)]),
    }
    points = np.stack([clouds[kind]() for kind in kinds for _ in range(count)]).astype(np.float32)
    label = np.repeat(np.arange(len(kinds)), count)
    sides = np.tile(np.arange(count) >= count // 2, len(kinds)).astype(np.int8)
    return ShapeSet("solids", points, label, kinds, split=sides if split else None)


def _ring(rng) -> np.ndarray:
    angle, radius = rng.uniform(0, 2 * np.pi, 200), np.sqrt(rng.random(200))
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def test_classes_are_chosen_renamed_and_joined():
    chosen = choose(solids(4), ["round=disc+ball", "carton=box"], "--class", ())
    assert chosen.names == ("round", "carton") and chosen.label.tolist() == [0] * 8 + [1] * 4
    assert chosen.train.tolist() == [True, True, False, False] * 3 and (chosen.test == ~chosen.train).all()
    assert choose(solids(4), [], "--class", {"ball", "cat"}).names == ("ball",)
    whole = choose(solids(4, split=False), ["disc"], "--class", ())
    assert whole.train.all() and whole.test.all()
    for texts, complaint in (
        (["cat"], "no class 'cat'; it has disc"),
        (["disc", "x=disc+ball"], "named twice"),
        (["x=disc", "x=ball"], "named twice"),
        ([], "no class of solids fits"),
    ):
        with pytest.raises(InputError, match=complaint):
            choose(solids(4), texts, "--class", {"cat"})


def test_twins_are_not_asked_but_may_be_taught():
    shapes = solids(4)
    twins = ShapeSet("t", shapes.points, shapes.label, shapes.class_names, split=shapes.split,
                     twin_in_train=np.ones(16, bool))  # fmt: skip
    chosen = choose(twins, ["disc"], "--class", ())
    assert chosen.train.sum() == 2 and not chosen.test.any()


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("validation", [True, False])
def test_nothing_is_both_taught_and_asked(split, validation):
    chosen = choose(solids(12, split=split), [], "--class", {"disc", "ball"})
    drawn, asked = draw(chosen, 5, validation, 3)
    for number, (rows, questions) in enumerate(zip(drawn, asked, strict=True)):
        assert len(set(rows)) == 5 and chosen.train[rows].all() and not set(rows) & set(questions)
        assert (chosen.label[rows] == number).all() and (chosen.label[questions] == number).all()
        if split:
            assert len(questions) == (1 if validation else 6)
            assert (chosen.train if validation else chosen.test)[questions].all()
        else:
            assert len(questions) == 7
    again, other = (draw(chosen, 5, validation, seed)[0] for seed in (3, 4))
    assert all((a == b).all() for a, b in zip(drawn, again, strict=True))
    assert any((a != b).any() for a, b in zip(drawn, other, strict=True))
    with pytest.raises(InputError, match="--exemplars 13: 'disc' has"):
        draw(chosen, 13, validation, 0)


@pytest.fixture(scope="module")
def reached(tiny_model):
    perceiver, shapes = Perceiver(tiny_model), solids(12)
    taught = choose(shapes, ["disc", "ball"], "--class", ())
    old = choose(shapes, ["box", "pole"], "--old-class", ())
    return evaluate_teaching(perceiver, taught, old, exemplars=4, seeds=(0, 1, 2))


def test_every_question_is_counted_once(reached):
    means = {name: value["mean"] for name, value in reached["metrics"].items()}
    shares = ("recognised", "another_taught", "own_class", "unknown")
    assert sum(means[f"{name}_percent"] for name in shares) == pytest.approx(100, abs=0.03)
    confusion = reached["confusion"]["taught"]
    assert reached["questions"] == {"disc": 6, "ball": 6} and reached["old_sightings"] == 12
    assert all(sum(counts.values()) == 18 for counts in confusion.values())
    for name, value in reached["recognised_by_class"].items():
        assert value["mean"] == pytest.approx(100 * confusion[name].get(name, 0) / 18, abs=0.01)
    old = reached["confusion"]["old"]
    right = sum(old[name].get(name, 0) for name in ("box", "pole"))
    assert sum(sum(counts.values()) for counts in old.values()) == 36
    assert means["old_accuracy_after_percent"] == pytest.approx(100 * right / 36, abs=0.01)
    lost = means["old_accuracy_before_percent"] - means["old_accuracy_after_percent"]
    assert means["old_lost_points"] == pytest.approx(lost, abs=0.01)


def foundry(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        sys.exit(main([str(argument) for argument in arguments]))
    return end.value.code or 0


def test_the_answers_are_those_of_foundry_teach(tiny_model, tmp_path):
    perceiver, chosen = Perceiver(tiny_model), choose(solids(12), ["disc", "ball"], "--class", ())
    drawn, asked = draw(chosen, 4, False, 7)
    for name, rows in zip(chosen.names, drawn, strict=True):
        for row in rows:
            np.save(tmp_path / f"{row}.npy", chosen.points[row])
        views = [tmp_path / f"{row}.npy" for row in rows]
        assert foundry("teach", name, *views, "--file", tmp_path / "taught.npz", "--model", tiny_model) == 0
    pipeline = Pipeline(perceiver, taught=TaughtClasses.load(tmp_path / "taught.npz", perceiver.card))
    expected = {
        name: dict(Counter(answer.label for answer in pipeline.classify(chosen.points[rows])))
        for name, rows in zip(chosen.names, asked, strict=True)
    }
    old = choose(solids(12), ["box", "pole"], "--old-class", ())
    reached = evaluate_teaching(perceiver, chosen, old, exemplars=4, seeds=[7])
    assert reached["confusion"]["taught"] == expected
    assert any(name in expected[name] for name in chosen.names), "nothing was recognised, so nothing was compared"


def test_classes_that_do_not_fit_the_model_are_refused(tiny_model):
    perceiver, shapes = Perceiver(tiny_model), solids(4)
    disc, box = (choose(shapes, [name], "--class", ()) for name in ("disc", "box"))
    with pytest.raises(InputError, match="label 'box': tiny has this class"):
        evaluate_teaching(perceiver, box, box, 1, [0])
    with pytest.raises(InputError, match="--old-class disc: tiny has no such class"):
        evaluate_teaching(perceiver, disc, disc, 1, [0])


def test_the_command_writes_rows(tiny_model, tmp_path, capsys):
    shapes = solids(6)
    path = tmp_path / "solids.npz"
    save_shapes(path, shapes)
    arguments = ["evaluate", "teach", "--model", tiny_model, "--data", path, "--old", path]
    assert foundry(*arguments, "--exemplars", 2, "--seeds", 2, "--json", tmp_path / "rows.json") == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert (row["protocol"], row["data"], row["old"], row["exemplars"]) == ("teach", "solids", "solids", 2)
    assert list(row["recognised_by_class"]) == ["disc", "ball"] and row["old_sightings"] == 6  # by name, of the model
    assert all(set(value) == {"mean", "std"} for value in row["metrics"].values()) and "recognised" in row["rule"]
    capsys.readouterr()
    for more, complaint in (
        (["--class", "box"], "has this class"),
        (["--exemplars", "50"], "--exemplars 50: 'disc' has 3 shapes"),
        (["--split", "train"], "--split train: unknown part"),
        (["--possible", "cat"], "classes: 'cat' is none of the model's"),
    ):
        assert foundry(*arguments, *more) == 2
        error = capsys.readouterr().err
        assert complaint in error and error.count("\n") == 1
