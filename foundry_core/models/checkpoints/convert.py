# SPDX-License-Identifier: Apache-2.0
"""An original checkpoint to a teacher of this project: the encoder's numbers, unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from foundry_core.architecture import Architecture, EncoderConfig, Preprocessing, TokenizerConfig
from foundry_core.card import ModelCard, Training, TrainingData, sha256
from foundry_core.errors import InputError
from foundry_core.models.checkpoints.families import (
    FAMILIES,
    FIRST,
    MLP_RATIO,
    POSITION,
    SECOND,
    THIRD,
    Family,
    concrete,
    sizes,
)
from foundry_core.models.checkpoints.reading import Checkpoint, read_checkpoint
from foundry_core.models.heads import Perception
from foundry_core.models.teacher import Teacher

#: of the released checkpoints; used where neither the user nor the file says otherwise
RELEASED = {"depth": 12, "heads": 6, "points": 1024, "groups": 64, "neighbors": 32}
#: the same under the names of Lightning's hyper_parameters
SETTINGS = {
    "depth": "encoder_depth",
    "heads": "encoder_heads",
    "points": "transformation_subsample_points",
    "groups": "tokenizer_num_groups",
    "neighbors": "tokenizer_group_size",
}
#: settings of the originals that change the numbers and that this project's encoder does not have
REQUIRED = {"tokenizer_group_radius": None, "encoder_add_pos_at_every_layer": True}


@dataclass(frozen=True)
class Conversion:
    """What became of a checkpoint.

    Attributes:
        network, card: the teacher in evaluation mode, and what a model directory says of it.
        used, left_out: the keys of the state dict, ``module.`` taken off; together they are all.
        beside: entries of the file beside the state dict, left out too.
    """

    network: Perception
    card: ModelCard
    used: list[str]
    left_out: list[str]
    beside: list[str]


def convert(path: str | Path, arch: str, name: str, **given: int | None) -> Conversion:
    """Read an original checkpoint.

    Args:
        arch: a key of :data:`FAMILIES`.
        name: of the model.
        given: depth, heads, points, groups, neighbors; None takes the file's own setting, or the released one.

    Raises:
        InputError: the file cannot be used (see :func:`read_checkpoint`, :func:`account`), or a size does not fit.
    """
    path = Path(path)
    family = FAMILIES[arch]
    checkpoint = read_checkpoint(path)
    values = {name: _size(checkpoint, name, given.get(name)) for name in RELEASED}
    used, left_out, letters = account(checkpoint, family, values["depth"])
    if "n" in letters and given.get("neighbors") is None:  # Point-MAE rebuilds the 3K coordinates of a patch
        values["neighbors"] = max(1, letters["n"] // 3)
    if letters["d"] % values["heads"]:
        raise InputError(f"{path}: {values['heads']} heads do not divide the width {letters['d']}; give other --heads")
    if max(values["groups"], values["neighbors"]) > values["points"]:
        raise InputError(f"{path}: more groups or neighbors than the {values['points']} points; give other numbers")
    encoder = {"width": letters["d"], "depth": values["depth"], "heads": values["heads"]}
    encoder |= {"mlp_ratio": MLP_RATIO, "position_hidden": POSITION}
    architecture = Architecture(
        tokenizer=TokenizerConfig(first=FIRST, second=SECOND, third=THIRD),
        encoder=EncoderConfig(**encoder),
    )
    preprocessing = Preprocessing(**{key: values[key] for key in ("points", "groups", "neighbors")})
    teacher = Teacher(architecture)
    teacher.load_state_dict(teacher_state(checkpoint.weights, family, values["depth"]))
    card = _card(name, checkpoint, family, architecture, preprocessing)
    return Conversion(Perception(teacher, letters["d"]).eval(), card, used, left_out, checkpoint.beside)


def _size(checkpoint: Checkpoint, name: str, given: int | None) -> int:
    if given is not None:
        return given
    value = checkpoint.settings.get(SETTINGS[name], RELEASED[name])
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{checkpoint.path}: hyper_parameters.{SETTINGS[name]} is {value!r}; give --{name}")
    return value


def account(checkpoint: Checkpoint, family: Family, depth: int) -> tuple[list[str], list[str], dict[str, int]]:
    """Compare a checkpoint with the layout of its family, key by key.

    Returns:
        keys of the encoder, keys that are left out, and the sizes of the layout's letters.

    Raises:
        InputError: another family's checkpoint; the first unknown, missing or misshapen key, whether it is used or
            not; a setting that this project's encoder does not have; a used tensor that is not finite.
    """
    path, weights = checkpoint.path, checkpoint.weights
    for other in FAMILIES.values():
        if family.signature not in weights and other.signature in weights:
            raise InputError(f"{path}: has the keys of {other.title} ('{other.signature}'); give --arch {other.arch}")
    for name, wanted in REQUIRED.items():
        if (value := checkpoint.settings.get(name, wanted)) != wanted:
            raise InputError(f"{path}: hyper_parameters.{name} is {value!r}, only {wanted!r} can be converted")
    used = family.used(depth)
    left_out = family.left_out(depth, weights)
    if not used.keys() & weights.keys():
        key = next(iter(weights))
        raise InputError(f"{path}: has none of the keys of a {family.title} checkpoint, but '{key}'; check --arch")
    layout = used | left_out
    hint = ""
    if f"{family.blocks}.{depth}.norm1.weight" in weights or f"{family.blocks}.{depth - 1}.norm1.weight" not in weights:
        hint = f" (the encoder should have {depth} blocks; --depth says otherwise)"
    for word, keys in (("unknown", weights.keys() - layout.keys()), ("missing", layout.keys() - weights.keys())):
        if keys:
            first, more = min(keys), f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise InputError(
                f"{path}: {word} key '{first}'{more}{hint}; give the {family.title} checkpoint as released"
            )
    letters = sizes(layout, {key: tuple(value.shape) for key, value in weights.items()})
    for key, shape in layout.items():
        wanted, found = concrete(shape, letters), tuple(weights[key].shape)
        if found != wanted:
            raise InputError(f"{path}: key '{key}' has shape {found}, expected {wanted}; get the file again")
    for key in used:
        value = weights[key]
        counts = key.endswith("num_batches_tracked")
        if value.layout is not torch.strided or not (counts or value.is_floating_point()):
            raise InputError(f"{path}: key '{key}' has type {value.dtype}, expected floating point; get the file again")
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: key '{key}' is not finite; the training that wrote it has failed")
    return list(used), list(left_out), letters


def teacher_state(weights: dict[str, Tensor], family: Family, depth: int) -> dict[str, Tensor]:
    """The state dict of :class:`Teacher`, in float32.

    Where the original has no bias, ours is zero. qkv is cut into queries and the rest; the third layer of the
    tokenizer, which sees the patch's maximum first and then the point (Point-MAE), into its two halves.
    """
    state: dict[str, Tensor] = {}

    def take(ours: str, theirs: str) -> None:
        weight = weights[f"{theirs}.weight"]
        weight = weight.squeeze(-1) if weight.dim() == 3 else weight  # (out, in, 1) of a convolution
        bias = weights.get(f"{theirs}.bias")
        state[f"{ours}.weight"] = weight
        state[f"{ours}.bias"] = weight.new_zeros(len(weight)) if bias is None else bias

    def take_batch_norm(ours: str, theirs: str) -> None:
        take(ours, theirs)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            state[f"{ours}.{name}"] = weights[f"{theirs}.{name}"]

    first, second = f"{family.tokenizer}.first_conv", f"{family.tokenizer}.second_conv"
    take("tokenizer.point", f"{first}.0")
    take_batch_norm("tokenizer.point_norm", f"{first}.1")
    take("tokenizer.local", f"{first}.3")
    take("tokenizer.from_point", f"{second}.0")
    joint = state["tokenizer.from_point.weight"]  # (third, 2 * second)
    state["tokenizer.from_patch.weight"], state["tokenizer.from_point.weight"] = joint.chunk(2, dim=1)
    take_batch_norm("tokenizer.joint_norm", f"{second}.1")
    take("tokenizer.token", f"{second}.3")
    take("position.layers.0", f"{family.position}.0")
    take("position.layers.2", f"{family.position}.2")
    for i in range(depth):
        ours, theirs = f"encoder.blocks.{i}", f"{family.blocks}.{i}"
        take(f"{ours}.attention_norm", f"{theirs}.norm1")
        take("qkv", f"{theirs}.attn.qkv")
        for kind in ("weight", "bias"):
            query, key, value = state.pop(f"qkv.{kind}").chunk(3)  # (d, ...) each
            state[f"{ours}.attention.query.{kind}"] = query
            state[f"{ours}.attention.key_value.{kind}"] = torch.cat([key, value])
        take(f"{ours}.attention.out", f"{theirs}.attn.proj")
        take(f"{ours}.mlp_norm", f"{theirs}.norm2")
        take(f"{ours}.mlp.layers.0", f"{theirs}.mlp.fc1")
        take(f"{ours}.mlp.layers.2", f"{theirs}.mlp.fc2")
    take("encoder.norm", family.norm)
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _card(name: str, checkpoint: Checkpoint, family: Family, architecture, preprocessing) -> ModelCard:
    origin = TrainingData(name=f"what the {family.title} checkpoint was trained on", licence="see its publisher")
    record = Training(
        task=f"converted from a {family.title} checkpoint; trained by its publisher",
        data=[origin],
        seed=0,
        steps=0,
        batch=0,
        minutes=0.0,
        parent=checkpoint.path.name,
        parent_sha256=sha256(checkpoint.path),
    )
    return ModelCard(
        name=name,
        kind="teacher",
        description=f"Encoder of a {family.title} checkpoint, converted.",
        licence="that of the original checkpoint",
        architecture=architecture,
        preprocessing=preprocessing,
        training=[record],
    )
