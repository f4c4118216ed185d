# SPDX-License-Identifier: Apache-2.0
"""How test/core/original_features.npz was made: the original code, on a CPU, with the weights of original_checkpoints.

    python test/make_original_features.py ORIGINALS OUT.npz

ORIGINALS is a folder with clones of github.com/Pang-Yatian/Point-MAE (commit 7445a68), github.com/kabouzeid/point2vec
(17f8ad8) and github.com/Ayumu-J-S/Point-JEPA (c36b51c). Their CUDA operators are replaced by torch: farthest-point
sampling from index 0 (point2vec and Point-JEPA draw the first index by chance), k nearest neighbours, and nothing else
that the encoders use; packages for training only are replaced by mocks. No code of theirs is part of this project.

Each architecture's weights go into the original model by a strict `load_state_dict`, all keys of the file. The file
holds clouds float16 [8,1024,3] as a user would give them, and for each architecture `centers` (index of each centre
into the cloud), `tokenizer` and `tokens` (every patch, every 48th and 24th channel) and `features` (mean and maximum
over the tokens, every channel).
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from original_checkpoints import KEYS, POINT2VEC, POINT_MAE, SEEDS, state_dict  # noqa: E402

from foundry_core import geometry  # noqa: E402
from foundry_core.data.compositions import compose  # noqa: E402

GROUPS, NEIGHBORS, POINTS = 64, 32, 1024


def farthest(points: Tensor, count: int, skip_origin: bool) -> Tensor:
    """Indices int64 [B,count] from index 0; pointnet2_ops never picks points with |x|^2 <= 1e-3."""
    rows = torch.arange(len(points))
    nearest = torch.full(points.shape[:2], 1e10)
    index = torch.zeros(len(points), count, dtype=torch.int64)
    for i in range(1, count):
        distance = (points - points[rows, index[:, i - 1]][:, None]).square().sum(dim=-1)
        nearest = torch.minimum(nearest, distance)
        open_to_choice = nearest.clone()
        if skip_origin:
            open_to_choice[points.square().sum(dim=-1) <= 1e-3] = -1
        index[:, i] = open_to_choice.argmax(dim=1)
    return index


def knn(points: Tensor, queries: Tensor, k: int) -> Tensor:
    """Indices int64 [B,Q,k] of the nearest of points [B,N,3] for queries [B,Q,3]."""
    return (queries[:, :, None] - points[:, None]).square().sum(dim=-1).topk(k, largest=False).indices


def gather(points: Tensor, index: Tensor) -> Tensor:
    return points[torch.arange(len(points)).view(-1, *[1] * (index.dim() - 1)), index]


class _Knn:
    def __init__(self, k: int, transpose_mode: bool):
        self.k = k

    def __call__(self, points: Tensor, queries: Tensor):
        return None, knn(points, queries, self.k)


class _LightningModule(nn.Module):
    def save_hyperparameters(self) -> None:
        pass

    device = "cpu"


def _sample_farthest_points(points: Tensor, K: int, random_start_point: bool):  # noqa: N803
    index = farthest(points, K, skip_origin=False)
    return gather(points, index), index


def install_stubs() -> None:
    """Put the replacements where the originals import them from."""
    modules = {
        "timm.models.layers": {"DropPath": lambda rate: nn.Identity(), "trunc_normal_": nn.init.trunc_normal_},
        "knn_cuda": {"KNN": _Knn},
        "extensions.chamfer_dist": {"ChamferDistanceL1": MagicMock(), "ChamferDistanceL2": MagicMock()},
        "pointnet2_ops": {
            "pointnet2_utils": SimpleNamespace(
                furthest_point_sample=lambda points, count: farthest(points, count, skip_origin=True),
                gather_operation=lambda points, index: gather(points.transpose(1, 2), index).transpose(1, 2),
            )
        },
        "pytorch3d.ops": {
            "sample_farthest_points": _sample_farthest_points,
            "knn_points": lambda queries, points, K, **_: (None, knn(points, queries, K), None),
            "knn_gather": gather,
            "ball_query": None,
        },
        "pytorch3d.ops.utils": {"masked_gather": gather},
        "pytorch3d.transforms": {"euler_angles_to_matrix": None},
        "pytorch_lightning": {"LightningModule": _LightningModule, "LightningDataModule": object},
        "pytorch_lightning.loggers": {"WandbLogger": object},
    }
    mocked = ("timm", "timm.scheduler", "extensions", "pytorch3d", "pl_bolts", "pl_bolts.optimizers", "torchmetrics")
    mocked += ("pl_bolts.optimizers.lr_scheduler", "easydict", "termcolor", "wandb")
    for name in mocked:
        sys.modules[name] = MagicMock()
    for name, content in modules.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(content)
    sys.modules["timm.models"] = MagicMock()


def original(arch: str, folder: Path):
    """The original model with the seeded weights, and a function: prepared clouds to centres, tokens, features."""
    if arch == POINT_MAE:
        sys.path.insert(0, str(folder / "Point-MAE"))
        module = importlib.import_module("models.Point_MAE")
        transformer = dict(mask_ratio=0.6, mask_type="rand", trans_dim=384, encoder_dims=384, depth=12)
        transformer |= dict(drop_path_rate=0.1, num_heads=6, decoder_depth=4, decoder_num_heads=6)
        config = SimpleNamespace(group_size=NEIGHBORS, num_group=GROUPS, loss="cdl2")
        config.transformer_config = SimpleNamespace(**transformer)
        model = module.Point_MAE(config)

        def run(points: Tensor):
            neighborhood, centers = model.group_divider(points)
            tokens = model.MAE_encoder.encoder(neighborhood)
            return centers, tokens, model.MAE_encoder(neighborhood, centers, noaug=True)[0]

    else:
        package = "point2vec" if arch == POINT2VEC else "pointjepa"
        sys.path.insert(0, str(folder / ("point2vec" if arch == POINT2VEC else "Point-JEPA")))
        sizes = {} if arch == POINT2VEC else {"predictor_heads": 6}
        name, kind = ("point2vec", "Point2Vec") if arch == POINT2VEC else ("point_jepa", "PointJepa")
        model = getattr(importlib.import_module(f"{package}.models.{name}"), kind)(**sizes)
        model.teacher = importlib.import_module(f"{package}.modules.EMA").EMA(model.student)

        def run(points: Tensor):  # as their svm_validation does
            tokens, centers = model.tokenizer(points)
            return centers, tokens, model.student(tokens, model.positional_encoding(centers)).last_hidden_state

    model.load_state_dict(state_dict(arch, SEEDS[arch]), strict=True)
    assert len(model.state_dict()) == KEYS[arch]
    return model.eval(), run


def raw_clouds() -> np.ndarray:
    """Clouds float16 [8,1024,3]: seven surfaces, and a solid ball, of which points lie near the origin."""
    clouds = [compose(POINTS, np.random.default_rng([7, i])) * (0.3 + i) + i for i in range(7)]
    clouds.append(np.random.default_rng(8).normal(size=(POINTS, 3)))
    return np.stack(clouds).astype(np.float16)


def main(folder: str, out: str) -> None:
    """Run the three originals and write the file."""
    install_stubs()
    clouds = raw_clouds()
    points = torch.from_numpy(np.stack([geometry.prepare(cloud, POINTS)[0] for cloud in clouds]))
    arrays: dict[str, np.ndarray] = {"clouds": clouds}
    for arch in KEYS:
        _, run = original(arch, Path(folder))
        with torch.no_grad():
            centers, tokenized, tokens = (value.numpy() for value in run(points))
        same = (centers[:, :, None] == points.numpy()[:, None]).all(axis=-1)  # (B, G, N)
        assert same.any(axis=-1).all()
        arrays[f"{arch}/centers"] = same.argmax(axis=-1).astype(np.uint16)
        arrays[f"{arch}/tokenizer"] = tokenized[:, :, ::48]
        arrays[f"{arch}/tokens"] = tokens[:, :, ::24]
        arrays[f"{arch}/features"] = np.concatenate([tokens.mean(axis=1), tokens.max(axis=1)], axis=1)
        print(f"{arch}: tokenizer deviation {tokenized.std():.3f}, tokens {tokens.std():.3f}")
        for i in range(len(clouds)):  # how far the sampling rule near the origin reaches
            ours = geometry.group(points[i].numpy(), GROUPS, NEIGHBORS)[0]
            print(f"  cloud {i}: {(ours != centers[i]).any(axis=1).sum()} centres differ from foundry_core.geometry")
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
