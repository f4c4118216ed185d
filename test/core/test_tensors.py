# SPDX-License-Identifier: Apache-2.0
"""safetensors files by numpy alone, against the safetensors package."""

import json

import numpy as np
import pytest

from foundry_core.errors import InputError
from foundry_core.tensors import read_tensors, write_tensors

reference = pytest.importorskip("safetensors.numpy")


def arrays():
    rng = np.random.default_rng(0)
    return {"b": rng.normal(size=(3, 4)), "a": rng.normal(size=5).astype(np.float32), "scalar": np.float32(2.5)}


def test_what_is_written_the_reference_reads_and_back(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {**arrays(), "turned": arrays()["b"].T})
    theirs = reference.load_file(tmp_path / "x.safetensors")
    assert np.array_equal(theirs["turned"], arrays()["b"].T.astype(np.float32))
    reference.save_file(theirs, tmp_path / "y.safetensors", metadata={"format": "np"})
    for name, value in read_tensors(tmp_path / "y.safetensors").items():
        assert value.dtype == np.float32 and np.array_equal(value, theirs[name])
    assert read_tensors(tmp_path / "x.safetensors").keys() == theirs.keys()


def test_every_truncation_and_foreign_content_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, arrays())
    data = path.read_bytes()
    for size in (*range(0, 40, 7), len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match="x.safetensors: no safetensors file"):
            read_tensors(path)
    for entry in (
        {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": "no", "data_offsets": [0, 4]},
        [],
    ):
        header = json.dumps({"x": entry}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
        with pytest.raises(InputError, match="no safetensors file"):
            read_tensors(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_tensors(tmp_path / "none")
