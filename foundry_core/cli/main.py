# SPDX-License-Identifier: Apache-2.0
"""The ``foundry`` command: registers the groups and turns bad input into one line and exit code 2."""

from __future__ import annotations

if __name__ == "__main__":
    from foundry_core import startup

    startup.quiet()

import errno
import importlib
import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from io import TextIOWrapper
from types import ModuleType
from typing import Annotated
from xml.etree import ElementTree

import typer

from foundry_core import startup
from foundry_core.card import share_directory
from foundry_core.errors import InputError

#: modules of this folder in the order of the help page; each adds its commands with ``register(app)``
GROUPS = (
    "predict", "teach", "models", "shapes", "embed", "train", "average", "head", "shards", "convert", "evaluate",
    "report", "export", "bench", "throughput", "world",
)  # fmt: skip
#: entry points of the installed package: modules with commands that start nodes, which the library does not know
COMMANDS = "foundry.commands"

#: what the system says of a path that cannot be used as it was given
_BAD_PATH = (
    errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR,
    errno.EPERM, errno.EROFS,
)  # fmt: skip


def version() -> str:
    """The version of the project, from package.xml."""
    text = ElementTree.parse(share_directory() / "package.xml").getroot().findtext("version")
    return (text or "unknown").strip()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"foundry {version()}")
        raise typer.Exit


def build() -> typer.Typer:
    """The typer application with every group of commands."""
    app = typer.Typer(
        name="foundry",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
        ] = False,
    ) -> None:
        """Objects and their parts from point clouds, with small students distilled from 3D foundation models.

        `foundry COMMAND --help` is the manual of a command. Bad input ends with one line on stderr and exit code 2.
        """

    for module in [*_installed(), *(importlib.import_module(f"foundry_core.cli.{group}") for group in GROUPS)]:
        module.register(app)
    return app


def _installed() -> list[ModuleType]:
    try:
        entries = distribution("foundry_ros").entry_points
    except PackageNotFoundError:  # a bare checkout
        return []
    return [entry.load() for entry in sorted(entries, key=lambda entry: entry.name) if entry.group == COMMANDS]


#: what a command line that no command can take raises: an error of click, or of the copy that newer typers have of it
USAGE_ERROR = typer.BadParameter.__mro__[2]


def _usage(error: Exception) -> str:
    """One line for such an error, and where to read on; empty where the help page was shown already."""
    message = _one_line(error.format_message()).rstrip(".")
    for words in ("Value error, ", "Input "):  # typer lets pydantic check numbers and choices
        message = message.replace(f": {words}", ": ", 1)
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "foundry"
    return f"foundry: {message[0].lower()}{message[1:]}; see `{command} --help`" if message else ""


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def main(arguments: list[str] | None = None) -> int:
    """Run one command; exit code 2 for bad input, 1 for a failure of the machine (a full disk, say), 130 for Ctrl-C."""
    if isinstance(sys.stdout, TextIOWrapper):  # a file name may hold what the terminal's encoding does not
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app = build()
        startup.finished()
        return app(arguments, prog_name="foundry", standalone_mode=False) or 0
    except KeyboardInterrupt:
        return 130
    except InputError as error:
        print("foundry: " + _one_line(error), file=sys.stderr)
        return 2
    except USAGE_ERROR as error:
        if line := _usage(error):
            print(line, file=sys.stderr)
        return 2
    except BrokenPipeError:  # `foundry models | head`: the reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        reason = _one_line(error.strerror or error)
        if error.filename is not None and error.errno in _BAD_PATH:
            print(f"foundry: {_one_line(error.filename)}: {reason}; give another path", file=sys.stderr)
            return 2
        print(f"foundry: {_one_line(error.filename or 'operating system')}: {reason}", file=sys.stderr)
        return 1
    except Exception:
        if startup.interrupted():  # a module that was being imported has made another error of it
            return 130
        raise


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        startup.quiet()
