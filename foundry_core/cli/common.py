# SPDX-License-Identifier: Apache-2.0
"""What the commands share: consoles, output files, and the check for torch."""

from __future__ import annotations

import importlib.util
import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from foundry_core.allocator import keep_freed_memory
from foundry_core.errors import InputError
from foundry_core.files import require_writable as require_writable
from foundry_core.files import write_atomically
from foundry_core.schema import MAX_SEED

#: file names are printed as they are: brackets are no markup, colons no emoji
console = Console(markup=False, emoji=False)
error_console = Console(stderr=True, markup=False, emoji=False)


class Runtime(str, Enum):
    """What runs a graph."""

    onnxruntime = "onnxruntime"
    openvino = "openvino"


class Precision(str, Enum):
    """Of a graph."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


RuntimeOption = Annotated[
    Runtime, typer.Option(help="what runs the network; openvino: pip install 'foundry_ros\\[openvino]'")
]
PrecisionOption = Annotated[
    Precision, typer.Option(help="int8 needs a graph that `foundry export` wrote; bf16 needs openvino")
]

#: of the commands that learn from a shape set before they judge
TrainOption = Annotated[
    Path | None, typer.Option(help="learn from this set's train split, or all of it, not from that of --data")
]

#: of the commands that repeat a measurement
FirstSeed = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="first seed")]

#: the model that a command takes when none is named
DEFAULT_MODEL = "foundry-edge"


def print_table(table: Table, least: int = 0) -> None:
    """Print a table, ``least`` columns wide or more; in a file or a pipe, which have no width, as its longest row."""
    if console.is_terminal:
        wanted = least
    else:
        wanted = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    Console(markup=False, emoji=False, width=max(wanted, console.width)).print(table)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as JSON, under a temporary name first."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # a file name that is no UTF-8 holds surrogates; escaped with a backslash they are JSON, and come back as read
    write_atomically(path, text.encode(errors="backslashreplace"))


def require_picture(path: Path | None, option: str, *inputs: Path | None) -> None:
    """As :func:`require_writable`, for a picture."""
    if path is not None and path.suffix.lower() != ".png":
        raise InputError(f"{path}: pictures are written as .png; give {option} a name that ends so")
    require_writable(path, option, *inputs)


def require_torch(command: str) -> None:
    """Raise the one line that says how to get torch, where it is missing; else make the allocator fit it."""
    if importlib.util.find_spec("torch") is None:
        raise InputError(f"foundry {command} needs torch: pip install 'foundry_ros[train]'")
    keep_freed_memory()


def prepare_torch(command: str, threads: int) -> None:
    """Check that torch is there, and give it and the linear algebra so many threads."""
    require_torch(command)
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)
