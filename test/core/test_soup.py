# SPDX-License-Identifier: Apache-2.0
"""Averaged models: the mean of the weights, the heads of the first, and nothing that does not fit."""

import pytest

torch = pytest.importorskip("torch")

from test_models import card, tiny_student  # noqa: E402

from foundry_core.card import Heads, ObjectHead, Training  # noqa: E402
from foundry_core.models.heads import Perception  # noqa: E402
from foundry_core.models.registry import create_model, load_model, save_model  # noqa: E402


def write(folder, seed: int, count: int = 4, classes: int = 0):
    torch.manual_seed(seed)
    architecture = tiny_student(count=count)
    network = Perception(create_model(architecture), architecture.token_width, classes)
    for buffer in network.backbone.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)  # batch statistics
    run = Training(task=f"training {seed}", data=[], seed=seed, steps=1, batch=1, minutes=0.1)
    head = Heads(objects=ObjectHead(classes=["a", "b"])) if classes else Heads()
    made = card(architecture).model_copy(update={"name": f"model-{seed}", "training": [run], "heads": head})
    save_model(folder, network, made)
    return network


def test_weights_and_statistics_are_means_and_the_heads_are_the_firsts(foundry, tmp_path):
    first, second = write(tmp_path / "first", 0, classes=2), write(tmp_path / "second", 1)
    arguments = ["--model", tmp_path / "first", "--share", 3, "--model", tmp_path / "second", "--share", 1]
    code, out, err = foundry("average", *arguments, "--out", tmp_path / "mean")
    assert code == 0 and "model-0" in out, err
    mean, made = load_model(tmp_path / "mean")
    ours, theirs = first.backbone.state_dict(), second.backbone.state_dict()
    for key, value in mean.backbone.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * ours[key] + 0.25 * theirs[key])
    torch.testing.assert_close(mean.objects.state_dict(), first.objects.state_dict(), rtol=0, atol=0)
    tasks = [run.task for run in made.training]
    assert tasks[:2] == ["training 0", "training 1"] and tasks[2].startswith("weights averaged: 0.75 ")
    assert foundry("average", *arguments, "--out", tmp_path / "mean")[0] == 2  # not over another model


@pytest.mark.parametrize(
    ("others", "complaint"),
    [
        ([("second", 1.0)], "architecture"),
        ([("first", 0.0)], "--share 0:"),
        ([("first", -0.5)], "--share -0.5:"),
        ([("first", "nan")], "--share nan:"),
        ([("first", "inf")], "--share inf:"),
        ([], "--share"),
    ],
)
def test_what_has_no_mean_is_refused(foundry, tmp_path, others, complaint):
    write(tmp_path / "first", 0)
    write(tmp_path / "second", 1, count=2)
    arguments = ["--model", tmp_path / "first", "--share", 1]
    for name, share in others:
        arguments += ["--model", tmp_path / name, "--share", share]
    code, _, err = foundry("average", *arguments, "--out", tmp_path / "mean")
    assert code == 2 and complaint in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "mean").exists()
