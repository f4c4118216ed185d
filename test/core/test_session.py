# SPDX-License-Identifier: Apache-2.0
"""Sessions: the same answers in every runtime, for every set of outputs and every budget."""

import math
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from street_scene import street
from tiny_model import BUDGETS, CLASSES, PARTS, PREPROCESSING, SUPERTOKENS, write_tiny_model

from foundry_core.card import load_card
from foundry_core.clouds import Cloud
from foundry_core.errors import InputError
from foundry_core.runtime import openvino_session
from foundry_core.runtime.bench_worker import clouds, group
from foundry_core.runtime.graph_file import GraphFile
from foundry_core.runtime.perceiver import Perceiver, PerceiverConfig
from foundry_core.runtime.session import OUTPUTS, OnnxSession, open_session

RUNTIMES = ["onnxruntime"]
if openvino_session.openvino is not None:
    RUNTIMES.append("openvino")


@pytest.fixture(scope="module")
def inputs(tiny_model):
    return group(load_card(tiny_model), clouds(3, PREPROCESSING.points), parts=True)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_answers_have_the_known_values_at_every_budget(tiny_model, inputs, runtime):
    session = open_session(tiny_model, runtime)
    session.check(load_card(tiny_model))
    assert session.outputs == list(OUTPUTS) and "budget" not in session.inputs and session.budgets == BUDGETS
    tokens = np.concatenate([inputs["centers"], inputs["neighborhoods"].max(axis=2)], axis=2)
    for budget in (*BUDGETS, None):
        answers = session.run(inputs, budget=budget)
        assert list(answers) == list(OUTPUTS)
        np.testing.assert_allclose(answers["tokens"], tokens, atol=1e-6)
        np.testing.assert_allclose(answers["supertokens"], tokens[:, : budget or SUPERTOKENS], atol=1e-6)
        assert answers["class_logits"].shape == (3, len(CLASSES))
        assert answers["part_logits"].shape == (3, PREPROCESSING.points, len(PARTS))


def answers_of_two_threads(session, inputs, rounds: int) -> None:
    """Two threads ask at the same time, each for the answers to its own batches; none may be the other's."""
    batches = [{name: value + 3 * number for name, value in inputs.items()} for number in range(2)]
    alone = [session.run(batch, ["tokens"], 2)["tokens"] for batch in batches]
    begin = threading.Barrier(2)

    def ask(number: int) -> bool:
        begin.wait(10)
        found = [session.run(batches[number], ["tokens"], 2)["tokens"] for _ in range(rounds)]
        return all(np.array_equal(tokens, alone[number]) for tokens in found)

    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(ask, range(2))), "a thread got the other's answers"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_get_their_own_answers(tiny_model, inputs, runtime):
    bare = {name: inputs[name] for name in ("centers", "neighborhoods")}
    answers_of_two_threads(open_session(tiny_model, runtime), bare, rounds=200)


class SlowRequest:
    """An OpenVINO request whose answer is to be fetched a little later than it is there."""

    def __init__(self, model) -> None:
        self.model_inputs, self._tensors = model.inputs, {}

    def infer(self, inputs) -> None:
        self._tensors = {"tokens": SimpleNamespace(data=inputs["centers"].copy())}
        time.sleep(1e-3)

    def get_tensor(self, name):
        return self._tensors[name]


def test_an_openvino_request_serves_one_thread_at_a_time(tiny_model, inputs, monkeypatch):
    """The plugin's side is made up, so that the session's is tested where OpenVINO is not installed too."""

    def port(name, kind, shape):
        size = [SimpleNamespace(is_static=isinstance(n, int), get_length=lambda n=n: n) for n in shape]
        element = SimpleNamespace(get_type_name=lambda: kind)
        return SimpleNamespace(
            get_any_name=lambda: name, get_element_type=lambda: element, get_partial_shape=lambda: size
        )

    def read_model(path):
        ports = {name: port(name, *size) for name, size in GraphFile(path).signature.items()}
        names = ("centers", "neighborhoods")
        return SimpleNamespace(
            inputs=[ports[name] for name in names], outputs=[ports["tokens"]], reshape=lambda shapes: None
        )

    def compile_model(model, device, properties):
        return SimpleNamespace(create_infer_request=lambda: SlowRequest(model))

    core = SimpleNamespace(read_model=read_model, compile_model=compile_model)
    monkeypatch.setattr(openvino_session, "openvino", SimpleNamespace(Core=lambda: core))
    monkeypatch.setattr(openvino_session, "cut", lambda *_: None)
    session = openvino_session.OpenVinoSession(tiny_model)
    answers_of_two_threads(session, {name: inputs[name] for name in ("centers", "neighborhoods")}, rounds=10)


def test_the_file_is_not_kept_beside_the_compiled_graph(tiny_model):
    compiled = OnnxSession(tiny_model)._compiled.values()
    assert compiled and not any(isinstance(held, bytes) for graph in compiled for held in vars(graph).values())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_only_what_is_asked_for_is_computed_and_needed(tiny_model, inputs, runtime):
    session = open_session(tiny_model, runtime, outputs=["tokens"])
    bare = {name: inputs[name] for name in ("centers", "neighborhoods")}
    whole = open_session(tiny_model, runtime).run(inputs, budget=2)
    for outputs in (["tokens"], ["supertokens"], ["supertokens", "tokens"]):
        answers = session.run(bare, outputs, 2)
        assert set(answers) == set(outputs)
        for name in outputs:
            np.testing.assert_array_equal(answers[name], whole[name])
    with pytest.raises(KeyError, match="points"):
        session.run(bare, ["part_logits"], 2)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_unknown_outputs_and_budgets_are_named(tiny_model, inputs, runtime):
    session = open_session(tiny_model, runtime)
    with pytest.raises(InputError, match="budget 3: the graph runs with 1, 2, 4 supertokens"):
        session.run(inputs, budget=3)
    with pytest.raises(InputError, match="lacks surprise"):
        session.run(inputs, ["tokens", "surprise"])


def test_a_cut_graph_is_valid_and_holds_no_more_than_it_needs(tiny_model):
    file = GraphFile(tiny_model / "model.onnx")
    whole = onnx.load(tiny_model / "model.onnx")
    assert file.inputs == [value.name for value in whole.graph.input]
    assert file.outputs == [value.name for value in whole.graph.output]
    assert file.signature["points"] == ("float32", ("B", PREPROCESSING.points, 3))
    assert file.signature["budget"] == ("int64", ()) and file.metadata["foundry.budgets"] == str(BUDGETS)
    assert file.cut(file.outputs) == (tiny_model / "model.onnx").read_bytes()
    part = onnx.load_model_from_string(file.cut(["supertokens"]))
    onnx.checker.check_model(part, full_check=True)
    assert [value.name for value in part.graph.output] == ["supertokens"]
    assert {value.name for value in part.graph.input} == {"centers", "neighborhoods", "budget"}
    assert "tall" not in {tensor.name for tensor in part.graph.initializer} and len(part.graph.node) == 4
    assert [entry.value for entry in part.metadata_props] == [str(BUDGETS)]


def test_files_that_are_no_graphs_are_named(tmp_path, tiny_model):
    whole = (tiny_model / "model.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    for data in (b"", b"\xff" * 40, b"no graph at all", whole[:-7], whole[: len(whole) // 2], b"\x3a\x02\x0a\xff"):
        path.write_bytes(data)
        with pytest.raises(InputError, match="model.onnx: "):
            OnnxSession(tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(200):  # whatever is damaged, nothing but an InputError comes out, and it comes back
        broken = bytearray(whole)
        broken[rng.integers(len(broken))] = rng.integers(256)
        path.write_bytes(broken)
        try:
            GraphFile(path).cut(["tokens"])
        except InputError:
            pass


def test_runtimes_and_precisions_that_are_not_there_are_refused_with_one_line(tiny_model, monkeypatch):
    with pytest.raises(InputError, match="bf16: onnxruntime has no bfloat16"):
        open_session(tiny_model, precision="bf16")
    with pytest.raises(
        InputError,
        match="model.int8.onnx: missing; export it with `foundry export --model MODEL --precision int8 --out",
    ):
        open_session(tiny_model, precision="int8")
    monkeypatch.setattr(openvino_session, "openvino", None)
    with pytest.raises(InputError, match=r"openvino is not installed: pip install 'foundry_ros\[openvino\]'"):
        open_session(tiny_model, "openvino")


def test_a_graph_with_a_fixed_number_of_supertokens_runs_only_so(tmp_path):
    directory = write_tiny_model(tmp_path / "fixed")
    model = onnx.load(directory / "model.onnx")
    (budget,) = (value for value in model.graph.input if value.name == "budget")
    model.graph.input.remove(budget)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(2, np.int64), "budget"))
    del model.metadata_props[:]
    (supertokens,) = (value for value in model.graph.output if value.name == "supertokens")
    supertokens.type.tensor_type.shape.dim[1].dim_value = 2  # as exported before there was a choice
    onnx.save(model, directory / "model.onnx")
    session = OnnxSession(directory)
    assert session.budgets == [2]
    data = group(load_card(directory, verify=False), clouds(1, PREPROCESSING.points), parts=True)
    assert session.run(data)["supertokens"].shape[1] == 2
    assert session.run(data, budget=2)["supertokens"].shape[1] == 2
    with pytest.raises(InputError, match="budget 1: the graph runs with 2 supertokens"):
        session.run(data, budget=1)


@pytest.mark.parametrize("budget", [*BUDGETS, None])
def test_the_perceiver_runs_at_the_budget_that_is_asked_for(tiny_model, budget, monkeypatch):
    perceiver = Perceiver(tiny_model, budget=budget)
    seen, run = [], perceiver.session.run
    monkeypatch.setattr(perceiver.session, "run", lambda *arguments: (seen.append(arguments[2]), run(*arguments))[1])
    perceiver.classify([np.random.default_rng(0).normal(size=(50, 3))])
    assert seen == [budget or SUPERTOKENS] and perceiver.budget == seen[0]


def test_the_perceiver_refuses_other_budgets(tiny_model):
    with pytest.raises(InputError, match="budget: 3: tiny runs with 1, 2, 4 supertokens"):
        Perceiver(tiny_model, budget=3)


def test_a_deadline_is_kept_with_objects_left_unknown(tiny_model):
    cloud = Cloud.from_points(street())
    relaxed = Perceiver(tiny_model, PerceiverConfig(deadline_ms=60_000))
    relaxed.warm_up()
    answer = relaxed.perceive(cloud)
    assert len(answer.budgets) == len(answer.objects) and max(answer.budgets) == 4 and 0 not in answer.budgets
    hasty = Perceiver(tiny_model, PerceiverConfig(deadline_ms=1e-3))
    answer = hasty.perceive(cloud)
    assert answer.budgets == [1] + [0] * (len(answer.objects) - 1) and len(answer.objects) > 1
    assert all(item.prediction.unknown and item.prediction.probability == 0 for item in answer.objects[1:])
    last = len(answer.objects) - 1
    turned = hasty.name(hasty.find(cloud), 0.0, order=[last, *range(last)])
    assert turned.budgets == [0] * last + [4] and not turned.objects[last].prediction.unknown
    capped = Perceiver(tiny_model, PerceiverConfig(deadline_ms=60_000), budget=2)
    assert max(capped.perceive(cloud).budgets) == 2


def test_after_the_warm_up_no_frame_has_to_measure_whatever_settings_come(tiny_model, monkeypatch):
    """The network answers the objects of a cloud once each, and no others."""
    cloud, perceiver = Cloud.from_points(street()), Perceiver(tiny_model)
    perceiver.warm_up()
    objects, run = [], perceiver.session.run

    def counted(inputs, *rest):
        objects.append(len(inputs["centers"]))
        return run(inputs, *rest)

    monkeypatch.setattr(perceiver.session, "run", counted)
    for deadline_ms, budget in ((60_000, None), (60_000, 2), (None, 1), (60_000, 4), (None, None)):
        perceiver.reconfigure(PerceiverConfig(deadline_ms=deadline_ms), budget)
        objects.clear()
        found = perceiver.name(perceiver.find(cloud), time.perf_counter(), due=lambda: math.inf)
        assert sum(objects) == len(found.objects) > 0
        assert max(found.budgets) == (budget or (4 if deadline_ms else perceiver.card.budget))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_openvino_reads_what_export_wrote_in_a_process_of_its_own(tmp_path):
    """A plugin that crashes takes its process along; so every budget runs in another one."""
    pytest.importorskip("openvino")
    torch = pytest.importorskip("torch")
    from test_export import elastic

    from foundry_core.export.graph import example_inputs, perceive
    from foundry_core.models.registry import save_model

    network, card = elastic()
    save_model(tmp_path / "m", network, card)
    data = example_inputs(card, 2, seed=3)
    np.savez(tmp_path / "in.npz", **data)
    code = """
import sys
import numpy as np
from foundry_core.export.write import export_model
from foundry_core.runtime.session import open_session
folder, precision = sys.argv[1:]
export_model(f"{folder}/m", "openvino", precision)
session = open_session(f"{folder}/m", "openvino", precision)
data = dict(np.load(f"{folder}/in.npz"))
for budget in session.budgets:
    np.savez(f"{folder}/{precision}-{budget}.npz", **session.run(data, budget=budget))
"""
    command = [sys.executable, "-c", code, str(tmp_path), "fp32"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"model.fp32.xml", "model.fp32.bin"} <= load_card(tmp_path / "m").files.keys()
    for budget in card.budgets:
        with torch.no_grad():
            expected = perceive(network, list(map(torch.from_numpy, data.values())), budget)
        with np.load(tmp_path / f"fp32-{budget}.npz") as found:
            for name in found.files:
                assert np.abs(found[name] - expected[name].numpy()).max() < 1e-4, (name, budget)
