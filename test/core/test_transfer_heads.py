# SPDX-License-Identifier: Apache-2.0
"""Transfer heads: files of their own, the same numbers without torch, at home in one family."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from head_family import perceiver, train, write_models, write_solids  # noqa: E402

from foundry_core import geometry  # noqa: E402
from foundry_core.card import load_card, sha256  # noqa: E402
from foundry_core.data.shapes import load_shapes  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.evaluation.heads import evaluate_head, part_iou  # noqa: E402
from foundry_core.head_card import HEAD_WEIGHTS, family, fingerprint, load_head_card, write_head_card  # noqa: E402
from foundry_core.models.heads import PartHead  # noqa: E402
from foundry_core.models.registry import load_model  # noqa: E402
from foundry_core.models.transfer import Classifiers, InnerFeatures  # noqa: E402
from foundry_core.runtime.head_perceiver import HeadPerceiver  # noqa: E402
from foundry_core.runtime.transfer import TransferHead, gelu  # noqa: E402
from foundry_core.schema import parse  # noqa: E402
from foundry_core.tensors import read_tensors, write_tensors  # noqa: E402
from foundry_core.training.config import TransferConfig  # noqa: E402
from foundry_core.training.lesson import Lesson  # noqa: E402
from foundry_core.training.transfer_tasks import FineTuning  # noqa: E402


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_solids(tmp_path_factory.mktemp("data") / "solids.npz")


@pytest.fixture(scope="module")
def linear(models, data, tmp_path_factory):
    return train(models, data, tmp_path_factory.mktemp("linear"), dropout=0.0)[0]


def test_a_head_learns_and_its_card_says_what_it_is(models, data, linear):
    made = load_head_card(linear)
    teacher = load_card(models / "teacher")
    assert made.classes == ["ellipsoid", "box", "torus"] and made.kind == "linear"
    assert made.backbone.sha256 == made.backbone.family == fingerprint(teacher)
    assert made.training.data[0].licence == "CC BY, CC0" and made.training.data[0].shapes == 90
    assert made.calibration.shapes == 90 and made.unknown.exemplars == 90
    assert sorted(file.name for file in linear.iterdir()) == ["head.json", "head.safetensors"]
    measured = evaluate_head(perceiver(models / "teacher", linear), load_shapes(data).test())
    assert measured["accuracy_percent"] > 60 and made.metrics[0].value > 60  # by chance 33
    assert 0 < measured["known_rejected_percent"] + 1 < 40 and "unknown_auroc" not in measured


def test_the_same_training_gives_the_same_head_and_a_finished_one_resumes_to_it(models, data, linear):
    before = sha256(linear / HEAD_WEIGHTS)
    train(models, data, linear.parent, dropout=0.0)  # goes on from its checkpoint
    assert sha256(linear / HEAD_WEIGHTS) == before
    train(models, data, linear.parent.with_name("anew"), dropout=0.0)
    assert sha256(linear.parent.with_name("anew") / "linear-solids" / HEAD_WEIGHTS) == before


def test_features_are_computed_once(models, data, linear, tmp_path, monkeypatch):
    from foundry_core.training import shape_features

    def no_more(*_):
        raise AssertionError("the backbone ran again")

    monkeypatch.setattr(shape_features, "extract", no_more)
    train(models, data, tmp_path / "other", kind="ncm")
    for file in (models / "cache").iterdir():
        content = file.read_bytes()
        file.write_bytes(content[:1000])
        with pytest.raises(InputError, match="torn or no file of features"):
            train(models, data, tmp_path / "torn", kind="ncm")
        file.write_bytes(content)


@pytest.mark.parametrize("hidden", [None, 12], ids=["linear", "mlp"])
def test_classifiers_answer_the_same_without_torch(linear, tmp_path, hidden):
    torch.manual_seed(0)
    width, tokens = load_head_card(linear).width, np.random.default_rng(0).normal(size=(5, 16, 24)).astype(np.float32)
    module = Classifiers(torch.randn(2 * width), torch.rand(2 * width) + 0.5, 3, 2, hidden, 0.5).eval()
    pooled = torch.from_numpy(np.concatenate([tokens.mean(axis=1), tokens.max(axis=1)], axis=1))
    changes = {"kind": "mlp" if hidden else "linear", "hidden": hidden, "unknown": None}
    write_tensors(tmp_path / HEAD_WEIGHTS, {k: v.detach().numpy() for k, v in module.tensors(1).items()})
    write_head_card(tmp_path, load_head_card(linear).model_copy(update=changes))
    answers = TransferHead(tmp_path).classify(tokens)
    expected = module(pooled)[1].detach()
    assert np.allclose(answers.logits, expected.numpy(), atol=1e-5)
    temperature = load_head_card(linear).calibration.temperature
    assert np.allclose(answers.probabilities, (expected / temperature).softmax(dim=1).numpy(), atol=1e-5)
    assert np.allclose(answers.score, -expected.logsumexp(dim=1).numpy(), atol=1e-5)
    assert not answers.unknown.any()


def test_a_part_head_answers_the_same_without_torch(models, data, tmp_path):
    directory, made = train(models, data, tmp_path, kind="parts", category=True, hidden=16, loop={"steps": 60})
    assert made.class_parts == {"ellipsoid": ["body"], "box": ["bottom", "top"], "torus": ["bottom", "top"]}
    head = TransferHead(directory)
    module = PartHead(24, 3, 16, categories=3)
    module.load_state_dict({k: torch.from_numpy(v) for k, v in read_tensors(directory / HEAD_WEIGHTS).items()})
    rng = np.random.default_rng(0)
    tokens, centers, points = (
        rng.normal(size=shape).astype(np.float32) for shape in ((2, 16, 24), (2, 16, 3), (2, 9, 3))
    )
    index, weight = (np.stack(c) for c in zip(*map(geometry.interpolation, points, centers), strict=True))
    category = np.array([2, 0])
    inputs = map(torch.from_numpy, (tokens, centers, points, index, weight, np.eye(3, dtype=np.float32)[category]))
    expected = module(*inputs).detach().numpy() / made.calibration.temperature
    assert np.allclose(head.part_logits(tokens, centers, points, index, weight, category), expected, atol=1e-5)
    measured = evaluate_head(perceiver(models / "teacher", directory), load_shapes(data).test())
    assert measured["point_accuracy_percent"] > 70 and measured["instance_miou_percent"] > 50


def test_gelu_is_exact():
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    assert np.allclose(gelu(x.copy()), torch.nn.functional.gelu(torch.from_numpy(x)).numpy(), atol=1e-6)


def test_a_head_is_at_home_in_its_family_only(models, linear):
    cards = {name: load_card(models / name) for name in ("teacher", "student", "grandchild", "stranger")}
    root = fingerprint(cards["teacher"])
    assert {name: family(item) == root for name, item in cards.items()} == {
        "teacher": True, "student": True, "grandchild": True, "stranger": False,
    }  # fmt: skip
    head = load_head_card(linear)
    for name in ("teacher", "student", "grandchild"):
        head.require_fit(cards[name], linear)
    with pytest.raises(InputError, match=r"was trained on teacher .*stranger is of family .*; give teacher,"):
        HeadPerceiver(models / "stranger", [linear])


def test_inner_features_hold_the_last_ones_and_bind_a_head_to_its_own_backbone(models, data, tmp_path):
    network, _ = load_model(models / "teacher")
    centers, neighborhoods = torch.randn(2, 16, 3), torch.randn(2, 16, 8, 3)
    inner = InnerFeatures(network.backbone, [1], False, None)(centers, neighborhoods)
    assert torch.allclose(inner[..., :24], network.backbone(centers, neighborhoods)["tokens"], atol=1e-6)
    first = network.backbone.encoder.blocks[0](
        network.backbone.tokenizer(neighborhoods) + network.backbone.position(centers)
    )
    assert torch.allclose(inner[..., 24:], network.backbone.encoder.norm(first), atol=1e-6)
    student, _ = load_model(models / "student")
    encoded = student.backbone.encode(centers, neighborhoods, [2])[0]
    levels = InnerFeatures(student.backbone, [], True, 2)(centers, neighborhoods)
    assert torch.allclose(levels[..., :24], student.backbone(centers, neighborhoods, 2)["tokens"], atol=1e-6)
    assert torch.allclose(levels[..., 24:], encoded.spread @ encoded.supertokens, atol=1e-6)

    directory, made = train(models, data, tmp_path, kind="parts", depths=[1], hidden=8, loop={"steps": 5})
    assert made.width == 48
    with pytest.raises(InputError, match="reads inner features of teacher"):
        HeadPerceiver(models / "student", [directory])
    with pytest.raises(InputError, match="which the graph does not give"):
        HeadPerceiver(models / "teacher", [directory])
    (answer,) = perceiver(models / "teacher", directory).classify([load_shapes(data).points[0].astype(np.float32)])
    assert answer.unknown and (answer.part_ids >= 0).all() and len(answer.part_ids) == 200


def test_fine_tuning_makes_a_model_that_begins_a_family(models, data, tmp_path, linear):
    directory, made = train(
        models, data, tmp_path, "student", finetune=True, loop={"steps": 30, "learning_rate": 3e-3}, name="tuned"
    )
    tuned = load_card(tmp_path / "tuned-backbone")
    assert made.backbone.sha256 == made.backbone.family == fingerprint(tuned) == family(tuned)
    assert tuned.budgets == [4] and not tuned.training[-1].keeps_features
    assert tuned.training[-1].parent_sha256 == fingerprint(load_card(models / "student"))
    old, new = (
        load_model(place)[0].backbone.state_dict() for place in (models / "student", tmp_path / "tuned-backbone")
    )
    assert any(not torch.equal(old[key], new[key]) for key in old if "encoder.blocks.0" in key)
    assert made.calibration.shapes == 18  # the fold that it did not learn from
    made.require_fit(tuned, directory)
    for head, model in ((made, load_card(models / "student")), (load_head_card(linear), tuned)):
        with pytest.raises(InputError, match="is of family"):
            head.require_fit(model, directory)


def test_earlier_blocks_learn_more_slowly(models):
    network, _ = load_model(models / "teacher")
    config = parse(TransferConfig, {"model": "m", "data": "d.npz", "finetune": True}, "test")
    assert config.loop.precision == "auto"  # bfloat16 alone where the device is fast at it
    head = Classifiers(torch.zeros(48), torch.ones(48), 3, 1, None, 0.0)
    inner = InnerFeatures(network.backbone, [], False, None)
    task = FineTuning(config, inner, head, np.zeros(1, int), np.ones((3, 0), bool))
    rates = {name: task.rate(name) for name, _ in task.module.named_parameters()}
    prefix = "backbone.backbone."
    order = ["tokenizer.point.weight", "encoder.blocks.0.mlp_norm.weight", "encoder.blocks.1.mlp_norm.weight"]
    tokenizer, first, last = (rates[prefix + name] for name in order)
    assert tokenizer < first < last == config.backbone_rate == rates[prefix + "encoder.norm.weight"]
    assert rates["head.weights.0"] == 1.0 and rates[prefix + "position.layers.0.weight"] == tokenizer


def test_fine_tuning_computes_on_the_device_of_its_loop(models, data, tmp_path):
    network, _ = load_model(models / "teacher")
    config = parse(TransferConfig, {"model": "m", "data": "d.npz", "finetune": True}, "test")
    head = Classifiers(torch.zeros(48), torch.ones(48), 3, 1, None, 0.0)
    inner = InnerFeatures(network.backbone, [], False, None)
    task = FineTuning(config, inner, head, np.zeros(5, int), np.ones((3, 0), bool))
    task.module.to("meta")
    centers, neighborhoods, row = torch.zeros(2, 16, 3), torch.zeros(2, 16, 8, 3), torch.arange(2)
    assert task.losses([each.to("meta") for each in (centers, neighborhoods, row)], 0.0)["loss"].device.type == "meta"
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="loop.device: 0 CUDA devices"):
            train(models, data, tmp_path, finetune=True, loop={"steps": 1, "device": "cuda"})


def test_a_damaged_head_is_refused_by_name(linear, tmp_path):
    with pytest.raises(InputError, match="no head directory"):
        TransferHead(tmp_path)
    values = json.loads((linear / "head.json").read_text())
    tensors = read_tensors(linear / HEAD_WEIGHTS)

    def copy(change=None, card_change=None, seal=True):
        write_tensors(tmp_path / HEAD_WEIGHTS, {**tensors, **(change or {})})
        made = load_head_card(linear).model_copy(update=card_change or {})
        write_head_card(tmp_path, made)
        if not seal:
            write_tensors(tmp_path / HEAD_WEIGHTS, {**tensors, "mean": tensors["mean"] + 1})

    copy()
    TransferHead(tmp_path)
    copy(seal=False)
    with pytest.raises(InputError, match="head.safetensors: wrong SHA-256"):
        TransferHead(tmp_path)
    copy({"extra": np.zeros(2)})
    with pytest.raises(InputError, match="unknown tensor 'extra'"):
        TransferHead(tmp_path)
    copy(card_change={"classes": ["a", "b"]})
    with pytest.raises(InputError, match=r"tensor 'out.weight' is \(3, 48\), the card asks for \(2, 48\)"):
        TransferHead(tmp_path)
    copy({"mean": np.full_like(tensors["mean"], np.nan)})
    with pytest.raises(InputError, match="'mean' is not finite"):
        TransferHead(tmp_path)
    for change, message in (({"files": {}}, "files: must name"), ({"surprise": 1}, "surprise: unknown key")):
        (tmp_path / "head.json").write_text(json.dumps({**values, **change}))
        with pytest.raises(InputError, match=message):
            load_head_card(tmp_path)


def test_configurations_that_mean_nothing_are_refused(models, data, tmp_path):
    base = {"model": str(models / "teacher"), "data": str(data)}
    for values, message in (
        ({"kind": "linear", "depths": [1]}, "are for heads of kind parts"),
        ({"kind": "ncm", "finetune": True}, "finetune is for"),
        ({"kind": "parts", "leave_out": 1}, "leave_out is for"),
        ({"kind": "svm"}, "kind: Input should be"),
        ({"loop": {"stepz": 1}}, "loop.stepz: unknown key"),
    ):
        with pytest.raises(InputError, match=message):
            parse(TransferConfig, {**base, **values}, "test")
    for values, message in (
        ({"kind": "parts", "depths": [2]}, "give blocks of a teacher, 1 to 1"),
        ({"kind": "parts", "supertokens": True}, "is a teacher and has none"),
        ({"budget": 4}, "teacher and has no supertokens"),
        ({"leave_out": 2}, "1 classes to learn"),
        ({"folds": 50}, "too few for 50 folds"),
    ):
        with pytest.raises(InputError, match=message):
            train(models, data, tmp_path, **values)
    kinds = [parse(TransferConfig, {**base, "kind": kind}, "test").loop.steps for kind in ("linear", "parts")]
    assert kinds[0] != kinds[1]  # each has defaults of its own, which a partial loop keeps
    partial = parse(TransferConfig, {**base, "kind": "parts", "loop": {"seed": 3}}, "test").loop
    assert partial.steps == kinds[1] and partial.seed == 3


def test_absent_parts_count_as_one():
    true, found = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert part_iou(true, found, np.array([0, 1])) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert part_iou(true, found, np.array([0, 1, 2])) == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)


def test_shapes_without_a_label_are_not_learned(data, tmp_path):
    with np.load(data, allow_pickle=False) as archive:
        arrays = dict(archive)
    arrays["label"] = np.where(np.arange(len(arrays["label"])) % 5 == 0, -1, arrays["label"])
    np.savez(tmp_path / "some.npz", **arrays)
    lesson = Lesson.of(parse(TransferConfig, {"data": str(tmp_path / "some.npz"), "model": "x"}, "test"))
    assert lesson.classes == ["ellipsoid", "box", "torus"]
    assert len(lesson.rows) == ((arrays["split"] == 0) & (arrays["label"] >= 0)).sum()
