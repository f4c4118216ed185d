# SPDX-License-Identifier: Apache-2.0
"""`foundry pretrain`, `foundry distill` and `foundry ablate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from foundry_core.cli.common import console, require_torch
from foundry_core.errors import InputError
from foundry_core.schema import Settings, load_settings

Config = Annotated[Path, typer.Option("--config", help="YAML configuration, see config/train")]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0.01, help="train for this long, a cache not counted that is made first; the schedule is fitted to it"
    ),
]
Resume = Annotated[Path | None, typer.Option(help="folder of an earlier run to go on with")]
Out = Annotated[Path | None, typer.Option(help="folder of the run; default runs/<name>")]
Data = Annotated[
    list[str] | None,
    typer.Option(
        help="to train on too: a shape set (.npz or folder), tar shards (path or URL, 'shards-{000000..000127}.tar'), "
        "or a YAML list of them; may be repeated"
    ),
]
Cache = Annotated[Path, typer.Option(help="folder of what is computed once and kept: teacher features, sightings")]
DataRoot = Annotated[Path, typer.Option(help="where relative paths of a YAML list start")]


def data_sets(data: list[str] | None, root: Path) -> dict[str, list]:
    """The shape sets and shards that ``--data`` names, as the keys ``files`` and ``shards`` of a stream."""
    from foundry_core.data.shards import ShardSet
    from foundry_core.data.stream import ShapeFile

    class DataSets(Settings):
        """A YAML list of shape sets and shards."""

        files: list[ShapeFile] = []
        shards: list[ShardSet] = []

    files: list[ShapeFile] = []
    shards: list[ShardSet] = []
    for name in data or []:
        if "://" in name or name.endswith((".tar", ".tar.gz", ".tgz")):
            shards.append(ShardSet(urls=name))
        elif name.endswith((".yaml", ".yml")):
            listed = load_settings(name, DataSets)
            if not (listed.files or listed.shards):
                raise InputError(f"{name}: lists neither files nor shards; name some, or leave --data out")
            files += [file.model_copy(update={"path": root / file.path}) for file in listed.files]
            shards += [
                each if "://" in each.urls else each.model_copy(update={"urls": str(root / each.urls)})
                for each in listed.shards
            ]
        else:
            files.append(ShapeFile(path=Path(name)))
    return {key: sets for key, sets in (("files", files), ("shards", shards)) if sets}


def _with_data(config, data: list[str] | None, root: Path):
    sets = data_sets(data, root)
    if not sets:
        return config
    joined = {key: [*getattr(config.data, key), *values] for key, values in sets.items()}
    return config.model_copy(update={"data": config.data.model_copy(update=joined)})


def _restarted() -> bool:
    """Whether torchrun started these processes again: the command line is the first one's, the run goes on."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _say(text: str) -> None:
    """Print in the first of several processes."""
    if os.environ.get("RANK", "0") == "0":
        console.print(text)


def run_folder(resume: Path | None, out: Path | None, name: str) -> Path:
    if name in ("", ".", "..") or Path(name).name != name:  # the model is written to a folder of this name
        raise InputError(f"name: '{name}' in the configuration is no folder name; use letters, digits and dashes")
    if resume is not None:
        if out is not None and out != resume:
            raise InputError("--resume and --out name different folders; give one of them")
        # under torchrun --resume names the run, new or not: whoever joins it later gives the same command
        if not (resume / "checkpoint.pt").is_file() and "TORCHELASTIC_RUN_ID" not in os.environ:
            raise InputError(f"{resume}: holds no checkpoint.pt; start a new run with --out")
        return resume
    folder = out or Path("runs") / name
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder to --out")
    if (folder / "checkpoint.pt").exists() and not _restarted():
        raise InputError(
            f"{folder}: holds a run already; give the same command with --resume {folder}, or choose another --out"
        )
    return folder


def register(app: typer.Typer) -> None:
    """Add the commands."""

    @app.command()
    def pretrain(
        config: Config,
        data: Data = None,
        data_root: DataRoot = Path(),
        minutes: Minutes = None,
        resume: Resume = None,
        out: Out = None,
        probe: Annotated[
            list[Path] | None,
            typer.Option(help="labelled shape set .npz whose train split, in part, a linear probe reads on the way"),
        ] = None,
        probe_every: Annotated[int, typer.Option(min=1, help="steps between probes")] = 2000,
        cost: Annotated[bool, typer.Option("--cost", help="print what a sample costs, and train nothing")] = False,
    ) -> None:
        """Pre-train a teacher without labels: masked autoencoding, point2vec or Point-JEPA.

        The folder of the run gets log.jsonl and curves.png of it. docs/pretraining.md says more.

        Example: foundry pretrain --config config/train/teacher-small.yaml --minutes 2
        """
        require_torch("pretrain")
        from foundry_core.training.config import PretrainConfig
        from foundry_core.training.cost import flops_per_sample
        from foundry_core.training.pretrain import pretrain as run

        settings = _with_data(load_settings(config, PretrainConfig), data, data_root)
        if cost:
            console.print(f"{settings.name}: {flops_per_sample(settings) / 1e9:.3f} GFLOP per sample")
            return
        folder = run_folder(resume, out, settings.name)
        card = run(settings, folder, minutes, str(config), probe or (), probe_every)
        _say(f"wrote {folder / card.name}: {card.parameters:,} parameters")

    @app.command()
    def distill(
        config: Config,
        data: Data = None,
        data_root: DataRoot = Path(),
        teacher: Annotated[str | None, typer.Option(help="name or path of the teacher; default: the config's")] = None,
        cache: Cache = Path("runs/cache"),
        fresh: Annotated[bool, typer.Option("--fresh", help="no cache: endless new clouds, slower steps")] = False,
        held_out: Annotated[
            Path | None, typer.Option(help="shape set on whose test split fidelity is measured on the way")
        ] = None,
        measure_every: Annotated[int, typer.Option(min=1, help="steps between these measurements")] = 500,
        minutes: Minutes = None,
        resume: Resume = None,
        out: Out = None,
    ) -> None:
        """Distil a SuperToken student from a teacher, on unlabelled shapes.

        Example: foundry distill --config config/train/foundry-base.yaml --minutes 20
        """
        require_torch("distill")
        from foundry_core.training.config import DistillConfig
        from foundry_core.training.distill import distill as run

        settings = _with_data(load_settings(config, DistillConfig), data, data_root)
        if teacher is not None:
            settings = settings.model_copy(update={"teacher": teacher})
        if fresh:
            settings = settings.model_copy(update={"cache": 0})
        folder = run_folder(resume, out, settings.name)
        card = run(settings, folder, minutes, str(config), cache, held_out, measure_every)
        _say(f"wrote {folder / card.name}: {card.parameters:,} parameters")

    @app.command()
    def ablate(
        config: Config,
        data: Data = None,
        data_root: DataRoot = Path(),
        cache: Cache = Path("runs/cache"),
        steps: Annotated[int | None, typer.Option(min=1, help="steps of every model; default: the config's")] = None,
        seeds: Annotated[int, typer.Option(min=1, help="trainings of every model, each with a seed of its own")] = 1,
        row: Annotated[
            list[str] | None,
            typer.Option(help="train these alone; may be repeated. Of the second seed: NAME-seed1. Default: all"),
        ] = None,
        out: Annotated[Path, typer.Option(help="folder of the runs")] = Path("runs/ablations"),
    ) -> None:
        """Train students, or teachers, that differ in one choice each, with equal steps or equal compute.

        What is trained already is kept, so the command may be stopped and repeated; with another configuration a row
        needs another --out. `foundry evaluate fidelity` then compares students, `foundry evaluate probe` teachers.

        Example: foundry ablate --config config/train/ablations/students.yaml
        """
        require_torch("ablate")
        from foundry_core.training.ablation import ablate as run
        from foundry_core.training.ablation import chosen, configurations, with_seeds

        sets = data_sets(data, data_root)
        named = {key: [each.model_dump(mode="json") for each in values] for key, values in sets.items()}
        configs = configurations(config, {"data": named} if named else None, steps)
        rows = chosen(with_seeds(configs, seeds), row or [], str(config))
        for directory in run(rows, out, str(config), cache):
            _say(str(directory))
