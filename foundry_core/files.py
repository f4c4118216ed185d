# SPDX-License-Identifier: Apache-2.0
"""Files that are either the old ones or the new ones, never a part."""

from __future__ import annotations

import ctypes
import glob
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from foundry_core.errors import InputError


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Give an OSError that names no file, as that of a full disk, this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A stream into a temporary file that becomes ``path``, flushed to disk, when the block ends.

    When the block raises, nothing is left behind and what was at ``path`` stays. Missing folders are made.

    Raises:
        InputError: ``path`` is a device, a pipe or a folder, which the rename would replace.
        OSError: the file cannot be written; it names the file.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no regular file; give another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with _naming(path), os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write ``data`` to a file, as :func:`replacing` does."""
    with replacing(path) as stream:
        stream.write(data)


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write several files, as :func:`replacing` does: none is replaced before all are on the disk, the first one last.

    So the first one is the seal of the others.
    """
    with ExitStack() as stack:
        streams = [stack.enter_context(replacing(path)) for path in files]  # left in the reverse order
        for stream, (path, data) in zip(streams, files.items(), strict=True):
            with _naming(path):
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())


def remove_torn(folder: Path, name: str | None = None) -> None:
    """Remove what :func:`replacing` left in a folder when its process was killed: of one name, or of all.

    For whoever alone writes there: what another process is writing would go too.
    """
    for torn in folder.glob(f".{'*' if name is None else glob.escape(name)}.*.tmp"):
        with suppress(OSError):
            torn.unlink()


def replace_folder(new: Path, target: Path, aside: Path) -> None:
    """Make the finished folder ``new`` the one at ``target``, at once; one that was there is moved to ``aside``.

    All three are on one file system. Where the system cannot exchange two names there is a moment without ``target``.
    """
    if target.exists() and _exchange(new, target):
        os.rename(new, aside)
        return
    if target.exists():
        os.rename(target, aside)
    os.rename(new, target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names, or say that this system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)  # Linux, glibc 2.28
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def require_writable(path: str | Path | None, option: str, *inputs: str | Path | None) -> None:
    """Raise InputError, before any work is done, if the file ``path`` that ``option`` names could not be written.

    Nor may it be one of ``inputs``, the files that the command reads.
    """
    if path is None:
        return
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give a file to {option}")
        if path.exists() and not path.is_file():  # a device or a pipe, which the finished file would replace
            raise InputError(f"{path}: is no regular file; give a file to {option}")
        if path.exists() and any(os.path.exists(read) and path.samefile(read) for read in inputs if read):
            raise InputError(f"{path}: is what the command reads, and would be lost; give another {option}")
        parent = path.absolute().parent
        while not parent.exists():
            parent = parent.parent
        with tempfile.TemporaryFile(dir=parent):  # permissions do not tell: root may write anywhere, and not in /proc
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another {option}") from None


def require_new_folder(path: Path, option: str) -> None:
    """Raise InputError if the folder ``path`` that ``option`` names is there and not empty, or is a file."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path}: exists already; choose another {option}")
