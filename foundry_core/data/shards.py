# SPDX-License-Identifier: Apache-2.0
"""Shape sets as tar shards, on a disk or behind a URL: sets that are larger than memory are read as they are needed.

A shard is a plain tar file with one ``.npy`` array [n,3] for each shape, the layout that webdataset reads and writes;
members with other extensions are left alone.

Reading is arranged in lanes, so that processes and data workers split the shards without talking to each other: eight
samples in turn belong to the same lane, and a lane reads one shard after the other, each as a whole and in an order of
its own. All lanes together visit every shard once before any comes again. Sample ``i`` is a pure function of the seed
and ``i``; a resumed run reads one shard for each lane and goes on.
"""

from __future__ import annotations

import io
import re
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import Field

from foundry_core.clouds import MAX_COORDINATE
from foundry_core.errors import InputError
from foundry_core.files import replacing
from foundry_core.schema import Settings

BLOCK = 8  # samples in turn that belong to one lane
LARGEST = 1 << 26  # bytes of one shape
_TRIES = 4  # of a remote shard
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class ShardSet(Settings):
    """Tar shards that join the stream."""

    urls: str = Field(description="path or URL, with ranges in braces: https://host/shards-{000000..000127}.tar")
    weight: float = Field(1.0, gt=0)
    per_visit: int = Field(
        1000, ge=1, description="shapes drawn from a shard before its lane goes on; best the number that a shard holds"
    )
    lanes: int = Field(
        8,
        ge=1,
        description="shards read side by side. No two workers read the same one if this is a multiple of processes x "
        "workers x (clouds of a micro-batch / 8)",
    )
    licence: str = Field("", description="licence of the whole set, for the model card")
    attribution: str = Field("", description="for the model card")


def expand(pattern: str) -> list[str]:
    """Every path or URL of a pattern; ranges ``{000..127}`` count up, as wide as they are written.

    Raises:
        InputError: a range that ends before it begins, or braces that are no range.
    """
    match = _RANGE.search(pattern)
    if match is None:
        if "{" in pattern or "}" in pattern:
            raise InputError(f"{pattern}: braces that are no range; write one as in shards-{{000000..000127}}.tar")
        return [pattern]
    first, last = match.groups()
    if int(last) < int(first):
        raise InputError(f"{pattern}: the range {match.group()} ends before it begins")
    if int(last) - int(first) >= 1_000_000:
        raise InputError(f"{pattern}: the range {match.group()} is longer than a million shards")
    heads = (pattern[: match.start()] + f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1))
    return [head + tail for head in heads for tail in expand(pattern[match.end() :])]


def _open(url: str) -> BinaryIO:
    if "://" not in url:
        return open(url, "rb")
    if url.startswith(("http://", "https://")):
        return urllib.request.urlopen(url, timeout=60)
    import fsspec  # a dependency of torch; object stores need its plug-ins

    return fsspec.open(url, "rb").open()


def _shape(data: bytes, where: str) -> np.ndarray:
    try:
        points = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise InputError(f"{where}: no .npy array, or a pickled one; write shards with `foundry shards`") from None
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < 1 or points.dtype.kind != "f":
        raise InputError(f"{where}: {points.dtype} {points.shape}, expected floating point [n,3]")
    values = points.astype(np.float32)
    if not np.isfinite(values).all() or np.abs(values).max() > MAX_COORDINATE or not np.ptp(values, axis=0).any():
        raise InputError(f"{where}: values that are no shape (NaN, huge, or all the same); remove it")
    return points


def _shapes(stream: BinaryIO, url: str) -> Iterator[np.ndarray]:
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        for member in archive:
            extension = member.name.rsplit("/", 1)[-1].partition(".")[2]
            if not member.isfile() or extension not in ("npy", "points.npy"):
                continue
            if member.size > LARGEST:
                raise InputError(f"{url}: {member.name}: {member.size} bytes, too large for a shape")
            yield _shape(archive.extractfile(member).read(), f"{url}: {member.name}")


def read_shard(url: str) -> list[np.ndarray]:
    """The shapes of one shard, each floating point [n,3]; a remote one is asked for again when the line breaks.

    Raises:
        InputError: it cannot be opened or read, is empty, or holds something else, by name.
    """
    tries = _TRIES if "://" in url else 1
    for attempt in range(tries):
        try:
            with _open(url) as stream:
                shapes = list(_shapes(stream, url))
            break
        except InputError:
            raise
        except (OSError, tarfile.TarError, ImportError, ValueError, EOFError) as error:
            if attempt == tries - 1 or isinstance(error, ImportError | ValueError | FileNotFoundError):
                reason = " ".join(str(error).split()) or type(error).__name__
                raise InputError(f"{url}: cannot be read as a tar shard ({reason}); check it and its pattern") from None
            time.sleep(2.0**attempt)
    if not shapes:
        raise InputError(f"{url}: no .npy member; write shards with `foundry shards`")
    return shapes


class ShardReader:
    """Random access to the shapes of a shard set, cheap when the numbers that are asked for rise.

    Args:
        share: of the stream's samples that come from this set; the others are passed over without reading.
    """

    def __init__(self, config: ShardSet, seed: int, share: float = 1.0):
        self.config, self.seed, self.share = config, seed, share
        self.urls = expand(config.urls)
        self._held: dict[int, tuple[int, list[np.ndarray], np.ndarray]] = {}  # lane -> visit, shapes, order
        self._order = lru_cache(maxsize=4)(self._permutation)

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.urls))

    def locate(self, index: int) -> tuple[int, int, int]:
        """Lane, visit and place within the visit of sample ``index`` of the stream."""
        block, rest = divmod(index, BLOCK)
        turn, lane = divmod(block, self.config.lanes)
        # of the lane's samples before this one about `share` are from this set: it moves on at that pace
        return lane, *divmod(int((turn * BLOCK + rest) * self.share), self.config.per_visit)

    def url(self, lane: int, visit: int) -> str:
        """The shard that a lane reads at its visit of that number."""
        epoch, position = divmod(visit * self.config.lanes + lane, len(self.urls))
        return self.urls[self._order(epoch)[position]]

    def shape(self, index: int) -> np.ndarray:
        """The shape [n,3] of sample ``index`` of the stream."""
        lane, visit, place = self.locate(index)
        if self._held.get(lane, (None,))[0] != visit:
            shapes = read_shard(self.url(lane, visit))
            order = np.random.default_rng([self.seed, lane, visit]).permutation(len(shapes))
            self._held[lane] = (visit, shapes, order)
        _, shapes, order = self._held[lane]
        return shapes[order[place % len(shapes)]]


def write_shards(shapes: list[np.ndarray], directory: Path, per_shard: int, seed: int = 0) -> str:
    """Write shapes [n,3], shuffled, as ``shards-000000.tar`` and on, each of about ``per_shard``; their pattern.

    Raises:
        InputError: the folder holds shards already.
    """
    if any(directory.glob("shards-*.tar")):
        raise InputError(f"{directory}: holds shards already; choose another --out")
    order = np.random.default_rng(seed).permutation(len(shapes))
    parts = np.array_split(order, -(-len(shapes) // per_shard))
    for number, part in enumerate(parts):
        with (
            replacing(directory / f"shards-{number:06d}.tar") as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for row in part:
                buffer = io.BytesIO()
                np.save(buffer, shapes[row], allow_pickle=False)
                member = tarfile.TarInfo(f"{row:08d}.npy")
                member.size = buffer.tell()
                buffer.seek(0)
                archive.addfile(member, buffer)
    return str(directory / f"shards-{{000000..{len(parts) - 1:06d}}}.tar")
