# SPDX-License-Identifier: Apache-2.0
"""A function run by two processes that gloo joins."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path


def in_two_processes(function: Callable[[int, Path], dict], folder: Path) -> list[dict]:
    """What ``function(rank, folder)`` gives in either process."""
    import torch

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(2):
        child = os.fork()  # not a new interpreter: the import of torch is what takes long
        if not child:
            status = 1
            try:
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
                torch.distributed.init_process_group("gloo")
                torch.save(function(rank, folder), folder / f"{rank}.pt")
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]
