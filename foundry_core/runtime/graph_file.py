# SPDX-License-Identifier: Apache-2.0
"""Reading and cutting ONNX files without the onnx package, which the robot does not have.

onnxruntime computes every output of a graph whichever is asked for, and takes nothing but whole files. So the graph is
cut before it is loaded: an ONNX file is a protocol buffer, of which only the outer structure is touched here.
Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from foundry_core.errors import InputError

_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_GRAPHS = (6, 11)
_TENSOR_NAME, _VALUE_NAME = 8, 1
_TYPES = {1: "float32", 7: "int64"}


class _Field(NamedTuple):
    number: int
    payload: memoryview  # what the field holds; of a fixed-size or varint field its raw bytes
    whole: memoryview  # the same with its tag


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint of more than 64 bits")


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(data: memoryview) -> Iterator[_Field]:
    at = 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            begin = at
            _, at = _varint(data, at)
        elif kind == 2:
            size, begin = _varint(data, at)
            at = begin + size
        elif kind in (1, 5):
            begin, at = at, at + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(data):
            raise ValueError("field beyond the end")
        yield _Field(tag >> 3, data[begin:at], data[start:at])


def _text(message: memoryview, number: int) -> list[str]:
    return [str(field.payload, "utf-8") for field in _fields(message) if field.number == number]


def _name(message: memoryview, number: int) -> str:
    return (_text(message, number) or [""])[0]


def _first(message: memoryview, *path: int) -> memoryview | None:
    """The payload of the field that the path of numbers leads to."""
    for number in path:
        message = next((field.payload for field in _fields(message) if field.number == number), None)
        if message is None:
            return None
    return message


def _value(message: memoryview) -> tuple[str, tuple[str, tuple[int | str, ...]]]:
    """Name, type and shape of a ValueInfoProto."""
    tensor = _first(message, 2, 1)
    if tensor is None:
        return _name(message, _VALUE_NAME), ("no tensor", ())
    kind = _varint(_first(tensor, 1) or memoryview(b"\0"), 0)[0]
    sizes: list[int | str] = []
    for field in _fields(_first(tensor, 2) or memoryview(b"")):
        size = _first(field.payload, 1)
        sizes.append(_name(field.payload, 2) or "?" if size is None else _varint(size, 0)[0])
    return _name(message, _VALUE_NAME), (_TYPES.get(kind, f"type {kind}"), tuple(sizes))


class GraphFile:
    """The outer structure of an ONNX file.

    Attributes:
        inputs, outputs: names, in the file's order.
        signature: for each of them numpy's name of its type and its shape; a size that is free is a name.
        metadata: the file's own key-value pairs.

    Raises:
        InputError: the file is missing or no ONNX file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            data = memoryview(self.path.read_bytes())
        except OSError as error:
            raise InputError(f"{self.path}: not readable ({error.strerror}); restore the model directory") from None
        with self._reading():
            self._outer = list(_fields(data))
            (graph,) = (field.payload for field in self._outer if field.number == _MODEL_GRAPH)
            self._graph = list(_fields(graph))
            initializers = {_name(field.payload, _TENSOR_NAME) for field in self._of(_INITIALIZER)}
            inputs = dict(_value(field.payload) for field in self._of(_INPUT))
            outputs = dict(_value(field.payload) for field in self._of(_OUTPUT))
            self.inputs = [name for name in inputs if name not in initializers]
            self.outputs = list(outputs)
            self.signature = {name: inputs.get(name) or outputs[name] for name in (*self.inputs, *self.outputs)}
            self.metadata = {
                _name(field.payload, 1): _name(field.payload, 2)
                for field in self._outer
                if field.number == _MODEL_METADATA
            }

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, IndexError):
            raise InputError(f"{self.path}: not a usable ONNX graph; export the model again") from None

    def _of(self, number: int) -> list[_Field]:
        return [field for field in self._graph if field.number == number]

    def value(self, key: str) -> Any:
        """The JSON value of the metadata entry ``foundry.<key>``; None where there is none."""
        text = self.metadata.get(f"foundry.{key}")
        try:
            return None if text is None else json.loads(text)
        except ValueError:
            raise InputError(f"{self.path}: metadata foundry.{key} is no JSON; export the model again") from None

    def cut(self, outputs: Sequence[str]) -> bytes:
        """An ONNX file with only these outputs, the nodes and weights that they need, and the inputs that those need.

        Raises:
            InputError: the graph lacks an output, or holds subgraphs, whose needs are not looked into.
        """
        if missing := sorted(set(outputs) - set(self.outputs)):
            raise InputError(f"{self.path}: the graph lacks {', '.join(missing)}; export the model again")
        if set(outputs) == set(self.outputs):
            return b"".join(field.whole for field in self._outer)
        with self._reading():
            return self._cut(outputs)

    def _cut(self, outputs: Sequence[str]) -> bytes:
        needed, kept = set(outputs), set()
        for number, field in reversed(list(enumerate(self._graph))):  # nodes stand in topological order
            if field.number != _NODE or not needed & set(_text(field.payload, _NODE_OUTPUT)):
                continue
            self._refuse_subgraphs(field.payload)
            kept.add(number)
            needed.update(_text(field.payload, _NODE_INPUT))
        names = {_INITIALIZER: _TENSOR_NAME, _INPUT: _VALUE_NAME}
        parts = []
        for number, field in enumerate(self._graph):
            if field.number == _NODE:
                wanted = number in kept
            elif field.number in names:
                wanted = _name(field.payload, names[field.number]) in needed
            elif field.number == _OUTPUT:
                wanted = _name(field.payload, _VALUE_NAME) in outputs
            else:
                wanted = field.number != _VALUE_INFO
            if wanted:
                parts.append(field.whole)
        size = _encode_varint(sum(map(len, parts)))
        graph = [_encode_varint(_MODEL_GRAPH << 3 | 2), size, *parts]
        outer = (graph if field.number == _MODEL_GRAPH else [field.whole] for field in self._outer)
        return b"".join(piece for pieces in outer for piece in pieces)  # once: a model has megabytes

    def _refuse_subgraphs(self, node: memoryview) -> None:
        for attribute in _fields(node):
            if attribute.number == _NODE_ATTRIBUTE and any(
                field.number in _ATTRIBUTE_GRAPHS for field in _fields(attribute.payload)
            ):
                raise InputError(f"{self.path}: the graph holds subgraphs; export the model again")
