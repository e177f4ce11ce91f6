"""The folder of an exported model: its files, checked without any library.

The format is protocol buffers, whose messages are fields of a number, a kind and a value:
https://protobuf.dev/programming-guides/encoding and https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import ModelError, NoGraphError, one_line, show_path

__all__ = [
    "FORMAT",
    "MODEL",
    "OLDEST",
    "PIPELINE",
    "Graph",
    "Node",
    "Value",
    "checksum",
    "open_folder",
    "read_graph",
    "record_checksum",
]

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


OLDEST, FORMAT = 4, 5

"""Of `pipeline.json`; a folder with a higher one is of a newer version of tuner.

5 has columns that are known ahead (`known_future`). A folder without any is written as 4.
"""

MODEL, PIPELINE = "model.onnx", "pipeline.json"

_ALTERED = "is not as it was written (its checksum differs)"


def checksum(content: bytes) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(content).hexdigest()


def record_checksum(record: dict[str, Any]) -> str:
    """Return the SHA-256 of what `pipeline.json` says, but for the checksum itself."""
    rest = {key: value for key, value in record.items() if key != "sha256"}
    return checksum(json.dumps(rest, sort_keys=True).encode())


def open_folder(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Return what `pipeline.json` says, and the model, if every file is what was written.

    Raises:
        ModelError: naming the file, the rule and the remedy.
    """
    if not folder.is_dir():
        is_what = "is a file" if folder.exists() else "no such folder"
        remedy = "give the folder that `tuner train -o` or `tuner export --model` wrote"
        raise ModelError(is_what, where=show_path(folder), remedy=remedy)
    path = folder / PIPELINE
    record = _parse(path, _read(folder, PIPELINE))
    _check_format(path, record.get("format"))
    if not _is_as_written(record):
        raise _refusal(path, _ALTERED)
    files = record.get("files")
    if isinstance(reason := record.get("no_graph"), str):
        rule = f"holds no {MODEL} to predict with: {one_line(reason)}"
        remedy = "weights.safetensors has the weights, by torch's names"
        raise NoGraphError(rule, where=show_path(folder), remedy=remedy)
    if not isinstance(files, dict) or MODEL not in files:
        raise _refusal(path, f"must list {MODEL}", key="files")
    model = b""
    for name, written in files.items():
        content = _read(folder, name)
        if checksum(content) != written:
            raise _refusal(folder / name, _ALTERED)
        model = content if name == MODEL else model
    return record, model


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except (RecursionError, ValueError) as error:
        raise _refusal(path, f"is not JSON: {one_line(error)}") from None
    if not isinstance(record, dict):
        raise _refusal(path, "must be an object", f"a {type(record).__name__}")
    return record


def _is_as_written(record: dict[str, Any]) -> bool:
    try:
        return bool(record.get("sha256") == record_checksum(record))
    except RecursionError:  # nested more deeply than what can be written
        return False


def _check_format(path: Path, number: Any) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise _refusal(path, "must be a whole number", reprlib.repr(number), key="format")
    if number > FORMAT:
        rule = f"this version of tuner reads up to {FORMAT}"
        raise _refusal(path, rule, number, "install a newer one", key="format")
    if number < OLDEST:
        raise _refusal(path, f"this version of tuner reads from {OLDEST} on", number, key="format")


def _read(folder: Path, name: str) -> bytes:
    """Return the bytes of a file that lies in the folder itself."""
    path = folder / name
    if not name.isprintable() or Path(name).name != name or name in ("", ".."):
        rule, got = "must be names in the folder", reprlib.repr(name)
        raise _refusal(folder / PIPELINE, rule, got, key="files")
    try:
        inside = path.resolve().parent == folder.resolve()
    except (OSError, RuntimeError):  # links in a circle
        inside = False
    if not inside:
        raise _refusal(path, "leads out of the folder", remedy="put the file itself there")
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise _refusal(path, "is no plain file")
        return path.read_bytes()
    except FileNotFoundError:
        if name == PIPELINE:
            rule, remedy = "is missing: this folder holds no model", "give the folder of one"
            raise _refusal(path, rule, remedy=remedy) from None
        raise _refusal(path, "is missing") from None
    except OSError as error:
        rule = f"cannot be read: {error.strerror}"
        raise _refusal(path, rule, remedy="check its rights") from None


def _refusal(
    path: Path,
    rule: str,
    got: object = None,
    remedy: str = "export the model again",
    key: str | None = None,
) -> ModelError:
    name = Path(show_path(path.parent)) / path.name  # not where a link leads
    return ModelError(rule, where=str(name), key=key, got=got, remedy=remedy)
