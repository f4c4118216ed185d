# SPDX-License-Identifier: Apache-2.0
"""What a network must know of the other processes that train it: random rows and batch statistics are of all of them.

With one process everything here is what torch does by itself.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank() -> int:
    """Number of this process among those that train together; the first, 0, writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rand(
    rows: int, *shape: int, generator: torch.Generator | None = None, device: torch.device | None = None
) -> Tensor:
    """Uniform numbers [rows,*shape] for this process's rows of a batch, as one process would draw them for all of it.

    Every process must hold the same generator state, and gets its own rows of the same draw.
    """
    numbers = torch.rand(rows * world(), *shape, generator=generator, device=device)
    return numbers[rank() * rows : (rank() + 1) * rows]


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def gather(x: Tensor) -> Tensor:
    """The rows [B,...] of all processes [B*W,...], in their order; every process gives as many. Gradients pass."""
    if world() == 1:
        return x
    rows = torch.cat([x if number == rank() else torch.zeros_like(x) for number in range(world())])
    return _SumOverProcesses.apply(rows)


class SharedBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm1d whose statistics, in training, are those of the batches of all processes.

    torch's SyncBatchNorm is for GPUs only; this one runs wherever the processes can add tensors up. It takes float
    [N,C] or [N,C,L], N in training may differ between the processes.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world() == 1:
            return super().forward(x)
        own = x.float()
        dims = [0] if own.ndim == 2 else [0, 2]
        count = own.new_full((1,), own.numel() / own.shape[1])
        total = _SumOverProcesses.apply(torch.cat([own.sum(dim=dims), count]))
        mean, count = total[:-1] / total[-1], total[-1].detach()
        shape = [1, -1] + [1] * (own.ndim - 2)
        centered = own - mean.view(shape)
        # about the common mean: a difference of large squares would lose digits
        variance = _SumOverProcesses.apply(centered.square().sum(dim=dims)) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        out = centered * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def share_statistics(module: nn.Module) -> None:
    """From now on the batch norms of ``module`` take their statistics from all processes."""
    for part in module.modules():
        if type(part) is nn.BatchNorm1d:
            part.__class__ = SharedBatchNorm1d  # in place: other names of the part, and its state, stay as they are
        elif isinstance(part, nn.modules.batchnorm._BatchNorm) and not isinstance(part, SharedBatchNorm1d):
            raise NotImplementedError(f"{type(part).__name__} has no statistics over processes; use BatchNorm1d")
