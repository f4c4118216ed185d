# SPDX-License-Identifier: Apache-2.0
"""Mixed precision where it pays: without instructions for it, bfloat16 on a CPU is many times slower than float32."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch


@cache
def fast_bfloat16() -> bool:
    """Whether this CPU multiplies matrices in bfloat16 by instructions of its own."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def effective(
    precision: Literal["auto", "fp32", "bf16"] = "auto", device: torch.device | str = "cpu"
) -> Literal["fp32", "bf16"]:
    """What a wish comes to on ``device``."""
    if precision != "auto":
        return precision
    on_cpu = torch.device(device).type == "cpu"
    return (
        "bf16" if (fast_bfloat16() if on_cpu else torch.cuda.is_bf16_supported(including_emulation=False)) else "fp32"
    )


def mixed_precision(
    precision: Literal["auto", "fp32", "bf16"] = "auto", device: torch.device | str = "cpu"
) -> torch.autocast:
    """Context in which matrix products on ``device`` run in bfloat16, or in float32 as they are."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=effective(precision, device) == "bf16")
