# SPDX-License-Identifier: Apache-2.0
"""Taught classes: what is recognised, what stays, and what a robot makes of clicks."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from street_scene import BOX, POLE, street

from foundry_core.card import load_card, write_card
from foundry_core.cli.main import main
from foundry_core.clouds import Cloud
from foundry_core.errors import InputError
from foundry_core.runtime import teach
from foundry_core.runtime.fewshot import FewShotHead, Space
from foundry_core.runtime.perceiver import Perceiver
from foundry_core.runtime.pipeline import Pipeline
from foundry_core.runtime.teach import ordinary_objects

pytest.importorskip("onnx")
WIDTH, OLD = 24, 8  # features, classes of the model


def clusters(count: int, seed: int, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features [n,F] around the centres [C,F], stretched as a network's are, and their classes [n]."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(centers)), count)
    stretch = np.geomspace(0.2, 2.0, WIDTH)
    return centers[classes] + 0.6 * stretch * rng.normal(size=(len(classes), WIDTH)), classes


CENTERS = 6.0 * np.random.default_rng(1).normal(size=(OLD + 3, WIDTH)) / np.sqrt(WIDTH) * 2
SURE = 0.9  # what the model gives its best class
SPACE = Space(*clusters(30, 2, CENTERS[:OLD]), np.full(30 * OLD, SURE))


def taught_head(exemplars: int = 5, seed: int = 3) -> FewShotHead:
    features, classes = clusters(exemplars, seed, CENTERS[OLD:])
    return FewShotHead.fit(SPACE, "abc", [features[classes == k] for k in range(3)], [np.full(exemplars, SURE)] * 3)


def certain(classes: np.ndarray, probability: float = 0.9) -> np.ndarray:
    rows = np.full((len(classes), OLD), (1 - probability) / (OLD - 1))
    rows[np.arange(len(classes)), classes] = probability
    return rows


@pytest.mark.parametrize("exemplars", [1, 3, 5])
def test_taught_classes_are_recognised_and_old_ones_stay(exemplars):
    head = taught_head(exemplars)
    features, classes = clusters(60, 4, CENTERS[OLD:])
    confident = certain(np.zeros(len(features), int))  # the model is sure, and wrong
    assert (head.extend(confident, features).argmax(axis=1) == OLD + classes).mean() > 0.9
    features, classes = clusters(60, 5, CENTERS[:OLD])
    kept = head.extend(certain(classes), features).argmax(axis=1) == classes
    assert kept.mean() >= 0.99


def test_a_taught_class_wins_exactly_above_its_threshold():
    head = taught_head()
    rng = np.random.default_rng(0)
    mixed = np.concatenate([clusters(40, 6, CENTERS)[0], rng.normal(size=(200, WIDTH)) * 4])
    for probability in (0.2, 0.5, 0.99):
        extended = head.extend(certain(np.zeros(len(mixed), int), probability), mixed)
        over = head.margins(certain(np.zeros(len(mixed), int), probability), mixed) - head.thresholds
        np.testing.assert_array_equal(extended.argmax(axis=1) >= OLD, (over > 0).any(axis=1))
        np.testing.assert_allclose(extended.sum(axis=1), 1.0)
    assert 0.1 < (over > 0).any(axis=1).mean() < 0.5  # both sides were tried


def test_scale_and_shift_of_the_features_do_not_matter():
    features, classes = clusters(20, 7, CENTERS)
    own, own_classes = clusters(30, 2, CENTERS[:OLD])
    exemplars = [100 * clusters(5, 3, CENTERS[OLD:])[0][5 * k : 5 * k + 5] + 7 for k in range(3)]
    space = Space(100 * own + 7, own_classes, np.full(len(own), SURE))
    other = FewShotHead.fit(space, "abc", exemplars, [np.full(5, SURE)] * 3)
    answers = certain(classes % OLD)
    np.testing.assert_allclose(other.margins(answers, 100 * features + 7), taught_head().margins(answers, features))


def test_the_surer_the_model_the_larger_the_margin():
    features, _ = clusters(20, 8, CENTERS[OLD:])
    sure, unsure = (taught_head().margins(certain(np.zeros(60, int), p), features) for p in (0.99, 0.3))
    assert (sure < unsure).all()


def test_features_that_do_not_vary_are_no_trouble():
    flat = np.zeros((40, WIDTH))
    space = Space(flat, np.arange(40) % 4, np.ones(40))
    head = FewShotHead.fit(space, ["a"], [np.ones((2, WIDTH))], [np.ones(2)])
    assert np.isfinite(head.extend(np.full((3, OLD), 1 / OLD), np.ones((3, WIDTH)))).all()


# -- a robot that is shown things --------------------------------------------------------------------------------------


def scene(number: int, extra: np.ndarray | None = None) -> Cloud:
    points = street(number) if extra is None else np.concatenate([street(number), extra])
    return Cloud.from_points(points, frame_id="lidar", stamp_ns=number * 100_000_000)


def near(perception, place):
    return next(item for item in perception.objects if np.hypot(*(item.segment.center[:2] - place)) < 0.4)


@pytest.fixture(scope="module")
def perceiver(tiny_model):
    return Perceiver(tiny_model)


@pytest.fixture(scope="module")
def ordinary(perceiver):
    return ordinary_objects(perceiver, per_class=6)


def test_ordinary_objects_are_the_models_own_classes_and_clutter(perceiver, ordinary):
    assert ordinary.features.shape == (18, 12) and np.isfinite(ordinary.features).all()
    assert set(ordinary.classes.tolist()) == {0, 1, 2} and (ordinary.probabilities >= 0.5).all()
    for column, again in zip(ordinary, ordinary_objects(perceiver, per_class=6), strict=True):
        np.testing.assert_array_equal(column, again)


def test_looking_at_ordinary_objects_ends_when_it_is_told_to(perceiver, monkeypatch):
    asked, classify, looked_at = [], perceiver.classify, []

    def enough() -> None:
        asked.append(len(looked_at))
        if len(asked) > 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(perceiver, "classify", lambda clouds: (looked_at.extend(clouds), classify(clouds))[1])
    with pytest.raises(KeyboardInterrupt):
        ordinary_objects(perceiver, per_class=6, between=enough)
    assert asked == [0] * 6 + [6] * 3  # a class is looked at before the next one is made


def disc(number: int) -> np.ndarray:
    """A flat round table top on nothing, 0.8 m above the ground: neither box nor pole."""
    rng = np.random.default_rng(number)
    angle, radius = rng.uniform(0, 2 * np.pi, 900), 1.2 * np.sqrt(rng.random(900))
    return np.column_stack([8 + radius * np.cos(angle), radius * np.sin(angle), rng.normal(-0.9, 0.02, 900)]).astype(
        np.float32
    )


def test_a_clicked_object_is_recognised_and_the_others_keep_their_names(perceiver, ordinary):
    pipeline = Pipeline(perceiver)
    pipeline.taught.set_ordinary(ordinary)
    assert near(pipeline.perceive(scene(0, disc(0))), (8, 0)).prediction.label in ("box", "pole", "unknown")
    for number in range(1, 4):
        said = pipeline.teach("disc", np.array([8.0, 0.3, -0.9]), "lidar", 0.5)
        assert f"exemplar {number}" in said
        perception = pipeline.perceive(scene(number, disc(number)))
    found = near(perception, (8, 0))
    assert (found.prediction.label, found.prediction.class_id) == ("disc", 2) and found.track_id >= 0
    assert (found.prediction.part_ids == -1).all()
    assert near(perception, BOX).prediction.label == "box" and near(perception, POLE).prediction.label == "pole"
    assert pipeline.classify([disc(9)])[0].label == "disc"
    pipeline.taught.forget("disc")
    assert near(pipeline.perceive(scene(5, disc(5))), (8, 0)).prediction.label != "disc"


def test_clicks_that_are_refused(perceiver):
    pipeline = Pipeline(perceiver)
    click = np.array([*BOX, -1.0])
    with pytest.raises(InputError, match="no cloud"):
        pipeline.teach("cat", click, "lidar", 0.5)
    pipeline.perceive(scene(0))
    for label, point, frame, complaint, reason in (
        ("cat", click, "map", "in frame 'map', the clouds are in 'lidar'", "frame"),
        ("cat", click + 9, "lidar", "no object within 0.5 m", "place"),
        ("cat", click * np.nan, "lidar", "not finite", "point"),
        ("pole", click, "lidar", "has this class", None),
    ):
        with pytest.raises(InputError, match=complaint) as refused:
            pipeline.teach(label, point, frame, 0.5)
        assert getattr(refused.value, "reason", None) == reason
    assert len(pipeline.taught) == 0
    pipeline.teach("cat", click + [0.9, 0, 0], "lidar", 0.5)  # 0.3 m beside the box
    assert len(pipeline.taught) == 1
    pipeline.clear()
    with pytest.raises(InputError, match="no cloud"):
        pipeline.object_at(click, "lidar", 0.5)


def test_teach_and_predict_from_files(tiny_model, tmp_path, capsys):
    import json

    def foundry(*arguments) -> int:
        try:
            return main([str(argument) for argument in arguments])
        except SystemExit as end:
            return end.code or 0

    for number in range(4):
        np.save(tmp_path / f"{number}.npy", disc(number))
    views = [tmp_path / f"{number}.npy" for number in range(3)]
    file = tmp_path / "taught.npz"
    assert foundry("teach", "disc", *views, "--file", file, "--model", tiny_model) == 0
    answers = tmp_path / "answers.json"
    predict = ("predict", tmp_path / "3.npy", "--model", tiny_model, "--json", answers)
    assert foundry(*predict, "--taught", file) == 0
    assert json.loads(answers.read_text())[0]["label"] == "disc"
    assert foundry(*predict) == 0
    assert json.loads(answers.read_text())[0]["label"] != "disc"
    assert foundry("teach", "disc", "--file", file, "--model", tiny_model, "--forget") == 0
    capsys.readouterr()
    for arguments, complaint in (
        (("teach", "disc", "--file", file, "--model", tiny_model), "give at least one cloud"),
        (("teach", "pole", views[0], "--file", file, "--model", tiny_model), "has this class"),
        (("teach", "disc", views[0], "--file", tmp_path / "x.txt", "--model", tiny_model), "written as .npz"),
        (("teach", "disc", "--file", tmp_path / "none.npz", "--model", tiny_model, "--forget"), "no such file"),
        ((*predict, "--taught", tmp_path / "none.npz"), "no such file"),
    ):
        assert foundry(*arguments) == 2
        error = capsys.readouterr().err
        assert complaint in error and error.count("\n") == 1


def test_a_directory_of_another_form_alone_is_taught(tiny_model, tmp_path, foundry, monkeypatch):
    directory = tmp_path / "int8"
    shutil.copytree(tiny_model, directory)
    (directory / "model.onnx").rename(directory / "model.int8.onnx")
    np.save(tmp_path / "disc.npy", disc(0))
    monkeypatch.setattr(teach, "ordinary_objects", lambda perceiver: ordinary_objects(perceiver, per_class=2))
    command = ("teach", "disc", tmp_path / "disc.npy", "--file", tmp_path / "taught.npz", "--model", directory)
    write_card(directory, load_card(directory, verify=False))
    code, _, err = foundry(*command, "--precision", "int8")
    assert code == 2 and "does not say which weights its graphs are of" in err
    write_card(directory, load_card(directory).model_copy(update={"weights_sha256": "0" * 64}))
    assert foundry(*command, "--precision", "int8")[0] == 0
    with np.load(tmp_path / "taught.npz") as file:
        assert file["fingerprint"] == "0" * 64
