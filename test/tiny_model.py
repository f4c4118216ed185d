# SPDX-License-Identifier: Apache-2.0
"""A model directory of a few kilobytes whose answers are known: tall things are poles, the others are boxes.

The graph has the inputs and outputs of an exported student with heads. With z the height in the unit sphere, the class
is ``pole`` when some point lies above 0.8, else ``box``; a point's part is ``top`` for z > 0, else ``bottom``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from foundry_core.architecture import Architecture, EncoderConfig, Preprocessing, SupertokenConfig
from foundry_core.card import GRAPH_FILE, Heads, ModelCard, ObjectHead, PartHead, write_card

CLASSES = ["box", "pole"]
PARTS = ["bottom", "top"]
WIDTH, SUPERTOKENS, BUDGETS = 6, 4, [1, 2, 4]
PREPROCESSING = Preprocessing(points=256, groups=16, neighbors=8)


def write_tiny_model(directory: str | Path, unknown_threshold: float = 0.0, sharpness: float = 20.0) -> Path:
    """Write the model into a new directory and return it; ``sharpness`` scales the logits, 0 makes classes equal."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(_graph(sharpness), directory / GRAPH_FILE)
    card = ModelCard(
        name=directory.name,
        kind="student",
        description="answers that tests can predict",
        architecture=Architecture(
            encoder=EncoderConfig(width=WIDTH, depth=1, heads=1), supertokens=SupertokenConfig(count=SUPERTOKENS)
        ),
        preprocessing=PREPROCESSING,
        budgets=BUDGETS,
        heads=Heads(
            objects=ObjectHead(classes=CLASSES, unknown_threshold=unknown_threshold),
            parts=PartHead(parts=PARTS, class_parts={"box": PARTS, "pole": PARTS}),
        ),
    )
    write_card(directory, card)
    return directory


def _graph(sharpness: float) -> onnx.ModelProto:
    groups, neighbors, points = PREPROCESSING.groups, PREPROCESSING.neighbors, PREPROCESSING.points

    def tensor(name: str, *shape: int | str, kind: int = TensorProto.FLOAT):
        return helper.make_tensor_value_info(name, kind, ["B", *shape])

    inputs = [
        tensor("centers", groups, 3),
        tensor("neighborhoods", groups, neighbors, 3),
        tensor("points", points, 3),
        tensor("interpolation_index", points, 3, kind=TensorProto.INT64),
        tensor("interpolation_weight", points, 3),
        helper.make_tensor_value_info("budget", TensorProto.INT64, []),
    ]
    outputs = [
        tensor("tokens", groups, WIDTH),
        tensor("supertokens", "s", WIDTH),
        tensor("class_logits", len(CLASSES)),
        tensor("part_logits", points, len(PARTS)),
    ]
    sign = np.array([-1.0, 1.0], np.float32)
    constants = {
        "axis_points": np.array([1], np.int64),
        "axis_neighbors": np.array([2], np.int64),
        "first": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "to_height": np.array([[0.0], [0.0], [1.0]], np.float32),  # (3, 1)
        "tall": np.array([0.8], np.float32),
        "class_sign": sign[None] * np.float32(sharpness),  # (1, 2)
        "part_sign": sign[None] * np.float32(sharpness),
        "zero": np.array(0.0, np.float32),
    }
    node = helper.make_node
    nodes = [
        node("ReduceMax", ["neighborhoods"], ["spread"], axes=[2], keepdims=0),  # (B, G, 3)
        node("Concat", ["centers", "spread"], ["tokens"], axis=2),  # (B, G, 6)
        node("Reshape", ["budget", "one"], ["last"]),
        node("Slice", ["tokens", "first", "last", "axis_points"], ["supertokens"]),
        node("MatMul", ["points", "to_height"], ["height"]),  # (B, N, 1)
        node("ReduceMax", ["height"], ["summit"], axes=[1], keepdims=0),  # (B, 1)
        node("Sub", ["summit", "tall"], ["excess"]),
        node("MatMul", ["excess", "class_sign"], ["class_logits"]),  # (B, 2)
        # the interpolation inputs take part without effect, so that no optimiser removes them
        node("ReduceSum", ["interpolation_weight", "axis_neighbors"], ["weights"], keepdims=1),  # (B, N, 1)
        node("Cast", ["interpolation_index"], ["index"], to=TensorProto.FLOAT),
        node("ReduceSum", ["index", "axis_neighbors"], ["indices"], keepdims=1),
        node("Add", ["weights", "indices"], ["both"]),
        node("Mul", ["both", "zero"], ["nothing"]),
        node("Add", ["height", "nothing"], ["used_height"]),
        node("MatMul", ["used_height", "part_sign"], ["part_logits"]),  # (B, N, 2)
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    helper.set_model_props(model, {"foundry.budgets": str(BUDGETS)})
    onnx.checker.check_model(model)
    return model
