# SPDX-License-Identifier: Apache-2.0
"""The specialist learns one task's answers from its teacher, and nothing makes it keep the token features."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_training import ARCHITECTURE, LOOP, PRETRAIN  # noqa: E402

from foundry_core import geometry  # noqa: E402
from foundry_core.architecture import Preprocessing  # noqa: E402
from foundry_core.data.stream import ShapeFile  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.heads import pool  # noqa: E402
from foundry_core.models.registry import load_model  # noqa: E402
from foundry_core.schema import parse  # noqa: E402
from foundry_core.training.config import DistillConfig, PretrainConfig  # noqa: E402
from foundry_core.training.distill import distill  # noqa: E402
from foundry_core.training.pretrain import pretrain  # noqa: E402
from foundry_core.training.specialist import answer_distance, teacher_classifier  # noqa: E402

SIZE = Preprocessing(points=64, groups=8, neighbors=8)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    pretrain(parse(PretrainConfig, PRETRAIN, "test"), folder)
    return folder / "tiny"


def write_set(path: Path, labelled: bool = True) -> Path:
    """Flat slabs against long rods."""
    rng = np.random.default_rng(0)
    sides = np.array([[1, 1, 0.1], [0.1, 0.1, 1]])
    label = np.arange(40) % 2
    points = rng.uniform(-1, 1, (40, 128, 3)) * sides[label][:, None]
    names = {"label": label, "class_names": ["slab", "rod"]} if labelled else {}
    np.savez(path, points=points.astype(np.float32), split=np.zeros(40, np.int8), **names)
    return path


def values(teacher: Path, path: Path, **change) -> dict:
    return {
        "name": "specialist",
        "teacher": str(teacher),
        "architecture": {**ARCHITECTURE, "supertokens": {"count": 4}},
        "data": {"files": [{"path": str(path), "weight": 2.0}]},
        "task": path.stem,
        "losses": {"features": 0.0, "logits": 1.0},
        "loop": {**LOOP, "steps": 150, "batch": 8},
        **change,
    }


def test_a_specialist_learns_the_answers_alone(teacher, tmp_path):
    config = parse(DistillConfig, values(teacher, write_set(tmp_path / "task.npz")), "test")
    card = distill(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["logits"] < 0.5 * rows[0]["logits"]
    assert rows[-1]["loss"] == pytest.approx(rows[-1]["logits"], abs=1e-6)
    assert "one task, task" in card.training[-1].task


def test_the_teachers_classifier_answers_as_it_was_fitted(teacher, tmp_path):
    path = write_set(tmp_path / "task.npz")
    network = load_model(teacher)[0].backbone.eval()
    linear = teacher_classifier(network, ShapeFile(path=path), SIZE)
    right = 0
    with np.load(path) as data, torch.no_grad():
        for points, label in zip(data["points"], data["label"], strict=True):
            groups = geometry.group(geometry.prepare(points, 64)[0], 8, 8)
            tokens = network(*(torch.from_numpy(array)[None] for array in groups))["tokens"]
            right += int(linear(pool(tokens)).argmax() == label)
    assert right == 40
    assert not any(parameter.requires_grad for parameter in linear.parameters())


def test_the_classifier_learns_from_the_licences_that_the_stream_takes(teacher, tmp_path):
    with np.load(write_set(tmp_path / "task.npz")) as data:
        arrays = dict(data)
    free = np.arange(40) < 20
    np.savez(tmp_path / "free.npz", **{k: v if k == "class_names" else v[free] for k, v in arrays.items()})
    np.savez(tmp_path / "task.npz", **arrays, licence=np.where(free, "CC0", "CC BY-NC"))
    network = load_model(teacher)[0].backbone.eval()
    chosen = ShapeFile(path=tmp_path / "task.npz", licences=["CC0"])
    found, expected = (
        teacher_classifier(network, file, SIZE) for file in (chosen, ShapeFile(path=tmp_path / "free.npz"))
    )
    assert torch.equal(found.weight, expected.weight) and torch.equal(found.bias, expected.bias)


def test_equal_answers_are_no_distance_apart():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert answer_distance(logits, logits).item() == pytest.approx(0, abs=1e-6)
    assert answer_distance(logits, -logits).item() > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "other"}, r"task: other is none of the shape sets of data.files \(task\)"),
        ({"task": None}, "losses.logits: needs a task"),
        ({"losses": {"features": 0.0}, "task": None}, "losses: all are zero"),
    ],
)
def test_a_task_that_cannot_be_is_named(teacher, tmp_path, change, message):
    path = write_set(tmp_path / "task.npz")
    with pytest.raises(InputError, match=message):
        distill(parse(DistillConfig, values(teacher, path, **change), "test"), tmp_path / "run")


def test_a_set_without_labels_is_no_task(teacher, tmp_path):
    path = write_set(tmp_path / "task.npz", labelled=False)
    with pytest.raises(InputError, match="label: missing"):
        distill(parse(DistillConfig, values(teacher, path), "test"), tmp_path / "run")
