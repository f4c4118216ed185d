# SPDX-License-Identifier: Apache-2.0
"""The assignment problem: rows and columns joined in pairs at least total cost."""

from __future__ import annotations

import numpy as np

from foundry_core.kernels import jit


@jit
def _solve(cost, row_of):
    # shortest augmenting paths with potentials (Jonker and Volgenant, 1987), rows <= columns; index 0 of a column array
    # stands for the row that is being placed
    rows, columns = cost.shape
    u, v = np.zeros(rows + 1), np.zeros(columns + 1)
    way = np.zeros(columns + 1, np.int64)
    for i in range(1, rows + 1):
        row_of[0] = i
        column = 0
        least = np.full(columns + 1, np.inf)
        used = np.zeros(columns + 1, np.bool_)
        while row_of[column] != 0:
            used[column] = True
            row, delta, following = row_of[column], np.inf, 0
            for j in range(1, columns + 1):
                if used[j]:
                    continue
                reduced = cost[row - 1, j - 1] - u[row] - v[j]
                if reduced < least[j]:
                    least[j], way[j] = reduced, column
                if least[j] < delta:
                    delta, following = least[j], j
            for j in range(columns + 1):
                if used[j]:
                    u[row_of[j]] += delta
                    v[j] -= delta
                else:
                    least[j] -= delta
            column = following
        while column != 0:
            previous = way[column]
            row_of[column] = row_of[previous]
            column = previous


def assign(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns int64 [min(R,C)] of the pairs of least total cost, for finite costs float64 [R,C]; rows rise."""
    cost = np.ascontiguousarray(cost, np.float64)
    if cost.shape[0] > cost.shape[1]:
        columns, rows = assign(cost.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    row_of = np.zeros(cost.shape[1] + 1, np.int64)
    if cost.size:
        _solve(cost, row_of)
    columns = np.flatnonzero(row_of[1:])
    rows = row_of[1:][columns] - 1
    order = np.argsort(rows)
    return rows[order], columns[order]


def warm_up() -> None:
    """Compile (or load from numba's cache) the kernel."""
    assign(np.zeros((1, 2)))
