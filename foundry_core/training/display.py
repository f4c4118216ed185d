# SPDX-License-Identifier: Apache-2.0
"""What a training shows of itself: a live table in a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import math
import time
from typing import Any

from rich import get_console
from rich.live import Live
from rich.table import Table
from rich.text import Text

PERIOD = 60  # s between two lines, where there is no terminal


def say(message: str) -> None:
    """Print a line as it is, above the live table, if there is one."""
    get_console().print(message, markup=False, emoji=False, highlight=False, soft_wrap=True)


class Display:
    """Shows the latest row of a run's log, as a context manager."""

    def __init__(self, title: str):
        self.title = title
        self._live = Live(refresh_per_second=1) if get_console().is_terminal else None
        self._said = -math.inf

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, row: dict[str, Any], done: float) -> None:
        """Show ``row``, which was logged when the share ``done`` (0 to 1) of the run was."""
        cells = {"done": f"{100 * done:.0f} %", **{key: _text(value) for key, value in row.items()}}
        if self._live:
            self._live.update(_table(self.title, cells))
        elif done >= 1.0 or time.monotonic() - self._said >= PERIOD:
            say(f"{self.title}: " + ", ".join(f"{key} {text}" for key, text in cells.items()))
            self._said = time.monotonic()


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _table(title: str, cells: dict[str, str]) -> Table:
    """A row for each figure: with a column for each, no terminal would be wide enough."""
    table = Table(title=Text(title), show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for key, text in cells.items():
        table.add_row(key, text)
    return table
