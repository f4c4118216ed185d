# SPDX-License-Identifier: Apache-2.0
"""Key layouts of the released pre-training checkpoints.

Point-MAE (Pang et al., 2022), point2vec (Abou Zeid et al., 2023) and Point-JEPA (Saito et al., 2024) share one encoder:
mini-PointNet tokens, a position embedding added before every block, pre-norm blocks, a final norm, no class token. They
differ in names, in biases (Point-MAE: convolutions with, qkv without; the others the reverse) and in what they train
beside the encoder. All sizes that their code fixes are fixed here: 3-128-256, 512-512-d, MLP x4, positions 3-128-d.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: of a tensor; a letter is a size that the checkpoint sets, "3d" is three times that
Shape = tuple[int | str, ...]
Keys = dict[str, Shape]

FIRST, SECOND, THIRD, POSITION, MLP_RATIO = 128, 256, 512, 128, 4


def _linear(name: str, out: int | str, into: int | str, bias: bool = True) -> Keys:
    return {f"{name}.weight": (out, into)} | ({f"{name}.bias": (out,)} if bias else {})


def _norm(name: str, width: int | str) -> Keys:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _conv(name: str, out: int | str, into: int | str, bias: bool) -> Keys:
    return {f"{name}.weight": (out, into, 1)} | ({f"{name}.bias": (out,)} if bias else {})


def _batch_norm(name: str, width: int) -> Keys:
    return (
        _norm(name, width)
        | {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
        | {f"{name}.num_batches_tracked": ()}
    )


def _position(name: str, width: str) -> Keys:
    return _linear(f"{name}.0", POSITION, 3) | _linear(f"{name}.2", width, POSITION)


def _transformer(name: str, depth: int, d: str, qkv_bias: bool, hidden: str | None = None) -> Keys:
    """Blocks under ``name.blocks`` and the norm ``name.norm``; ``d`` is the letter of the width."""
    keys: Keys = {}
    hidden = hidden or f"{MLP_RATIO}{d}"
    for i in range(depth):
        block = f"{name}.blocks.{i}"
        keys |= _norm(f"{block}.norm1", d) | _linear(f"{block}.attn.qkv", f"3{d}", d, qkv_bias)
        keys |= _linear(f"{block}.attn.proj", d, d) | _norm(f"{block}.norm2", d)
        keys |= _linear(f"{block}.mlp.fc1", hidden, d) | _linear(f"{block}.mlp.fc2", d, hidden)
    return keys | _norm(f"{name}.norm", d)


@dataclass(frozen=True)
class Family:
    """One original code base; the names of the encoder's parts in its checkpoints.

    Attributes:
        arch: the name on the command line; title: its own.
        tokenizer, position, blocks, norm: prefixes of the encoder's parts.
        conv_bias, qkv_bias: whether the convolutions before a batch norm, and qkv, have a bias.
        signature: a key that no other family has.
    """

    arch: str
    title: str
    tokenizer: str
    position: str
    blocks: str
    norm: str
    conv_bias: bool
    qkv_bias: bool
    signature: str

    def used(self, depth: int) -> Keys:
        """Keys of the encoder, with ``depth`` blocks."""
        first, second = f"{self.tokenizer}.first_conv", f"{self.tokenizer}.second_conv"
        keys = _conv(f"{first}.0", FIRST, 3, self.conv_bias) | _batch_norm(f"{first}.1", FIRST)
        keys |= _conv(f"{first}.3", SECOND, FIRST, bias=True)
        keys |= _conv(f"{second}.0", THIRD, 2 * SECOND, self.conv_bias) | _batch_norm(f"{second}.1", THIRD)
        keys |= _conv(f"{second}.3", "d", THIRD, bias=True) | _position(self.position, "d")
        encoder = _transformer("encoder", depth, "d", self.qkv_bias)
        moved = {"encoder.blocks": self.blocks, "encoder.norm": self.norm}
        for key, shape in encoder.items():
            part = next(part for part in moved if key.startswith(part))
            keys[moved[part] + key.removeprefix(part)] = shape
        return keys

    def left_out(self, depth: int, present: Iterable[str]) -> Keys:
        """Keys of everything else; decoders and predictors are as deep as those that are ``present``."""
        if self.arch == "point-mae":
            keys: Keys = {"mask_token": (1, 1, "d")} | _position("decoder_pos_embed", "d")
            keys |= _transformer("MAE_decoder", _depth("MAE_decoder", present), "d", self.qkv_bias)
            return keys | {"increase_dim.0.weight": ("n", "d", 1), "increase_dim.0.bias": ("n",)}
        keys = {"mask_token": ("d",), "teacher.initted": (1,), "teacher.step": (1,)}
        for copy in ("teacher.online_model", "teacher.ema_model"):
            keys |= _transformer(copy, depth, "d", self.qkv_bias)
        if self.arch == "point2vec":
            keys |= _transformer("decoder", _depth("decoder", present), "d", self.qkv_bias)
            return keys | _linear("regressor", "d", "d")
        p = "predictor"
        keys |= _linear(f"{p}.predictor_embed", "e", "d") | {f"{p}.mask_token": (1, 1, "e")}
        keys |= _position(f"{p}.positional_encoding", "e") | _norm(f"{p}.predictor_norm", "e")
        keys |= _linear(f"{p}.predictor_proj", "d", "e")
        return keys | _transformer(f"{p}.{p}", _depth(f"{p}.{p}", present), "e", self.qkv_bias, hidden="m")


def _depth(name: str, present: Iterable[str]) -> int:
    """1 + the largest block index under ``name`` (1 where there is none, so that what is missing has a name)."""
    pattern = re.compile(re.escape(name) + r"\.blocks\.(\d{1,3})\.")
    return 1 + max((int(match[1]) for key in present if (match := pattern.match(key))), default=0)


FAMILIES = {
    family.arch: family
    for family in (
        Family(
            "point-mae", "Point-MAE", "MAE_encoder.encoder", "MAE_encoder.pos_embed", "MAE_encoder.blocks.blocks",
            "MAE_encoder.norm", conv_bias=True, qkv_bias=False, signature="MAE_encoder.norm.weight",
        ),
        Family(
            "point2vec", "point2vec", "tokenizer.embedding", "positional_encoding", "student.blocks", "student.norm",
            conv_bias=False, qkv_bias=True, signature="tokenizer.embedding.first_conv.0.weight",
        ),
        Family(
            "point-jepa", "Point-JEPA", "tokenizer.embedding.encoder", "positional_encoding", "student.blocks",
            "student.norm", conv_bias=False, qkv_bias=True,
            signature="tokenizer.embedding.encoder.first_conv.0.weight",
        ),
    )
}  # fmt: skip


def sizes(keys: Keys, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The letters' sizes by majority over all tensors, so that a single misshapen one does not decide."""
    votes: dict[str, Counter[int]] = {}
    for key, wanted in keys.items():
        found = shapes.get(key)
        if found is None or len(found) != len(wanted):
            continue
        for letter, size in zip(wanted, found, strict=True):
            if isinstance(letter, str) and letter.isalpha():
                votes.setdefault(letter, Counter())[size] += 1
    return {letter: counts.most_common(1)[0][0] for letter, counts in votes.items()}


def concrete(shape: Shape, letters: Mapping[str, int]) -> tuple[int, ...]:
    """A shape with its letters replaced; -1 where no tensor sets the letter."""
    done = []
    for size in shape:
        if isinstance(size, str):
            factor, letter = int(size[:-1] or 1), size[-1]
            size = factor * letters[letter] if letter in letters else -1
        done.append(size)
    return tuple(done)
