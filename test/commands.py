# SPDX-License-Identifier: Apache-2.0
"""How commands refuse what they cannot use."""

from __future__ import annotations


def refused(result, *words):
    """The result is exit code 2 and one line that holds every word."""
    code, out, err = result
    assert code == 2 and out == "", (code, out, err)
    assert err.count("\n") == 1 and "Traceback" not in err, err
    for word in words:
        assert str(word) in err, err
