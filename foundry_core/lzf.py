# SPDX-License-Identifier: Apache-2.0
"""LZF, the compression of binary_compressed PCD files (Marc Lehmann's liblzf format)."""

from __future__ import annotations

from foundry_core.kernels import jit


@jit
def decompress(source, out):
    """Decompress LZF blocks.

    Args:
        source: uint8 [n], the blocks.
        out: uint8 [m], is filled from the start.

    Returns:
        number of bytes written; -1 if the blocks are damaged or do not fit.
    """
    i, o, n, room = 0, 0, len(source), len(out)
    while i < n:
        control = int(source[i])
        i += 1
        if control < 32:  # a run of literals
            length = control + 1
            if i + length > n or o + length > room:
                return -1
            out[o : o + length] = source[i : i + length]
            i += length
            o += length
            continue
        length = control >> 5  # a copy from what is already there
        if length == 7:
            if i >= n:
                return -1
            length += int(source[i])
            i += 1
        if i >= n:
            return -1
        start = o - ((control & 31) << 8) - int(source[i]) - 1
        i += 1
        length += 2
        if start < 0 or o + length > room:
            return -1
        for k in range(length):
            out[o + k] = out[start + k]
        o += length
    return o
