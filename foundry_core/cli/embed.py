# SPDX-License-Identifier: Apache-2.0
"""`foundry embed`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundry_core.cli.common import (
    Precision,
    PrecisionOption,
    Runtime,
    RuntimeOption,
    console,
    error_console,
    require_writable,
)
from foundry_core.errors import InputError
from foundry_core.files import replacing

if TYPE_CHECKING:
    import numpy as np

    from foundry_core.card import ModelCard
    from foundry_core.data.shapes import ShapeSet
    from foundry_core.runtime.session import Session

BATCH = 16


def embed_shapes(
    session: Session, card: ModelCard, shapes: ShapeSet, tokens: bool, advance, budget: int | None = None
) -> dict[str, Any]:
    """Features of every shape.

    Args:
        tokens: also return the tokens.
        advance: called with the number of shapes done, after each batch.
        budget: supertokens of a student; by default the card's own choice.

    Returns:
        features float32 [N,2d], mean and max over the tokens; with ``tokens`` also tokens float32 [N,G,d], centers
        float32 [N,G,3] and, for a student, supertokens float32 [N,s,d].
    """
    import numpy as np

    from foundry_core import geometry

    size = card.preprocessing
    wanted = [name for name in ("tokens", "supertokens")[: 2 if tokens else 1] if name in session.outputs]
    columns: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(shapes), BATCH):
        chosen = shapes.points[start : start + BATCH]
        clouds = np.stack([geometry.prepare(points, size.points)[0] for points in chosen])  # (B, N, 3)
        centers, neighborhoods = geometry.group_batch(clouds, size.groups, size.neighbors)
        outputs = session.run({"centers": centers, "neighborhoods": neighborhoods}, wanted, budget)
        found = outputs["tokens"]  # (B, G, d)
        batch = {"features": np.concatenate([found.mean(axis=1), found.max(axis=1)], axis=1)}
        if tokens:
            batch |= {"centers": centers, **outputs}
        for key, value in batch.items():
            columns.setdefault(key, []).append(value.astype(np.float32, copy=False))
        advance(len(chosen))
    return {key: np.concatenate(values) for key, values in columns.items()}


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    import numpy as np

    with replacing(path) as stream:
        np.savez(stream, **arrays)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def embed(
        model: Annotated[str, typer.Option(help="name of a shipped model, or the path of a model directory")],
        data: Annotated[Path, typer.Option(help="shape set: .npz with points [N,P,3], or data set folder")],
        out: Annotated[Path, typer.Option(help="the .npz file to write")],
        budget: Annotated[int | None, typer.Option(min=1, help="supertokens of a student; default: its own")] = None,
        tokens: Annotated[bool, typer.Option("--tokens", help="write tokens and centres too")] = False,
        threads: Annotated[int, typer.Option(min=1, help="threads of the runtime")] = 1,
        runtime: RuntimeOption = Runtime.onnxruntime,
        precision: PrecisionOption = Precision.fp32,
    ) -> None:
        """Turn a shape set into feature vectors, without torch.

        The file gets features float32 [N,2d]: mean and max over the token features, which a student rebuilds from its
        supertokens, so that the width is the same for a teacher and its students. With --tokens also tokens [N,G,d],
        centers [N,G,3] and, for a student, supertokens [N,s,d]. Rows keep the order of the shape set.

        Example: foundry embed --model foundry-base --data shapes.npz --out features.npz

        Example: foundry embed --model edge-int8 --precision int8 --data shapes.npz --out features.npz
        """
        from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from foundry_core.card import find_model, load_card
        from foundry_core.data.shapes import load_shapes
        from foundry_core.runtime.session import check_budget, open_session

        if out.suffix != ".npz":
            raise InputError(f"{out}: features are written as .npz; give --out a name that ends so")
        require_writable(out, "--out", data)
        directory = find_model(model)
        card = load_card(directory)
        check_budget(card, budget, "--budget")
        shapes = load_shapes(data)
        session = open_session(directory, runtime.value, precision.value, threads, ["tokens"])
        session.check(card)
        columns = (
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TextColumn("shapes"),
            TimeRemainingColumn(),
        )
        quiet = not error_console.is_terminal
        with Progress(*columns, console=error_console, transient=True, disable=quiet) as progress:
            task = progress.add_task(f"embed with {card.name}", total=len(shapes))
            arrays = embed_shapes(session, card, shapes, tokens, lambda n: progress.advance(task, n), budget)
        _write(out, arrays)
        shown = ", ".join(f"{key} {list(value.shape)}" for key, value in arrays.items())
        console.print(f"wrote {out}: {shown}", soft_wrap=True)
