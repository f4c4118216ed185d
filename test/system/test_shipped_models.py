# SPDX-License-Identifier: Apache-2.0
"""The shipped models do what their cards say."""

import json
from collections import Counter

import numpy as np
import pytest

from foundry_core import geometry
from foundry_core.card import find_model, list_models, load_card
from foundry_core.cli.main import main
from foundry_core.data.mesh import sample_surface
from foundry_core.data.procedural import CATEGORIES, PART_NAMES, make_shape
from foundry_core.data.views import sensor_view
from foundry_core.runtime.perceiver import Perceiver

SHIPPED = [card.name for card in list_models()]
STUDENTS = [card.name for card in list_models() if card.heads.objects]


def run(*arguments: str) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as done:
        return int(done.code or 0)


def test_a_teacher_and_a_student_with_heads_are_shipped():
    kinds = Counter(card.kind for card in list_models())
    assert kinds["teacher"] >= 1 and kinds["student"] >= 1 and "foundry-base" in STUDENTS
    for name in ("foundry-base", "foundry-edge"):
        assert load_card(find_model(name)).budgets == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("name", SHIPPED)
def test_cards_state_data_licences_and_hashes(name):
    card = load_card(find_model(name))
    assert {"model.safetensors", "model.onnx"} <= set(card.files)
    assert card.parameters > 0 and card.training
    for training in card.training:
        assert training.steps > 0 and training.data and all(data.licence for data in training.data)
    seen = " ".join(data.name for training in card.training for data in training.data)
    assert "psb53" not in seen and "lidarnet" not in seen and "kitti" not in seen.lower()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_graph_equals_the_shipped_weights(name):
    torch = pytest.importorskip("torch")
    from foundry_core.export.graph import example_inputs, perceive
    from foundry_core.models.registry import load_model
    from foundry_core.runtime.session import open_session

    network, card = load_model(name)
    inputs = example_inputs(card, 3, seed=7)
    session = open_session(find_model(name), "onnxruntime", "fp32", 1)
    for budget in card.budgets or [None]:
        with torch.no_grad():
            expected = perceive(network, [torch.from_numpy(value) for value in inputs.values()], budget)
        given = session.run(inputs, budget=budget)
        assert given.keys() >= {"tokens"}
        for output, value in given.items():
            assert np.abs(value - expected[output].numpy()).max() < 1e-4, (budget, output)


def test_a_student_rebuilds_its_teachers_tokens():
    pytest.importorskip("torch")
    import torch

    from foundry_core.data.stream import ShapeStream, StreamConfig
    from foundry_core.models.registry import load_model
    from foundry_core.training.distill import r_squared

    teacher, card = load_model("teacher-small")
    stream = ShapeStream(StreamConfig(), card.preprocessing.points, seed=77)
    clouds = np.stack([stream[index] for index in range(24)])
    batch = [torch.from_numpy(part) for part in geometry.group_batch(clouds, 64, 32)]
    with torch.no_grad():
        target = teacher.backbone(*batch)["tokens"]
        for name in STUDENTS:
            out = load_model(name)[0].backbone(*batch)
            assert r_squared(out["tokens"], target) > 0.8, name
            used = (out["assignment"].sum(dim=1) > 0).float().mean()
            assert used > 0.95, f"{name}: {used:.0%} of the supertokens in use"


@pytest.mark.parametrize("name", STUDENTS)
def test_unseen_shapes_and_views_are_named_and_parted(name):
    perceiver = Perceiver(name)
    rng = np.random.default_rng(424242)
    right, overlap, total = 0, [], 0
    for number in range(4 * len(CATEGORIES)):
        category = CATEGORIES[number % len(CATEGORIES)]
        mesh = make_shape(category, rng)
        points, part = sensor_view(mesh, rng) if number % 2 else sample_surface(mesh, 2048, rng)
        if len(points) < 50:
            continue
        (answer,) = perceiver.classify([points])
        total += 1
        right += answer.label == category
        if answer.label == category:
            overlap.append(np.mean(answer.part_ids == part))
            assert {PART_NAMES[p] for p in np.unique(answer.part_ids)} <= set(
                perceiver.card.heads.parts.class_parts[category]
            )
    assert right / total > 0.7, f"{right} of {total}"
    assert np.mean(overlap) > 0.7


def test_embeddings_of_teacher_and_student_have_one_width(tmp_path):
    points = np.stack([make_shape("chair", np.random.default_rng(seed)).vertices[:64] for seed in range(3)])
    np.savez(tmp_path / "shapes.npz", points=points.astype(np.float32))
    widths = {}
    for name in SHIPPED:
        out = tmp_path / f"{name}.npz"
        assert run("embed", "--model", name, "--data", tmp_path / "shapes.npz", "--out", out, "--tokens") == 0
        with np.load(out) as written:
            assert written["features"].dtype == np.float32 and np.isfinite(written["features"]).all()
            assert written["tokens"].shape[:2] == (3, 64) and written["centers"].shape == (3, 64, 3)
            pooled = np.concatenate([written["tokens"].mean(axis=1), written["tokens"].max(axis=1)], axis=1)
            assert np.allclose(pooled, written["features"], atol=1e-5)
            assert ("supertokens" in written) == (load_card(find_model(name)).kind == "student")
            widths[name] = written["features"].shape
    assert len(set(widths.values())) == 1, widths


def test_models_lists_what_is_shipped(tmp_path, capsys):
    assert run("models", "--json", tmp_path / "models.json") == 0
    cards = json.loads((tmp_path / "models.json").read_text())
    assert [card["name"] for card in cards] == SHIPPED
