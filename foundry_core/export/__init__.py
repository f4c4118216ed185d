# SPDX-License-Identifier: Apache-2.0
"""From trained weights to the graphs that the robot runs (needs torch and onnx)."""
