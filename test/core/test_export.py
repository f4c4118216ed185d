# SPDX-License-Identifier: Apache-2.0
"""The exact rewrites and the exported graph against the training graph."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from test_models import TINY, card, clouds, tiny_student  # noqa: E402

from foundry_core.card import load_card  # noqa: E402
from foundry_core.export.graph import example_inputs, export_graph  # noqa: E402
from foundry_core.export.rewrite import FusedTokenizer  # noqa: E402
from foundry_core.models.registry import create_perception, load_model, save_model  # noqa: E402
from foundry_core.models.tokenizer import Tokenizer  # noqa: E402


def shake_batch_norms(module) -> None:
    """Statistics and scales unlike the initial ones, so that folding them wrongly shows."""
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(norm.running_mean)
            torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(norm.weight, -1.5, 1.5)  # negative scales too: a maximum does not commute with them
            torch.nn.init.normal_(norm.bias)


@pytest.mark.parametrize("pool", ["after", "before"])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_fused_tokenizer_is_exact(pool, stride):
    torch.manual_seed(0)
    config = TINY.tokenizer.model_copy(update={"pool": pool, "stride": stride})
    tokenizer = Tokenizer(config, 24).eval()
    shake_batch_norms(tokenizer)
    _, neighborhoods = clouds()
    with torch.no_grad():
        assert torch.allclose(FusedTokenizer(tokenizer)(neighborhoods), tokenizer(neighborhoods), atol=1e-5)


@pytest.mark.parametrize("architecture", [TINY, tiny_student(), tiny_student(merge="soft", spread="soft", alone=True)])
def test_the_exported_graph_equals_torch_at_any_batch_size(tmp_path, architecture):
    import onnxruntime

    torch.manual_seed(0)
    network = create_perception(card(architecture)).eval()
    shake_batch_norms(network)
    save_model(tmp_path / "tiny", network, card(architecture))
    path, differences = export_graph(tmp_path / "tiny")
    assert max(differences.values()) < 1e-4
    assert path.name in load_card(tmp_path / "tiny").files
    data = path.read_bytes()
    assert b".py" not in data and b"stack_trace" not in data  # no paths of the machine that exported
    network, model_card = load_model(tmp_path / "tiny")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for batch in (1, 6):
        inputs = example_inputs(model_card, batch, seed=batch)
        with torch.no_grad():
            expected = network(*map(torch.from_numpy, inputs.values()))
        for name, value in zip(names, session.run(names, inputs)):
            assert np.abs(value - expected[name].numpy()).max() < 1e-4, name
    assert session.get_modelmeta().custom_metadata_map["foundry.name"] == "tiny"
