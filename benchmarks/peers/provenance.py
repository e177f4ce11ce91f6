"""Of which code and which packages a measurement is, so that one of others is made again."""

from __future__ import annotations

import functools
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_MEASURED = ("tuner/**/*.py", "benchmarks/peers/*.py", "benchmarks/overhead.py")
_MEASURED += ("benchmarks/idle_worker.py", "experiments/data/air_passengers.csv")
_TELLS = ("results.py", "anatomy.py")  # of benchmarks/peers: they change no measurement
_LIST = """
import importlib.metadata, sys
found = {f"{d.name}=={d.version}" for d in importlib.metadata.distributions()}
print(sys.version, *sorted(found), sep="\\n")
"""


def code(root: Path = ROOT) -> str:
    """Return a digest of all that is measured, committed or not: 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in sorted(files(root)):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(root)} {content}\n".encode())
    return digest.hexdigest()[:12]


def files(root: Path) -> Iterator[Path]:
    """Return the files that a measurement depends on."""
    for pattern in _MEASURED:
        for file in root.glob(pattern):
            if file.name not in _TELLS or file.parent.name != "peers":
                yield file


def commit(root: Path = ROOT) -> str:
    """Return the commit, followed by `, changed` if files differ from it; empty without git."""
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        status = subprocess.run(
            [*git, "status", "--porcelain", "--", "tuner", "benchmarks"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + (", changed" if status else "")


@functools.cache
def environment(python: Path) -> str:
    """Return a digest of a Python's version and packages: 12 hexadecimal digits."""
    command = [str(python), "-I", "-c", _LIST]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return hashlib.sha256(said.encode()).hexdigest()[:12]
