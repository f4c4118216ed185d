# SPDX-License-Identifier: Apache-2.0
"""Malformed input of every kind; ``make fuzz`` runs all of it, the test suite a small share."""
