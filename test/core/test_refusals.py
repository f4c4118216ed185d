# SPDX-License-Identifier: Apache-2.0
"""Options without sense, and rows of another kind: one line that begins with the option or the file."""

import numpy as np
import pytest

CASES = (
    ("evaluate segments --beams 17", "--beams 17: no such lidar; give one of 16, 32, 64"),
    ("evaluate segments --sensor rgbd --beams 32", "--beams 32: is for the lidar"),
    ("world --out bag --beams 17", "--beams 17: no such lidar"),
    ("world --out bag --sensor rgbd --beams 64", "--beams 64: is for the lidar"),
    ("shapes draw --class =box --out x.npz", "--class '=box': has no name"),
    ("report x.html --results rows.json", "rows.json: row 0: has no protocol; give what"),
    ("bench --model tome:99:teacher-small", "tome:99:teacher-small: teacher-small has 64 tokens"),
)
WITH_TORCH = (
    ("head --data shapes.npz", "--model: missing; name the backbone"),
    *(
        (f"{command} --data shapes.npz --seed {2**64}", "invalid value for '--seed': ")
        for command in (
            "head --model teacher-small",
            "evaluate probe --model histogram",
            "evaluate fewshot --model histogram",
            "evaluate parts --model majority",
            "evaluate fidelity --model foundry-edge",
        )
    ),
    *(
        (f"evaluate probe --model {method}:99:teacher-small --data shapes.npz", "teacher-small has 64 tokens")
        for method in ("tome", "kmeans")
    ),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.json").write_text('[{"model": "x"}]')
    np.savez("shapes.npz", points=np.random.default_rng(0).normal(size=(16, 100, 3)), label=np.arange(16) % 2,
             split=np.arange(16) // 8)  # fmt: skip
    return tmp_path


@pytest.mark.parametrize(("command", "line"), CASES)
def test_what_makes_no_sense_is_refused(foundry, folder, command, line):
    before = sorted(folder.iterdir())
    code, out, err = foundry(*command.split())
    assert code == 2 and out == "" and err.count("\n") == 1 and f"foundry: {line}" in err, err
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(("command", "line"), WITH_TORCH)
def test_what_makes_no_sense_is_refused_where_torch_is(foundry, folder, command, line):
    pytest.importorskip("torch")
    code, _, err = foundry(*command.split())
    assert code == 2 and line in err and err.count("\n") == 1, err
