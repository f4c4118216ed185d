# SPDX-License-Identifier: Apache-2.0
"""What a training shows: every figure in a narrow terminal, and plain lines in a pipe."""

import io

from rich.console import Console

from foundry_core.training import display
from foundry_core.training.display import Display

ROW = {"step": 12_799, "seconds": 12_345.6, "samples_per_second": 101.2, "learning_rate": 1e-5, "loss": 0.12345}
ROW |= {f"figure_{number}": 0.5 for number in range(12)}


def shown(monkeypatch, terminal: bool, *progress: float) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80, height=60)
    monkeypatch.setattr("rich._console", console)
    with Display("distill [edge]") as view:
        for done in progress:
            view.show({**ROW, "step": round(1000 * done)}, done)
    display.say("wrote it")
    return console.file.getvalue()


def test_a_terminal_of_80_columns_shows_every_figure(monkeypatch):
    text = shown(monkeypatch, True, 0.5, 1.0)
    assert "distill [edge]" in text
    for key in ROW:
        assert key in text
    assert "1e-05" in text and "12346" in text and "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_pipe_gets_a_line_now_and_then_and_the_last_one(monkeypatch):
    lines = shown(monkeypatch, False, 0.1, 0.2, 0.3, 1.0).splitlines()
    assert [line.split(",")[0] for line in lines[:2]] == ["distill [edge]: done 10 %", "distill [edge]: done 100 %"]
    assert "learning_rate 1e-05" in lines[1] and "\x1b" not in lines[1]
    assert lines[2:] == ["wrote it"]
