# SPDX-License-Identifier: Apache-2.0
"""From a sweep to segments: crop, ground, clusters. numpy and numba only."""
