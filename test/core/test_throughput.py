# SPDX-License-Identifier: Apache-2.0
"""What `foundry throughput` measures."""

import time

import pytest

torch = pytest.importorskip("torch")

from test_latent import config, shapes  # noqa: E402, F401

from foundry_core.training import loop  # noqa: E402
from foundry_core.training.throughput import measure  # noqa: E402


def test_the_trainers_time_is_that_of_its_steps_alone(shapes, tmp_path, monkeypatch):  # noqa: F811
    def slow_curves(*_):
        began = time.process_time()
        while time.process_time() - began < 1.0:
            pass

    monkeypatch.setattr(loop, "draw_curves", slow_curves)
    asked = config(shapes, {"kind": "mae", "mask_ratio": 0.5})
    found = measure(asked, workers=1, rounds=1, batches=2)
    assert found.trainer_cpu_ms < 1000 / (2 * asked.loop.batch)  # curves alone would take that much
    assert found.trainer_cpu_ms <= 1.5 * 1000 / found.trainer_per_second
