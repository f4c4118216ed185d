# SPDX-License-Identifier: Apache-2.0
"""A file written by ``torch.save``, opened as plain data: tensors, numbers, text and containers of them, never code."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foundry_core.errors import InputError

#: entries that hold the weights: Lightning's, Point-MAE's, and the one that Point-MAE's own loader also takes
WRAPPERS = ("state_dict", "base_model", "model")
#: entries that may hold other tensors: optimisers, schedules, the state of callbacks and of mixed precision
BESIDE = frozenset(
    (
        "optimizer", "optimizers", "optimizer_states", "scheduler", "lr_schedulers", "callbacks", "loops", "metrics",
        "best_metrics", "hyper_parameters", "datamodule_hyper_parameters", "native_amp_scaling_state",
        "amp_scaling_state", "NativeMixedPrecisionPlugin", "ApexMixedPrecisionPlugin", "MixedPrecisionPlugin",
    )
)  # fmt: skip
#: what DistributedDataParallel puts before every key
PARALLEL = "module."


def _numpy_numbers() -> list:
    """What a NumPy number (a metric, say) is pickled with, under the names of NumPy 1 and of NumPy 2."""
    make = np.float64(0).__reduce__()[0]

    def allowed(module: str):
        def scalar(kind: np.dtype, data: bytes):
            if kind.hasobject or not isinstance(data, bytes):
                raise ValueError("a NumPy number that is none")
            return make(kind, data)

        scalar.__module__, scalar.__qualname__ = module, "scalar"
        return scalar

    kinds = {type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")}
    return [allowed("numpy.core.multiarray"), allowed("numpy._core.multiarray"), np.dtype, *kinds]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        path: the file.
        weights: key -> tensor, ``module.`` taken off.
        settings: Lightning's ``hyper_parameters``, empty where the file has none.
        beside: names of the entries beside the weights, which are left out.
    """

    path: Path
    weights: dict[str, Tensor]
    settings: dict[str, Any]
    beside: list[str]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Open a checkpoint and find its weights.

    Raises:
        InputError: missing or damaged file; pickled objects other than tensors, plain values and NumPy numbers; no
            weights in it, or an unknown entry that holds tensors.
    """
    path = Path(path)
    content = _load(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dictionary of weights; give a checkpoint")
    found = [name for name in WRAPPERS if isinstance(content.get(name), Mapping)]
    if len(found) > 1:
        raise InputError(f"{path}: has weights under '{found[0]}' and '{found[1]}'; save one of the two alone")
    if found:
        weights, beside = content[found[0]], [str(name) for name in content if name != found[0]]
        for name in set(content) - {found[0]} - BESIDE:
            if _holds_tensors(content[name]):
                raise InputError(f"{path}: unknown entry '{name}' with tensors beside '{found[0]}'; save that alone")
    else:
        weights, beside = content, []
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            wanted = f"no tensor, and none of {', '.join(WRAPPERS)} is there" if not found else "no tensor"
            raise InputError(f"{path}: key '{key}' is a {kind}, {wanted}; give a checkpoint of the model's weights")
    if not weights:
        raise InputError(f"{path}: holds no weights; give a checkpoint of the model's weights")
    prefix = PARALLEL if all(key.startswith(PARALLEL) for key in weights) else ""
    settings = content.get("hyper_parameters") if found else None
    return Checkpoint(
        path,
        {key.removeprefix(prefix): value for key, value in weights.items()},
        dict(settings) if isinstance(settings, Mapping) else {},
        beside,
    )


def _load(path: Path) -> Any:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a checkpoint file")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise InputError(f"{path}: is no regular file; give a checkpoint file")
    try:
        with torch.serialization.safe_globals(_numpy_numbers()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn file may fail anywhere in the unpickler
        text = (
            str(error).rpartition("WeightsUnpickler error:")[2].strip()
        )  # after torch's advice, which does not fit here
    refused = re.search(
        r"GLOBAL (\S+)|class(?:es)? \S* ?(?:but got )?<class '([^']+)'>|unrecognized function (\S+)", text
    )
    if refused:
        name = next(group for group in refused.groups() if group)
        raise InputError(
            f"{path}: holds a pickled {name}, and pickled code is never run; where it was written, save the"
            " state_dict alone with torch.save, and convert that"
        )
    reason = " ".join(re.split(r"[.:]\s|\n| Check ", text)[0].split())[:120] or "unexpected end"
    raise InputError(f"{path}: not a checkpoint written by torch.save, or a damaged one ({reason}); get it again")


def _holds_tensors(value: Any) -> bool:
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            return True
        if isinstance(value, Mapping):
            stack.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            stack.extend(value)
    return False
