"""Where on this machine a store's UI is served, written down as long as it is.

A UI on loopback is one user's on one machine, and so is the file: in the folder of temporary
files, not beside the store, which other machines may see and its user may not write to.
"""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from tuner.tracking.own_files import alone_if_possible, open_own, own_path
from tuner.tracking.uris import store_digest

__all__ = ["Address", "announced", "answers", "only_starter", "running_ui"]


@dataclass(frozen=True)
class Address:
    """Where a UI is served, and by which process."""

    base_url: str
    pid: int


@contextlib.contextmanager
def announced(uri: str, address: Address) -> Iterator[None]:
    """Have `running_ui` find a store's UI while the context lasts."""
    path = _file(uri)
    with contextlib.suppress(OSError), open_own(path, "w") as file:  # or nobody finds it
        file.write(json.dumps(asdict(address)).encode())
    try:
        yield
    finally:
        if _read(path) == address:  # not that of another one, on a port of its own
            path.unlink(missing_ok=True)


def only_starter(uri: str) -> AbstractContextManager[None]:
    """Let one process at a time start a store's UI: the next one finds it then."""
    return alone_if_possible(_file(uri).with_suffix(".lock"))


def running_ui(uri: str, timeout_s: float = 5) -> Address | None:
    """Return where this user serves a store's UI on this machine, if it answers."""
    address = _read(_file(uri))
    return address if address and answers(address.base_url, timeout_s) else None


def answers(base_url: str, timeout_s: float) -> bool:
    """Say whether an MLflow server on loopback answers."""
    no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with no_proxy.open(f"{base_url}/health", timeout=timeout_s) as answer:
            return bool(answer.read(16) == b"OK")
    except (OSError, ValueError):
        return False


def _file(uri: str) -> Path:
    return own_path("ui", store_digest(uri), ".json")


def _read(path: Path) -> Address | None:
    try:
        with open_own(path, "r") as file:
            return Address(**json.loads(file.read()))
    except (OSError, ValueError, TypeError):
        return None
