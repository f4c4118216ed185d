# SPDX-License-Identifier: Apache-2.0
"""One training in several processes (torchrun): who takes part, which rows are whose, and what they tell each other.

Every process holds the whole state and sees its share of each batch. After the backward pass gradients and logged
scalars are averaged in one exchange, so all processes take the same step. A wrapper such as DistributedDataParallel
would want ``module.forward``, which tasks do not call: they compute their losses from several parts of a module.
"""

from __future__ import annotations

import atexit
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foundry_core.errors import InputError
from foundry_core.models.parallel import rank, world

_PATIENCE = timedelta(hours=1)  # one process may prepare data while the others wait


@dataclass(frozen=True)
class Share:
    """The rows of each batch that one process sees, in ``accumulate`` micro-batches of ``size`` rows.

    Row ``j`` of step ``t`` is sample ``t * batch + j`` of the data, whoever sees it.
    """

    batch: int
    accumulate: int = 1
    rank: int = 0
    world: int = 1

    @classmethod
    def of_this_process(cls, batch: int, accumulate: int) -> Share:
        """The share of this process.

        Raises:
            InputError: the batch cannot be divided.
        """
        if batch % (accumulate * world()):
            raise InputError(
                f"loop.batch: {batch} is no multiple of {world()} processes x {accumulate} micro-batches; change it"
            )
        return cls(batch, accumulate, rank(), world())

    @property
    def size(self) -> int:
        """Rows of one micro-batch of this process."""
        return self.batch // (self.accumulate * self.world)

    def rows(self, micro: int) -> range:
        """Rows of the batch that are micro-batch ``micro`` of this process."""
        start = (micro * self.world + self.rank) * self.size
        return range(start, start + self.size)

    def samples(self, step: int) -> Iterator[list[int]]:
        """Endless micro-batches of sample numbers from the first one of ``step`` on."""
        while True:
            for micro in range(self.accumulate):
                yield [step * self.batch + row for row in self.rows(micro)]
            step += 1


def choose_device(wish: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The GPU of this process, where there is one and it is not refused; else the CPU.

    Raises:
        InputError: a GPU is asked for and there is none, or fewer than processes on this machine.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if wish == "cpu" or (wish == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if local >= torch.cuda.device_count():
        raise InputError(
            f"loop.device: {torch.cuda.device_count()} CUDA devices, this is process {local + 1} of the machine; "
            "start fewer processes, or set cpu"
        )
    return torch.device("cuda", local)


def _fresh(store: dist.Store, number: int, size: int) -> dist.Store:
    """A part of the store under a name that no earlier attempt used.

    torchrun hands its restarted processes the store of those that were lost, with their addresses in it, and its count
    of restarts is not the same on all machines. So the first process makes up a name, and answers whoever asks for it
    under a key that no process before has used.
    """
    own = uuid.uuid4().hex
    if number > 0:
        store.set(f"hello/{number}", own)
        store.wait([f"welcome/{own}"], _PATIENCE)
        name = store.get(f"welcome/{own}").decode()
        store.set(f"here/{name}/{number}", "")
        return dist.PrefixStore(name, store)
    deadline, missing = time.monotonic() + _PATIENCE.total_seconds(), set(range(1, size))
    while missing:
        for other in sorted(missing):
            if store.check([f"hello/{other}"]):  # perhaps of a lost one: its successor will ask too
                store.set(f"welcome/{store.get(f'hello/{other}').decode()}", own)
            if store.check([f"here/{own}/{other}"]):
                missing.discard(other)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(missing)} of {size} did not come")
        time.sleep(0.02)
    return dist.PrefixStore(own, store)


def join(wish: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Meet the other processes, if torchrun started this one, and choose the device; may be called again.

    They talk through NCCL between GPUs and through gloo between CPUs.
    """
    device = choose_device(wish)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        store, number, size = next(dist.rendezvous("env://", timeout=_PATIENCE))
        store = _fresh(store, number, size)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=_PATIENCE)
        atexit.register(lambda: dist.is_initialized() and dist.destroy_process_group())
    return device


def average(module: nn.Module, scalars: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean over the processes: of the gradients of ``module``, in place, and of ``scalars``, returned."""
    if world() == 1:
        return scalars
    parameters = [p for p in module.parameters() if p.requires_grad]
    present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32)
    gradients = [p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters]
    device = parameters[0].device
    values = torch.stack([value.detach().float() for value in scalars.values()])
    flat = torch.cat([*gradients, present.to(device), values.to(device)])
    dist.all_reduce(flat)
    sizes = [*(p.numel() for p in parameters), len(parameters), len(values)]
    *means, present, values = (flat / world()).split(sizes)
    for parameter, mean, seen in zip(parameters, means, present.tolist(), strict=True):
        parameter.grad = mean.view_as(parameter) if seen else None  # unused in every process: left alone, as by one
    return dict(zip(scalars, values, strict=True))


def agree(elapsed: float, stop: bool, device: torch.device) -> tuple[float, bool]:
    """The first process's seconds, and whether any of them is to stop."""
    if world() == 1:
        return elapsed, stop
    told = torch.tensor([elapsed if rank() == 0 else 0.0, float(stop)], dtype=torch.float64, device=device)
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return float(told[0]), bool(told[1])


def from_first(value: Any) -> Any:
    """What the first process passed."""
    if world() == 1:
        return value
    values = [value if rank() == 0 else None]
    dist.broadcast_object_list(values)
    return values[0]


@contextmanager
def together() -> Iterator[None]:
    """The block ends when every process has finished it."""
    yield
    if world() > 1:
        dist.barrier()


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process runs the block before the others do: they find what it left on the disk."""
    if world() > 1 and rank() > 0:
        dist.barrier()
    yield
    if world() > 1 and rank() == 0:
        dist.barrier()
