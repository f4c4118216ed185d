# SPDX-License-Identifier: Apache-2.0
"""A peer of the benchmark: a supervised PointNet-class specialist, which knows its classes and nothing else.

The classifier of Qi et al., PointNet, 2017, without its two alignment networks, written anew. Its weights are random:
it is here to be timed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from foundry_core.runtime.bench_worker import Run, Spec, Subject
from foundry_core.runtime.session import graph_files, session_options

POINTS, CLASSES = 1024, 40
SHARED = (3, 64, 64, 64, 128, 1024)  # widths of the layers that see each point alone
HEAD = (1024, 512, 256, CLASSES)  # of those after the maximum over the points


def parameters() -> int:
    """Weights and biases, batch norms folded in."""
    return sum(a * b + b for widths in (SHARED, HEAD) for a, b in zip(widths, widths[1:], strict=False))


def operations() -> int:
    """Multiply-accumulate operations for one cloud."""
    each = sum(a * b for a, b in zip(SHARED, SHARED[1:], strict=False))
    return POINTS * each + sum(a * b for a, b in zip(HEAD, HEAD[1:], strict=False))


def prepare(batch: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Clouds [n,3] as the network takes them: ``points`` [B,N,3] in the unit sphere."""
    from foundry_core import geometry

    return {"points": np.stack([geometry.prepare(cloud, POINTS)[0] for cloud in batch])}


def open_peer(spec: Spec) -> Subject:
    """The subject; graphs lie in the directory of the specification."""
    if spec.runtime.startswith("torch"):
        run = importlib.import_module("foundry_core.export.bench_peers").open_pointnet(spec)
    else:
        path = Path(spec.directory) / graph_files(spec.runtime, spec.precision)[-1]  # OpenVINO reads the ONNX file
        run = (_openvino if spec.runtime == "openvino" else _onnxruntime)(path, spec)
    return Subject(prepare, run, POINTS, parameters(), operations())


def _onnxruntime(path: Path, spec: Spec) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, session_options(spec.threads), providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))


def _openvino(path: Path, spec: Spec) -> Run:
    import openvino

    from foundry_core.runtime.openvino_session import properties

    core = openvino.Core()
    model = core.read_model(str(path))
    model.reshape([spec.batch, POINTS, 3])
    request = core.compile_model(model, "CPU", properties(spec.precision, spec.threads)).create_infer_request()

    def run(inputs: Mapping[str, np.ndarray]) -> None:
        request.infer({"points": inputs["points"]})

    return run
