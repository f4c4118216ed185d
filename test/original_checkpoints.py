# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with the exact key layouts of the released Point-MAE, point2vec and Point-JEPA files, and seeded weights.

The layouts are written down here a second time, without the code under test. The weights are plain uniform numbers, the
same on every machine; their scales are chosen so that attention is far from uniform and batch norms are far from the
identity.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch

POINT_MAE, POINT2VEC, POINT_JEPA = "point-mae", "point2vec", "point-jepa"
#: number of keys of each released checkpoint
KEYS = {POINT_MAE: 209, POINT2VEC: 513, POINT_JEPA: 546}
#: of the weights behind original_features.npz
SEEDS = {POINT_MAE: 1, POINT2VEC: 2, POINT_JEPA: 3}

#: a checkpoint that is quickly written
SMALL = {"depth": 2, "width": 24}

Layout = dict[str, tuple[int, ...]]


def _linear(name: str, out: int, into: int, bias: bool = True) -> Layout:
    return {f"{name}.weight": (out, into)} | ({f"{name}.bias": (out,)} if bias else {})


def _norm(name: str, width: int) -> Layout:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _pointnet(name: str, width: int, bias: bool) -> Layout:
    layout: Layout = {}
    for conv, (into, middle, out) in {"first_conv": (3, 128, 256), "second_conv": (512, 512, width)}.items():
        layout[f"{name}.{conv}.0.weight"] = (middle, into, 1)
        if bias:
            layout[f"{name}.{conv}.0.bias"] = (middle,)
        layout |= {f"{name}.{conv}.1.{key}": (middle,) for key in ("weight", "bias", "running_mean", "running_var")}
        layout[f"{name}.{conv}.1.num_batches_tracked"] = ()
        layout |= {f"{name}.{conv}.3.weight": (out, middle, 1), f"{name}.{conv}.3.bias": (out,)}
    return layout


def _blocks(name: str, depth: int, width: int, qkv_bias: bool) -> Layout:
    layout: Layout = {}
    for i in range(depth):
        block = f"{name}.{i}"
        layout |= _norm(f"{block}.norm1", width) | _linear(f"{block}.attn.qkv", 3 * width, width, qkv_bias)
        layout |= _linear(f"{block}.attn.proj", width, width) | _norm(f"{block}.norm2", width)
        layout |= _linear(f"{block}.mlp.fc1", 4 * width, width) | _linear(f"{block}.mlp.fc2", width, 4 * width)
    return layout


def _position(name: str, width: int) -> Layout:
    return _linear(f"{name}.0", 128, 3) | _linear(f"{name}.2", width, 128)


def layout(arch: str, depth: int = 12, width: int = 384) -> Layout:
    """Key -> shape, in the file's order."""
    if arch == POINT_MAE:
        return (
            {"mask_token": (1, 1, width)}
            | _pointnet("MAE_encoder.encoder", width, bias=True)
            | _position("MAE_encoder.pos_embed", width)
            | _blocks("MAE_encoder.blocks.blocks", depth, width, qkv_bias=False)
            | _norm("MAE_encoder.norm", width)
            | _position("decoder_pos_embed", width)
            | _blocks("MAE_decoder.blocks", 4, width, qkv_bias=False)
            | _norm("MAE_decoder.norm", width)
            | {"increase_dim.0.weight": (96, width, 1), "increase_dim.0.bias": (96,)}
        )
    pointnet = "tokenizer.embedding" + (".encoder" if arch == POINT_JEPA else "")
    keys = {"mask_token": (width,)} | _position("positional_encoding", width) | _pointnet(pointnet, width, bias=False)
    keys |= _blocks("student.blocks", depth, width, qkv_bias=True) | _norm("student.norm", width)
    if arch == POINT_JEPA:
        half = width // 2
        keys |= _linear("predictor.predictor_embed", half, width) | {"predictor.mask_token": (1, 1, half)}
        keys |= _position("predictor.positional_encoding", half) | _norm("predictor.predictor_norm", half)
        keys |= _linear("predictor.predictor_proj", width, half)
        keys |= _blocks("predictor.predictor.blocks", 6, half, qkv_bias=True) | _norm("predictor.predictor.norm", half)
    else:
        keys |= _blocks("decoder.blocks", 4, width, qkv_bias=True) | _norm("decoder.norm", width)
        keys |= _linear("regressor", width, width)
    for copy in ("teacher.online_model", "teacher.ema_model"):
        keys |= _blocks(f"{copy}.blocks", depth, width, qkv_bias=True) | _norm(f"{copy}.norm", width)
    return keys | {"teacher.initted": (1,), "teacher.step": (1,)}


def _values(key: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    if key.endswith("num_batches_tracked") or key == "teacher.step":
        return torch.full(shape, 17, dtype=torch.int64)
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    unit = rng.random(shape, dtype=np.float32) * 2 - 1  # -1 .. 1
    if key.endswith("running_var"):
        value = 1.2 + 0.8 * unit
    elif len(shape) >= 2 and "token" not in key:
        gain = 1.5 if "attn.qkv" in key else 1.0
        value = unit * np.float32(gain * np.sqrt(3 / shape[1]))  # deviation gain / sqrt(inputs)
    elif ".norm" in key or "_norm." in key or "_conv.1." in key:
        value = 1 + 0.5 * unit if key.endswith("weight") else 0.3 * unit
    else:
        value = 0.2 * unit
    return torch.from_numpy(np.asarray(value, np.float32))


def state_dict(arch: str, seed: int = 0, **sizes: int) -> dict[str, torch.Tensor]:
    """Weights under the released keys; as in the files, ``teacher.online_model`` is the student itself."""
    state = {key: _values(key, shape, seed) for key, shape in layout(arch, **sizes).items()}
    for key in state:
        if key.startswith("teacher.online_model."):
            state[key] = state["student." + key.removeprefix("teacher.online_model.")]
    return state


def checkpoint(arch: str, seed: int = 0, **sizes: int) -> dict:
    """The released file's content around :func:`state_dict`: Point-MAE's own wrapper, or Lightning's."""
    state = state_dict(arch, seed, **sizes)
    adam = {"state": {0: {"step": 3, "exp_avg": torch.zeros(4), "exp_avg_sq": torch.zeros(4)}}, "param_groups": []}
    if arch == POINT_MAE:
        state = {f"module.{key}": value for key, value in state.items()}
        metrics = {"acc": np.float64(0.5)}
        return {"base_model": state, "optimizer": adam, "epoch": 300, "metrics": metrics, "best_metrics": metrics}
    hyper_parameters = {
        "tokenizer_num_groups": 64,
        "tokenizer_group_size": 32,
        "tokenizer_group_radius": None,
        "encoder_dim": sizes.get("width", 384),
        "encoder_depth": sizes.get("depth", 12),
        "encoder_heads": 6,
        "encoder_add_pos_at_every_layer": True,
        "transformation_subsample_points": 1024,
        "svm_validation": {},
    }
    return {
        "epoch": 799,
        "global_step": 65600,
        "pytorch-lightning_version": "1.7.7",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "", "current_score": torch.tensor(0.5)}},
        "optimizer_states": [adam],
        "lr_schedulers": [{"last_epoch": 799, "base_lrs": [0.001]}],
        "native_amp_scaling_state": {"scale": 65536.0},
        "hparams_name": "kwargs",
        "hyper_parameters": hyper_parameters,
    }


def save(path: Path, content) -> Path:
    torch.save(content, path)
    return path


def small(arch: str, **changed: torch.Tensor | None) -> dict:
    """A checkpoint of two blocks of width 24, with tensors replaced, added or (None) removed."""
    content = checkpoint(arch, **SMALL)
    state, prefix = (content["base_model"], "module.") if arch == POINT_MAE else (content["state_dict"], "")
    for key, value in changed.items():
        state[prefix + key] = value
        if value is None:
            del state[prefix + key]
    return content
