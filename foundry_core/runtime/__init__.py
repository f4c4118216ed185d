# SPDX-License-Identifier: Apache-2.0
"""Exported models at work on the robot: sessions and the perceiver. Never imports torch."""
