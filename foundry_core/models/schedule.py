# SPDX-License-Identifier: Apache-2.0
"""How many tokens token merging leaves, in the end and after each block; torch-free, the benchmark needs it."""

from __future__ import annotations

from foundry_core.errors import InputError


def check_merging(name: str, teacher: str, groups: int, supertokens: int) -> None:
    """Raise InputError where the baseline ``name`` would merge the ``groups`` tokens of its teacher to more of them."""
    if supertokens > groups:
        raise InputError(f"{name}: {teacher} has {groups} tokens; give a smaller number")


def schedule(groups: int, supertokens: int, depth: int) -> list[int]:
    """Tokens left after each block: an even decline, no steeper at the end than halving, where that can be had."""
    left = [supertokens] * depth
    for block in range(depth - 2, -1, -1):
        even = groups - round((groups - supertokens) * (block + 1) / depth)
        left[block] = max(min(even, 2 * left[block + 1]), supertokens)
    return left
