# SPDX-License-Identifier: Apache-2.0
"""Exemplars of taught classes and their file: what is refused, and that no kill and no damage is a surprise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.card import load_card
from foundry_core.errors import InputError
from foundry_core.runtime.teach import Ordinary, TaughtClasses

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def card(tiny_model):
    return load_card(tiny_model)


def filled(card, count: int = 4) -> TaughtClasses:
    taught, rng = TaughtClasses(card), np.random.default_rng(0)
    for number in range(count):
        taught.add("cat" if number % 2 else "hydrant", rng.normal(size=12), 0.5)
    taught.set_ordinary(Ordinary(rng.normal(size=(20, 12)), np.arange(20) % 2, np.full(20, 0.9)))
    return taught


def test_a_file_comes_back_as_it_was(card, tmp_path):
    taught = filled(card)
    taught.save(tmp_path / "deep" / "taught.npz")
    again = TaughtClasses.load(tmp_path / "deep" / "taught.npz", card)
    assert again.labels == ["hydrant", "cat"] and len(again) == 4 and again.ready
    probe = np.full((9, 3), 1 / 3), np.random.default_rng(1).normal(size=(9, 12))
    np.testing.assert_allclose(again.head.margins(*probe), taught.head.margins(*probe))
    np.testing.assert_array_equal(again.head.thresholds, taught.head.thresholds)


def test_forgetting_a_class_or_the_last_exemplar(card):
    taught = filled(card)
    assert "last exemplar, of 'cat'" in taught.forget()
    assert len(taught) == 3 and taught.labels == ["hydrant", "cat"]
    assert "'hydrant' with 2" in taught.forget("hydrant")
    assert taught.labels == ["cat"] and taught.head.labels == ("cat",)
    with pytest.raises(InputError, match="'dog': not taught; taught are cat"):
        taught.forget("dog")
    taught.forget()
    assert taught.head is None
    with pytest.raises(InputError, match="nothing has been taught"):
        taught.forget()


@pytest.mark.parametrize("label", ["", "  ", "x" * 65, "a\nb", "unknown", "other", "pole"])
def test_labels_that_are_refused(card, label):
    with pytest.raises(InputError, match="label") as caught:
        TaughtClasses(card).add(label, np.zeros(12), 0.5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("features", [np.zeros(11), np.zeros((2, 12)), np.full(12, np.nan)])
def test_features_that_are_refused(card, features):
    with pytest.raises(InputError, match="do not fit"):
        TaughtClasses(card).add("cat", features, 0.5)


def test_a_file_of_another_model_is_refused(card, tmp_path):
    filled(card).save(tmp_path / "taught.npz")
    other = card.model_copy(update={"files": {"model.onnx": "0" * 64}, "name": "other"})
    with pytest.raises(InputError, match=r"taught.npz: was taught with another model \('tiny'\), not this other"):
        TaughtClasses.load(tmp_path / "taught.npz", other)


def test_missing_torn_and_strange_files_are_one_line(card, tmp_path):
    path = tmp_path / "taught.npz"
    with pytest.raises(InputError, match="no such file"):
        TaughtClasses.load(path, card)
    filled(card).save(path)
    whole = path.read_bytes()
    with np.load(path) as archive:
        arrays = dict(archive)
    for change in ({"format": np.int64(2)}, {"labels": np.array(["a"])}, {"features": np.zeros((4, 3), np.float32)},
                   {"labels": np.array(["pole"] * 4)}, {"features": np.full((4, 12), np.nan)},
                   {"ordinary": np.zeros((20, 5), np.float32)}, {"labels": np.array([{}] * 4, object)}):  # fmt: skip
        np.savez(path, **{**arrays, **change})
        with pytest.raises(InputError, match="taught.npz") as caught:
            TaughtClasses.load(path, card)
        assert "\n" not in str(caught.value)
    del arrays["ordinary"]
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="no array 'ordinary'"):
        TaughtClasses.load(path, card)
    path.write_bytes(whole[:-30])
    with pytest.raises(InputError, match="damaged"):
        TaughtClasses.load(path, card)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_to_a_file_is_more_than_one_line(card, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "taught.npz"
    filled(card).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        TaughtClasses.load(path, card)
    except InputError as error:
        assert "taught.npz" in str(error) and "\n" not in str(error)


SAVER = """
import sys, itertools, numpy as np
from foundry_core.card import load_card
from foundry_core.runtime.teach import Ordinary, TaughtClasses
taught, rng = TaughtClasses(load_card(sys.argv[1])), np.random.default_rng(0)
taught.set_ordinary(Ordinary(rng.normal(size=(200, 12)), np.arange(200) % 2, np.full(200, 0.5)))
for number in itertools.count():
    taught.add(f"class {number % 3}", rng.normal(size=12), 0.5)
    taught.save(sys.argv[2])
    print(number, flush=True)
"""


def test_the_file_survives_a_kill_at_any_moment(tiny_model, card, tmp_path):
    path, rng = tmp_path / "taught.npz", np.random.default_rng(0)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    for attempt in range(4):
        command = [sys.executable, "-c", SAVER, str(tiny_model), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            for _ in range(1 + attempt):
                process.stdout.readline()
            time.sleep(rng.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split()
        found = len(TaughtClasses.load(path, card))
        assert found >= 1 + attempt + len(said)  # what was said to be saved is there, and whole
