# SPDX-License-Identifier: Apache-2.0
"""The comparison of segments with true objects, on frames whose answer is plain, and on the simulated world."""

import json

import numpy as np
import pytest

from foundry_core.cli.main import main
from foundry_core.evaluation.segments import compare


def _ids(*runs):
    """An id array from (id, count) runs."""
    return np.concatenate([np.full(count, number) for number, count in runs])


def _frame(found):
    return compare(_ids((0, 100), (1, 100), (2, 20), (-1, 300)), np.asarray(found), min_points=50)


def test_perfect_segments():
    counts = _frame(_ids((1, 100), (0, 100), (-1, 320)))
    assert counts.metrics() == {
        "precision": 100, "recall": 100, "over_segmentation": 0, "under_segmentation": 0, "missed": 0, "iou": 100,
    }  # fmt: skip
    assert counts.objects == 2  # the one of 20 points is too small to count


def test_a_split_object_is_over_segmented_and_may_still_match():
    counts = _frame(_ids((0, 70), (1, 30), (2, 100), (-1, 320)))
    assert (counts.segments, counts.matched, counts.split, counts.merged, counts.missed) == (3, 2, 1, 0, 0)
    assert counts.iou_sum == pytest.approx(1.7)
    halves = _frame(_ids((0, 45), (1, 45), (-1, 10), (2, 100), (-1, 320)))
    assert (halves.matched, halves.split) == (1, 1)
    crumb = _frame(_ids((0, 92), (1, 8), (2, 100), (-1, 320)))
    assert (crumb.matched, crumb.split) == (2, 0)


def test_merged_objects_are_under_segmented():
    both = _frame(_ids((0, 220), (-1, 300)))  # three in one: each is a minority
    assert (both.segments, both.matched, both.merged, both.missed) == (1, 0, 2, 0)
    wall = _frame(_ids((-1, 100), (0, 420)))
    assert (wall.matched, wall.merged, wall.missed) == (0, 1, 1)


def test_segments_of_the_surroundings_cost_precision():
    counts = _frame(_ids((0, 100), (1, 100), (-1, 20), (2, 150), (3, 150)))
    assert counts.metrics()["precision"] == 50 and counts.metrics()["recall"] == 100


def test_nothing_found_and_nothing_there():
    assert _frame(np.full(520, -1)).metrics()["missed"] == 100
    nothing = compare(np.full(10, -1), np.full(10, -1))
    assert nothing.objects == nothing.segments == 0 and nothing.metrics()["recall"] == 0
    only = compare(np.full(60, -1), np.zeros(60, int))
    assert (only.segments, only.objects) == (1, 0)


def test_the_command_writes_a_row_and_the_street_is_cut_well(tmp_path):
    path = tmp_path / "segments.json"
    assert main(["evaluate", "segments", "--seconds", "0.2", "--seeds", "2", "--seed", "3", "--json", str(path)]) == 0
    (row,) = json.loads(path.read_text())
    assert {"protocol", "data", "model", "budget", "seed", "metrics"} <= set(row)
    assert (row["protocol"], row["data"], row["seed"], row["frames"]) == ("segments", "world-street-lidar-64", 3, 4)
    metrics = {name: value["mean"] for name, value in row["metrics"].items()}
    assert row["objects"] > 20 and metrics["recall"] > 80 and metrics["iou"] > 80
    assert metrics["over_segmentation"] < 15 and metrics["under_segmentation"] < 15
