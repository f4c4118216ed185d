# SPDX-License-Identifier: Apache-2.0
"""The model that distill_trainer has saved: a copy that is there whole, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from foundry_core.card import ModelCard, load_card
from foundry_core.files import replace_folder


def save_copy(model: Path, target: Path) -> ModelCard:
    """Copy a finished model directory to ``target``: a reader finds the old one or the new one, never a part.

    One process saves there; what an earlier one left when it was killed is removed.

    Raises:
        InputError: the model is damaged; ``target`` stays as it was.
        OSError: it cannot be written.
    """
    for litter in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(litter, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        copy = Path(folder) / "new"
        shutil.copytree(model, copy, ignore=shutil.ignore_patterns(".*"))
        card = load_card(copy)  # hashes included
        replace_folder(copy, target, Path(folder) / "old")
    return card
