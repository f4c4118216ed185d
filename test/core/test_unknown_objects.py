# SPDX-License-Identifier: Apache-2.0
"""Which objects a transfer head says it does not know."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from head_family import perceiver, train, write_models, write_solids  # noqa: E402

from foundry_core.data.shapes import load_shapes  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.evaluation.heads import evaluate_head  # noqa: E402
from foundry_core.runtime.fewshot import Whitening, nearest_cosine  # noqa: E402
from foundry_core.runtime.transfer import energy  # noqa: E402
from foundry_core.schema import parse  # noqa: E402
from foundry_core.training.calibration import fit_unknown  # noqa: E402
from foundry_core.training.config import TransferConfig  # noqa: E402


def test_left_out_classes_are_unknown(tmp_path):
    models, data = write_models(tmp_path / "models"), write_solids(tmp_path / "solids.npz")
    directory, made = train(models, data, tmp_path, kind="ncm", leave_out=1)
    assert len(made.classes) == 2 and len(made.left_out) == 1 and made.training.steps == 0
    assert not (tmp_path / "checkpoint.pt").exists()  # nothing was trained
    shapes = load_shapes(data).test()
    judge = perceiver(models / "teacher", directory)
    measured = evaluate_head(judge, shapes)
    assert measured["accuracy_percent"] > 65 and 0 <= measured["unknown_auroc"] <= 1
    strangers = shapes.select(shapes.label == shapes.class_names.index(made.left_out[0]))
    with pytest.raises(InputError, match="none is a class of"):
        evaluate_head(judge, strangers)


@pytest.mark.parametrize("score", ["distance", "energy"])
def test_a_threshold_turns_away_its_share_of_the_known_and_most_of_the_unknown(score):
    rng = np.random.default_rng(0)
    centers = 6 * rng.normal(size=(4, 12))
    label = rng.integers(0, 3, 600)
    pooled = (centers[label] + rng.normal(size=(600, 12))).astype(np.float32)
    fold = rng.integers(0, 5, 600)
    config = parse(TransferConfig, {"model": "m", "data": "d.npz", "unknown": score, "reject": 0.1}, "test")
    logits = -((pooled[:, None] - centers[None, :3]) ** 2).sum(axis=2) / 2
    unknown, tensors = fit_unknown(config, pooled, label, fold, np.ones(600, bool), logits)

    def rejected(features: np.ndarray) -> float:
        if score == "energy":
            found = energy(-((features[:, None] - centers[None, :3]) ** 2).sum(axis=2) / 2)
        else:
            space = Whitening(tensors["space.center"], tensors["space.matrix"])
            found = 1 - nearest_cosine(space.units(features), tensors["space.exemplars"])
        return float((found > unknown.threshold).mean())

    fresh = rng.integers(0, 3, 1000)
    assert rejected(centers[fresh] + rng.normal(size=(1000, 12))) == pytest.approx(0.1, abs=0.05)
    assert rejected(centers[3] + rng.normal(size=(200, 12))) > 0.9
    assert unknown.exemplars == (96 if score == "distance" else 0)
