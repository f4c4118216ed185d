# SPDX-License-Identifier: Apache-2.0
"""Perception beside a training: what distill_trainer costs it."""
