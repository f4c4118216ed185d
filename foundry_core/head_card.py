# SPDX-License-Identifier: Apache-2.0
"""The transfer head: a directory of its own, ``head.safetensors`` and ``head.json``, that names its backbone.

A head reads token features. Those of a student are its teacher's, rebuilt, so a head fits every model of one family:
the teacher and what was distilled from it. What a head cannot read is refused before it answers. Torch-free.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from foundry_core.card import CARD_FILE, GRAPH_FILE, WEIGHTS_FILE, Metric, ModelCard, Training, sha256
from foundry_core.errors import InputError
from foundry_core.files import write_atomically
from foundry_core.schema import Settings, parse

HEAD_CARD = "head.json"
HEAD_WEIGHTS = "head.safetensors"

Kind = Literal["linear", "mlp", "parts", "ncm"]


def fingerprint(card: ModelCard) -> str:
    """SHA-256 of a model's weights (of its graph, where the directory neither has them nor names them).

    Raises:
        InputError: the card has none of these.
    """
    found = card.files.get(WEIGHTS_FILE) or card.weights_sha256 or card.files.get(GRAPH_FILE)
    if not found:
        raise InputError(
            f"{card.name}: its {CARD_FILE} does not say which weights its graphs are of; write the directory anew with "
            f"`foundry export --model MODEL --out DIR`"
        )
    return found


def family(card: ModelCard) -> str:
    """SHA-256 of the weights whose token features this model gives, its own or, rebuilt, those of its first teacher.

    A fine-tuned model's features are its own: it begins a family.
    """
    found = fingerprint(card)
    for run in reversed(card.training):
        if not run.keeps_features:
            break
        found = run.parent_sha256 or found
    return found


class Backbone(Settings):
    """The model that a head was trained on."""

    name: str
    sha256: str = Field(description="of its weights")
    family: str = Field(description="SHA-256 of the weights of its teacher; its own, if it is one")
    budget: int | None = Field(None, description="supertokens that the head was trained with")

    @classmethod
    def of(cls, card: ModelCard, budget: int | None) -> Backbone:
        """The reference to a model."""
        return cls(name=card.name, sha256=fingerprint(card), family=family(card), budget=budget)


class Calibration(Settings):
    """Temperature, fitted on train shapes that the judging network had not learned from.

    The errors are expected calibration errors (15 bins of equal width) on those shapes; each half of them is judged
    with the temperature that the other half asks for.
    """

    temperature: float = Field(gt=0, description="divides the logits")
    shapes: int = Field(description="train shapes that it was fitted on")
    ece_before: float = Field(ge=0, le=1, description="with temperature 1")
    ece_after: float = Field(ge=0, le=1)


class Unknown(Settings):
    """When the answer of a classification head is ``unknown``."""

    score: Literal["energy", "distance"] = Field(
        description="energy: minus the log of the summed exponentials of the logits (Liu et al., 2020); distance: one "
        "minus the mean cosine to the nearest three of the exemplars, in whitened features"
    )
    exemplars: int = Field(0, ge=0, description="train shapes that distances are measured to")
    threshold: float = Field(description="scores above it are unknown")
    rejected: float = Field(ge=0, lt=1, description="share of known, unseen train shapes above it")


class HeadCard(Settings):
    """``head.json``."""

    format: Literal[1] = 1
    name: str
    kind: Kind
    backbone: Backbone
    width: int = Field(ge=1, description="dimension of the token features that it reads")
    hidden: int | None = Field(None, ge=1, description="width of its own layers; none of a linear or ncm head")
    depths: list[int] = Field([], description="blocks of the teacher whose features it reads beside the last ones")
    supertokens: bool = Field(False, description="reads each token's supertokens beside the rebuilt features")
    classes: list[str] = Field([], description="what it tells apart; of a parts head: the categories of its shapes")
    left_out: list[str] = Field([], description="classes of the data that it was not shown")
    parts: list[str] = Field([], description="part names of a parts head")
    class_parts: dict[str, list[str]] = Field({}, description="category -> the parts that were seen on it")
    category: bool = Field(False, description="a parts head that is told the category")
    calibration: Calibration | None = None
    unknown: Unknown | None = None
    training: Training
    metrics: list[Metric] = []
    files: dict[str, str] = Field({}, description="file name -> SHA-256")

    @model_validator(mode="after")
    def _consistent(self) -> HeadCard:
        if self.kind == "parts" and not self.parts:
            raise ValueError("a parts head needs part names")
        if self.kind != "parts" and len(self.classes) < 2:
            raise ValueError("a classification head needs two classes or more")
        if self.kind in ("mlp", "parts") and self.hidden is None:
            raise ValueError(f"a head of kind {self.kind} needs `hidden`")
        if self.category and not self.classes:
            raise ValueError("a head that is told the category needs `classes`")
        return self

    @property
    def own_backbone_only(self) -> bool:
        """It reads what only its own backbone has: other depths, or supertokens."""
        return bool(self.depths) or self.supertokens

    def require_fit(self, model: ModelCard, directory: str | Path) -> None:
        """Raise InputError, naming the head's ``directory``, unless it reads what ``model`` gives."""
        ours, theirs = self.backbone, Backbone.of(model, None)
        if self.own_backbone_only and ours.sha256 != theirs.sha256:
            raise InputError(
                f"{directory}: reads inner features of {ours.name} ({ours.sha256[:12]}), which {model.name} lacks; "
                "give that model, or train a head without depths and supertokens"
            )
        if ours.family != theirs.family:
            raise InputError(
                f"{directory}: was trained on {ours.name} (family {ours.family[:12]}), and {model.name} is of family "
                f"{theirs.family[:12]}; give {ours.name}, its teacher or one of its students"
            )
        if not self.own_backbone_only and model.architecture.token_width != self.width:
            raise InputError(
                f"{directory}: reads features {self.width} wide, those of {model.name} are "
                f"{model.architecture.token_width} wide; restore the head"
            )


def load_head_card(directory: str | Path) -> HeadCard:
    """Read ``head.json`` and check the hash of every file that it names.

    Raises:
        InputError: no such directory, no card, an unknown key, a missing file or a wrong hash, by name.
    """
    directory = Path(directory)
    path = directory / HEAD_CARD
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{directory}: no head directory; it holds {HEAD_CARD} and {HEAD_WEIGHTS}, see `foundry head --help`"
        ) from None
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{path}: not valid JSON; restore the head directory") from None
    card = parse(HeadCard, values, path)
    if HEAD_WEIGHTS not in card.files or set(card.files) != {HEAD_WEIGHTS}:
        raise InputError(f"{path}: files: must name {HEAD_WEIGHTS} and nothing else; restore the head directory")
    file = directory / HEAD_WEIGHTS
    if not file.is_file():
        raise InputError(f"{file}: missing, though the card names it; restore the head directory")
    if sha256(file) != card.files[HEAD_WEIGHTS]:
        raise InputError(f"{file}: wrong SHA-256, the file is damaged or was replaced; restore the head directory")
    return card


def write_head_card(directory: str | Path, card: HeadCard) -> HeadCard:
    """Write the card, which seals the weights that are there; it comes last."""
    directory = Path(directory)
    card = card.model_copy(update={"files": {HEAD_WEIGHTS: sha256(directory / HEAD_WEIGHTS)}})
    text = json.dumps(card.model_dump(), indent=1, ensure_ascii=False) + "\n"
    write_atomically(directory / HEAD_CARD, text.encode())
    return card
