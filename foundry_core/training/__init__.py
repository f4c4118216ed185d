# SPDX-License-Identifier: Apache-2.0
"""Pre-training, distillation and heads: one loop, one task each (needs torch)."""
