# SPDX-License-Identifier: Apache-2.0
"""One colour per class and per part, the same in every picture and viewer."""

from __future__ import annotations

import colorsys

UNKNOWN = (0.62, 0.62, 0.66)


def class_color(index: int) -> tuple[float, float, float]:
    """RGB in 0..1 for a class or part id; neighbours in the vocabulary are far apart in hue, -1 is grey."""
    if index < 0:
        return UNKNOWN
    # golden-ratio steps around the hue circle, three alternating brightnesses
    hue = (index * 0.61803398875 + 0.02) % 1.0
    saturation, value = (0.85, 0.6, 0.95)[index % 3], (0.95, 1.0, 0.8)[index % 3]
    return colorsys.hsv_to_rgb(hue, saturation, value)
