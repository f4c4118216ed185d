# SPDX-License-Identifier: Apache-2.0
"""Figures and pictures: probes, matching against ground truth, what a person looks at."""
