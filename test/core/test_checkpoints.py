# SPDX-License-Identifier: Apache-2.0
"""What is read from the originals' checkpoints, and the refusal by name of everything else."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from original_checkpoints import (  # noqa: E402
    KEYS,
    POINT2VEC,
    POINT_JEPA,
    POINT_MAE,
    SMALL,
    checkpoint,
    layout,
    save,
    small,
    state_dict,
)

from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.checkpoints.convert import convert  # noqa: E402


def refusal(path: Path, arch: str, **given) -> str:
    with pytest.raises(InputError) as refused:
        convert(path, arch, "x", **{"depth": 2, **given})
    assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)
    return str(refused.value)


# -- what is read ----------------------------------------------------------------------------------------------------


def same(one, other) -> bool:
    one, other = one.network.state_dict(), other.network.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("arch", KEYS)
def test_wrappers_and_prefixes_make_no_difference(arch, tmp_path):
    state = state_dict(arch, **SMALL)
    parallel = {f"module.{key}": value for key, value in state.items()}
    contents = [checkpoint(arch, **SMALL), state, parallel, {"state_dict": state}, {"model": parallel, "epoch": 3}]
    found = [convert(save(tmp_path / "c.pth", content), arch, "x", depth=2, heads=6) for content in contents]
    assert len(found[0].used) + len(found[0].left_out) == len(state)
    assert all(same(found[0], other) for other in found[1:])
    assert found[1].beside == [] and "epoch" in found[0].beside


@pytest.mark.parametrize("arch", [POINT2VEC, POINT_JEPA])
def test_the_student_is_read_not_the_average(arch, tmp_path):
    found = convert(save(tmp_path / "c.ckpt", small(arch)), arch, "x").network.backbone
    state = state_dict(arch, **SMALL)
    assert torch.equal(found.encoder.norm.weight, state["student.norm.weight"])
    assert not torch.equal(found.encoder.norm.weight, state["teacher.ema_model.norm.weight"])


def test_lightning_settings_decide_and_the_command_line_overrides(tmp_path):
    content = small(POINT2VEC)
    content["hyper_parameters"] |= {"encoder_heads": 4, "tokenizer_num_groups": 128, "tokenizer_group_size": 16}
    content["hyper_parameters"]["transformation_subsample_points"] = 2048
    file = save(tmp_path / "c.ckpt", content)
    card = convert(file, POINT2VEC, "x").card
    size = card.preprocessing
    assert card.architecture.encoder.depth == 2 and card.architecture.encoder.heads == 4
    assert (size.points, size.groups, size.neighbors) == (2048, 128, 16)
    card = convert(file, POINT2VEC, "x", heads=3, groups=32).card
    assert card.architecture.encoder.heads == 3 and card.preprocessing.groups == 32
    for name, value in {"tokenizer_group_radius": 0.2, "encoder_add_pos_at_every_layer": False}.items():
        changed = content | {"hyper_parameters": content["hyper_parameters"] | {name: value}}
        assert name in refusal(save(tmp_path / "d.ckpt", changed), POINT2VEC)
    changed = content | {"hyper_parameters": content["hyper_parameters"] | {"encoder_heads": "six"}}
    assert "encoder_heads" in refusal(save(tmp_path / "d.ckpt", changed), POINT2VEC)


def test_point_mae_tells_the_patch_size_by_its_decoder(tmp_path):
    decoder = {"increase_dim.0.weight": torch.zeros(48, 24, 1), "increase_dim.0.bias": torch.zeros(48)}
    card = convert(save(tmp_path / "c.pth", small(POINT_MAE, **decoder)), POINT_MAE, "x", depth=2).card
    assert card.preprocessing.neighbors == 16


def test_half_precision_becomes_float32(tmp_path):
    half = {
        key: value.half() if value.is_floating_point() else value
        for key, value in state_dict(POINT2VEC, **SMALL).items()
    }
    found = convert(save(tmp_path / "c.pth", half), POINT2VEC, "x", depth=2).network.backbone
    assert found.encoder.norm.weight.dtype == torch.float32
    assert torch.equal(found.encoder.norm.weight, half["student.norm.weight"].float())


def test_numpy_numbers_of_either_numpy_are_plain_values(tmp_path):
    content = small(POINT_MAE)
    content["metrics"] = {"acc": np.float64(0.9), "epoch": np.int64(3), "loss": np.float32(0.1)}
    file = save(tmp_path / "c.pth", content)
    assert "metrics" in convert(file, POINT_MAE, "x", depth=2).beside
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "old.pth", "w") as archive:
        for name, data in parts.items():
            for new, old in ((b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")):
                if new in data and name.endswith("data.pkl"):
                    data = data.replace(new, old)
                    break
            archive.writestr(name, data)
    assert (tmp_path / "old.pth").read_bytes().count(b"numpy.core") != file.read_bytes().count(b"numpy.core")
    assert "metrics" in convert(tmp_path / "old.pth", POINT_MAE, "x", depth=2).beside


# -- what is refused -------------------------------------------------------------------------------------------------


class Code:
    """Unpickled, it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


class Plain:
    """An object of a class that is not allowed."""


def test_pickled_code_is_refused_and_never_run(tmp_path):
    mark = tmp_path / "mark"
    state = state_dict(POINT2VEC, **SMALL)
    with open(tmp_path / "plain.pth", "wb") as stream:
        pickle.dump(Code(mark), stream, protocol=2)
    files = [tmp_path / "plain.pth"]
    for i, content in enumerate(
        ({"state_dict": state, "epoch": Code(mark)}, Code(mark), state | {"mask_token": Code(mark)})
    ):
        files.append(save(tmp_path / f"{i}.pth", content))
        torch.save(content, tmp_path / f"{i}.old.pth", _use_new_zipfile_serialization=False)
        files.append(tmp_path / f"{i}.old.pth")
    for file in files:
        message = refusal(file, POINT2VEC)
        assert "mkdir" in message and "never run" in message, message
    assert not mark.exists()
    newer = tmp_path / "newer.pth"
    newer.write_bytes(pickle.dumps(Code(mark), protocol=4))
    assert "not a checkpoint written by torch.save" in refusal(newer, POINT2VEC) and not mark.exists()
    pickle.loads(newer.read_bytes())
    assert mark.exists(), "the trap works"
    message = refusal(save(tmp_path / "p.pth", {"state_dict": state, "hyper_parameters": Plain()}), POINT2VEC)
    assert "test_checkpoints.Plain" in message


def test_torn_files_and_other_files_are_refused(tmp_path):
    file = save(tmp_path / "c.pth", small(POINT_JEPA))
    data = file.read_bytes()
    for part in (0, 1, 100, len(data) // 3, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:part])
        assert "damaged" in refusal(file, POINT_JEPA)
    file.write_bytes(b"no checkpoint at all\n")
    assert "damaged" in refusal(file, POINT_JEPA)
    assert "no regular file" in refusal(Path("/dev/null"), POINT_JEPA)
    for content, words in (
        ([torch.zeros(3)], "holds a list"),
        ({}, "no weights"),
        ({"state_dict": {}}, "no weights"),
        ({"epoch": 3}, "key 'epoch' is a int"),
        ({"state_dict": {"a": 1}}, "key 'a' is a int"),
        ({"a": torch.zeros(1)}, "none of the keys of a Point-JEPA checkpoint, but 'a'"),
        ({"state_dict": {"a": torch.zeros(1)}, "base_model": {"a": torch.zeros(1)}}, "'state_dict' and 'base_model'"),
    ):
        assert words in refusal(save(tmp_path / "d.pth", content), POINT_JEPA)


@pytest.mark.parametrize("arch", KEYS)
def test_every_missing_or_misshapen_key_is_named(arch, tmp_path):
    released = layout(arch, **SMALL)
    parts = {key.split(".")[0]: key for key in released}  # a key of each part
    for key in {*parts.values(), *np.random.default_rng(0).choice(list(released), 12)}:
        message = refusal(save(tmp_path / "c.pth", small(arch, **{key: None})), arch)
        assert f"missing key '{key}'" in message, message
        for shape in ((*released[key], 2), (7, *released[key][1:])):
            message = refusal(save(tmp_path / "c.pth", small(arch, **{key: torch.zeros(shape)})), arch)
            assert f"key '{key}' has shape {shape}, expected {released[key]}" in message, message


@pytest.mark.parametrize("arch", KEYS)
def test_unknown_keys_are_named(arch, tmp_path):
    for key in ("extra.weight", "student.blocks.0.attn.bias", "MAE_decoder.blocks.0.attn.qkv.bias", "cls_token"):
        file = save(tmp_path / "c.pth", small(arch, **{key: torch.zeros(3)}))
        assert f"unknown key '{key}'" in refusal(file, arch)


def test_another_depth_says_how_to_give_it(tmp_path):
    file = save(tmp_path / "c.pth", small(POINT_MAE))
    message = refusal(file, POINT_MAE, depth=None)
    assert "missing key 'MAE_encoder.blocks.blocks.10." in message and "--depth" in message
    message = refusal(file, POINT_MAE, depth=1)
    assert "unknown key 'MAE_encoder.blocks.blocks.1." in message and "--depth" in message


@pytest.mark.parametrize("arch", KEYS)
@pytest.mark.parametrize("wrong", KEYS)
def test_the_wrong_arch_names_the_right_one(arch, wrong, tmp_path):
    if arch != wrong:
        assert f"give --arch {arch}" in refusal(save(tmp_path / "c.pth", small(arch)), wrong)


def test_tensors_in_an_unknown_entry_are_not_passed_over(tmp_path):
    content = small(POINT2VEC)
    assert "note" in convert(save(tmp_path / "c.pth", content | {"note": {"by": "us"}}), POINT2VEC, "x").beside
    message = refusal(save(tmp_path / "c.pth", content | {"ema": {"x": [torch.zeros(1)]}}), POINT2VEC)
    assert "unknown entry 'ema'" in message


def test_weights_that_are_no_numbers_are_named(tmp_path):
    for key, value, words in (
        ("student.blocks.1.mlp.fc1.weight", torch.full((96, 24), float("nan")), "is not finite"),
        ("student.norm.bias", torch.zeros(24, dtype=torch.int64), "has type torch.int64"),
    ):
        message = refusal(save(tmp_path / "c.pth", small(POINT2VEC, **{key: value})), POINT2VEC)
        assert f"key '{key}' {words}" in message
