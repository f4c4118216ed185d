# SPDX-License-Identifier: Apache-2.0
"""Readers of point cloud files, each a generator of chunks [n,3] (x y z) or [n,4] (and intensity), floating point.

Sizes are checked before anything is allocated, and nothing is ever unpickled. :func:`foundry_core.clouds.read_cloud`
is the function to call.
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from foundry_core.errors import InputError
from foundry_core.lzf import decompress

CHUNK = 1 << 18  # points
_HEADER_LINES = 1000
_MAX_COLUMNS = 64  # more is a transposed array, not a cloud
_MAX_BLOCK = 2 << 30  # bytes, for the layouts that can only be read whole
_INTENSITY = ("intensity", "scalar_Intensity", "scalar_intensity", "reflectance", "reflectivity")
_TEXT = {*b"\t\n\r", *range(32, 127)}
_MAGIC = {
    b"\x93NUMPY": "a NumPy array", b"PK\x03\x04": "a zip or .npz archive", b"ply\n": "a PLY file",
    b"ply\r": "a PLY file", b"# .PCD": "a PCD file", b"\x89MCAP": "an MCAP recording", b"SQLite format 3": "a database",
}  # fmt: skip
_PLY_NAMES = "char uchar short ushort int uint float double int8 uint8 int16 uint16 int32 uint32 float32 float64"
_PLY_TYPES = dict(zip(_PLY_NAMES.split(), "i1 u1 i2 u2 i4 u4 f4 f8 i1 u1 i2 u2 i4 u4 f4 f8".split(), strict=True))


def _columns(names: list[str], path: Path) -> list[str]:
    missing = [axis for axis in "xyz" if axis not in names]
    if missing:
        raise InputError(f"{path}: no field {', '.join(missing)} (fields: {', '.join(names)}); x, y and z are needed")
    return [*"xyz", *[name for name in _INTENSITY if name in names][:1]]


def _stack(values: np.ndarray, columns: list[str]) -> np.ndarray:
    doubles = any(values.dtype[name] == np.float64 for name in "xyz")
    out = np.empty((len(values), len(columns)), np.float64 if doubles else np.float32)
    for k, name in enumerate(columns):
        out[:, k] = values[name]
    return out


def _remaining(stream: BinaryIO, path: Path) -> int:
    return path.stat().st_size - stream.tell()


def _records(stream: BinaryIO, kind: np.dtype, count: int, path: Path) -> Iterator[np.ndarray]:
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start) * kind.itemsize
        data = stream.read(size)
        if len(data) != size:
            raise InputError(f"{path}: truncated after {start} of {count} points; copy or write the file again")
        yield np.frombuffer(data, kind)


def _check_length(needed: int, stream: BinaryIO, count: int, path: Path) -> None:
    rest = _remaining(stream, path)
    if needed > rest:
        raise InputError(
            f"{path}: truncated: {count} points need {needed} bytes, {rest} follow the header; copy or write it again"
        )


def _text_table(stream: BinaryIO, use: list[int] | None, count: int | None, path: Path) -> Iterator[np.ndarray]:
    lines = (line.decode("latin-1").replace(",", " ").replace(";", " ") for line in stream)
    lines = (line for line in lines if line.strip() and not line.lstrip().startswith(("#", "/")))
    done, width = 0, None
    while count is None or done < count:
        block = list(itertools.islice(lines, CHUNK if count is None else min(CHUNK, count - done)))
        if not block:
            break
        try:
            values = np.loadtxt(block, np.float64, usecols=use, ndmin=2)
        except (ValueError, IndexError) as error:
            reason = str(error).splitlines()[0].split(";")[0]
            raise InputError(f"{path}: not a table of numbers ({reason}); write x y z on each line") from None
        if values.shape[1] < 3 or width not in (None, values.shape[1]):
            raise InputError(f"{path}: {values.shape[1]} columns after point {done}; write x y z on each line")
        done, width = done + len(values), values.shape[1]
        yield values[:, : 4 if width == 4 else 3]
    if count is not None and done < count:
        raise InputError(f"{path}: truncated after {done} of {count} points; copy or write the file again")


def _header(stream: BinaryIO, first: str, last: str, kind: str, path: Path) -> Iterator[list[str]]:
    """Words of each header line up to and including the one that begins with ``last``; comments are left out."""
    for number in range(_HEADER_LINES):
        try:
            line = stream.readline(4096).decode("ascii").split()
        except UnicodeDecodeError:
            line = ["\0"]
        if number == 0 and first and line[:1] != [first]:
            break
        if line and not line[0].startswith(("#", "comment", "obj_info")):
            yield line
            if line[0] == last:
                return
    raise InputError(f"{path}: not a {kind} file, or its header is damaged; check the file's name and content")


def ply_chunks(path: Path) -> Iterator[np.ndarray]:
    """The vertices of a PLY file: ascii, binary_little_endian or binary_big_endian."""
    with open(path, "rb") as stream:
        order, elements = None, []  # elements: (name, count, [(property, type)])
        try:
            for words in _header(stream, "ply", "end_header", "PLY", path):
                if words[0] == "format":
                    order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[words[1]]
                elif words[0] == "element":
                    elements.append((words[1], int(words[2]), []))
                elif words[0] == "property":
                    kind = "list" if words[1] == "list" else _PLY_TYPES[words[1]]
                    elements[-1][2].append((words[-1], kind))
            before = list(itertools.takewhile(lambda element: element[0] != "vertex", elements))
            _, count, properties = elements[len(before)]
            names = [name for name, _ in properties]
            if order is None or min(element[1] for element in elements) < 0 or len(set(names)) != len(names):
                raise ValueError
        except (KeyError, IndexError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: the PLY header is damaged or has no vertices; write the file again") from None
        columns = _columns(names, path)
        if order == "":
            for _ in range(sum(element[1] for element in before)):
                if not stream.readline():
                    break
            yield from _text_table(stream, [names.index(name) for name in columns], count, path)
            return
        if any(kind == "list" for element in [*before, elements[len(before)]] for _, kind in element[2]):
            raise InputError(f"{path}: lists stand before or in its vertices; write the vertices first")
        for _, skipped, fields in before:
            stream.seek(skipped * sum(int(kind[1]) for _, kind in fields), 1)
        kind = np.dtype([(name, order + form) for name, form in properties])
        _check_length(count * kind.itemsize, stream, count, path)
        for values in _records(stream, kind, count, path):
            yield _stack(values, columns)


def pcd_chunks(path: Path) -> Iterator[np.ndarray]:
    """The points of a PCD file: ascii, binary or binary_compressed (LZF)."""
    with open(path, "rb") as stream:
        header = {words[0]: words[1:] for words in _header(stream, "", "DATA", "PCD", path)}
        try:
            names = header["FIELDS"]
            repeats = [int(word) for word in header.get("COUNT", ["1"] * len(names))]
            sizes = [int(word) for word in header["SIZE"]]
            forms = [letter.lower() + str(size) for letter, size in zip(header["TYPE"], sizes, strict=True)]
            width, height = int(header["WIDTH"][0]), int(header["HEIGHT"][0])
            count, storage = int(header.get("POINTS", [width * height])[0]), header["DATA"][0]
            unique = [name if name != "_" else f"_{k}" for k, name in enumerate(names)]  # "_" is PCL's padding
            layout = [(name, "<" + form, (repeat,)) for name, form, repeat in zip(unique, forms, repeats, strict=True)]
            kind = np.dtype([(name, form) if shape == (1,) else (name, form, shape) for name, form, shape in layout])
            if count < 0 or min(repeats) < 1 or storage not in ("ascii", "binary", "binary_compressed"):
                raise ValueError
        except (KeyError, IndexError, ValueError, TypeError):
            raise InputError(f"{path}: the PCD header is damaged; write the file again") from None
        columns = _columns(unique, path)
        if storage == "ascii":
            starts = dict(zip(unique, np.cumsum([0, *repeats]).tolist(), strict=False))
            yield from _text_table(stream, [starts[name] for name in columns], count, path)
        elif storage == "binary":
            _check_length(count * kind.itemsize, stream, count, path)
            for values in _records(stream, kind, count, path):
                yield _stack(values, columns)
        else:
            yield from _compressed_pcd(stream, layout, columns, count, path)


def _compressed_pcd(stream: BinaryIO, layout, columns: list[str], count: int, path: Path) -> Iterator[np.ndarray]:
    sizes = stream.read(8)
    packed, size = (int(word) for word in np.frombuffer(sizes, "<u4")) if len(sizes) == 8 else (0, -1)
    widths = [np.dtype(form).itemsize * shape[0] for _, form, shape in layout]
    if size != count * sum(widths) or size > _MAX_BLOCK or size > 300 * max(packed, 1):  # LZF gains at most 1:88
        raise InputError(f"{path}: its compressed size contradicts its {count} points; write the file again")
    _check_length(packed, stream, count, path)
    data = np.empty(size, np.uint8)
    if decompress(np.frombuffer(stream.read(packed), np.uint8), data) != size:
        raise InputError(f"{path}: the compressed points are damaged; copy or write the file again")
    starts = np.cumsum([0, *widths]) * count  # one block per field
    blocks = {name: data[starts[k] : starts[k + 1]].view(form) for k, (name, form, _) in enumerate(layout)}
    for start in range(0, count, CHUNK):
        yield np.stack([blocks[name][start : start + CHUNK].astype(np.float64) for name in columns], axis=1)


def _npy(stream: BinaryIO, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        return read(stream)
    except Exception:  # of the header's parser too, which reads Python's own syntax
        raise InputError(f"{name}: not a NumPy array, or a damaged one; write it again with numpy.save") from None


def _array_chunks(stream: BinaryIO, path: Path, name: str) -> Iterator[np.ndarray]:
    shape, column_major, kind = _npy(stream, name)
    if kind.hasobject:
        raise InputError(f"{name}: holds pickled objects, which are never loaded; save a float array [N,3]")
    if len(shape) != 2 or not 3 <= shape[1] <= _MAX_COLUMNS or kind.kind not in "fiu":
        raise InputError(f"{name}: holds {kind} {list(shape)}; one cloud is an array of numbers [N,3]")
    count, width = shape
    used = 4 if width == 4 else 3
    if column_major:
        size = count * width * kind.itemsize
        data = stream.read(min(size, _MAX_BLOCK) + 1)
        if len(data) != size:
            raise InputError(f"{name}: not {count} points (truncated?), or too many for column order; write it again")
        values = np.frombuffer(data, kind).reshape(width, count).T
        for start in range(0, count, CHUNK):
            yield _real(values[start : start + CHUNK, :used])
        return
    for rows in _records(stream, np.dtype([("row", kind, (width,))]), count, path):
        yield _real(rows["row"][:, :used])


def _real(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)


def npy_chunks(path: Path) -> Iterator[np.ndarray]:
    """An array [N,3] or wider; a fourth of four columns is intensity."""
    with open(path, "rb") as stream:
        yield from _array_chunks(stream, path, str(path))


def npz_chunks(path: Path) -> Iterator[np.ndarray]:
    """The array ``points`` of an archive, or the first one with the shape of a cloud."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        chosen = "points.npy" if "points.npy" in names else None
        for name in names if chosen is None else ():
            with archive.open(name) as stream:
                shape, _, kind = _npy(stream, f"{path}: {name[:-4]}")
            if len(shape) == 2 and 3 <= shape[1] <= _MAX_COLUMNS and kind.kind in "fiu" and not kind.hasobject:
                chosen = name
                break
        if chosen is None:
            listed = ", ".join(name[:-4] for name in names[:8]) or "nothing"
            raise InputError(f"{path}: no array 'points' and none of shape [N,3] (it holds {listed}); add one")
        with archive.open(chosen) as stream:
            yield from _array_chunks(stream, path, f"{path}: {chosen[:-4]}")


def text_chunks(path: Path) -> Iterator[np.ndarray]:
    """Lines of x y z, separated by blanks, commas or semicolons; a heading or a count in the first line is skipped."""
    with open(path, "rb") as stream:
        if b"\0" in stream.read(4096):
            raise InputError(f"{path}: is not text; check the file's name")
        stream.seek(0)
        words = stream.readline(4096).replace(b",", b" ").replace(b";", b" ").split()
        try:
            heading = len([float(word) for word in words]) == 1
        except ValueError:
            heading = bool(words) and words[0].strip(b"#/\"'").lower() in (b"x", b"")
        if not heading:
            stream.seek(0)
        yield from _text_table(stream, None, None, path)


def kitti_chunks(path: Path) -> Iterator[np.ndarray]:
    """A KITTI sweep: float32 x y z intensity, little-endian, without a header."""
    with open(path, "rb") as stream:
        start = stream.read(4096)
    if kind := next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None):
        raise InputError(f"{path}: is {kind}, not a KITTI sweep; give the file its own extension")
    if set(start) <= _TEXT:
        raise InputError(f"{path}: is text, not a KITTI sweep; give the file its own extension, such as .xyz")
    count, rest = divmod(path.stat().st_size, 16)
    if rest:
        size = path.stat().st_size
        raise InputError(f"{path}: {size} bytes are not whole KITTI points of 16 bytes; copy or write the file again")
    with open(path, "rb") as stream:
        for number, values in enumerate(_records(stream, np.dtype("<f4"), count * 4, path)):
            chunk = values.reshape(-1, 4)
            with np.errstate(invalid="ignore"):
                plausible = (np.abs(chunk[:, :3]) < 1e4).all(axis=1) & (np.abs(chunk[:, 3]) < 1e6)
            finite = np.isfinite(chunk).all(axis=1)
            if number == 0 and finite.any() and plausible[finite].mean() < 0.5:
                raise InputError(f"{path}: its bytes are not KITTI points (float32 x y z intensity); check the file")
            yield chunk
