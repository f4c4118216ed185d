# SPDX-License-Identifier: Apache-2.0
"""Objects over frames: ids, fused classes and their parts, around a model whose answers are known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from street_scene import BOX, POLE, street

from foundry_core import records
from foundry_core.clouds import Cloud
from foundry_core.runtime.objects import no_answer
from foundry_core.runtime.perceiver import Perceiver, PerceiverConfig
from foundry_core.runtime.pipeline import Pipeline
from foundry_core.scene.tracks import TracksConfig

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def perceiver(tiny_model):
    return Perceiver(tiny_model)


def cloud(number: int) -> Cloud:
    return Cloud.from_points(street(number), frame_id="lidar", stamp_ns=number * 100_000_000)


def at(perception, place):
    return next(item for item in perception.objects if np.hypot(*(item.segment.center[:2] - place)) < 0.3)


def test_evidence_is_what_the_answer_was_made_of(perceiver):
    answer = perceiver.classify([street()[-1200:]])[0]
    assert answer.probabilities.shape == (2,) and answer.probabilities.sum() == pytest.approx(1.0)
    assert answer.probabilities.max() == answer.probability
    assert answer.evidence.features.shape == (12,) and answer.evidence.features.dtype == np.float32
    again = perceiver.answers.answer(street()[-1200:], answer.evidence, answer.probabilities)
    np.testing.assert_array_equal(again.part_ids, answer.part_ids)


def test_objects_carry_their_track(perceiver):
    pipeline = Pipeline(perceiver)
    seen = [pipeline.perceive(cloud(number)) for number in range(4)]
    assert {item.track_id for item in seen[0].objects} == {-1}
    for place in (BOX, POLE):
        numbers = [at(perception, place).track_id for perception in seen[1:]]
        assert numbers[0] >= 0 and len(set(numbers)) == 1
    found = records.object_records(seen[3].objects)
    assert sorted(found["track_id"].tolist()) == sorted(item.track_id for item in seen[3].objects)
    assert pipeline.figures()["tracks"] >= 2 and seen[3].phases_ms["tracks"] > 0


def test_tracks_can_be_off(perceiver):
    pipeline = Pipeline(perceiver, TracksConfig(enabled=False))
    for number in range(3):
        perception = pipeline.perceive(cloud(number))
    assert {item.track_id for item in perception.objects} == {-1} and "tracks" not in pipeline.figures()


def test_an_empty_cloud_ages_the_tracks(perceiver):
    pipeline = Pipeline(perceiver)
    for number in range(3):
        pipeline.perceive(cloud(number))
    empty = Cloud.from_points(np.empty((0, 3)), frame_id="lidar", stamp_ns=5_000_000_000)
    assert pipeline.perceive(empty).objects == [] and pipeline.figures()["tracks"] == 0


def test_the_fused_class_goes_out_with_its_own_parts(perceiver, monkeypatch):
    """One frame calls the pole a box with certainty: the track, its label and its parts stay those of a pole."""
    pipeline = Pipeline(perceiver)
    for number in range(6):
        pipeline.perceive(cloud(number))
    alone = perceiver.perceive(cloud(6))
    wrong = []
    for item in alone.objects:
        lie = perceiver.answers.answer(item.segment.points, item.prediction.evidence, np.array([1.0, 0.0]))
        wrong.append(dataclasses.replace(item, prediction=lie))
    assert at(alone, POLE).prediction.label == "pole" and {item.prediction.label for item in wrong} == {"box"}
    monkeypatch.setattr(perceiver, "name", lambda *_: dataclasses.replace(alone, objects=wrong))
    fused = at(pipeline.perceive(cloud(6)), POLE)
    assert fused.prediction.label == "pole" and fused.prediction.class_id == 1
    np.testing.assert_array_equal(fused.prediction.part_ids, at(alone, POLE).prediction.part_ids)
    assert fused.prediction.probabilities[1] == fused.prediction.probability < 1.0
    assert fused.prediction.evidence.probabilities[1] > 0.5  # of the frame, not of the track


def test_an_object_that_there_was_no_time_for_is_what_its_track_was(perceiver, monkeypatch):
    pipeline = Pipeline(perceiver)
    for number in range(4):
        before = pipeline.perceive(cloud(number))
    alone = perceiver.perceive(cloud(4))
    skipped = [dataclasses.replace(item, prediction=no_answer(len(item.segment.index))) for item in alone.objects]
    monkeypatch.setattr(perceiver, "name", lambda *_: dataclasses.replace(alone, objects=skipped))
    held = pipeline.perceive(cloud(4))
    for place in (BOX, POLE):
        then, now = at(before, place), at(held, place)
        assert (now.prediction.label, now.track_id) == (then.prediction.label, then.track_id)
        assert now.prediction.evidence is None and (now.prediction.part_ids == -1).all()
    assert {item.prediction.label for item in Pipeline(perceiver).perceive(cloud(4)).objects} == {"unknown"}


def test_with_time_for_one_object_a_frame_all_are_named_after_so_many_frames(tiny_model, perceiver):
    hasty = Pipeline(Perceiver(tiny_model, PerceiverConfig(deadline_ms=1e-3)))
    seen = [hasty.perceive(cloud(number)) for number in range(5)]
    assert [sum(budget > 0 for budget in perception.budgets) for perception in seen] == [1] * 5
    asked = [int(np.argmax(perception.budgets)) for perception in seen]
    places = [tuple(np.round(seen[k].objects[asked[k]].segment.center[:2])) for k in range(5)]
    assert places[0] != places[1] and places[::2] == places[:1] * 3 and places[1::2] == places[1:2] * 2  # by turns
    alone = perceiver.perceive(cloud(4))
    for place in (BOX, POLE):
        assert at(seen[4], place).prediction.label == at(alone, place).prediction.label != "unknown"


def test_a_clock_that_jumps_back_is_counted_and_starts_anew(perceiver):
    pipeline = Pipeline(perceiver)
    for number in (5, 6, 1):
        perception = pipeline.perceive(cloud(number))
    assert {item.track_id for item in perception.objects} == {-1}
    assert pipeline.figures()["track_resets.clock"] == 1
    pipeline.clear()
    assert pipeline.figures()["tracks"] == 0


def test_what_is_due_may_change_while_a_cloud_is_answered(tiny_model, perceiver):
    pipeline = Pipeline(Perceiver(tiny_model, PerceiverConfig(max_batch=1)))
    relaxed = pipeline.perceive(cloud(0), due=lambda: math.inf)
    assert relaxed.complete and set(relaxed.budgets) == {perceiver.budget}
    assert [item.prediction.label for item in relaxed.objects] == [
        item.prediction.label for item in perceiver.perceive(cloud(0)).objects
    ]
    asked = []

    def soon() -> float:
        asked.append(math.inf if not asked else 0.0)
        return asked[-1]

    hurried = pipeline.perceive(cloud(1), due=soon)
    assert not hurried.complete and sorted(hurried.budgets) == [0] * (len(hurried.budgets) - 1) + [perceiver.budget]


def test_a_deadline_of_the_settings_comes_first(tiny_model):
    hasty = Pipeline(Perceiver(tiny_model, PerceiverConfig(deadline_ms=1e-3)))
    assert sum(budget > 0 for budget in hasty.perceive(cloud(0), due=lambda: math.inf).budgets) == 1


@pytest.mark.parametrize("left", ["pole", "box"])
def test_a_class_that_is_excluded_is_answered_no_more_from_the_next_frame_on(tiny_model, left):
    perceiver = Perceiver(tiny_model)
    pipeline = Pipeline(perceiver)
    for number in range(8):
        before = pipeline.perceive(cloud(number))
    assert {item.prediction.label for item in before.objects} >= {"box", "pole"}
    perceiver.reconfigure(PerceiverConfig(classes=left, unknown_threshold=0.0))
    for number in range(8, 12):
        answers = [item.prediction for item in pipeline.perceive(cloud(number)).objects]
        assert {answer.label for answer in answers} == {left} == {answer.top5[0][0] for answer in answers}
        assert {answer.probability for answer in answers} == {1.0}  # not what the floor leaves
        assert {item.track_id for item in before.objects} & {item.track_id for item in pipeline._last[1]}
    perceiver.reconfigure(PerceiverConfig())
    again = pipeline.perceive(cloud(12))
    for place in (BOX, POLE):
        assert at(again, place).prediction.label == at(before, place).prediction.label


def test_what_is_fused_stays_when_other_settings_change(tiny_model):
    perceiver = Perceiver(tiny_model)
    pipeline = Pipeline(perceiver)
    for number in range(4):
        pipeline.perceive(cloud(number))
    perceiver.reconfigure(PerceiverConfig(unknown_threshold=0.1, max_batch=2))
    fused = at(pipeline.perceive(cloud(4)), POLE).prediction
    assert not np.array_equal(fused.probabilities, fused.evidence.probabilities)


def test_a_class_that_is_excluded_is_not_held_for_an_object_that_there_is_no_time_for(tiny_model, monkeypatch):
    perceiver = Perceiver(tiny_model)
    pipeline = Pipeline(perceiver)
    for number in range(4):
        pipeline.perceive(cloud(number))
    perceiver.reconfigure(PerceiverConfig(classes="box", unknown_threshold=0.0))
    alone = perceiver.perceive(cloud(4))
    skipped = [dataclasses.replace(item, prediction=no_answer(len(item.segment.index))) for item in alone.objects]
    monkeypatch.setattr(perceiver, "name", lambda *_: dataclasses.replace(alone, objects=skipped))
    assert {item.prediction.label for item in pipeline.perceive(cloud(4)).objects} == {"unknown"}
