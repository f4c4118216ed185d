# SPDX-License-Identifier: Apache-2.0
"""Part IoU against a slow count with sets, and the cases that papers count differently."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.evaluation.part_metrics import part_scores


def slow(true, found, category, parts_of):
    """Instance mIoU, category mIoU and their strict forms, one point and one part at a time."""
    everything, per_category = ([], []), ({}, {})
    for shape, c in enumerate(category):
        owners = [(set(), set()) for _ in range(max(map(max, parts_of)) + 1)]
        for point, (t, f) in enumerate(zip(true[shape], found[shape])):
            if t != -1:
                owners[t][0].add(point)
                owners[f][1].add(point)
        if not any(t for t, _ in owners):
            continue
        ious, strict = [], []
        for part in parts_of[c]:
            t, f = owners[part]
            if t or f:
                strict.append(len(t & f) / len(t | f))
                ious.append(strict[-1])
            else:
                ious.append(1.0)
        for kind, values in enumerate((ious, strict)):
            mean = sum(values) / len(values)
            everything[kind].append(mean)
            per_category[kind].setdefault(c, []).append(mean)
    if not everything[0]:
        return None
    return [
        100 * sum(values) / len(values)
        for kind in (0, 1)
        for values in (everything[kind], [sum(v) / len(v) for v in per_category[kind].values()])
    ]


@st.composite
def cases(draw):
    parts = draw(st.integers(1, 5))
    categories = draw(st.integers(1, 3))
    parts_of = [sorted(draw(st.sets(st.integers(0, parts - 1), min_size=1))) for _ in range(categories)]
    shapes, points = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    category = [draw(st.integers(0, categories - 1)) for _ in range(shapes)]
    true = [[draw(st.sampled_from([-1, *parts_of[c]])) for _ in range(points)] for c in category]
    found = [[draw(st.sampled_from(parts_of[c])) for _ in range(points)] for c in category]
    allowed = np.zeros((categories, parts), bool)
    for c, own in enumerate(parts_of):
        allowed[c, own] = True
    return true, found, category, parts_of, allowed


@settings(max_examples=150, deadline=None)
@given(cases())
def test_scores_equal_a_slow_count_with_sets(case):
    true, found, category, parts_of, allowed = case
    metrics = part_scores(true, found, category, allowed).metrics()
    expected = slow(true, found, category, parts_of)
    if expected is None:
        assert all(np.isnan(value) for value in metrics.values())
        return
    names = ("instance_miou_percent", "category_miou_percent")
    ours = [metrics[name] for name in (*names, *(f"strict_{name}" for name in names))]
    assert ours == pytest.approx(expected, abs=1e-9)


def test_an_absent_part_counts_as_one_and_an_invented_one_as_zero():
    allowed = np.array([[True, True, True]])
    right = part_scores([[0, 0, 1, 1]], [[0, 0, 1, 1]], [0], allowed)
    assert right.iou[0] == 1 and right.strict[0] == 1
    half = part_scores([[0, 0, 0, 0]], [[0, 0, 1, 1]], [0], allowed)  # IoU 0.5, 0 and, for the absent part, 1
    assert half.iou[0] == pytest.approx(0.5) and half.strict[0] == pytest.approx(0.25)


def test_categories_count_alike_whatever_their_size():
    scores = part_scores([[0]] * 4, [[0], [0], [0], [1]], [0, 0, 0, 1], np.ones((2, 2), bool))
    metrics = scores.metrics()
    assert metrics["strict_instance_miou_percent"] == 75.0 and metrics["strict_category_miou_percent"] == 50.0
    assert scores.by_category() == {0: 100.0, 1: 0.0}


def test_unknown_points_are_left_out():
    scores = part_scores([[0, -1, -1], [-1, -1, -1]], [[0, 1, 1], [0, 0, 0]], [0, 0], np.ones((1, 2), bool))
    assert scores.iou[0] == 1 and np.isnan(scores.iou[1]) and scores.metrics()["instance_miou_percent"] == 100.0


@pytest.mark.parametrize("true, found", [([[0, 2]], [[0, 0]]), ([[0, 0]], [[0, 2]]), ([[0, 0]], [[0, -1]])])
def test_parts_of_another_category_are_refused(true, found):
    with pytest.raises(ValueError, match="category does not have"):
        part_scores(true, found, [0], np.array([[True, True, False]]))
