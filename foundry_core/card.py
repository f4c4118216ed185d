# SPDX-License-Identifier: Apache-2.0
"""The model directory and its card: everything that travels with the weights. Torch-free, used on the robot too.

A model directory holds ``model.safetensors``, ``card.json`` and, once exported, ``model.onnx``; the card names the
SHA-256 of each, so a torn or swapped file is found before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from foundry_core.architecture import Architecture, Preprocessing
from foundry_core.errors import InputError
from foundry_core.files import write_together
from foundry_core.schema import Settings, parse

CARD_FILE = "card.json"
WEIGHTS_FILE = "model.safetensors"
GRAPH_FILE = "model.onnx"
#: suffixes of the files that a card seals: weights, ONNX graphs, and OpenVINO's graphs and weights
SEALED = (".safetensors", ".onnx", ".xml", ".bin")


class SizeLikelihood(Settings):
    """How often a sensor sees each class at which size: a table over the diagonal of the box around the points seen."""

    edges_m: list[float] = Field(min_length=2, description="rising edges of the bins, metres; the end bins are open")
    density: dict[str, list[float]] = Field(description="class -> probability of each bin, none of them 0")
    weight: float = Field(1.0, ge=0, description="exponent of the likelihood; fitted on held-out training data")

    @model_validator(mode="after")
    def _consistent(self) -> SizeLikelihood:
        if any(high <= low for low, high in zip(self.edges_m, self.edges_m[1:], strict=False)):
            raise ValueError("edges_m must rise")
        for name, values in self.density.items():
            if len(values) != len(self.edges_m) - 1 or min(values) <= 0:
                raise ValueError(f"density of {name}: one positive value for each of the {len(self.edges_m) - 1} bins")
        return self


class ObjectHead(Settings):
    """Classification head: the class list may end with ``other``, trained on clutter, which counts as unknown."""

    classes: list[str]
    temperature: float = Field(1.0, gt=0, description="divides the logits; fitted on held-out training data")
    unknown_threshold: float = Field(0.0, ge=0, le=1, description="below this probability the answer is unknown")
    largest_m: dict[str, float] = Field(
        {}, description="class -> diagonal of its largest member, metres; a larger segment is not of that class"
    )
    sizes: SizeLikelihood | None = Field(None, description="how large each class is seen; the network sees no size")


class PartHead(Settings):
    """Part segmentation head over a vocabulary of part names shared by all classes."""

    parts: list[str]
    class_parts: dict[str, list[str]] = Field(description="class -> the parts that it can have")
    hidden: int = Field(192, ge=1, description="width of the head's layers, which run once for every point")


class Heads(Settings):
    """The heads that a model directory carries."""

    objects: ObjectHead | None = None
    parts: PartHead | None = None


class TrainingData(Settings):
    """One data set that the weights have seen."""

    name: str
    licence: str
    attribution: str = ""
    shapes: int | None = None


class Training(Settings):
    """How the weights came about."""

    task: str
    data: list[TrainingData]
    seed: int
    steps: int
    batch: int
    minutes: float
    config: str = Field("", description="the committed configuration file")
    parent: str = Field("", description="the model this one was distilled from or built upon")
    parent_sha256: str = ""
    keeps_features: bool = Field(True, description="token features are those of before, or rebuilt ones of the parent")


class Metric(Settings):
    """One measured figure, with all that is needed to read it."""

    name: str
    value: float
    unit: str
    data: str
    split: str
    note: str = ""


class ModelCard(Settings):
    """``card.json``."""

    format: Literal[1] = 1
    name: str
    kind: Literal["teacher", "student"]
    description: str = ""
    licence: str = "Apache-2.0"
    architecture: Architecture
    preprocessing: Preprocessing = Preprocessing()
    budgets: list[int] = Field([], description="supertoken counts that the student can run with; empty for a teacher")
    default_budget: int | None = Field(None, description="the one used where none is asked for; the largest if not set")
    heads: Heads = Heads()
    parameters: int = 0
    training: list[Training] = []
    metrics: list[Metric] = []
    files: dict[str, str] = Field({}, description="file name -> SHA-256")
    weights_sha256: str = Field("", description="of the weights that the graphs are of, where the directory has none")

    @model_validator(mode="after")
    def _default_is_a_budget(self) -> ModelCard:
        if self.default_budget is not None and self.default_budget not in self.budgets:
            raise ValueError(f"default_budget {self.default_budget} is none of the budgets {self.budgets}")
        return self

    @property
    def budget(self) -> int | None:
        """Supertokens that are used where no other number is asked for; None for a teacher."""
        return self.default_budget or max(self.budgets, default=None)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def load_card(directory: str | Path, verify: bool = True) -> ModelCard:
    """Read ``card.json`` of a model directory and, unless told otherwise, check the hash of every file it names.

    Raises:
        InputError: no such directory, no card, an unknown key, a missing file or a wrong hash, by name.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory}: no such model directory; `foundry models` lists the shipped ones")
    path = directory / CARD_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; a model directory holds {CARD_FILE} and {WEIGHTS_FILE}") from None
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{path}: not valid JSON; restore the model directory") from None
    card = parse(ModelCard, values, path)
    if verify:
        check_files(directory, card.files)
    return card


def check_files(directory: Path, files: Mapping[str, str]) -> None:
    """Raise InputError for a file (name -> SHA-256) of a model directory that is missing or has another hash."""
    for name, expected in files.items():
        file = directory / name
        if Path(name).name != name:
            raise InputError(
                f"{directory / CARD_FILE}: files: '{name}' is not a plain file name; restore the model directory"
            )
        if not file.is_file():
            raise InputError(f"{file}: missing, though the card names it; restore the model directory")
        if sha256(file) != expected:
            raise InputError(f"{file}: wrong SHA-256, the file is damaged or was replaced; restore the directory")


def write_card(directory: str | Path, card: ModelCard, new: Mapping[str, bytes] | None = None) -> ModelCard:
    """Write the card with the hashes of the directory's model files; it comes last, as the seal.

    Args:
        new: files to write with it, by name; the others keep the hashes that the card has of them, and nothing is
            replaced before all is on the disk. None: every model file is taken as it is there.
    """
    directory = Path(directory)
    if new is None:
        files = {path.name: sha256(path) for path in directory.iterdir() if path.suffix in SEALED and path.is_file()}
    else:
        files = card.files | {name: hashlib.sha256(data).hexdigest() for name, data in new.items()}
    card = card.model_copy(update={"files": dict(sorted(files.items()))})
    text = json.dumps(card.model_dump(), indent=1, ensure_ascii=False) + "\n"
    written = {directory / name: data for name, data in (new or {}).items()}
    write_together({directory / CARD_FILE: text.encode(), **written})
    return card


def graphs_in(directory: str | Path) -> list[str]:
    """Names of the exported graphs in a model directory."""
    return sorted(path.name for path in Path(directory).glob("model*") if path.suffix in (".onnx", ".xml"))


def share_directory() -> Path:
    """The folder that holds ``config``, ``launch`` and ``resource``: the checkout's, or the installed share folder."""
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "package.xml").is_file():
        return checkout
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    # pip puts data files under the environment's prefix, colcon under the workspace's, next to lib/python3.x
    prefixes += [Path(sys.prefix), *Path(__file__).resolve().parents[3:6]]
    for prefix in prefixes:
        share = prefix / "share" / "foundry_ros"
        if (share / "package.xml").is_file():
            return share
    raise InputError(
        "share/foundry_ros: not found beside the installed package; install foundry_ros with pip or colcon"
    )


def models_directory() -> Path:
    """The folder of the shipped models."""
    return share_directory() / "resource" / "models"


def find_model(name_or_path: str | Path) -> Path:
    """The directory of a shipped model by name, or of any model by path.

    Raises:
        InputError: neither a shipped name nor a directory with a card.
    """
    text = str(name_or_path)
    path = Path(text)
    if (path / CARD_FILE).is_file():
        return path
    if text and path.name == text and text not in (".", ".."):
        shipped = models_directory() / text
        if (shipped / CARD_FILE).is_file():
            return shipped
    names = ", ".join(sorted(card.parent.name for card in models_directory().glob(f"*/{CARD_FILE}"))) or "none"
    raise InputError(
        f"{text or '(empty model name)'}: neither a shipped model ({names}) nor a directory with a {CARD_FILE}"
    )


def list_models() -> list[ModelCard]:
    """Cards of the shipped models, by name; hashes are checked when a model is loaded."""
    return [load_card(path.parent, verify=False) for path in sorted(models_directory().glob(f"*/{CARD_FILE}"))]
