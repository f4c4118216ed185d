# SPDX-License-Identifier: Apache-2.0
"""The picture of a replay: latency over time with the frames that had no answer, and the latencies' histogram."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from foundry_core.files import write_atomically


def draw_replay(report: dict[str, Any], path: Path) -> None:
    """Write a PNG from the report of ``foundry replay``."""
    sent = np.array(report["timeline"]["sent_s"], float)
    latency = np.array(report["timeline"]["latency_ms"], float)  # NaN: no answer
    answered = np.isfinite(latency)
    figure = Figure(figsize=(10, 4), layout="constrained")
    over_time, histogram = figure.subplots(1, 2, width_ratios=(3, 1))
    over_time.plot(sent[answered], latency[answered], ".", color="tab:blue", label=f"{answered.sum()} answered")
    for moment in sent[~answered]:
        over_time.axvline(moment, color="tab:red", alpha=0.3, linewidth=1)
    over_time.plot([], [], color="tab:red", alpha=0.5, label=f"{(~answered).sum()} without an answer")
    over_time.set_xlabel("sent, s")
    over_time.set_ylabel("latency, ms")
    over_time.set_ylim(bottom=0)
    over_time.legend(loc="upper right")
    if answered.any():
        histogram.hist(latency[answered], bins=40, color="tab:blue")
        for key, style in (("p50", "-"), ("p95", "--")):
            value = report["latency_ms"][key]
            histogram.axvline(value, color="black", linestyle=style, linewidth=1, label=f"{key} {value:.1f} ms")
        histogram.legend()
    histogram.set_xlabel("latency, ms")
    histogram.set_ylabel("frames")
    for axes in (over_time, histogram):
        axes.grid(alpha=0.3)
    figure.suptitle(f"{report['model']}, budget {report['budget']}: {report['frames_sent']} frames sent")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    write_atomically(path, stream.getvalue())
