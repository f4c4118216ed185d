# SPDX-License-Identifier: Apache-2.0
"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """Bad input: a file, key, topic or option that cannot be used.

    The message is one line that names the offender and says what to do about it. The command line prints it and exits
    with code 2; a node counts it, warns at a bounded rate and goes on.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(" ".join(str(message).splitlines()))  # names in a file may hold line breaks
