# SPDX-License-Identifier: Apache-2.0
"""The probe and its floors, on shapes whose classes are known to be easy or impossible."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from rich.progress import Progress  # noqa: E402
from test_models import TINY, card, tiny_student  # noqa: E402

from foundry_core import geometry  # noqa: E402
from foundry_core.card import Training  # noqa: E402
from foundry_core.cli.main import main  # noqa: E402
from foundry_core.data.compositions import Primitive  # noqa: E402
from foundry_core.data.shapes import ShapeSet, load_shapes  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.evaluation.corruptions import corrupt  # noqa: E402
from foundry_core.evaluation.features import (  # noqa: E402
    Source,
    calibrate_batch_norm,
    histogram_features,
    pooled_features,
    resolve,
)
from foundry_core.evaluation.probe import Split, SplitClouds, fit_probe, probe  # noqa: E402
from foundry_core.evaluation.subjects import Clouds, Subject  # noqa: E402
from foundry_core.models.registry import create_perception, random_teacher, save_model  # noqa: E402


def solids(per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ellipsoids, boxes and tori of random extent: points [M,200,3] and labels [M]."""
    rng = np.random.default_rng(seed)
    points, labels = [], []
    for label, kind in enumerate(("ellipsoid", "box", "torus")):
        for _ in range(per_class):
            primitive = Primitive(kind, 4, 0.3, np.diag(rng.uniform(0.6, 1.0, 3)), np.zeros(3))
            points.append(primitive.sample(200, rng))
            labels.append(label)
    return np.array(points, np.float32), np.array(labels)


@pytest.fixture(scope="module")
def shapes_file(tmp_path_factory):
    train, test = solids(30, 0), solids(12, 1)
    path = tmp_path_factory.mktemp("shapes") / "solids.npz"
    np.savez(
        path,
        points=np.concatenate([train[0], test[0]]),
        label=np.concatenate([train[1], test[1]]),
        class_names=np.array(["ellipsoid", "box", "torus"]),
        split=np.repeat([0, 1], [90, 36]),
        twin_in_train=np.arange(126) >= 124,
    )
    return path


def test_twins_are_left_out_and_of_two_sets_each_gives_its_own_side(shapes_file):
    data = load_shapes(shapes_file)
    split = Split.of(data)
    assert (len(split.train), len(split.test)) == (90, 34)
    bare = ShapeSet("bare", data.points, data.label, data.class_names)
    for one, other, sizes in ((data, bare, (126, 34)), (bare, data, (90, 126)), (bare, bare, (126, 126))):
        both = Split.of(one, other)
        assert (len(both.train), len(both.test)) == sizes
    with pytest.raises(InputError, match="bare: split: missing"):
        Split.of(bare)
    with pytest.raises(InputError, match="label: missing"):
        Split.of(ShapeSet(name="bare", points=data.points, split=data.split))


def test_classes_of_two_sets_are_matched_by_name(shapes_file):
    data = load_shapes(shapes_file)
    other = ShapeSet("other", data.points, 3 - data.label, ("cone", "torus", "box", "ellipsoid"))
    both = Split.of(data, other)
    assert both.test.class_names == other.class_names
    np.testing.assert_array_equal(both.test.label, 3 - data.test().label)
    with pytest.raises(InputError, match="other: class_names: cone not among those of .*ellipsoid, box, torus"):
        Split.of(ShapeSet("other", data.points, data.label, ("cone", "box", "torus")), data)
    with pytest.raises(InputError, match="it has none"):
        Split.of(data, ShapeSet("unnamed", data.points, data.label))
    numbers = ShapeSet("numbers", data.points, 2 - data.label, ("2", "1", "0"))
    both = Split.of(ShapeSet("unnamed", data.points, data.label), numbers)
    np.testing.assert_array_equal(both.test.label, 2 - data.label)


@pytest.mark.parametrize("names", [("ellipsoid", "box", "torus"), ("torus", "box", "ellipsoid"), ()])
def test_a_class_that_is_listed_and_has_no_train_shape_is_not_judged(shapes_file, names):
    data = load_shapes(shapes_file)
    numbers = np.array([2, 1, 0]) if names[:1] == ("torus",) else np.arange(3)
    train = ShapeSet("train", data.points, numbers[data.label], names).select(data.label != 2)
    asked = data if names else ShapeSet("asked", data.points, data.label)
    with pytest.raises(InputError, match=f"train: label: no train shape of {'torus' if names else '2'}, which "):
        Split.of(asked, train)


@pytest.mark.parametrize("validation", [False, True])
def test_shapes_without_a_label_are_neither_learned_nor_judged(shapes_file, validation):
    data = load_shapes(shapes_file)
    label = np.where(np.arange(126) % 7 == 0, -1, data.label)
    split = Split.of(ShapeSet("some", data.points, label, data.class_names, split=data.split), validation=validation)
    assert split.unlabelled == (label[:90] < 0).sum() + (0 if validation else (label[90:] < 0).sum())
    assert split.train.label.min() == 0 and split.test.label.min() == 0
    if not validation:
        assert (len(split.train), len(split.test)) == ((label[:90] >= 0).sum(), (label[90:] >= 0).sum())


@pytest.mark.parametrize("change", [{"label": np.zeros(126, int)}, {"split": np.arange(126) >= 3}])
def test_a_train_split_that_teaches_nothing_is_refused(shapes_file, tmp_path, capsys, change):
    with np.load(shapes_file) as archive:
        np.savez(tmp_path / "poor.npz", **{**archive, **change})
    output = tmp_path / "rows.json"
    assert (
        main(["evaluate", "probe", "--data", f"{tmp_path / 'poor.npz'}", "--model", "histogram", "--json", f"{output}"])
        == 2
    )
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "poor.npz: label: a probe learns from" in error
    assert not output.exists()


def test_an_output_that_cannot_be_written_is_refused_before_the_work(shapes_file, tmp_path, capsys):
    arguments = ["evaluate", "probe", "--data", str(shapes_file), "--model", "histogram", "--json", str(tmp_path)]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "is a folder; give a file to --json" in captured.err


def test_histograms_tell_solids_apart_and_cannot_read_noise(shapes_file):
    split = Split.of(load_shapes(shapes_file))
    metrics, confusion = probe(Subject("histogram"), SplitClouds(split), [0], ["linear", "rbf"])[None]
    assert metrics["linear_accuracy_percent"]["mean"] > 90 and metrics["rbf_accuracy_percent"]["mean"] > 90
    for kind, matrix in confusion.items():
        names = list(split.test.class_names)
        assert [sum(row.values()) for row in matrix.values()] == np.bincount(split.test.label).tolist()
        right = sum(row.get(name, 0) for name, row in matrix.items())
        assert metrics[f"{kind}_accuracy_percent"]["mean"] == pytest.approx(100 * right / len(split.test), abs=0.01)
        assert list(matrix) == names and {name for row in matrix.values() for name in row} <= set(names)
    rng = np.random.default_rng(0)
    data = load_shapes(shapes_file)
    shuffled = ShapeSet(name="noise", points=data.points, label=rng.permutation(data.label), split=data.split)
    noise = probe(Subject("histogram"), SplitClouds(Split.of(shuffled)), [0, 1, 2], ["linear"])[None]
    assert noise.metrics["linear_accuracy_percent"]["mean"] < 65


def test_histograms_do_not_depend_on_scale_or_position():
    points, _ = solids(2, 3)
    assert np.allclose(histogram_features(points), histogram_features(points * 7 + 3), atol=0.05)


def test_a_random_teacher_is_calibrated_and_differs_by_seed():
    backbone = random_teacher(card(TINY), 0)
    before = backbone.tokenizer.point_norm.running_var.clone()
    calibrate_batch_norm(backbone, card(TINY).preprocessing, 0, batches=2)
    assert not backbone.training and not torch.equal(before, backbone.tokenizer.point_norm.running_var)
    assert not torch.equal(backbone.position.layers[0].weight, random_teacher(card(TINY), 1).position.layers[0].weight)


def test_batch_norms_of_a_random_teacher_give_a_deviation_of_one():
    backbone = random_teacher(card(TINY), 0)
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    size, seen = card(TINY).preprocessing, []
    calibrate_batch_norm(backbone, size, 0)
    assert norms and all(norm.momentum == 0.1 for norm in norms)
    for norm in norms:
        norm.register_forward_hook(lambda _, __, out: seen.append(out.transpose(0, 1).flatten(1)))
    with torch.no_grad():
        backbone(*map(torch.from_numpy, geometry.group_batch(solids(20, 0)[0], size.groups, size.neighbors)))
    for values in seen:  # the statistics are those of other shapes
        assert 0.7 < float(values.std(dim=1).mean()) < 1.4 and float(values.mean(dim=1).abs().mean()) < 0.3


def test_random_weights_of_a_student_are_its_teachers(tmp_path):
    save_model(tmp_path / "teacher", create_perception(card(TINY)), card(TINY))
    encoder = TINY.encoder.model_copy(update={"depth": 1})
    student = card(tiny_student().model_copy(update={"encoder": encoder}))
    run = Training(task="distillation", data=[], seed=0, steps=1, batch=1, minutes=0, parent="teacher")
    for name, training in (("orphan", []), ("student", [run])):
        save_model(tmp_path / name, create_perception(student), student.model_copy(update={"training": training}))
    found = resolve(f"random:{tmp_path / 'student'}", 3)
    expected = resolve(f"random:{tmp_path / 'teacher'}", 3)
    assert found.teacher == expected.teacher == str(tmp_path / "teacher") and not found.budgets
    for name, value in expected.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], value), name
    with pytest.raises(InputError, match="random:.*orphan: .* names no teacher; give random:TEACHER"):
        resolve(f"random:{tmp_path / 'orphan'}")


def test_a_shift_is_judged_by_the_probe_of_the_clean_clouds(shapes_file):
    split = Split.of(load_shapes(shapes_file))
    shifts = [("jitter", 1), ("jitter", 5), ("density", 5)]
    reached = probe(Subject("histogram"), SplitClouds(split, shifts, seed=3), [0, 1], ["linear"])
    assert list(reached) == [None, *shifts, ("mean", 5)]
    accuracy = {shift: probed.metrics["linear_accuracy_percent"]["mean"] for shift, probed in reached.items()}
    assert accuracy["mean", 5] == pytest.approx((accuracy["jitter", 5] + accuracy["density", 5]) / 2, abs=0.01)
    # by hand: the same clouds, one at a time, and the probe that never saw them
    train, label = histogram_features(split.train.points), split.train.label
    clouds = [corrupt(cloud, "density", 5, 3, index) for index, cloud in enumerate(split.test.points)]
    expected = [
        100 * (fit_probe("linear", train, label, seed).predict(histogram_features(clouds)) == split.test.label).mean()
        for seed in (0, 1)
    ]
    assert accuracy["density", 5] == pytest.approx(np.mean(expected), abs=0.01)
    assert accuracy[None] > accuracy["mean", 5]


def test_leaving_stray_points_out_undoes_what_outliers_do(shapes_file):
    split, shift = Split.of(load_shapes(shapes_file)), ("outliers", 5)

    def accuracy(denoise: bool) -> float:
        clouds = SplitClouds(split, [shift], seed=3, denoise=denoise)
        metrics = probe(Subject("histogram"), clouds, [0], ["linear"])[shift].metrics
        return metrics["linear_accuracy_percent"]["mean"]

    assert accuracy(denoise=True) > accuracy(denoise=False)


@pytest.mark.parametrize("architecture, budget", [(TINY, None), (tiny_student(), 2)])
def test_features_of_the_rewritten_network_are_those_of_the_network(shapes_file, architecture, budget):
    torch.manual_seed(0)
    backbone = create_perception(card(architecture)).eval().backbone
    source = Source("tiny", backbone, card(architecture).preprocessing, (2, 4) if budget else (), budget)
    clouds = Clouds(load_shapes(shapes_file).points[:20])
    found = clouds.features(Subject("tiny", source), Progress(disable=True), "")
    assert np.allclose(found, pooled_features(source, clouds.groups(source.size)), atol=1e-4)


def test_the_command_writes_rows_of_one_schema(tmp_path, shapes_file, capsys):
    save_model(tmp_path / "tiny", create_perception(card(TINY)), card(TINY))
    arguments = ["evaluate", "probe", "--data", str(shapes_file), "--seeds", "2", "--json", str(tmp_path / "rows.json")]
    arguments += ["--shift", "jitter:2"]
    models = [str(tmp_path / "tiny"), f"random:{tmp_path / 'tiny'}", "histogram"]
    for model in models:
        arguments += ["--model", model]
    try:
        assert main(arguments) == 0
    except SystemExit as done:
        assert not done.code
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["model"] for row in rows[::2]] == [row["model"] for row in rows[1::2]] == models
    assert [(row["shift"], row["severity"]) for row in rows] == [(None, None), ("jitter", 2)] * 3
    for row in rows:
        assert row["protocol"] == "probe" and row["data"] == "solids" and row["seeds"] == 2
        assert set(row["metrics"]["linear_accuracy_percent"]) == {"mean", "std"}
        assert sum(sum(counts.values()) for counts in row["confusion"]["linear"].values()) == 2 * row["test_shapes"]
    assert rows[4]["metrics"]["linear_accuracy_percent"]["mean"] > 90
