# SPDX-License-Identifier: Apache-2.0
"""`foundry teach`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foundry_core.cli.common import (
    DEFAULT_MODEL,
    Precision,
    PrecisionOption,
    Runtime,
    RuntimeOption,
    console,
    require_writable,
)
from foundry_core.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def teach(
        label: Annotated[str, typer.Argument(metavar="LABEL", help="name of the class; not one that the model has")],
        paths: Annotated[
            list[Path] | None, typer.Argument(metavar="CLOUD...", help=".ply .pcd .npy .npz .xyz .txt or .bin")
        ] = None,
        file: Annotated[Path, typer.Option(help="the teach file, .npz; made, or added to")] = Path("taught.npz"),
        model: Annotated[str, typer.Option(help="name of a shipped model, or the path of a model directory")] = (
            DEFAULT_MODEL
        ),
        forget: Annotated[bool, typer.Option("--forget", help="remove the class LABEL instead")] = False,
        runtime: RuntimeOption = Runtime.onnxruntime,
        precision: PrecisionOption = Precision.fp32,
    ) -> None:
        """Teach a model a class from a few examples, without training.

        Each cloud is one object, z up, as the sensor sees it: three to five views of the thing are enough. The examples
        stay in the file; `foundry predict --taught FILE` and the parameter teach_file of perception_node use it. It
        belongs to one model: another model refuses it. The model's own classes stay as they are.

        Example: foundry teach hydrant view1.ply view2.ply view3.ply --file taught.npz

        Example: foundry teach hydrant --file taught.npz --forget

        Example: foundry teach hydrant view1.ply --model edge-int8 --precision int8
        """
        from foundry_core.clouds import read_cloud, require_shape
        from foundry_core.head_card import fingerprint
        from foundry_core.runtime.perceiver import Perceiver, PerceiverConfig
        from foundry_core.runtime.teach import TaughtClasses, ordinary_objects

        if file.suffix != ".npz":
            raise InputError(f"{file}: taught classes are written as .npz; give --file a name that ends so")
        if bool(paths) == forget:
            raise InputError("--forget takes no clouds" if forget else f"label '{label}': give at least one cloud")
        require_writable(file, "--file", *(paths or []))
        perceiver = Perceiver(model, PerceiverConfig(runtime=runtime.value, precision=precision.value))
        fingerprint(perceiver.card)  # without one, the file would fit every model
        taught = TaughtClasses.load(file, perceiver.card) if file.exists() or forget else TaughtClasses(perceiver.card)
        if forget:
            console.print(taught.forget(label))
        else:
            taught.check_label(label)
            clouds = [require_shape(read_cloud(path), path).points for path in paths]
            for path, answer in zip(paths, perceiver.classify(clouds), strict=True):
                count = taught.add(label, answer.evidence.features, answer.probabilities.max())
                console.print(f"'{label}': exemplar {count}, {path.name}, so far {answer.label}")
            if not taught.ready:
                console.print("looking at ordinary objects, to tell them apart ...")
                taught.set_ordinary(ordinary_objects(perceiver))
        taught.save(file)
        listed = ", ".join(taught.labels) or "none"
        console.print(f"wrote {file}: {len(taught)} exemplars; classes: {listed}", soft_wrap=True)
