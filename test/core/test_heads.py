# SPDX-License-Identifier: Apache-2.0
"""Heads: trained on a frozen backbone, calibrated on held-out sightings, and told how large each class is seen."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_models import card, tiny_student  # noqa: E402

from foundry_core.card import Heads, ObjectHead, SizeLikelihood  # noqa: E402
from foundry_core.data.procedural import CATEGORIES  # noqa: E402
from foundry_core.data.procedural.vocabulary import part_id  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.registry import create_perception, load_model, save_model  # noqa: E402
from foundry_core.runtime.answers import Answers  # noqa: E402
from foundry_core.runtime.sizes import log_likelihood  # noqa: E402
from foundry_core.schema import parse  # noqa: E402
from foundry_core.training.calibration import (  # noqa: E402
    fit_size_weight,
    fit_temperature,
    fit_threshold,
    size_likelihood,
)
from foundry_core.training.config import HeadConfig  # noqa: E402
from foundry_core.training.heads import CLASSES, _calibrated, train_heads  # noqa: E402
from foundry_core.training.sighting_set import draw  # noqa: E402
from foundry_core.training.sightings import as_seen  # noqa: E402

CONFIG = {
    "name": "tiny",
    "model": "",
    "scenes": 0,
    "samples": 48,
    "part_hidden": 16,
    "loop": {"steps": 120, "batch": 16, "precision": "fp32", "workers": 0, "learning_rate": 3e-3},
}


@pytest.fixture
def backbone(tmp_path):
    torch.manual_seed(0)
    plain = card(tiny_student()).model_copy(update={"heads": Heads(), "budgets": [2, 4], "default_budget": 2})
    save_model(tmp_path / "backbone", create_perception(plain), plain)
    return tmp_path / "backbone"


def test_heads_learn_leave_the_backbone_alone_and_say_what_they_are(backbone, tmp_path):
    config = parse(HeadConfig, {**CONFIG, "model": str(backbone)}, "test")
    made = train_heads(config, tmp_path / "run", cache=tmp_path / "cache")
    network, read = load_model(tmp_path / "run" / "tiny")
    assert read == made and made.default_budget == 2
    for name, value in load_model(backbone)[0].backbone.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[name], value), name
    head = made.heads.objects
    assert head.classes == list(CLASSES) and made.heads.parts.hidden == 16
    assert head.sizes is not None and 0 < head.unknown_threshold < 1
    assert {metric.name for metric in made.metrics} >= {
        "class accuracy",
        "calibration error (ECE), size known",
        "part instance mIoU",
    }
    rows = [json.loads(row) for row in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["class_loss"] < rows[0]["class_loss"]


def test_a_sign_whose_plate_is_not_seen_is_a_pole():
    sign, pole = CATEGORIES.index("sign"), CATEGORIES.index("pole")
    stem, plate = part_id("stem"), part_id("plate")
    part = np.array([stem] * 97 + [plate] * 3, np.int16)
    label, seen = as_seen(sign, part)
    assert label == pole and (seen[:97] == stem).all() and (seen[97:] == -1).all()
    part[50:97] = plate
    assert as_seen(sign, part) == (sign, part)
    other = CATEGORIES.index("table")
    assert as_seen(other, part) == (other, part)


def test_sightings_are_drawn_once_and_held_out_ones_are_others(tmp_path):
    config = parse(HeadConfig, {**CONFIG, "samples": 12}, "test")
    train, held_out = draw(config, 64, False, tmp_path), draw(config, 64, True, tmp_path)
    assert len(train) == 12 and len(held_out) == 2 and train.points.shape[1:] == (64, 3)
    assert not np.array_equal(train.points[:2], held_out.points)
    known = train.label < len(CLASSES) - 1
    assert (train.diagonal[known] > 0).all() and np.isnan(train.diagonal[~known]).all()  # metres, but for compositions
    files = sorted(tmp_path.iterdir())
    again = draw(config, 64, False, tmp_path)
    assert np.array_equal(again.points, train.points) and sorted(tmp_path.iterdir()) == files
    files[0].write_bytes(b"torn")
    files[1].write_bytes(b"torn")
    with pytest.raises(InputError, match="torn or no set of sightings"):
        draw(config, 64, False, tmp_path)


def test_a_size_likelihood_tells_what_is_seen_at_which_size():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 2], 200)
    diagonal = np.concatenate([rng.normal(0.2, 0.02, 200), rng.normal(5, 0.5, 200), np.full(200, np.nan)])
    sizes = size_likelihood(diagonal, label, ["mug", "car", "other"])
    assert set(sizes.density) == {"mug", "car"}  # nothing is known of the third
    assert all(sum(values) == pytest.approx(1, abs=1e-4) and min(values) > 0 for values in sizes.density.values())
    scores = log_likelihood(sizes, [0.2, 5.0, 1000.0, np.nan], ["mug", "car", "other"])
    assert scores[0, 0] > scores[0, 1] + 2 and scores[1, 1] > scores[1, 0] + 2
    assert np.isfinite(scores).all() and np.array_equal(scores[:, 2], np.zeros(4)) and not scores[3].any()


def test_the_weight_of_the_size_is_what_held_out_objects_bear_out():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 400)
    nothing_seen = np.log(np.full((400, 2), 0.5))
    informative = np.where(label == 0, 0.2, 5.0) * np.exp(rng.normal(0, 0.1, 400))
    sizes = size_likelihood(informative, label, ["mug", "car"])
    assert fit_size_weight(nothing_seen, informative, label, sizes, ["mug", "car"]) == 1.0
    misleading = rng.permutation(informative)
    assert fit_size_weight(nothing_seen, misleading, label, sizes, ["mug", "car"]) == 0.0


def test_temperature_and_threshold_on_known_cases():
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.ones(3), 4000)
    label = torch.tensor([rng.choice(3, p=row) for row in probability])
    calibrated = torch.log(torch.tensor(probability))
    assert fit_temperature(calibrated * 2, label) == pytest.approx(2.0, rel=0.1)  # twice as sure as it may be
    threshold = fit_threshold(np.log(probability), 0.1)
    assert (probability.max(axis=1) < threshold).mean() == pytest.approx(0.1, abs=0.01)


def test_the_threshold_is_one_of_probabilities_with_the_size_weighed_in():
    rng = np.random.default_rng(0)
    classes = CLASSES
    label = rng.integers(0, len(classes), 3000)
    diagonal = np.geomspace(0.1, 10, len(classes))[label] * np.exp(rng.normal(0, 0.05, 3000))
    logits = torch.tensor(rng.normal(size=(3000, len(classes)))) + torch.nn.functional.one_hot(
        torch.tensor(label), len(classes)
    )
    held_out = SimpleNamespace(label=torch.tensor(label), sightings=SimpleNamespace(diagonal=diagonal))
    head = ObjectHead(classes=list(CLASSES), sizes=size_likelihood(diagonal, label, classes))
    config = HeadConfig(name="h", model="m", reject=0.1)
    made = _calibrated(head, config, held_out, logits, np.arange(3000))
    assert made.sizes.weight > 0
    answers = Answers(card(tiny_student()).model_copy(update={"heads": Heads(objects=made)}))
    weighed = answers.probabilities(logits.numpy(), diagonal)
    known = label < len(CATEGORIES)
    assert (weighed[known].max(axis=1) < made.unknown_threshold).mean() == pytest.approx(0.1, abs=0.005)


def test_a_damaged_size_table_is_refused():
    with pytest.raises(ValueError, match="must rise"):
        SizeLikelihood(edges_m=[1.0, 0.5], density={})
    with pytest.raises(ValueError, match="one positive value"):
        SizeLikelihood(edges_m=[0.1, 1.0, 2.0], density={"mug": [1.0]})
