# SPDX-License-Identifier: Apache-2.0
"""safetensors files of float32 arrays, read and written with numpy alone: the robot has neither torch nor safetensors.

The format is eight bytes with the length of a JSON header, the header (name -> dtype, shape, range of bytes), and the
data: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from foundry_core.errors import InputError
from foundry_core.files import write_atomically

_MAX_HEADER = 1 << 20


def write_tensors(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as float32, under a temporary name first."""
    header, chunks, end = {}, [], 0
    for name in sorted(arrays):
        array = np.asarray(arrays[name], "<f4")
        data = array.tobytes()  # in C order
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [end, end + len(data)]}
        chunks.append(data)
        end += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data is aligned
    write_atomically(path, len(text).to_bytes(8, "little") + text + b"".join(chunks))


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """The float32 arrays of a file, by name.

    Raises:
        InputError: the file is missing, damaged, or holds something else than float32.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore the file") from None
    try:
        size = int.from_bytes(data[:8], "little")
        if len(data) < 8 or size > min(_MAX_HEADER, len(data) - 8):
            raise ValueError("header")
        header = json.loads(data[8 : 8 + size])
        return {name: _array(data, 8 + size, entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: no safetensors file of float32 arrays, or a damaged one; restore the file") from None


def _array(data: bytes, start: int, entry: dict) -> np.ndarray:
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    count = math.prod(shape)
    if entry["dtype"] != "F32" or not 0 <= begin <= end <= len(data) - start or end - begin != 4 * count or count < 0:
        raise ValueError("entry")
    return np.frombuffer(data, "<f4", count, start + begin).reshape(shape).astype(np.float32)
