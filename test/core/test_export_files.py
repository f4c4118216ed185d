# SPDX-License-Identifier: Apache-2.0
"""The files of an exported directory: whole or as they were, sealed, and of weights that the card names."""

import errno
import os
import shutil
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from test_export import elastic  # noqa: E402

from foundry_core.card import WEIGHTS_FILE, load_card, sha256  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.export import write  # noqa: E402
from foundry_core.export.write import export_model  # noqa: E402
from foundry_core.head_card import family, fingerprint  # noqa: E402
from foundry_core.models.registry import load_model, save_model  # noqa: E402


@pytest.fixture
def drafts(tmp_path, monkeypatch):
    """A model directory, and the content of each graph that an export of it writes; nothing is converted."""
    save_model(tmp_path / "tiny", *elastic())
    content = [b"graph"]

    def write_graph(draft, format, precision, data, card, name):
        for number, file in enumerate(write.written(name)):
            (draft / file).write_bytes(content[0] + bytes([number]))
        return write.written(name)

    for name in ("require_openvino", "convert", "quantize", "serialize", "open_session"):
        monkeypatch.setattr(write, name, lambda *_: None)
    monkeypatch.setattr(write, "write_graph", write_graph)
    monkeypatch.setattr(write, "agreement", lambda *_: ({"tokens": 0.0}, 1.0))
    return tmp_path / "tiny", content


def test_what_the_export_does_not_write_keeps_its_seal(drafts):
    directory, _ = drafts
    export_model(directory)
    sealed = load_card(directory).files
    (directory / "model.stray.onnx").write_bytes(b"stray")
    out = directory.parent / "out"
    shutil.copytree(directory, out)
    export_model(directory, precision="int8", out=out)
    assert load_card(out).files == sealed | {"model.int8.onnx": sha256(out / "model.int8.onnx")}
    (out / "model.int8.onnx").write_bytes(b"damaged")
    with pytest.raises(InputError, match="out/model.int8.onnx: wrong SHA-256"):
        export_model(directory, out=out)
    export_model(directory, precision="int8", out=out)  # what is written anew may be damaged
    assert load_card(out).files.keys() == sealed.keys() | {"model.int8.onnx"}


def test_an_exported_directory_says_which_weights_its_graphs_are_of(drafts):
    directory, _ = drafts
    out = directory.parent / "out"
    for format in ("onnx", "openvino"):
        export_model(directory, format, "int8", out=out)
        assert fingerprint(load_card(out)) == fingerprint(load_card(directory)) == sha256(directory / WEIGHTS_FILE)
    assert family(load_card(out)) == family(load_card(directory))
    export_model(directory)
    assert not load_card(directory).weights_sha256
    network, model_card = load_model(directory)
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    save_model(directory, network, model_card)
    with pytest.raises(InputError, match="out: holds other weights of tiny; give another --out"):
        export_model(directory, out=out)
    unnamed = load_card(out).model_copy(update={"weights_sha256": ""})
    with pytest.raises(InputError, match="does not say which weights its graphs are of; write the directory anew"):
        fingerprint(unnamed)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_an_out_that_cannot_be_written_is_found_before_any_work(drafts, monkeypatch):
    monkeypatch.setattr(write, "convert", lambda *_: pytest.fail("the graph was made first"))
    with pytest.raises(InputError, match="^/proc/foo.*: cannot be written .*; give another --out"):
        export_model(drafts[0], out="/proc/foo")


def test_a_disk_that_fills_up_leaves_the_directory_as_it_was(drafts, monkeypatch):
    directory, content = drafts
    export_model(directory, "openvino")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    content[0], syncs, sync = b"another", [], os.fsync

    def full(handle):
        syncs.append(handle)
        if len(syncs) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: '.*/tiny/model.fp32.bin'"):
        export_model(directory, "openvino")
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    load_card(directory)
