# SPDX-License-Identifier: Apache-2.0
"""The real node under load for a long time; ``make soak``."""
