# SPDX-License-Identifier: Apache-2.0
"""The training loop: it learns, it survives a kill, and a resumed run equals an uninterrupted one."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

from tiny_training import ARCHITECTURE, LOOP, PRETRAIN, log_losses, weights  # noqa: E402

from foundry_core.card import load_card  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.schema import parse  # noqa: E402
from foundry_core.training.config import DistillConfig, PretrainConfig  # noqa: E402
from foundry_core.training.loop import Run  # noqa: E402
from foundry_core.training.precision import fast_bfloat16, mixed_precision  # noqa: E402
from foundry_core.training.pretrain import pretrain  # noqa: E402
from foundry_core.training.run_log import Means  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def test_pretraining_writes_a_model_and_says_what_it_saw(tmp_path):
    card = pretrain(parse(PretrainConfig, PRETRAIN, "test"), tmp_path / "run")
    assert card == load_card(tmp_path / "run" / "tiny")
    assert card.kind == "teacher" and card.training[0].steps == 60
    assert [data.name for data in card.training[0].data] == ["procedural compositions", "procedural categories"]
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["name"] == "tiny"
    assert all(np.isfinite(list(log_losses(tmp_path / "run").values())))


def test_pretraining_goes_on_from_a_teacher(tmp_path):
    """Another objective, a learning rate too small to move anything: the weights are the first run's."""
    first = pretrain(parse(PretrainConfig, PRETRAIN, "test"), tmp_path / "first")
    settings = {**PRETRAIN, "start": str(tmp_path / "first" / "tiny"), "loop": {**LOOP, "steps": 2}}
    settings |= {"objective": {"kind": "point2vec", "decoder_depth": 1, "target_blocks": 2}}
    settings["loop"]["learning_rate"] = 1e-12
    card = pretrain(parse(PretrainConfig, settings, "test"), tmp_path / "second")
    assert card.training[0] == first.training[0] and len(card.training) == 2
    assert card.training[1].parent == "tiny" and card.training[1].parent_sha256
    before, after = weights(tmp_path / "first" / "tiny"), weights(tmp_path / "second" / "tiny")
    learned = [name for name in before if before[name].is_floating_point() and "running" not in name]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in learned)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_missing_is_one_short_line(foundry, tmp_path, workers):
    shards = {"urls": str(tmp_path / "none.tar"), "weight": 1e9}
    settings = {**PRETRAIN, "loop": {**LOOP, "workers": workers}, "data": {"shards": [shards]}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    code, _, err = foundry("pretrain", "--config", tmp_path / "config.yaml", "--out", tmp_path / "run")
    assert code == 2 and err.startswith(f"foundry: {tmp_path}/none.tar: cannot be read"), err
    assert "Traceback" not in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preprocessing": {"points": 64, "groups": 16, "neighbors": 8}}, "another preprocessing"),
        (
            {"architecture": {**ARCHITECTURE, "encoder": {**ARCHITECTURE["encoder"], "depth": 1}}},
            "another architecture",
        ),
        ({"start": "foundry-edge"}, "is a student"),
    ],
)
def test_pretraining_goes_on_from_nothing_that_does_not_fit(tmp_path, change, said):
    pretrain(parse(PretrainConfig, {**PRETRAIN, "loop": {**LOOP, "steps": 1}}, "test"), tmp_path / "first")
    settings = parse(PretrainConfig, {**PRETRAIN, "start": str(tmp_path / "first" / "tiny"), **change}, "test")
    with pytest.raises(InputError, match=f"mine.yaml: start: .*{said}"):
        pretrain(settings, tmp_path / "second", source="mine.yaml")
    assert not (tmp_path / "second").exists()


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path):
    settings = {**PRETRAIN, "loop": {**LOOP, "steps": 100, "checkpoint_seconds": 1e-6}}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    whole = parse(PretrainConfig, settings, "test")
    pretrain(whole, tmp_path / "whole")
    # a process that is killed once its checkpoint is well on the way
    command = [sys.executable, "-m", "foundry_core.cli.main", "pretrain", "--config", str(config)]
    process = subprocess.Popen([*command, "--out", str(tmp_path / "killed")], cwd=ROOT, stdout=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    step = torch.load(checkpoint, weights_only=True)["step"]
    assert 0 < step < 100, "the kill came too late to test anything"
    pretrain(whole, tmp_path / "killed")
    expected, resumed = weights(tmp_path / "whole" / "tiny"), weights(tmp_path / "killed" / "tiny")
    for name, value in expected.items():
        assert torch.equal(value, resumed[name]), name


def test_means_are_over_the_steps_that_had_the_scalar():
    means, old = Means(), Means()
    old.load({"sums": {"a": 3.0}, "count": 2, "last": {}})  # of a checkpoint with one count for all
    for value in (1.0, 2.0):
        means.add({"a": torch.tensor(value)})
    again = Means()
    again.load(copy.deepcopy(means.state()))
    for each in (means, again, old):
        each.add({"a": torch.tensor(6.0), "b": torch.tensor(5.0)})
        assert each.take() == {"a": 3.0, "b": 5.0} == each.last and each.take() == {}


def test_probes_on_the_way_see_the_averaged_weights_and_leave_the_others(tmp_path):
    settings = {**PRETRAIN, "loop": {**LOOP, "steps": 6, "log_steps": 3, "ema": 0.9}}
    loop = parse(PretrainConfig, settings, "test").loop
    runs, seen = {}, []
    for name in ("probed", "bare"):
        module = torch.nn.Linear(3, 1)
        for parameter in module.parameters():
            torch.nn.init.ones_(parameter)
        task = SimpleNamespace(
            module=module, losses=lambda batch, _, net=module: {"loss": net(batch[0]).square().mean()}
        )
        run = runs[name] = Run(tmp_path / name, task, loop, loop, None)
        if name == "probed":
            run.probes = lambda *_, run=run: seen.append((weight_of(run), run.average.state["weight"].clone())) or {}
        run.train(lambda step: iter([[torch.ones(4, 3)]] * 9), name)
    assert len(seen) == 3 and all(torch.equal(found, average) for found, average in seen)
    assert torch.equal(weight_of(runs["probed"]), weight_of(runs["bare"]))
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["module"]["weight"] for name in runs]
    assert torch.equal(*states) and not torch.equal(states[0], seen[-1][0])


def weight_of(run: Run) -> torch.Tensor:
    return run.task.module.weight.detach().clone()


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    config = parse(PretrainConfig, PRETRAIN, "test")
    hold = "import fcntl, sys; f = open(sys.argv[1], 'wb'); fcntl.lockf(f, 2); print(1, flush=True); input()"
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", hold, str(tmp_path / "run" / "log.jsonl")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(InputError, match="another process trains in this folder"):
            pretrain(config, tmp_path / "run")
        other.kill()
    assert pretrain(config, tmp_path / "run").name == "tiny"  # a killed process holds nothing


def test_a_torn_checkpoint_is_refused_by_name(tmp_path):
    config = parse(PretrainConfig, PRETRAIN, "test")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(InputError, match="checkpoint.pt: torn or no checkpoint"):
        pretrain(config, tmp_path / "run")


def test_a_run_keeps_its_configuration_where_another_one_does_not_fit(tmp_path):
    pretrain(parse(PretrainConfig, PRETRAIN, "test"), tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_text()
    deeper = {**ARCHITECTURE, "encoder": {**ARCHITECTURE["encoder"], "depth": 4}}
    with pytest.raises(InputError, match="checkpoint.pt: is of another run .*Missing key.*give its own configuration"):
        pretrain(parse(PretrainConfig, {**PRETRAIN, "architecture": deeper}, "test"), tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").read_text() == before


CONFIGURATIONS = sorted(path for folder in (".", "legs") for path in (ROOT / "config/train" / folder).glob("*.yaml"))


def test_a_run_that_goes_on_with_another_configuration_says_what_it_changes(tmp_path, capsys):
    def trained(steps: int, **change) -> str:
        settings = {**PRETRAIN, "loop": {**LOOP, "steps": steps}, **change}
        pretrain(parse(PretrainConfig, settings, "test"), tmp_path / "run")
        return " ".join(capsys.readouterr().out.split())

    assert "another configuration" not in trained(2)
    assert "another configuration" not in trained(2)  # nothing is left to do, nothing differs
    said = trained(3, data={"compositions": 0.25})
    assert "goes on from step 2 with another configuration: " in said
    assert "loop.steps: 2 -> 3" in said and "data.compositions: 0.5 -> 0.25" in said
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["loop"]["steps"] == 3


def test_a_list_of_no_data_is_refused(tmp_path):
    from foundry_core.cli.train import data_sets

    (tmp_path / "none.yaml").write_text("")
    with pytest.raises(InputError, match="none.yaml: lists neither files nor shards"):
        data_sets([str(tmp_path / "none.yaml")], tmp_path)


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_shipped_configurations_parse(path):
    from foundry_core.cli.train import data_sets
    from foundry_core.schema import load_settings
    from foundry_core.training.config import HeadConfig

    values = yaml.safe_load(path.read_text())
    if "files" in values:
        assert data_sets([str(path)], Path("root"))["files"][0].path.parts[0] == "root"
        return
    schema = DistillConfig if "teacher" in values else HeadConfig if "model" in values else PretrainConfig
    assert load_settings(path, schema).name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rat": 1}, "learning_rat: unknown key"),
        ({"loop": {"stpes": 1}}, "loop.stpes: unknown key"),
        ({"architecture": {"encoder": {"width": 25, "heads": 3}}}, "width 25 is not a multiple of heads 3"),
        ({"objective": {"kind": "mae", "mask_ratio": 1.5}}, "objective.mae.mask_ratio: "),
        ({"mask_ratio": 0.7}, "'mask_ratio' was removed: write it as objective: {kind: mae, mask_ratio: ...}"),
        ({"objective": {"kind": "mea"}}, "objective: "),
        ({"objective": {"mask_ratio": 0.6}}, "objective: key 'kind' is missing"),
        ({"objective": {"kind": "jepa", "target_ratio": [0.3, 0.3]}}, "leave no context"),
        ({"objective": {"kind": "point2vec", "target_blocks": 3}}, "target_blocks 3 exceeds the depth 2"),
        ({"objective": {"kind": "jepa", "predictor_width": 10}}, "10 is not a multiple of heads 3"),
        ({"objective": {"kind": "point2vec", "decay": [0.9, 0.8]}}, "decay must rise"),
        ({"objective": {"kind": "mae", "mask_ratio": 0.05}}, "masks all or none"),
        ({"architecture": {"supertokens": {}}}, "architecture: supertokens is for students; remove it"),
        ({"architecture": {"output_width": 10}}, "architecture: output_width is for students; remove it"),
        ({"loop": {"batch": 4, "accumulate": 3}}, "loop: batch 4 is not a multiple of accumulate 3"),
        ({"contrast": {}, "loop": {"batch": 4, "accumulate": 4}}, "contrast: micro-batches of one shape"),
        ({"loop": {"seed": -1}}, "loop.seed: "),
        ({"loop": {"seed": 2**64}}, "loop.seed: "),
    ],
)
def test_bad_configurations_name_the_key(change, message):
    with pytest.raises(InputError, match=message):
        parse(PretrainConfig, {**PRETRAIN, **change}, "config.yaml")


@pytest.mark.parametrize(("precision", "expected"), [("fp32", False), ("bf16", True), ("auto", fast_bfloat16())])
def test_mixed_precision_follows_the_wish_and_the_processor(precision, expected):
    with mixed_precision(precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert (product.dtype == torch.bfloat16) is expected
