# SPDX-License-Identifier: Apache-2.0
"""`foundry head`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundry_core.cli.common import console, require_torch
from foundry_core.cli.train import Cache, Minutes, Out, Resume, run_folder
from foundry_core.errors import InputError
from foundry_core.schema import MAX_SEED, load_settings, parse, read_yaml

if TYPE_CHECKING:
    from foundry_core.head_card import HeadCard


def _settings(config: Path | None, given: dict[str, Any], seed: int | None):
    """The configuration of a transfer head: the file's, with what the command line gives in its place."""
    from foundry_core.training.config import TransferConfig

    values = read_yaml(config) if config else {}
    if not isinstance(values, dict):
        raise InputError(f"{config}: expected keys and values; see `foundry head --help`")
    values = {**values, **{key: value for key, value in given.items() if value is not None}}
    if "model" not in values:
        raise InputError("--model: missing; name the backbone, or give a --config that does")
    if seed is not None and isinstance(values.get("loop", {}), dict):
        values["loop"] = {**values.get("loop", {}), "seed": seed}
    return parse(TransferConfig, values, config or "foundry head")


def _report(card: HeadCard, folder: Path) -> None:
    metric, fit, unknown = card.metrics[0], card.calibration, card.unknown
    console.print(f"wrote {folder / card.name}", soft_wrap=True)
    console.print(
        f"on {fit.shapes} train shapes that it had not learned: {metric.name} {metric.value} {metric.unit}, "
        f"ECE {fit.ece_before:.3f}, with temperature {fit.temperature} {fit.ece_after:.3f}"
        + (f"; unknown above {unknown.score} {unknown.threshold:.3f}" if unknown else ""),
        soft_wrap=True,
    )
    if card.left_out:
        console.print(f"left out: {', '.join(card.left_out)}")
    if not card.training.keeps_features:
        console.print(
            f"wrote {folder / card.backbone.name}: the fine-tuned model; `foundry export --model` makes its graph"
        )


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def head(
        model: Annotated[str | None, typer.Option(help="name or path of the backbone; default: the config's")] = None,
        data: Annotated[Path | None, typer.Option(help="labelled shape set or folder, for a transfer head")] = None,
        kind: Annotated[str | None, typer.Option(help="linear (default), mlp, ncm (nearest mean) or parts")] = None,
        finetune: Annotated[bool, typer.Option("--finetune", help="train the backbone too, end to end")] = False,
        category: Annotated[bool, typer.Option("--category", help="tell a parts head the category of a shape")] = False,
        leave_out: Annotated[int | None, typer.Option(min=0, help="classes that the head is not shown")] = None,
        budget: Annotated[int | None, typer.Option(min=1, help="supertokens of a student; default: its own")] = None,
        seed: Annotated[
            int | None, typer.Option(min=0, max=MAX_SEED, help="of weights, folds, left-out classes")
        ] = None,
        config: Annotated[Path | None, typer.Option("--config", help="YAML configuration, see config/train")] = None,
        cache: Cache = Path("runs/cache"),
        minutes: Minutes = None,
        resume: Resume = None,
        out: Out = None,
    ) -> None:
        """Train a head on a model's features.

        With --data, a transfer head: classes or parts of a labelled shape set, learned from its train split on the
        frozen model (--finetune: with the model). It is a directory of its own that fits the model, its teacher and
        that teacher's students, calibrated on train shapes that it did not learn, with a threshold for what is of no
        class.
        `foundry predict --head` and `foundry evaluate head` use it. --config sets what the options do not.

        Without --data, --config trains the robot's object and part heads from simulated sensor views and sweeps, and
        writes a model directory that holds backbone and heads.

        Example: foundry head --model teacher-small --data shapes.npz --kind mlp --out runs/mlp

        Example: foundry head --config config/train/heads-base.yaml --model runs/foundry-base/foundry-base
        """
        require_torch("head")
        transfer = {
            "data": data,
            "kind": kind,
            "finetune": finetune or None,
            "category": category or None,
            "leave_out": leave_out,
            "budget": budget,
        }
        if data is None and (config is None or "data" not in (read_yaml(config) or {})):
            if config is None:
                raise InputError("head: give --model and --data for a transfer head, or --config for a robot's heads")
            if given := [key for key, value in {**transfer, "seed": seed}.items() if value is not None]:
                raise InputError(f"--{given[0].replace('_', '-')}: is for transfer heads; give --data, too")
            _robot_heads(config, model, cache, minutes, resume, out)
            return
        from foundry_core.training.transfer import train_transfer_head

        settings = _settings(config, {"model": model, **transfer}, seed)
        folder = run_folder(resume, out, settings.title)
        _report(train_transfer_head(settings, folder, minutes, str(config or ""), cache), folder)


def _robot_heads(
    config: Path, model: str | None, cache: Path, minutes: float | None, resume: Path | None, out: Path | None
) -> None:
    from foundry_core.training.config import HeadConfig
    from foundry_core.training.heads import train_heads

    settings = load_settings(config, HeadConfig)
    if model is not None:
        settings = settings.model_copy(update={"model": model})
    folder = run_folder(resume, out, settings.name)
    card = train_heads(settings, folder, minutes, str(config), cache)
    console.print(f"wrote {folder / card.name}: {', '.join(f'{m.name} {m.value} {m.unit}' for m in card.metrics)}")
