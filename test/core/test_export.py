# SPDX-License-Identifier: Apache-2.0
"""The exact rewrites and the exported graphs against the training graph."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from test_models import TINY, card, tiny_student  # noqa: E402

from foundry_core.card import list_models, load_card  # noqa: E402
from foundry_core.errors import InputError  # noqa: E402
from foundry_core.export import quantize, write  # noqa: E402
from foundry_core.export.graph import example_inputs, perceive  # noqa: E402
from foundry_core.export.rewrite import for_inference  # noqa: E402
from foundry_core.export.rewrite_student import BASELINES, balanced  # noqa: E402
from foundry_core.export.write import export_graph, export_model  # noqa: E402
from foundry_core.models.registry import create_perception, load_model, save_model  # noqa: E402
from foundry_core.models.supertokens import sinkhorn  # noqa: E402
from foundry_core.runtime import openvino_session  # noqa: E402
from foundry_core.runtime.session import open_session  # noqa: E402

MODES = ("residual", "cross-attention", "residual+cross-attention")


def shake(module) -> None:
    """Norms and biases unlike the initial ones, so that folding them wrongly shows."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(part.running_mean)
            torch.nn.init.uniform_(part.running_var, 0.5, 2.0)
        if isinstance(part, (torch.nn.BatchNorm1d, torch.nn.LayerNorm)):
            torch.nn.init.uniform_(part.weight, -1.5, 1.5)  # negative scales too: a maximum does not commute with them
            torch.nn.init.normal_(part.bias)
        elif isinstance(part, torch.nn.Linear) and part.bias is not None:
            torch.nn.init.normal_(part.bias, std=0.3)


def shaken(architecture):
    torch.manual_seed(0)
    network = create_perception(card(architecture)).eval()
    shake(network)
    return network


def elastic(**options):
    """A student for the budgets 1, 2 and 4, and its card."""
    architecture = tiny_student(**options)
    return shaken(architecture), card(architecture).model_copy(update={"budgets": [1, 2, 4]})


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """The directory of a student that has all heads and the budgets 1, 2 and 4."""
    directory = tmp_path_factory.mktemp("export") / "tiny"
    save_model(directory, *elastic())
    export_graph(directory)
    return directory


@pytest.mark.parametrize("scale", [0.1, 5.0, 80.0, 1000.0])
def test_balancing_by_scaling_equals_the_log_domain(scale):
    torch.manual_seed(1)
    logits = scale * torch.randn(5, 64, 8, dtype=torch.float64)
    expected = sinkhorn(logits, 4)
    found = balanced(logits, 4)
    assert torch.allclose(found / found.sum(dim=2, keepdim=True), expected.exp(), atol=1e-9)
    single = balanced(logits.float(), 4)
    assert torch.isfinite(single).all() and (single.amax(dim=2) > 0).all()


@pytest.mark.parametrize(
    "options",
    [
        None,
        *({"upsampling": mode, "assignment": kind} for mode in MODES for kind in ("sinkhorn", "gumbel")),
        {"assignment": "fps", "spread": "soft", "mlp_ratio": 2.0},
        {"assignment": "kmeans"},
        {"assignment": "tome"},
        {"merge": "soft", "upsampling": "none"},
        {"merge": "soft", "spread": "soft", "alone": True},
    ],
    ids=lambda options: "teacher" if options is None else ", ".join(map(str, options.values())),
)
def test_the_rewritten_network_equals_the_training_graph(options):
    architecture = TINY if options is None else tiny_student(**options)
    network = shaken(architecture)
    fused = for_inference(network)
    inputs = [torch.from_numpy(value) for value in example_inputs(card(architecture), 3).values()]
    for budget in (1, 2, 3, 4) if architecture.supertokens else (None,):
        with torch.no_grad():
            expected, found = perceive(network, inputs, budget), perceive(fused, inputs, budget)
        for name, value in expected.items():
            assert (found[name] - value).abs().max() <= 1e-5 * max(1.0, float(value.abs().max())), (budget, name)
    if architecture.supertokens and architecture.supertokens.assignment not in BASELINES:
        with torch.no_grad():
            counted = perceive(fused, inputs, torch.arange(3))
        assert torch.allclose(counted["tokens"], perceive(fused, inputs, 3)["tokens"], atol=1e-6)


@pytest.mark.parametrize("name", [card.name for card in list_models()])
def test_shipped_models_are_rewritten_to_1e_5_of_their_largest_value(name):
    network, model_card = load_model(name)
    inputs = [torch.from_numpy(value) for value in example_inputs(model_card, 3, seed=3).values()]
    with torch.no_grad():
        expected, found = network(*inputs), for_inference(network)(*inputs)
    for output, value in expected.items():
        assert (found[output] - value).abs().max() <= 1e-5 * max(1.0, float(value.abs().max())), output


@pytest.mark.parametrize("architecture", [TINY, tiny_student(count=1)], ids=["teacher", "student of one"])
def test_a_graph_without_a_choice_of_budgets(tmp_path, architecture):
    budgets = [1] if architecture.supertokens else []
    save_model(tmp_path, shaken(architecture), card(architecture).model_copy(update={"budgets": budgets}))
    path, differences = export_graph(tmp_path)
    assert max(differences.values()) < 1e-4 and path.name in load_card(tmp_path).files
    assert "budget" not in [value.name for value in onnx.load(path).graph.input]


def test_the_exported_graph_equals_torch_at_any_batch_size_and_budget(student):
    import onnxruntime

    network, model_card = load_model(student)
    path = student / "model.onnx"
    assert path.name in load_card(student).files
    data = path.read_bytes()
    assert b".py" not in data and b"stack_trace" not in data  # no paths of the machine that exported
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for batch, budget in ((1, 1), (1, 4), (6, 1), (6, 2), (6, 4)):
        inputs = example_inputs(model_card, batch, seed=batch)
        with torch.no_grad():
            expected = perceive(network, list(map(torch.from_numpy, inputs.values())), budget)
        for name, value in zip(names, session.run(names, {**inputs, "budget": np.array(budget)})):
            assert value.shape == expected[name].shape
            assert np.abs(value - expected[name].numpy()).max() < 1e-4, (name, budget)


def test_a_baseline_has_no_graph(tmp_path):
    architecture = tiny_student(assignment="tome")
    save_model(tmp_path, shaken(architecture), card(architecture))
    with pytest.raises(InputError, match="assignment tome is a baseline for tables and has no graph"):
        export_graph(tmp_path)


def test_the_file_says_all_that_is_needed(student):
    metadata = {entry.key: entry.value for entry in onnx.load(student / "model.onnx").metadata_props}
    model_card = load_card(student)
    assert metadata["foundry.name"] == "tiny" and metadata["foundry.precision"] == "fp32"
    assert json.loads(metadata["foundry.budgets"]) == [1, 2, 4]
    assert json.loads(metadata["foundry.preprocessing"]) == model_card.preprocessing.model_dump()
    assert json.loads(metadata["foundry.heads"]) == model_card.heads.model_dump()


def test_int8_keeps_what_decides_in_float(student, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "MIN_COSINE", 0.9)  # random weights of width 24 quantise badly
    monkeypatch.setattr(quantize, "MAX_ERROR", 1e9)  # every product
    done = export_model(student, precision="int8", out=tmp_path / "out")
    assert 0.9 < done.cosine < 1.0
    assert load_card(tmp_path / "out").files.keys() == {"model.int8.onnx"}
    model = onnx.load(done.files[0])
    int8 = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    weights = {name for name in int8 if name.endswith("_quantized")}
    assert any("tokenizer" in name for name in weights) and len(weights) >= 4 * TINY.encoder.depth + 4
    assert not any(part in name for name in int8 for part in ("assignment.logits", ".objects.", ".parts."))
    assert any(".parts." in tensor.name for tensor in model.graph.initializer)
    export_model(student, out=tmp_path / "out")  # a second form of the same model beside it
    assert load_card(tmp_path / "out").files.keys() == {"model.int8.onnx", "model.onnx"}
    session = open_session(tmp_path / "out", precision="int8")
    session.check(load_card(tmp_path / "out"))
    assert session.run(example_inputs(load_card(student), 2), ["tokens"], 2)["tokens"].shape == (2, 16, 24)


def test_what_does_not_agree_is_not_written(student, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "MIN_COSINE", 1.1)
    with pytest.raises(InputError, match="int8: token cosine to torch [01].*, below 1.1"):
        export_model(student, precision="int8", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="bf16: onnxruntime has no bfloat16"):
        export_model(student, precision="bf16", out=tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="other: is no model directory and not empty"):
        export_model(student, out=tmp_path / "other")
    another = card(TINY).model_copy(update={"name": "another"})
    save_model(tmp_path / "another", shaken(TINY), another)
    with pytest.raises(InputError, match="holds another model, another"):
        export_model(student, out=tmp_path / "another")


@pytest.mark.parametrize("lost", [0.4, 0.6])
def test_a_loss_of_accuracy_is_refused_above_half_a_point(student, tmp_path, monkeypatch, lost):
    monkeypatch.setattr(write, "read_split", lambda path: None)
    monkeypatch.setattr(write, "accuracy_drop", lambda *_: lost)
    if lost < 0.5:
        assert export_model(student, out=tmp_path / "out", check="shapes.npz").drop == lost
    else:
        with pytest.raises(InputError, match="shapes.npz: fp32: probe accuracy drops by 0.60 points, above 0.5"):
            export_model(student, out=tmp_path / "out", check="shapes.npz")


def test_what_is_missing_is_found_before_any_work(student, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "convert", lambda *_: pytest.fail("the graph was made first"))
    np.savez(tmp_path / "bare.npz", points=np.random.default_rng(0).normal(size=(8, 100, 3)))
    for check, complaint in (("none.npz", "no such file"), (tmp_path / "bare.npz", "split: missing; --check judges")):
        with pytest.raises(InputError, match=complaint):
            export_model(student, out=tmp_path / "out", check=check)
    monkeypatch.setattr(openvino_session, "openvino", None)
    with pytest.raises(InputError, match="openvino is not installed"):
        export_model(student, "openvino", out=tmp_path / "out")


def test_the_probe_of_an_exact_export_loses_nothing(student, tmp_path):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(32, 128, 3)) * np.where(np.arange(32) % 2, 1.0, [[0.1], [0.1], [1.0]]).T[:, None]
    shapes = {"points": points.astype(np.float32), "label": np.arange(32) % 2, "split": np.arange(32) // 16}
    np.savez(tmp_path / "shapes.npz", **shapes, class_names=["rod", "ball"])
    assert export_model(student, out=tmp_path / "out", check=tmp_path / "shapes.npz").drop == 0
