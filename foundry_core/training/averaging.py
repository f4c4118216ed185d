# SPDX-License-Identifier: Apache-2.0
"""Averaged weights: an exponential moving average over the steps (Polyak and Juditsky, 1992, in its usual form)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AveragedWeights:
    """Moving average of everything in a module's state: weights, and batch norm's running statistics with them.

    Args:
        decay: share of the average that stays at each step; less in the first steps, (1 + t) / (10 + t), so that the
            random initialisation is soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.state = {key: value.detach().clone() for key, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after ``step`` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)

    @contextmanager
    def instead(self, module: nn.Module) -> Iterator[None]:
        """Inside, the module holds the average in the place of its own weights."""
        own = {key: value.clone() for key, value in module.state_dict().items()}
        module.load_state_dict(self.state)
        try:
            yield
        finally:
            module.load_state_dict(own)

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's average.

        Raises:
            KeyError, RuntimeError: it is of another module.
        """
        for key, value in self.state.items():
            value.copy_(state[key])
