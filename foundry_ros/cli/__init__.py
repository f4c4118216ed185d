# SPDX-License-Identifier: Apache-2.0
"""Commands of ``foundry`` that start nodes; the library finds them by the entry points of the package."""
