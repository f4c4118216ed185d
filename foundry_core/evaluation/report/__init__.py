# SPDX-License-Identifier: Apache-2.0
"""The report: one self-contained page of results, latencies and pictures, made without torch (ownership needs it)."""
