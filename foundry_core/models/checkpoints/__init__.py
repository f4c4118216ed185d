# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the original Point-MAE, point2vec and Point-JEPA code, read without running anything in them."""
