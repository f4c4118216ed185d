# SPDX-License-Identifier: Apache-2.0
"""A simulated world: scenes of procedural objects, ray-cast by simulated sensors, with exact ground truth."""
