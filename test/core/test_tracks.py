# SPDX-License-Identifier: Apache-2.0
"""Identities over frames: crossing paths, gaps, births, deaths, clocks and the sensor's own motion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.runtime.fusion import ClassFusion
from foundry_core.scene.tracks import Tracker, TracksConfig

STEP = 100_000_000  # ns between frames
CAR, PERSON = (4.2, 1.8, 1.5), (0.6, 0.5, 1.7)


def ids(tracker: Tracker, number: int, centers, sizes=None, **options) -> list[int]:
    centers = np.reshape(np.asarray(centers, float), (-1, 3))
    sizes = np.tile(PERSON, (len(centers), 1)) if sizes is None else sizes
    return tracker.update(number * STEP, centers, sizes, **options).track_id.tolist()


def test_an_id_is_given_after_the_hits_and_kept_in_any_order():
    tracker = Tracker(TracksConfig(birth_hits=3))
    spots = np.array([[5.0, 0, 0], [9, 4, 0], [12, -3, 0]])
    assert ids(tracker, 0, spots) == ids(tracker, 1, spots) == [-1, -1, -1]
    assert ids(tracker, 2, spots) == [0, 1, 2]
    assert ids(tracker, 3, spots[::-1]) == [2, 1, 0]
    assert tracker.confirmed == 3


def test_one_hit_is_enough_when_asked_for():
    assert ids(Tracker(TracksConfig(birth_hits=1)), 0, [[1, 2, 0]]) == [0]


def test_clutter_that_does_not_come_again_gets_no_id():
    tracker, rng = Tracker(), np.random.default_rng(0)
    for number in range(20):
        flash = [10 * number, 30 * rng.normal(), 0]
        assert ids(tracker, number, [[3, 3, 0], flash])[1] == -1
    assert ids(tracker, 20, [[3, 3, 0]]) == [0]


def test_two_that_cross_keep_their_ids_by_their_velocity():
    tracker = Tracker()
    for number in range(41):
        x = -4 + 0.2 * number  # 2 m/s towards each other, 0.3 m apart when they meet
        both = [[x, 0.15, 0], [-x, -0.15, 0]]
        found = ids(tracker, number, both)
    assert found == [0, 1]


def test_size_tells_neighbours_apart():
    tracker = Tracker(TracksConfig(size_weight=2.0))
    sizes = np.array([CAR, PERSON])
    for number in range(3):
        ids(tracker, number, [[5, 0, 0], [6.0, 0, 0]], sizes)
    # the centres jump to the place of the other one
    assert ids(tracker, 3, [[6.0, 0, 0], [5, 0, 0]], sizes) == [0, 1]


def test_a_track_coasts_through_a_gap_and_dies_after_its_time():
    config = TracksConfig(coast=0.5)
    for gap, expected in ((4, 0), (5, 0), (6, 1)):
        tracker = Tracker(config)
        for number in range(10):
            ids(tracker, number, [[0.3 * number, 0, 0]])
        for number in range(10, 9 + gap):
            ids(tracker, number, [])
        found = [ids(tracker, 9 + gap + k, [[0.3 * (9 + gap + k), 0, 0]]) for k in range(2)]
        assert found[-1] == [expected], gap


def test_a_sparse_sequence_keeps_ids_too():
    tracker = Tracker(TracksConfig(coast=1.0))  # 2 Hz, a walker at 1.4 m/s and a parked car
    for number in range(20):
        found = ids(tracker, 5 * number, [[0.7 * number, 4, 0], [3, -4, 0]], np.array([PERSON, CAR]))
    assert found == [0, 1]


def test_a_clock_that_jumps_back_resets_with_a_reason():
    tracker = Tracker()
    for number in range(3):
        ids(tracker, number, [[1, 0, 0]])
    again = tracker.update(0, np.array([[1.0, 0, 0]]), np.array([PERSON]))
    assert again.reset == "clock" and again.track_id.tolist() == [-1] and tracker.resets == {"clock": 1}
    assert ids(tracker, 1, [[1, 0, 0]]) == [1]  # an id is never used for another object
    assert tracker.update(STEP, np.array([[1.0, 0, 0]]), np.array([PERSON])).reset is None  # same stamp twice


class Clock:
    """Stands still, but for what is added to ``now`` (ns)."""

    now = 10**15

    def __call__(self) -> int:
        return self.now


def test_stamps_that_stand_still_do_not_keep_tracks_alive():
    clock = Clock()
    tracker = Tracker(TracksConfig(coast=0.5), clock)
    walker = lambda number: [[1.4 * 0.1 * number, 0, 0]]  # noqa: E731, m at 1.4 m/s
    for number in range(10):
        found = ids(tracker, 0, walker(number))
        clock.now += STEP
    assert found == [0]
    for _ in range(4):
        assert tracker.confirmed == 1
        ids(tracker, 0, [])
        clock.now += STEP
    assert ids(tracker, 0, walker(14)) == [0]  # it has coasted, and walked on
    clock.now += 6 * STEP
    ids(tracker, 0, [])
    assert tracker.confirmed == 0
    for number in range(400):  # each thing is seen three times, at a place of its own
        ids(tracker, 0, [[10.0 * (number // 3), 0, 0]])
        clock.now += STEP
    assert tracker.confirmed <= 3 and tracker.resets == {}


def test_a_stamp_that_comes_twice_does_not_hurry_the_time():
    clock = Clock()
    tracker = Tracker(TracksConfig(coast=0.5), clock)
    for number in range(9):
        for pause in (0.4, 0.6):
            found = ids(tracker, number, [[1, 0, 0]])
            clock.now += int(pause * STEP)
    assert found == [0] and tracker._time.now_ns == 8.4 * STEP


def test_stamps_in_whole_seconds_make_an_even_time():
    clock, times = Clock(), []
    tracker = Tracker(TracksConfig(), clock)
    for number in range(31):
        tracker.update(number // 10 * 10**9, np.empty((0, 3)), np.empty((0, 3)))
        times.append(tracker._time.now_ns)
        clock.now += STEP
    np.testing.assert_array_equal(np.diff(times), STEP)


def test_another_frame_resets():
    tracker = Tracker()
    for number in range(2):
        ids(tracker, number, [[1, 0, 0]], frame_id="lidar")
    ids(tracker, 2, [[1, 0, 0]], frame_id="camera")
    assert tracker.resets == {"frame": 1}


def test_the_sensors_own_motion_is_taken_out():
    """A sensor that turns by 60 degrees a frame: only with its motion known do two posts keep their ids."""
    world = np.array([[5.0, 0, 0], [-2.5, 4.33, 0], [-2.5, -4.33, 0]])  # every 120 degrees: two turns look the same
    answers = {}
    for told in (True, False):
        tracker, before = Tracker(TracksConfig(gate=3.0)), np.eye(4)
        for number in range(6):
            angle = np.deg2rad(60 * number)
            now = np.eye(4)  # world from sensor
            now[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            now[:3, 3] = [0.2 * number, 0, 0]
            seen = (world - now[:3, 3]) @ now[:3, :3]
            motion = np.linalg.inv(now) @ before if told else None
            answers[told] = ids(tracker, number, seen, motion=motion)
            before = now
    assert answers[True] == [0, 1, 2]
    assert answers[False] != [0, 1, 2]


@pytest.mark.parametrize("motion", [np.eye(3), np.full((4, 4), np.nan), 2 * np.eye(4), np.diag([1.0, 1, -1, 1])])
def test_a_motion_that_is_not_rigid_is_refused(motion):
    with pytest.raises(ValueError, match="motion"):
        Tracker().update(0, np.zeros((0, 3)), np.zeros((0, 3)), motion)


def test_centres_must_be_finite():
    with pytest.raises(ValueError, match="finite"):
        Tracker().update(0, np.full((1, 3), np.nan), np.ones((1, 3)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 40), st.integers(0, 6), st.integers(0, 2**31)), min_size=1, max_size=25))
def test_whatever_comes_ids_are_unique_in_a_frame_and_never_come_back(frames):
    tracker, stamp, dead, last = Tracker(), 0, set(), set()
    for step, count, seed in frames:
        stamp += step * STEP
        rng = np.random.default_rng(seed)
        found = tracker.update(stamp, rng.uniform(-3, 3, (count, 3)), rng.uniform(0, 3, (count, 3)))
        assert len(found.key) == len(set(found.key.tolist())) == count
        assert set(found.key.tolist()) <= set(found.alive.tolist())
        named = [track for track in found.track_id.tolist() if track >= 0]
        assert len(named) == len(set(named))
        alive = set(found.alive.tolist())
        dead |= last - alive
        assert not dead & alive
        last = alive
        state = tracker._state
        assert np.isfinite(state.position).all() and (state.covariance[:, [0, 2]] > 0).all()
        assert (state.covariance[:, 0] * state.covariance[:, 2] >= state.covariance[:, 1] ** 2 * 0.999).all()


# -- classes over a track --------------------------------------------------------------------------------------------


def fused(config: TracksConfig, sightings) -> np.ndarray:
    fusion = ClassFusion(config)
    for sighting in sightings:
        answer = fusion.add(0, np.asarray(sighting, float))
    return answer


def test_a_single_sighting_is_passed_on():
    np.testing.assert_array_equal(fused(TracksConfig(), [[0.7, 0.299, 0.001]]), [0.7, 0.299, 0.001])


def test_equal_sightings_sharpen_by_the_independence_only():
    sighting = np.array([0.6, 0.3, 0.1])
    same = fused(TracksConfig(independence=0.0), [sighting] * 30)
    np.testing.assert_allclose(same, sighting, atol=1e-9)
    product = fused(TracksConfig(independence=1.0, memory=0.5), [sighting] * 2)  # W = 1.5
    np.testing.assert_allclose(product, sighting**1.5 / (sighting**1.5).sum())
    tempered = fused(TracksConfig(), [sighting] * 30)
    assert sighting[0] < tempered[0] < fused(TracksConfig(independence=1.0), [sighting] * 30)[0]


def test_one_overconfident_frame_does_not_win():
    frames = [[0.75, 0.25]] * 6 + [[1e-12, 1 - 1e-12]]
    assert fused(TracksConfig(), frames).argmax() == 0
    assert fused(TracksConfig(floor=1e-9), frames).argmax() == 1  # it is the floor that bounds it


def test_the_past_is_forgotten():
    assert fused(TracksConfig(), [[0.9, 0.1]] * 100 + [[0.1, 0.9]] * 15).argmax() == 1


def test_a_new_class_starts_the_track_anew():
    fusion = ClassFusion(TracksConfig())
    for _ in range(9):
        fusion.add(3, np.array([0.9, 0.1]))
    np.testing.assert_array_equal(fusion.add(3, np.array([0.2, 0.1, 0.7])), [0.2, 0.1, 0.7])


def test_tracks_that_are_gone_are_forgotten():
    fusion = ClassFusion(TracksConfig())
    for key in range(5):
        fusion.add(key, np.array([0.5, 0.5]))
    fusion.begin(np.array([1, 4]))
    assert len(fusion) == 2


def test_the_track_that_was_not_looked_at_for_longest_comes_first():
    fusion = ClassFusion(TracksConfig())
    for frame in ([7, 8], [9], [8]):
        fusion.begin(np.array([7, 8, 9]))
        for key in frame:
            fusion.add(key, np.array([0.5, 0.5]))
    assert fusion.longest_without([8, 5, 9, 7, 6]) == [1, 4, 3, 2, 0]  # 5 and 6, which are new, as they came
    fusion.begin(np.array([8]))
    assert fusion.longest_without([8, 7]) == [1, 0]  # 7 was given up meanwhile


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=30))
def test_fused_probabilities_are_probabilities(sightings):
    rows = [(np.array(row) + 1e-12) / (np.sum(row) + 3e-12) for row in sightings]
    answer = fused(TracksConfig(), rows)
    assert np.isfinite(answer).all() and (answer >= 0).all() and answer.sum() == pytest.approx(1.0)
