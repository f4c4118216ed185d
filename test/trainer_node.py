# SPDX-License-Identifier: Apache-2.0
"""A running distill_trainer as a test sees it, and a teacher and a configuration that take seconds."""

from __future__ import annotations

from pathlib import Path

import yaml
from diagnostic_msgs.msg import DiagnosticArray
from observer import wait_for
from std_srvs.srv import Trigger

from foundry_core.architecture import Architecture, Preprocessing
from foundry_core.card import ModelCard
from foundry_core.models.heads import Perception
from foundry_core.models.registry import random_teacher, save_model
from foundry_ros import messages

ARCHITECTURE = {
    "tokenizer": {"first": 8, "second": 16, "third": 16},
    "encoder": {"width": 24, "depth": 1, "heads": 3, "position_hidden": 8},
}
PATIENCE = 120.0  # s; the machine may be busy


def write_teacher(folder: Path, **card) -> Path:
    """A model directory of a few kilobytes; ``card`` replaces entries of its card."""
    values = {
        "name": folder.name,
        "kind": "teacher",
        "architecture": Architecture(**ARCHITECTURE),
        "preprocessing": Preprocessing(points=64, groups=8, neighbors=8),
    }
    made = ModelCard(**values | card)
    save_model(folder, Perception(random_teacher(made, seed=0), 24), made)
    return folder


def write_config(path: Path, **loop) -> Path:
    loop = {"batch": 4, "precision": "fp32", "workers": 0, "learning_rate": 2e-3, "checkpoint_seconds": 1e6, **loop}
    values = {
        "name": "tiny-student",
        "teacher": "nobody",  # the node's parameter replaces it
        "architecture": {**ARCHITECTURE, "supertokens": {"count": 4}},
        "data": {"compositions": 0, "categories": 0.5},
        "loop": loop,
    }
    path.write_text(yaml.safe_dump(values))
    return path


class Trainer:
    """The node's services and its diagnostics."""

    def __init__(self, ros) -> None:
        self.ros = ros
        self.collected = ros.collect(DiagnosticArray, "/diagnostics")

    def call(self, name: str) -> Trigger.Response:
        return self.ros.call(Trigger, f"/distill_trainer/{name}", Trigger.Request(), PATIENCE)

    def figures(self) -> dict[str, str]:
        """The newest diagnostics."""
        found = [messages.read_diagnostics(message, "distill_trainer: training") for message in list(self.collected)]
        return next((values for values in reversed(found) if values), {})

    def wait(self, condition, what: str) -> dict[str, str]:
        """Diagnostics for which the condition holds."""

        def holds():
            figures = self.figures()
            return figures if figures and condition(figures) else None

        return wait_for(holds, PATIENCE, what)

    def fresh(self) -> dict[str, str]:
        """Diagnostics that were sent after this call."""
        self.collected.clear()
        return self.wait(lambda _: True, "diagnostics")
