# SPDX-License-Identifier: Apache-2.0
"""How many tokens token merging leaves after each block; torch-free, the benchmark counts products with it."""

from __future__ import annotations


def schedule(groups: int, supertokens: int, depth: int) -> list[int]:
    """Tokens left after each block: an even decline, no steeper at the end than halving, where that can be had."""
    left = [supertokens] * depth
    for block in range(depth - 2, -1, -1):
        even = groups - round((groups - supertokens) * (block + 1) / depth)
        left[block] = max(min(even, 2 * left[block + 1]), supertokens)
    return left
