# SPDX-License-Identifier: Apache-2.0
"""Few-shot episodes: what is drawn, and nearest class means against a slow count."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from test_models import TINY, card  # noqa: E402

from foundry_core.data.compositions import Primitive  # noqa: E402
from foundry_core.data.shapes import ShapeSet  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.evaluation.fewshot import (  # noqa: E402
    CLASSIFIERS,
    Setting,
    draw_episodes,
    episode_accuracy,
    without_twins,
)
from foundry_core.models.registry import create_perception, save_model  # noqa: E402


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=4, max_size=8),
    ways=st.integers(2, 4),
    shots=st.integers(1, 4),
    queries=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_episodes_hold_what_the_protocol_says(counts, ways, shots, queries, seed):
    label = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    setting = Setting(ways, shots, queries, folds=3)
    if sum(count >= shots + queries for count in counts) < ways:
        with pytest.raises(InputError, match="give smaller numbers"):
            draw_episodes(label, setting, seed)
        return
    episodes = draw_episodes(label, setting, seed)
    assert len(episodes) == 3
    for episode in episodes:
        assert len(np.union1d(episode.support, episode.queries)) == ways * (shots + queries)  # nothing twice
        for rows, each, told in (
            (episode.support, shots, episode.support_label),
            (episode.queries, queries, episode.query_label),
        ):
            classes = label[rows].reshape(ways, each)
            assert (classes == classes[:, :1]).all() and len(set(classes[:, 0])) == ways
            assert told.reshape(ways, each).tolist() == [[way] * each for way in range(ways)]
        assert label[episode.support].reshape(ways, -1)[:, 0].tolist() == label[episode.queries][::queries].tolist()
    again = draw_episodes(label, setting, seed)
    assert all(np.array_equal(a.support, b.support) and np.array_equal(a.queries, b.queries)
               for a, b in zip(episodes, again))  # fmt: skip


def test_folds_and_seeds_differ():
    label = np.repeat(np.arange(6), 30)
    drawn = [tuple(e.support) for seed in (0, 1) for e in draw_episodes(label, Setting(5, 10, 20, 10), seed)]
    assert len(set(drawn)) == 20


def slow_nearest_mean(kind, support, label, query):
    """One query, one class and one feature at a time."""
    answers = []
    width = support.shape[1]
    center = [sum(row[i] for row in support) / len(support) for i in range(width)]
    spread = [(sum((row[i] - center[i]) ** 2 for row in support) / len(support)) ** 0.5 for i in range(width)]
    for row in query:
        scores = []
        for number in sorted(set(label.tolist())):
            members = [s for s, own in zip(support, label) if own == number]
            mean = [sum(m[i] for m in members) / len(members) for i in range(width)]
            if kind == "mean_standardised":
                scores.append(-sum(((row[i] - mean[i]) / spread[i]) ** 2 for i in range(width)))
            else:
                a, b = ([v[i] - center[i] for i in range(width)] for v in (row, mean))
                scores.append(sum(x * y for x, y in zip(a, b)) / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5)
        answers.append(int(np.argmax(scores)))
    return answers


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["mean_cosine", "mean_standardised"]),
    st.integers(2, 5),
    st.integers(1, 4),
    st.integers(2, 6),  # a cosine of one feature is a sign
    st.integers(0, 10_000),
)
def test_nearest_means_equal_a_slow_count(kind, ways, shots, width, seed):
    rng = np.random.default_rng(seed)
    support, query = rng.normal(2, 3, (ways * shots, width)), rng.normal(2, 3, (7, width))
    label = np.repeat(np.arange(ways), shots)
    assert CLASSIFIERS[kind](support, label, query).tolist() == slow_nearest_mean(kind, support, label, query)


def test_classes_that_lie_apart_are_told_apart_and_noise_is_not():
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(6), 30)
    apart = (np.eye(6)[label] * 5 + rng.normal(0, 0.5, (180, 6))).astype(np.float32)
    noise = rng.normal(0, 1, (180, 6)).astype(np.float32)
    (episode,) = draw_episodes(label, Setting(5, 10, 20, 1), 0)
    assert all(value > 98 for value in episode_accuracy(apart, episode).values())
    assert all(value < 45 for value in episode_accuracy(noise, episode).values())


@pytest.fixture(scope="module")
def solids_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    kinds = ("ellipsoid", "box", "torus")
    points = [
        Primitive(kind, 4, 0.3, np.diag(rng.uniform(0.6, 1.0, 3)), np.zeros(3)).sample(200, rng)
        for kind in kinds
        for _ in range(8)
    ]
    path = tmp_path_factory.mktemp("shapes") / "solids.npz"
    np.savez(path, points=np.array(points, np.float32), label=np.repeat([0, 1, 2], 8), class_names=np.array(kinds))
    return path


def test_the_command_compares_with_the_teacher_on_the_same_episodes(foundry, solids_file, tmp_path):
    model = tmp_path / "tiny"
    save_model(model, create_perception(card(TINY)), card(TINY))
    arguments = ["evaluate", "fewshot", "--data", solids_file, "--model", model, "--model", "histogram"]
    numbers = ["--ways", 2, "--ways", 3, "--shots", 2, "--queries", 4, "--folds", 2, "--seeds", 2, "--teacher", model]
    code, _, error = foundry(*arguments, *numbers, "--json", tmp_path / "rows.json")
    assert code == 0, error
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["ways"], row["model"]) for row in rows] == [
        (2, str(model)), (3, str(model)), (2, "histogram"), (3, "histogram")
    ]  # fmt: skip
    for row in rows:
        assert (row["protocol"], row["data"], row["shots"], row["classes"]) == ("fewshot", "solids", 2, 3)
        assert all(set(metric) == {"mean", "std"} for metric in row["metrics"].values())
    for first, second in zip(rows[:2], rows[2:]):  # the mean of the differences is the difference of the means
        for kind in CLASSIFIERS:
            lost = second["metrics"][f"{kind}_minus_teacher_points"]["mean"]
            means = [row["metrics"][f"{kind}_accuracy_percent"]["mean"] for row in (first, second)]
            assert lost == pytest.approx(means[1] - means[0], abs=0.02)
            assert f"{kind}_minus_teacher_points" not in first["metrics"]


def test_too_few_shapes_are_one_clear_line(foundry, solids_file):
    code, _, error = foundry("evaluate", "fewshot", "--data", solids_file, "--model", "histogram")
    assert code == 2 and error.count("\n") == 1 and "0 classes have the 10 + 20 shapes" in error


def test_twins_and_shapes_without_a_label_take_no_part():
    points = np.random.default_rng(0).normal(size=(6, 4, 3))
    label, twin = np.array([0, -1, 1, 1, -1, 0]), np.array([1, 0, 0, 0, 1, 0], bool)
    kept = without_twins(ShapeSet("some", points, label, twin_in_train=twin))
    np.testing.assert_array_equal(kept.points, points[[2, 3, 5]])
    with pytest.raises(InputError, match="label: missing"):
        without_twins(ShapeSet("none", points))
