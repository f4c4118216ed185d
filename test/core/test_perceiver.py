# SPDX-License-Identifier: Apache-2.0
"""The perceiver around a graph whose answers follow from the shape alone, so that every answer can be predicted."""

import json

import numpy as np
import pytest

from foundry_core import geometry
from foundry_core.architecture import Architecture, Preprocessing
from foundry_core.card import Heads, ModelCard, ObjectHead, PartHead, write_card
from foundry_core.clouds import Cloud
from foundry_core.errors import InputError
from foundry_core.runtime.perceiver import Perceiver, PerceiverConfig
from foundry_core.runtime.session import OnnxSession

onnx = pytest.importorskip("onnx")

POINTS, GROUPS, NEIGHBORS = 128, 8, 4
CLASSES = ["tall", "flat", "other"]
PARTS = ["bottom", "top", "left", "right"]
CLASS_PARTS = {"tall": ["bottom", "top"], "flat": ["left", "right"]}


def _write_graph(path, inputs=None, outputs=None, classes=3, groups=GROUPS):
    """logits: tall = 8 (dz - dx), flat = 8 (dx - dz), other = 1; parts: -z, z, 10 y, -10 y of each point."""
    helper, kind = onnx.helper, onnx.TensorProto
    shapes = {
        "centers": (kind.FLOAT, ["batch", groups, 3]),
        "neighborhoods": (kind.FLOAT, ["batch", groups, NEIGHBORS, 3]),
        "points": (kind.FLOAT, ["batch", POINTS, 3]),
        "interpolation_index": (kind.INT64, ["batch", POINTS, 3]),
        "interpolation_weight": (kind.FLOAT, ["batch", POINTS, 3]),
        "tokens": (kind.FLOAT, ["batch", groups, 3]),
        "class_logits": (kind.FLOAT, ["batch", classes]),
        "part_logits": (kind.FLOAT, ["batch", POINTS, 4]),
        "surprise": (kind.FLOAT, ["batch", groups, 3]),
    }
    to_class = np.zeros((3, classes), np.float32)
    to_class[[0, 2], 0], to_class[[0, 2], 1] = [-8, 8], [8, -8]
    bias = np.zeros(classes, np.float32)
    bias[-1] = 1
    to_part = np.array([[0, 0, 0, 0], [0, 0, 10, -10], [-1, 1, 0, 0]], np.float32)
    nodes = [
        helper.make_node("Identity", ["centers"], ["tokens"]),
        helper.make_node("ReduceMax", ["points"], ["high"], axes=[1], keepdims=0),
        helper.make_node("ReduceMin", ["points"], ["low"], axes=[1], keepdims=0),
        helper.make_node("Sub", ["high", "low"], ["extent"]),
        helper.make_node("MatMul", ["extent", "to_class"], ["scores"]),
        helper.make_node("Add", ["scores", "bias"], ["class_logits"]),
        helper.make_node("MatMul", ["points", "to_part"], ["part_logits"]),
        helper.make_node("Identity", ["centers"], ["surprise"]),
    ]
    inputs = inputs or list(shapes)[:5]
    outputs = outputs or ["tokens", "class_logits", "part_logits"]
    arrays = {"to_class": to_class, "bias": bias, "to_part": to_part}
    graph = helper.make_graph(
        nodes if "points" in inputs else nodes[:1],
        "known",
        [helper.make_tensor_value_info(name, *shapes[name]) for name in inputs],
        [helper.make_tensor_value_info(name, *shapes[name]) for name in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def _card(**heads):
    heads = {
        "objects": ObjectHead(classes=CLASSES, temperature=2.0, unknown_threshold=0.7),
        "parts": PartHead(parts=PARTS, class_parts=CLASS_PARTS),
        **heads,
    }
    size = Preprocessing(points=POINTS, groups=GROUPS, neighbors=NEIGHBORS)
    heads = Heads(**heads)
    return ModelCard(name="known", kind="teacher", architecture=Architecture(), preprocessing=size, heads=heads)


@pytest.fixture
def model(tmp_path):
    _write_graph(tmp_path / "model.onnx")
    write_card(tmp_path, _card())
    return tmp_path


def _box(size, count=400, seed=0):
    return (np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 3)) * size).astype(np.float32)


def _expected_classes(points):
    prepared, _ = geometry.prepare(points, POINTS)
    dx, _, dz = prepared.max(axis=0) - prepared.min(axis=0)
    logits = np.array([8 * (dz - dx), 8 * (dx - dz), 1.0]) / 2.0  # temperature 2
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.parametrize("count", [5, POINTS - 1, POINTS, POINTS + 1, 5000])
@pytest.mark.parametrize(("size", "label"), [((0.3, 0.3, 2.0), "tall"), ((2.0, 0.3, 0.3), "flat")])
def test_class_and_probability_follow_the_shape(model, size, label, count):
    points = _box(size, count) + np.float32([30, -4, 1])
    answer = Perceiver(model).classify([points])[0]
    assert (answer.label, answer.class_id, answer.unknown) == (label, CLASSES.index(label), False)
    thinned = points[:: -(-count // 4096)]
    np.testing.assert_allclose(answer.probability, _expected_classes(thinned).max(), atol=1e-5)
    assert [name for name, _ in answer.top5][0] == label and len(answer.top5) == 3
    assert sum(probability for _, probability in answer.top5) == pytest.approx(1.0)
    assert answer.part_ids.shape == answer.part_probability.shape == (count,)


def test_other_is_unknown_and_has_no_parts(model):
    answer = Perceiver(model).classify([_box((1.0, 1.0, 1.0))])[0]
    assert answer.top5[0][0] == "other"
    assert (answer.label, answer.class_id, answer.unknown) == ("unknown", -1, True)
    assert (answer.part_ids == -1).all() and (answer.part_probability == 0).all()


def test_threshold_of_the_card_and_of_the_settings(model):
    points = _box((0.85, 0.85, 1.1))
    expected = _expected_classes(points)
    assert expected.argmax() == 0 and 0.4 < expected.max() < 0.7  # tall, but below the card's threshold
    assert Perceiver(model).classify([points])[0].unknown
    answer = Perceiver(model, PerceiverConfig(unknown_threshold=0.4)).classify([points])[0]
    assert answer.label == "tall"


def test_classes_that_cannot_occur_are_no_answer(model):
    points = _box((0.85, 0.85, 1.1))
    free = dict(Perceiver(model).classify([points])[0].top5)
    assert max(free, key=free.get) == "tall"
    perceiver = Perceiver(model, PerceiverConfig(classes=" flat"))
    held = dict(perceiver.classify([points])[0].top5)
    assert held["tall"] == 0 and held["flat"] == pytest.approx(free["flat"] / (free["flat"] + free["other"]))
    perceiver.reconfigure(PerceiverConfig())
    assert dict(perceiver.classify([points])[0].top5) == free
    with pytest.raises(InputError, match="classes: 'mug' is none of the model's: .*flat"):
        perceiver.reconfigure(PerceiverConfig(classes="flat, mug"))


@pytest.mark.parametrize("count", [60, 128, 3000, 9000])
def test_every_point_gets_a_part_that_its_class_can_have(model, count):
    perceiver = Perceiver(model)
    points = _box((0.3, 0.5, 2.0), count)
    answer = perceiver.classify([points])[0]
    # 10 |y| is larger than |z| nearly everywhere: without the restriction left and right would win
    assert set(answer.part_ids.tolist()) == {0, 1}
    height = points[:, 2] - points[:, 2].mean()
    clear = np.abs(height) > 0.25  # farther from the border than the nearest sample
    np.testing.assert_array_equal(answer.part_ids[clear], (height[clear] > 0).astype(int))
    assert ((answer.part_probability >= 0.5) & (answer.part_probability <= 1)).all()
    flat = perceiver.classify([_box((2.0, 1.0, 0.2), count)])[0]
    assert set(flat.part_ids.tolist()) == {2, 3}


def test_a_class_without_parts_gets_none(tmp_path):
    _write_graph(tmp_path / "model.onnx")
    write_card(tmp_path, _card(parts=PartHead(parts=PARTS, class_parts={"flat": ["left", "right"]})))
    answer = Perceiver(tmp_path).classify([_box((0.3, 0.3, 2.0))])[0]
    assert answer.label == "tall" and (answer.part_ids == -1).all()


def test_a_batch_equals_one_by_one(model):
    sizes = [(0.3, 0.3, 2), (2, 0.3, 0.3), (1, 1, 1), (0.8, 0.5, 1.2), (1.5, 1, 1)]
    objects = [_box(size, 40 + 70 * k, seed=k) for k, size in enumerate(sizes)]
    batched = Perceiver(model, PerceiverConfig(max_batch=3)).classify(objects)
    perceiver = Perceiver(model)
    assert len(batched) == 5
    for points, answer in zip(objects, batched, strict=True):
        alone = perceiver.classify([points])[0]
        assert (alone.label, alone.class_id) == (answer.label, answer.class_id)
        assert alone.probability == pytest.approx(answer.probability, abs=1e-6)
        np.testing.assert_array_equal(alone.part_ids, answer.part_ids)


def test_the_network_sees_what_geometry_makes(model, monkeypatch):
    perceiver = Perceiver(model)
    seen, run = [], perceiver.session.run
    monkeypatch.setattr(perceiver.session, "run", lambda inputs, *rest: (seen.append(inputs), run(inputs, *rest))[1])
    points = _box((1, 2, 3), 700)
    perceiver.classify([points])
    prepared, _ = geometry.prepare(points, POINTS)
    centers, neighborhoods = geometry.group(prepared, GROUPS, NEIGHBORS)
    index, weight = geometry.interpolation(prepared, centers)
    expected = {"centers": centers, "neighborhoods": neighborhoods, "points": prepared}
    expected |= {"interpolation_index": index, "interpolation_weight": weight}
    for name, value in expected.items():
        np.testing.assert_array_equal(seen[0][name][0], value)


def test_perceive_finds_names_and_labels_objects_of_a_scene(model):
    rng = np.random.default_rng(0)
    floor = np.c_[rng.uniform(-15, 15, (20_000, 2)), rng.normal(-1.6, 0.01, 20_000)]
    pole = _box((0.3, 0.3, 2.4), 900) + [6, 2, -0.35]
    beam = _box((3.0, 0.5, 0.5), 900, seed=1) + [-5, -6, -1.1]
    cloud = Cloud.from_points(np.concatenate([floor, pole, beam]), frame_id="lidar")
    perceiver = Perceiver(model)
    perceiver.warm_up()
    perception = perceiver.perceive(cloud)
    assert sorted(item.prediction.label for item in perception.objects) == ["flat", "tall"]
    assert list(perception.phases_ms) == ["crop", "ground", "clusters", "group", "network", "labels"]
    assert all(value > 0 for value in perception.phases_ms.values())
    for item in perception.objects:
        assert len(item.segment.index) == len(item.prediction.part_ids) > 500
    tall = next(item for item in perception.objects if item.prediction.label == "tall")
    assert (tall.segment.index >= 20_000).all() and (tall.segment.index < 20_900).all()
    np.testing.assert_allclose(tall.segment.center[:2], [6, 2], atol=0.05)


def test_a_segment_is_never_of_a_class_that_it_is_too_large_for(model, tmp_path):
    floor = np.c_[np.random.default_rng(0).uniform(-15, 15, (20_000, 2)), np.full(20_000, -1.6)]
    small, large = (_box((length, 0.5, 0.5), 900) + [6, y, -1.1] for length, y in ((1.5, -6), (4.0, 6)))
    cloud = Cloud.from_points(np.concatenate([floor, small, large]))
    assert [item.prediction.label for item in Perceiver(model).perceive(cloud).objects] == ["flat", "flat"]
    limits = {"flat": 3.0}
    write_card(tmp_path, _card(objects=ObjectHead(classes=CLASSES, unknown_threshold=0.0, largest_m=limits)))
    perceiver = Perceiver(tmp_path)
    answers = {item.segment.size[0] > 3: item.prediction for item in perceiver.perceive(cloud).objects}
    assert answers[False].label == "flat" and answers[True].unknown
    assert dict(answers[True].top5)["flat"] == 0.0
    assert sum(dict(answers[True].top5).values()) == pytest.approx(1.0)
    assert perceiver.classify([large])[0].label == "flat"  # an object of unknown unit has no size


def test_an_empty_cloud_has_no_objects(model):
    perception = Perceiver(model).perceive(Cloud.from_points(np.empty((0, 3))))
    assert perception.objects == [] and perception.phases_ms["network"] == 0
    assert Perceiver(model).classify([]) == []


@pytest.mark.parametrize("points", [np.empty((0, 3)), np.zeros((4, 2)), np.full((4, 3), np.nan)])
def test_classify_refuses(model, points):
    with pytest.raises(InputError, match="object 1"):
        Perceiver(model).classify([_box((1, 1, 1)), points])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"inputs": ["centers", "points"], "outputs": ["tokens"]}, "lacks neighborhoods"),
        ({"outputs": ["class_logits"]}, "lacks tokens"),
        ({"outputs": ["tokens", "class_logits", "surprise"]}, "has surprise"),
        ({"outputs": ["tokens", "class_logits"]}, "the graph lacks part_logits"),
        ({"classes": 5}, "class_logits has shape .* C = 3"),
        ({"groups": 9}, "G = 8"),
    ],
)
def test_graphs_that_do_not_fit_are_named(tmp_path, options, reason):
    _write_graph(tmp_path / "model.onnx", **options)
    write_card(tmp_path, _card())
    with pytest.raises(InputError, match=reason) as caught:
        Perceiver(tmp_path)
    assert str(tmp_path / "model.onnx") in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_damaged_graphs_are_named(model):
    graph = model / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="model.onnx: wrong SHA-256"):
        Perceiver(model)
    with pytest.raises(InputError, match="model.onnx: not a usable ONNX graph"):
        OnnxSession(model)
    graph.unlink()
    with pytest.raises(InputError, match="model.onnx: missing"):
        Perceiver(model)
    card = json.loads((model / "card.json").read_text())
    (model / "card.json").write_text(json.dumps({**card, "files": {}}))
    with pytest.raises(InputError, match="model.onnx: missing"):
        Perceiver(model)


def test_a_model_without_object_head(tmp_path):
    _write_graph(tmp_path / "model.onnx")
    write_card(tmp_path, _card(objects=None))
    with pytest.raises(InputError, match="no head for objects"):
        Perceiver(tmp_path)


def test_parts_of_a_class_must_exist(tmp_path):
    _write_graph(tmp_path / "model.onnx")
    write_card(tmp_path, _card(parts=PartHead(parts=PARTS, class_parts={"tall": ["handle"]})))
    with pytest.raises(InputError, match="'handle'"):
        Perceiver(tmp_path)
