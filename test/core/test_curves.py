# SPDX-License-Identifier: Apache-2.0
"""The curves of a training and the probes on the way."""

import json
import subprocess
import sys

import numpy as np
import pytest

from foundry_core.evaluation.curves import draw_curves, panels, rows_of

torch = pytest.importorskip("torch")

from test_models import TINY  # noqa: E402

from foundry_core.architecture import Preprocessing  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.teacher import Teacher  # noqa: E402
from foundry_core.schema import parse  # noqa: E402
from foundry_core.training import loop  # noqa: E402
from foundry_core.training.config import PretrainConfig  # noqa: E402
from foundry_core.training.pretrain import pretrain  # noqa: E402
from foundry_core.training.probing import Every, Probes  # noqa: E402


def row(step, loss, **more):
    return json.dumps(
        {"step": step, "seconds": 1.0, "samples_per_second": 2.0, "learning_rate": 1e-3, "loss": loss, **more}
    )


def test_a_log_is_read_without_torn_lines_and_repeated_rows():
    again = [row(50, 3.0), row(100, 2.0), row(150, 9.0), row(100, 2.5, probe_psb=40.0), '{"step": 150, "lo']
    rows = rows_of("\n".join(again))
    assert [(r["step"], r["loss"]) for r in rows] == [(50, 3.0), (100, 2.5)]
    shown = panels(rows)
    assert shown["loss"] == {"loss": ([50, 100], [3.0, 2.5])}
    assert shown["probe, % right"] == {"probe_psb": ([100], [40.0])}
    assert set(shown) == {"loss", "probe, % right", "learning rate"}


def test_curves_are_drawn_whole_or_not_at_all(tmp_path):
    picture = tmp_path / "curves.png"
    draw_curves("", picture, "a run")
    assert not picture.exists()
    log = "\n".join(row(50 * i, 1 / i, token_std=0.5, cloud_rank=3.0, r2=0.9) for i in range(1, 5))
    draw_curves(log, picture, "a run")
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
    with pytest.raises(InputError, match="cannot be written"):
        draw_curves(log, picture / "curves.png", "a run")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Three classes that differ in their extents: boxes, plates and rods."""
    rng = np.random.default_rng(0)
    extent = np.array([[1, 1, 1], [1, 1, 0.1], [0.1, 0.1, 1]])
    label = np.repeat(np.arange(3), 16)
    points = rng.uniform(-1, 1, (48, 64, 3)) * extent[label][:, None] * rng.uniform(0.7, 1.3, (48, 1, 3))
    path = tmp_path_factory.mktemp("data") / "forms.npz"
    np.savez(path, points=points.astype(np.float32), label=label, class_names=np.array(["box", "plate", "rod"]))
    return path


def config(shapes, **loop):
    values = {
        "name": "tiny",
        "architecture": TINY.model_dump(exclude={"output_width", "supertokens"}),
        "preprocessing": {"points": 64, "groups": 8, "neighbors": 8},
        "data": {"compositions": 0, "categories": 0, "files": [{"path": str(shapes)}], "partial": 0},
        "objective": {"kind": "jepa", "predictor_depth": 1},
        "loop": {"steps": 51, "batch": 4, "precision": "fp32", "workers": 0, **loop},
    }
    return parse(PretrainConfig, values, "test")


def test_probes_come_when_due_and_leave_the_network_as_it_was(shapes):
    torch.manual_seed(0)
    network = Teacher(TINY).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    random = torch.get_rng_state()
    probes = Probes(network, Preprocessing(points=64, groups=16, neighbors=8), [shapes], Every(100, rows=50))
    scores = [probes(step, last=step == 230) for step in (0, 50, 100, 150, 210, 230)]
    assert [bool(score) for score in scores] == [True, False, True, False, True, True]
    assert all(60 <= score["probe_forms"] <= 100 for score in scores if score)
    assert network.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with pytest.raises(InputError, match="a second probe named forms"):
        Probes(network, Preprocessing(points=64, groups=16, neighbors=8), [shapes, shapes], Every(100, 50))


def test_what_is_due_depends_on_the_step_alone():
    due = Every(70, rows=20)
    assert [step for step in range(0, 300, 20) if due(step, last=False)] == [0, 80, 140, 220, 280]
    assert Every(70, rows=20)(80, last=False), "as in a run that was resumed at step 75"
    assert due(75, last=True)


def test_drawing_keeps_the_folder_locked(shapes, tmp_path, monkeypatch):
    lock = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'ab'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    refused = []

    def try_to_lock(self, step, last):
        assert last == (tmp_path / "curves.png").exists()  # drawn after the second of three rows
        refused.append(
            subprocess.run([sys.executable, "-c", lock, tmp_path / "log.jsonl"], capture_output=True).returncode
        )
        return {}

    monkeypatch.setattr(loop, "DRAW_SECONDS", 0.0)
    monkeypatch.setattr(Probes, "__call__", try_to_lock)
    pretrain(config(shapes, checkpoint_seconds=1e-9), tmp_path, probes=[shapes])
    assert refused == [1, 1, 1]


def test_a_probed_run_has_its_curves_and_the_weights_of_one_without(shapes, tmp_path):
    plain, probed = tmp_path / "plain", tmp_path / "probed"
    pretrain(config(shapes), plain)
    pretrain(config(shapes), probed, probes=[shapes], probe_every=1000)
    assert (plain / "curves.png").stat().st_size > 1000
    rows = rows_of((probed / "log.jsonl").read_text())
    assert [(r["step"], "probe_forms" in r) for r in rows] == [(0, True), (50, False), (51, True)]
    assert rows[-1]["probe_forms"] > 50
    models = [(folder / "tiny" / "model.safetensors").read_bytes() for folder in (plain, probed)]
    assert models[0] == models[1]
