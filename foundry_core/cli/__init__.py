# SPDX-License-Identifier: Apache-2.0
"""The `foundry` command: one file for each group of commands."""
