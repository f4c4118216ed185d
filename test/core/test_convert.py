# SPDX-License-Identifier: Apache-2.0
"""`foundry convert`: the originals' numbers from their checkpoints, and a refusal by name of everything else."""

import hashlib
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from original_checkpoints import (  # noqa: E402
    KEYS,
    POINT2VEC,
    POINT_JEPA,
    POINT_MAE,
    SEEDS,
    checkpoint,
    layout,
    state_dict,
)

from foundry_core import geometry  # noqa: E402
from foundry_core.card import load_card  # noqa: E402
from foundry_core.cli.main import main  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.models.checkpoints.convert import convert  # noqa: E402
from foundry_core.models.registry import load_model  # noqa: E402

ORIGINAL = Path(__file__).with_name("original_features.npz")  # see test/make_original_features.py
SMALL = {"depth": 2, "width": 24}

#: SHA-256 of the released files' sorted "key shape" lines
LAYOUTS = {
    POINT_MAE: "013b0f2aac1d1394aebb11459f332c1d29bca60bbdec1a84a9bb5522a06a0c2e",
    POINT2VEC: "89bb8cb3bf80c13d97ab09e9715274a711d78cc225ee5ae9e6e0a3278062bed9",
    POINT_JEPA: "351b87cc481266b1afa4c665ee9ff33c43aa535e875ccb01bc019abf92893564",
}


@pytest.fixture
def foundry(capsys):
    """Run the command; gives exit code, stdout, stderr."""

    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


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


def refusal(path: Path, arch: str, **given) -> str:
    with pytest.raises(InputError) as refused:
        convert(path, arch, "x", **{"depth": 2, **given})
    assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("arch", KEYS)
def test_the_layouts_of_these_tests_are_the_released_ones(arch):
    lines = [f"{key} {shape}" for key, shape in sorted(layout(arch).items())]
    assert len(lines) == KEYS[arch]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == LAYOUTS[arch]


@pytest.mark.slow
@pytest.mark.parametrize("arch", KEYS)
def test_a_converted_checkpoint_gives_the_numbers_of_the_original_code(arch, foundry, tmp_path):
    original = np.load(ORIGINAL)
    shapes, features, model, report = (tmp_path / name for name in ("s.npz", "f.npz", "model", "r.json"))
    np.savez(shapes, points=original["clouds"])
    file = save(tmp_path / "c.pth", checkpoint(arch, SEEDS[arch]))
    code, out, err = foundry("convert", file, "--arch", arch, "--out", model, "--json", report)
    assert code == 0, err
    file.unlink()  # some 200 MB

    keys = json.loads(report.read_text())
    assert sorted(keys["used"] + keys["left_out"]) == sorted(layout(arch)), "every key once"
    assert f"{len(keys['used'])} keys used, {len(keys['left_out'])} left out" in out

    code, _, err = foundry("embed", "--tokens", "--model", model, "--data", shapes, "--out", features)
    assert code == 0, err
    found = np.load(features)
    clouds = np.stack([geometry.prepare(cloud, 1024)[0] for cloud in original["clouds"]])
    index = original[f"{arch}/centers"].astype(np.int64)
    assert np.array_equal(found["centers"], np.take_along_axis(clouds, index[:, :, None], axis=1))
    assert np.abs(found["tokens"][:, :, ::24] - original[f"{arch}/tokens"]).max() < 5e-5
    assert np.abs(found["features"] - original[f"{arch}/features"]).max() < 5e-5

    network, _ = load_model(model)
    _, neighborhoods = geometry.group_batch(clouds, 64, 32)
    with torch.no_grad():
        tokens = network.backbone.tokenizer(torch.from_numpy(neighborhoods)).numpy()
    assert np.abs(tokens[:, :, ::48] - original[f"{arch}/tokenizer"]).max() < 1e-5


def test_the_model_directory_of_a_small_checkpoint(foundry, tmp_path):
    file = save(tmp_path / "pretrain.pth", small(POINT_MAE))
    out = tmp_path / "models" / "mae"
    code, text, err = foundry("convert", file, "--arch", "point-mae", "--out", out, "--depth", 2, "--heads", 3)
    assert code == 0, err
    assert sorted(path.name for path in out.iterdir()) == ["card.json", "model.onnx", "model.safetensors"]
    assert [path.name for path in out.parent.iterdir()] == ["mae"]
    card = load_card(out)
    assert card.name == "mae" and card.kind == "teacher" and card.architecture.encoder.heads == 3
    assert card.training[0].parent == "pretrain.pth"
    assert card.training[0].parent_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    code, _, err = foundry("convert", file, "--arch", "point-mae", "--out", out, "--depth", 2)
    assert code == 2 and err.count("\n") == 1 and "exists already" in err and str(out) in err


def test_bad_input_is_one_line_and_leaves_nothing_behind(foundry, tmp_path):
    file = save(tmp_path / "c.pth", small(POINT2VEC))
    for arguments in (
        [tmp_path / "no.pth", "--arch", "point2vec"],
        [tmp_path, "--arch", "point2vec"],
        [file, "--arch", "point-jepa"],
        [file, "--arch", "point2vec", "--heads", 5],
        [file, "--arch", "point2vec", "--groups", 4096],
    ):
        code, out, err = foundry("convert", *arguments, "--out", tmp_path / "m")
        assert code == 2 and out == "" and err.count("\n") == 1 and "Traceback" not in err, err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c.pth"]


def test_a_failing_export_leaves_nothing_behind(foundry, tmp_path, monkeypatch):
    import foundry_core.export.graph as graph

    def fail(directory):
        raise InputError(f"{directory}: no")

    monkeypatch.setattr(graph, "export_graph", fail)
    file = save(tmp_path / "c.pth", small(POINT2VEC))
    assert foundry("convert", file, "--arch", "point2vec", "--out", tmp_path / "m")[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]


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
    assert "test_convert.Plain" in message


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
