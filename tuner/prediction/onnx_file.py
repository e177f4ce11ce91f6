"""A model in the ONNX format, read without any library: as much of it as an exported one has.

The format is protocol buffers, whose messages are fields of a number, a kind and a value:
https://protobuf.dev/programming-guides/encoding and https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Graph", "Node", "Value", "read_graph"]

_DTYPES = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}


@dataclass(frozen=True)
class Node:
    """One operator."""

    kind: str
    inputs: list[str]  # "" for one that is left out
    outputs: list[str]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Value:
    """An input or output of the graph; a size that may be any is None."""

    name: str
    shape: list[int | None]


@dataclass
class Graph:
    """Operators in the order in which they run."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)


def read_graph(file: bytes) -> Graph:
    """Return the graph of a model.

    Raises:
        ValueError: the file is no model, or holds what an exported one does not.
    """
    try:
        for number, value in _fields(memoryview(file)):
            if number == 7:
                return _graph(value)
    except (IndexError, struct.error, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"is damaged: {error}") from None
    except RecursionError:
        raise ValueError("is damaged: its graphs are nested too deeply") from None
    raise ValueError("holds no graph")


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of every field of a message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
        elif kind == 2:
            size, at = _varint(message, at)
            if size > len(message) - at:
                raise ValueError("is cut off")
            yield key >> 3, message[at : at + size]
            at += size
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            yield key >> 3, struct.unpack("<d" if kind == 1 else "<f", message[at : at + size])[0]
            at += size
        else:
            raise ValueError(f"holds a field of kind {kind}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            number &= (1 << 64) - 1
            return (number - (1 << 64) if number >= 1 << 63 else number), at
        if shift > 63:
            raise ValueError("holds a number of more than 64 bits")


def _numbers(value: Any) -> list[int]:
    """Return the whole numbers of a repeated field: one, or several packed."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def _bytes(value: Any) -> bytes:
    """Return the bytes of a field; of a number, `bytes` would make as many as it says."""
    if not isinstance(value, memoryview):
        raise TypeError(f"has the number {value} where bytes belong")
    return bytes(value)


def _text(value: Any) -> str:
    return _bytes(value).decode()


def _graph(message: memoryview) -> Graph:
    graph = Graph()
    for number, value in _fields(message):
        if number == 1:
            graph.nodes.append(_node(value))
        elif number == 5:
            name, array = _tensor(value)
            graph.constants[name] = array
        elif number == 11:
            graph.inputs.append(_value(value))
        elif number == 12:
            graph.outputs.append(_value(value))
    return graph


def _node(message: memoryview) -> Node:
    node = Node("", [], [], {})
    kind = ""
    for number, value in _fields(message):
        if number == 1:
            node.inputs.append(_text(value))
        elif number == 2:
            node.outputs.append(_text(value))
        elif number == 4:
            kind = _text(value)
        elif number == 5:
            name, found = _attribute(value)
            node.attributes[name] = found
    return Node(kind, node.inputs, node.outputs, node.attributes)


def _attribute(message: memoryview) -> tuple[str, Any]:
    name, found = "", None
    several: list[Any] = []
    for number, value in _fields(message):
        if number == 1:
            name = _text(value)
        elif number in (2, 3):  # a number
            found = value
        elif number == 4:
            found = _text(value)
        elif number == 5:
            found = _tensor(value)[1]
        elif number == 6:
            found = _graph(value)
        elif number == 8:
            several += _numbers(value)
        elif number == 9:
            several.append(_text(value))
    return name, several if found is None else found


def _tensor(message: memoryview) -> tuple[str, np.ndarray]:
    sizes: list[int] = []
    name, kind, raw = "", 0, b""
    for number, value in _fields(message):
        if number == 1:
            sizes += _numbers(value)
        elif number == 2:
            kind = value
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _bytes(value)
    if kind not in _DTYPES:
        raise ValueError(f"holds a tensor of type {kind}")
    return name, np.frombuffer(raw, np.dtype(_DTYPES[kind]).newbyteorder("<")).reshape(sizes)


def _value(message: memoryview) -> Value:
    """Read ValueInfoProto: name, and in type.tensor_type.shape.dim the sizes."""
    name, sizes = "", list[int | None]()
    for number, value in _fields(message):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for _, tensor in _fields(value):
                for at, shape in _fields(tensor):
                    if at == 2:
                        sizes = [dict(_fields(dim)).get(1) for n, dim in _fields(shape) if n == 1]
    return Value(name, sizes)
