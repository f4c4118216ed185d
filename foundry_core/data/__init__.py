# SPDX-License-Identifier: Apache-2.0
"""Data sets, procedural shapes, the simulated sensor world and bags."""
