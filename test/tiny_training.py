# SPDX-License-Identifier: Apache-2.0
"""Trainings that last seconds: their settings, and what they leave."""

from __future__ import annotations

import json
from pathlib import Path

ARCHITECTURE = {
    "tokenizer": {"first": 8, "second": 16, "third": 16},
    "encoder": {"width": 24, "depth": 2, "heads": 3, "position_hidden": 8},
}
LOOP = {"steps": 60, "batch": 4, "precision": "fp32", "workers": 0, "learning_rate": 2e-3}
PRETRAIN = {
    "name": "tiny",
    "architecture": ARCHITECTURE,
    "preprocessing": {"points": 64, "groups": 8, "neighbors": 8},
    "objective": {"kind": "mae", "decoder_depth": 1},
    "loop": LOOP,
}


def log_losses(folder: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in map(json.loads, (folder / "log.jsonl").read_text().splitlines())}


def weights(folder: Path) -> dict:
    from foundry_core.models.registry import load_model

    return load_model(folder)[0].state_dict()
