"""The folder of a model: its files, and whether they are what was written."""

from __future__ import annotations

import hashlib
import json
import reprlib
from pathlib import Path
from typing import Any

from tuner.errors import ModelError, NoGraphError, one_line, show_path

__all__ = ["FORMAT", "MODEL", "OLDEST", "PIPELINE", "checksum", "open_folder", "record_checksum"]

OLDEST, FORMAT = 4, 5
"""Of `pipeline.json`; a folder with a higher one is of a newer version of tuner.

5 has columns that are known ahead (`known_future`). A folder without any is written as 4.
"""

MODEL, PIPELINE = "model.onnx", "pipeline.json"

_REMEDY = "export the model again"


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
        text = "give the folder that `tuner train -o` or `tuner export --model` wrote"
        raise ModelError(f"{show_path(folder)}: {is_what}; {text}")
    path = folder / PIPELINE
    missing = "is missing: this folder holds no model; give the folder of one"
    record = _parse(path, _read(folder, PIPELINE, missing))
    _check_format(path, record.get("format"))
    if not _is_as_written(record):
        raise _refusal(path, f"is not as it was written (its checksum differs); {_REMEDY}")
    files = record.get("files")
    if isinstance(reason := record.get("no_graph"), str):
        text = f"holds no {MODEL} to predict with: {one_line(reason)}; weights.safetensors has the"
        raise NoGraphError(f"{show_path(folder)}: {text} weights, by torch's names")
    if not isinstance(files, dict) or MODEL not in files:
        raise _refusal(path, f"files: must list {MODEL}; {_REMEDY}")
    model = b""
    for name, written in files.items():
        content = _read(folder, name)
        if checksum(content) != written:
            text = f"is not as it was written (its checksum differs); {_REMEDY}"
            raise _refusal(folder / name, text)
        model = content if name == MODEL else model
    return record, model


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except (RecursionError, ValueError) as error:
        raise _refusal(path, f"is not JSON: {one_line(error)}; {_REMEDY}") from None
    if not isinstance(record, dict):
        raise _refusal(path, f"must be an object, got a {type(record).__name__}; {_REMEDY}")
    return record


def _is_as_written(record: dict[str, Any]) -> bool:
    try:
        return bool(record.get("sha256") == record_checksum(record))
    except RecursionError:  # nested more deeply than what can be written
        return False


def _check_format(path: Path, number: Any) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        got = reprlib.repr(number)
        raise _refusal(path, f"format: must be a whole number, got {got}; {_REMEDY}")
    if number > FORMAT:
        text = f"format: this version of tuner reads up to {FORMAT}, got {number}; "
        raise _refusal(path, text + "install a newer one")
    if number < OLDEST:
        text = f"format: this version of tuner reads from {OLDEST} on, got {number}; {_REMEDY}"
        raise _refusal(path, text)


def _read(folder: Path, name: str, missing: str = f"is missing; {_REMEDY}") -> bytes:
    """Return the bytes of a file that lies in the folder itself."""
    path = folder / name
    if not name.isprintable() or Path(name).name != name or name in ("", ".."):
        text = f"files: must be names in the folder, got {reprlib.repr(name)}; {_REMEDY}"
        raise _refusal(folder / PIPELINE, text)
    try:
        inside = path.resolve().parent == folder.resolve()
    except (OSError, RuntimeError):  # links in a circle
        inside = False
    if not inside:
        raise _refusal(path, "leads out of the folder; put the file itself there")
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise _refusal(path, f"is no plain file; {_REMEDY}")
        return path.read_bytes()
    except FileNotFoundError:
        raise _refusal(path, missing) from None
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror}; check its rights") from None


def _refusal(path: Path, text: str) -> ModelError:
    name = Path(show_path(path.parent)) / path.name  # not where a link leads
    return ModelError(f"{name}: {text}")
