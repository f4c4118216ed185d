# SPDX-License-Identifier: Apache-2.0
"""A peer of the benchmark: the original Point-MAE code (Pang et al., 2022), from the user's own checkout.

Nothing of it is part of this project: ``models/Point_MAE.py`` of the folder is imported as it is and run on the CPU.
The compiled operators that it asks for are replaced by the torch functions below. It runs in a process of its own, so
that the names it imports reach nothing else.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from foundry_core.errors import InputError
from foundry_core.runtime.bench_pointnet import POINTS, prepare
from foundry_core.runtime.bench_worker import Spec, Subject

SOURCE = "https://github.com/Pang-Yatian/Point-MAE"
MODULE = "models/Point_MAE.py"
#: of its classifier for ModelNet40
CONFIG = {
    "trans_dim": 384,
    "depth": 12,
    "drop_path_rate": 0.1,
    "cls_dim": 40,
    "num_heads": 6,
    "group_size": 32,
    "num_group": 64,
    "encoder_dims": 384,
}


def farthest_point_sample(points: Tensor, count: int) -> Tensor:
    """Indices int32 [B,count] into points [B,N,3], the first 0."""
    b, n, _ = points.shape
    chosen = torch.zeros(b, count, dtype=torch.long)
    distance = torch.full((b, n), torch.inf)
    rows = torch.arange(b)
    for step in range(1, count):
        last = points[rows, chosen[:, step - 1]][:, None]  # (B, 1, 3)
        distance = torch.minimum(distance, ((points - last) ** 2).sum(dim=2))
        chosen[:, step] = distance.argmax(dim=1)
    return chosen.int()


def gather(values: Tensor, index: Tensor) -> Tensor:
    """Columns [B,C,M] of values [B,C,N] at index [B,M]."""
    return values.gather(2, index.long()[:, None].expand(-1, values.shape[1], -1))


class NearestNeighbors(nn.Module):
    """Distances and indices [B,M,k] of the k points of [B,N,3] nearest to each of [B,M,3]."""

    def __init__(self, k: int, transpose_mode: bool = False):
        super().__init__()
        if not transpose_mode:
            raise InputError("only rows of coordinates are supported")
        self.k = k

    def forward(self, points: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        found = torch.cdist(queries, points).topk(self.k, dim=2, largest=False)
        return found.values, found.indices


class DropPath(nn.Module):
    """Stochastic depth, which does nothing in evaluation mode."""

    def __init__(self, share: float = 0.0):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class _Nothing(nn.Module):
    """Stands for what only training uses."""


def _module(name: str, **members) -> None:
    module = ModuleType(name)
    module.__dict__.update(members)
    module.__path__ = []  # a package, so that what lies below it can be imported
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, module)


def _stand_ins() -> None:
    """What the code imports and a CPU does not have, or does not need."""
    pointnet2 = SimpleNamespace(furthest_point_sample=farthest_point_sample, gather_operation=gather)
    _module("pointnet2_ops", pointnet2_utils=pointnet2)
    _module("knn_cuda", KNN=NearestNeighbors)
    _module("extensions")
    _module("extensions.chamfer_dist", ChamferDistanceL1=_Nothing, ChamferDistanceL2=_Nothing)
    if importlib.util.find_spec("timm") is None:
        _module("timm")
        _module("timm.models")
        _module("timm.models.layers", DropPath=DropPath, trunc_normal_=nn.init.trunc_normal_)
    for name, members in {
        "termcolor": {"colored": lambda text, *_: text},
        "easydict": {"EasyDict": dict},
    }.items():
        if importlib.util.find_spec(name) is None:
            _module(name, **members)


def check_folder(folder: Path) -> None:
    """Raise InputError unless ``folder`` is laid out as the original repository."""
    for name in (MODULE, "models/build.py", "utils/misc.py"):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: no {name}; give a checkout of {SOURCE}")


def load_original(folder: Path) -> nn.Module:
    """The original classifier with random weights, in evaluation mode.

    Raises:
        InputError: the folder is no checkout, or another version that does not load here.
    """
    check_folder(folder)
    _stand_ins()
    sys.path.insert(0, str(folder.resolve()))
    try:
        module = importlib.import_module(MODULE.removesuffix(".py").replace("/", "."))
        torch.manual_seed(0)
        network = module.PointTransformer(SimpleNamespace(**CONFIG)).eval()
        with torch.no_grad():
            shape = tuple(network(torch.zeros(1, POINTS, 3)).shape)
    except Exception as error:  # whatever code that is not ours may raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{folder}: does not run as the original Point-MAE code does ({reason})") from None
    if shape != (1, CONFIG["cls_dim"]):
        raise InputError(f"{folder}: answers with shape {shape}, not with {CONFIG['cls_dim']} classes")
    return network


def open_peer(spec: Spec) -> Subject:
    """The subject: the network samples and groups by itself, so all of its time is the network's."""
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(spec.threads)
    torch.set_num_interop_threads(1)
    network = load_original(Path(spec.directory))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, POINTS, 3))

    def run(inputs: Mapping[str, np.ndarray]) -> None:
        with torch.inference_mode():
            network(torch.from_numpy(inputs["points"]))

    weights = sum(parameter.numel() for parameter in network.parameters())
    return Subject(prepare, run, POINTS, weights, counter.get_total_flops() // 2)
