# SPDX-License-Identifier: Apache-2.0
"""Tables in a pipe, which has no width: every column whole."""

import numpy as np
import pytest

from foundry_core.card import list_models


@pytest.fixture(autouse=True)
def pipe(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_models_in_a_pipe_keep_every_column(foundry):
    code, out, _ = foundry("models")
    assert code == 0
    heads = [card.heads.objects for card in list_models() if card.heads.objects]
    assert heads and f"{len(heads[0].classes)} classes, " in out
    assert "licence" in out and "…" not in out


def test_an_answer_in_a_pipe_keeps_its_row_whole(foundry, tiny_model, tmp_path):
    name = f"{'long' * 20}.npy"
    np.save(tmp_path / name, np.random.default_rng(0).normal(size=(90, 3)))
    code, out, _ = foundry("predict", tmp_path / name, "--model", tiny_model)
    assert code == 0 and name in out and "90" in next(line for line in out.splitlines() if name in line)
