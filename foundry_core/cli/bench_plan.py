# SPDX-License-Identifier: Apache-2.0
"""What `foundry bench` measures: the runtimes that are there, the models with the graphs they need, and the peers."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from foundry_core.cli.common import Precision, require_torch
from foundry_core.errors import InputError
from foundry_core.models.schedule import check_merging

if TYPE_CHECKING:
    from foundry_core.card import ModelCard
    from foundry_core.runtime.bench_worker import Spec

#: runtime -> precisions that it has on a CPU
FORMS = {
    "torch, as published": ("fp32",),
    "torch": ("fp32",),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "gemm": ("fp32",),
}
OUTPUTS = {
    "features": ("tokens",),
    "classes": ("class_logits",),
    "parts": ("class_logits", "part_logits"),
}
POINTNET = "pointnet"
POINT_MAE = "point-mae"

Form = tuple[str, str]


@dataclass(frozen=True)
class Candidate:
    """A model or a peer: its name, where it lies, and the budgets that it is measured with."""

    name: str
    directory: Path
    peer: str = ""
    budgets: tuple[int | None, ...] = (None,)
    card: ModelCard | None = None

    def runs(self, form: Form) -> bool:
        """Whether there is such a form of it."""
        if self.peer == POINT_MAE:
            return form[0] == "torch, as published"
        return not (self.peer and form[0] == "gemm")

    def has(self, outputs: tuple[str, ...]) -> bool:
        """Whether it has the heads for these outputs; the peers that classify do nothing else."""
        if self.card is None:
            return outputs == OUTPUTS["features"]
        heads = self.card.heads
        return not ("class_logits" in outputs and heads.objects is None) and not (
            "part_logits" in outputs and heads.parts is None
        )


def forms(chosen: list[str], precisions: list[str]) -> list[Form]:
    """(runtime, precision) pairs to measure: all that are installed, or those that the options name."""
    packages = {"torch": "torch", "openvino": "openvino", "gemm": "onnx"}
    missing = {name for name, package in packages.items() if importlib.util.find_spec(package) is None}
    if strange := sorted(set(precisions) - {item.value for item in Precision}):
        raise InputError(f"--precision {strange[0]}: unknown; use fp32, bf16 or int8")
    known = {runtime.split(",")[0] for runtime in FORMS}
    for name in chosen:
        if name not in known:
            raise InputError(f"--runtime {name}: unknown; use {', '.join(sorted(known))}")
        if name in missing:
            extra = "openvino" if name == "openvino" else "train"
            raise InputError(f"--runtime {name}: not installed: pip install 'foundry_ros[{extra}]'")
    usable = (set(chosen) or known) - missing
    found = [
        (runtime, form)
        for runtime, listed in FORMS.items()
        for form in listed
        if runtime.split(",")[0] in usable and form in (precisions or listed)
    ]
    if not found:
        which = f"--runtime {', '.join(chosen)} has" if chosen else "the runtimes that are installed have"
        raise InputError(f"--precision {', '.join(precisions)}: {which} no such form; take fp32, or another --runtime")
    return found


def check_outputs(names: Sequence[str]) -> None:
    """Raise InputError for a name that is none of :data:`OUTPUTS`."""
    for name in names:
        if name not in OUTPUTS:
            raise InputError(f"--outputs {name}: unknown; use {', '.join(OUTPUTS)}")


def graph_precisions(measured: Sequence[Form]) -> list[str]:
    """Of the forms that run a graph."""
    return sorted({precision for runtime, precision in measured if runtime in ("onnxruntime", "openvino")})


def architectures(names: Sequence[str], folder: Path, measured: Sequence[Form]) -> list[Candidate]:
    """Networks with random weights, written to ``folder``."""
    found = []
    for name in dict.fromkeys(names):
        require_torch("bench --architecture")
        from foundry_core.export.bench_peers import write_pointnet
        from foundry_core.export.bench_torch import ARCHITECTURES, write_random

        if name == POINTNET:
            write_pointnet(folder / name, graph_precisions(measured))
            found.append(Candidate(name, folder / name, POINTNET))
            continue
        if name not in ARCHITECTURES:
            raise InputError(f"--architecture {name}: unknown; use {', '.join([*ARCHITECTURES, POINTNET])}")
        for title, architecture in ARCHITECTURES[name].items():
            write_random(architecture, title, folder / title, graph_precisions(measured))
            found.append(_candidate(title, folder / title))
    return found


def models(names: Sequence[str], folder: Path, measured: Sequence[Form]) -> list[Candidate]:
    """Model directories, and teachers whose tokens merge (``tome:16:teacher-small``), with the graphs they need.

    Each directory once; those whose cards have one name are called as they are in ``names``.
    """
    from foundry_core.card import find_model

    found, directories = {}, set()
    for name in names:
        method, _, rest = name.partition(":")
        merged = bool(rest) and not Path(name).is_dir()
        place = name if merged else find_model(name).resolve()
        if place in directories:
            continue
        directories.add(place)
        found[name] = _merged(name, method, rest, folder, measured) if merged else _stored(place, folder, measured)
    count = Counter(item.name for item in found.values())
    return [item if count[item.name] == 1 else replace(item, name=name) for name, item in found.items()]


def _candidate(name: str, directory: Path) -> Candidate:
    from foundry_core.card import load_card

    card = load_card(directory, verify=False)
    return Candidate(name, directory, "", tuple(card.budgets) or (None,), card)


def _merged(name: str, method: str, rest: str, folder: Path, measured: Sequence[Form]) -> Candidate:
    from foundry_core.card import find_model, load_card

    count, _, teacher = rest.partition(":")
    if method != "tome" or not (count.isascii() and count.isdigit() and int(count)) or not teacher:
        raise InputError(f"{name}: what is timed is tome:NUMBER:TEACHER, such as tome:16:teacher-small")
    groups = load_card(find_model(teacher), verify=False).preprocessing.groups
    check_merging(name, teacher, groups, int(count))
    require_torch(f"bench --model {name}")
    from foundry_core.export.bench_peers import write_merged

    directory = Path(mkdtemp(dir=folder))
    card = write_merged(find_model(teacher), name, int(count), directory, graph_precisions(measured))
    return Candidate(name, directory, method, (int(count),), card)


def _stored(directory: Path, folder: Path, measured: Sequence[Form]) -> Candidate:
    from foundry_core.card import WEIGHTS_FILE, load_card
    from foundry_core.runtime.session import graph_files

    card = load_card(directory)
    missing = [
        precision
        for precision in graph_precisions(measured)
        if not any(
            (directory / file).is_file()
            for file in graph_files("openvino" if precision == "bf16" else "onnxruntime", precision)
        )
    ]
    weights = (directory / WEIGHTS_FILE).is_file()
    if missing and weights and importlib.util.find_spec("torch") is not None:
        from foundry_core.export.bench_torch import add_graphs

        source, directory = directory, Path(mkdtemp(dir=folder))
        add_graphs(source, directory, graph_precisions(measured))
    return _candidate(card.name, directory)


def point_mae(folder: Path) -> Candidate:
    """The original code from the user's checkout."""
    require_torch("bench --point-mae")
    from foundry_core.export.bench_point_mae import check_folder

    check_folder(folder)
    return Candidate(POINT_MAE, folder, POINT_MAE)


def specs(
    candidates: Sequence[Candidate],
    measured: Sequence[Form],
    outputs: list[str],
    threads: list[int],
    batches: list[int],
) -> list[Spec]:
    """Every configuration that there is; InputError, which names the option, where there is none."""
    from foundry_core.runtime.bench_worker import Spec

    found = []
    for item in candidates:
        for asked in outputs:
            if not item.has(OUTPUTS[asked]):
                continue
            found += [
                Spec(
                    item.name, str(item.directory), runtime, precision, budget, thread, batch, OUTPUTS[asked], item.peer
                )
                for batch in batches
                for thread in threads
                for budget in item.budgets
                for runtime, precision in measured
                if item.runs((runtime, precision))
            ]
    names = ", ".join(item.name for item in candidates)
    if not any(item.has(OUTPUTS[asked]) for item in candidates for asked in outputs):
        raise InputError(f"--outputs {', '.join(outputs)}: no such head: {names}; take features, or a model with heads")
    if not found:
        runtimes = ", ".join(sorted({runtime for runtime, _ in measured}))
        raise InputError(f"--runtime {runtimes}: runs none of {names}; leave the option out")
    return found


# -- scaling -----------------------------------------------------------------------------------------------------------

POINTS = (256, 512, 1024, 2048, 4096, 8192)
GROUPS = (16, 32, 64, 128, 256)
SEGMENTS = (1, 2, 4, 8, 16, 32, 64)
SWEEPS = (30_000, 120_000, 300_000)
AXES = ("points", "groups", "supertokens", "segments", "sweep")


def scaling_specs(
    candidates: Sequence[Candidate], measured: Sequence[Form], threads: int, folder: Path
) -> tuple[list[Spec], list[str]]:
    """Configurations along every axis, the others at what the model's card says; and what cannot be measured, if any.

    Each model at its own budget; with several forms every axis is measured in each of them.
    """
    from foundry_core.runtime.bench_worker import Spec
    from foundry_core.runtime.perceiver import PerceiverConfig

    found, left_out = [], []
    at_once = PerceiverConfig().max_batch
    if strange := [form for form in measured if form[0] not in ("onnxruntime", "openvino")]:
        raise InputError(f"--runtime {strange[0][0]}: scaling is measured with onnxruntime and openvino")
    torch = importlib.util.find_spec("torch") is not None
    for item in candidates:
        if item.peer:
            raise InputError(f"{item.name}: scaling is measured for models, not for peers")
        card, budget = item.card, item.card.budget
        places = {("points", value): _with_points(item, value, folder) for value in POINTS}
        if torch:
            places |= {("groups", value): _with_groups(item, value, folder, measured) for value in GROUPS}
        else:
            left_out.append(f"{item.name}: groups: other graphs are needed, which needs torch")
        for runtime, precision in measured:
            base = Spec(item.name, str(item.directory), runtime, precision, budget, threads, 1)
            found += [replace(base, directory=str(place), axis=axis, value=v) for (axis, v), place in places.items()]
            found += [replace(base, budget=s, axis="supertokens", value=s) for s in card.budgets]
            found += [replace(base, batch=n, at_once=at_once, axis="segments", value=n) for n in SEGMENTS]
            if card.heads.objects is not None:
                outputs = OUTPUTS["parts" if card.heads.parts else "classes"]
                found += [replace(base, outputs=outputs, sweep=n, axis="sweep", value=n) for n in SWEEPS]
        if card.heads.objects is None:
            left_out.append(f"{item.name}: sweep: it has no head for objects")
    order = {axis: number for number, axis in enumerate(AXES)}
    return sorted(found, key=lambda spec: order[spec.axis]), left_out


def _with_points(item: Candidate, points: int, folder: Path) -> Path:
    """A directory with the same graphs, whose clouds have so many points: token features do not depend on them."""
    from foundry_core.card import SEALED, write_card

    size = item.card.preprocessing.model_copy(update={"points": points})
    made = Path(mkdtemp(dir=folder))
    for file in item.directory.iterdir():
        if file.suffix in SEALED and file.suffix != ".safetensors":
            (made / file.name).symlink_to(file.resolve())
    write_card(made, item.card.model_copy(update={"preprocessing": size}))
    return made


def _with_groups(item: Candidate, groups: int, folder: Path, measured: Sequence[Form]) -> Path:
    from foundry_core.export.bench_torch import add_graphs

    if groups == item.card.preprocessing.groups:
        return item.directory
    made = Path(mkdtemp(dir=folder))
    add_graphs(item.directory, made, graph_precisions(measured), groups)
    return made
