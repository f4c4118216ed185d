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
    Material,
    Setting,
    episode_accuracy,
)
from foundry_core.models.registry import create_perception, save_model  # noqa: E402


def one_set(label: np.ndarray) -> Material:
    """Shapes of one set; what they look like plays no part."""
    everything = np.ones(len(label), bool)
    return Material([], label, everything, everything)


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
            one_set(label).draw_episodes(setting, seed)
        return
    episodes = one_set(label).draw_episodes(setting, seed)
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
    again = one_set(label).draw_episodes(setting, seed)
    assert all(np.array_equal(a.support, b.support) and np.array_equal(a.queries, b.queries)
               for a, b in zip(episodes, again))  # fmt: skip


def test_folds_and_seeds_differ():
    label = np.repeat(np.arange(6), 30)
    drawn = [tuple(e.support) for seed in (0, 1) for e in one_set(label).draw_episodes(Setting(5, 10, 20, 10), seed)]
    assert len(set(drawn)) == 20


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=3, max_size=6),
    shots=st.integers(1, 3),
    queries=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_of_two_sets_one_is_learned_from_and_the_other_is_asked(counts, shots, queries, seed):
    rng, rows = np.random.default_rng(seed), []
    for name, (learned, asked) in enumerate(counts):
        rows += [(name, True)] * learned + [(name, False)] * asked
    label, support = np.array(rows)[rng.permutation(len(rows))].T
    material, setting = Material([], label, support > 0, support == 0), Setting(2, shots, queries, folds=4)
    large = [name for name, (learned, asked) in enumerate(counts) if learned >= shots and asked >= queries]
    assert material.large_classes(setting).tolist() == large
    if len(large) < 2:
        with pytest.raises(InputError, match="give smaller numbers"):
            material.draw_episodes(setting, seed)
        return
    for episode in material.draw_episodes(setting, seed):
        assert support[episode.support].all() and not support[episode.queries].any()
        assert len(set(episode.support)) == 2 * shots and len(set(episode.queries)) == 2 * queries
        for drawn, each in ((episode.support, shots), (episode.queries, queries)):
            classes = label[drawn].reshape(2, each)
            assert (classes == classes[:, :1]).all() and set(classes[:, 0]) <= set(large)


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
    (episode,) = one_set(label).draw_episodes(Setting(5, 10, 20, 1), 0)
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
    kept = Material.of(ShapeSet("some", points, label, twin_in_train=twin))
    np.testing.assert_array_equal(kept.points, points[[2, 3, 5]])
    assert kept.support.all() and kept.queries.all()
    with pytest.raises(InputError, match="label: missing"):
        Material.of(ShapeSet("none", points))


def test_shots_are_of_another_set_with_classes_matched_by_name(foundry, solids_file, tmp_path):
    solids = dict(np.load(solids_file))
    names = solids["class_names"][[2, 0, 1]]  # torus, ellipsoid, box
    number = np.array([1, 2, 0])[solids["label"]]
    points = solids["points"][:, ::2].astype(np.float64)  # of another size, and real shapes: the same, seen half
    np.savez(tmp_path / "half.npz", points=points, label=number, class_names=names, split=np.arange(24) % 2)
    rows = []
    for case, extra in (("alone", []), ("learned", ["--train", tmp_path / "half.npz"])):
        arguments = ["evaluate", "fewshot", "--data", solids_file, "--model", "histogram", *extra]
        numbers = ["--ways", 3, "--shots", 4, "--queries", 4, "--folds", 3, "--seeds", 1]
        code, _, error = foundry(*arguments, *numbers, "--json", tmp_path / f"{case}.json")
        assert code == 0, error
        rows += json.loads((tmp_path / f"{case}.json").read_text())
    alone, learned = rows
    assert (alone["train"], alone["shapes"]) == (None, 24) and (learned["train"], learned["shapes"]) == ("half", 36)
    assert learned["classes"] == 3 and learned["metrics"]["linear_accuracy_percent"]["mean"] > 60  # chance is 33
