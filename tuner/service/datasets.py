"""Data files of clients, by owner and the SHA-256 of their content.

A file is in `datasets/OWNER/SHA256/` under its own name, with what is known of it in
`.dataset.json` beside it. The folder appears whole, by a rename; until then everything is in
`datasets/.incoming`, which a start empties.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import logging
import os
import re
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tuner.experiment.schema import mended
from tuner.service.access import Owner
from tuner.service.confined import Allowed, Confined, most_memory
from tuner.service.problems import Problem, not_found
from tuner.service.settings import Limits

_INCOMING, _META = ".incoming", ".dataset.json"
_LONGEST_NAME = 200  # bytes
_SECONDS, _BYTES_A_SECOND = 15.0, 4e6  # CPU time to read a file; a slow core reads ten million
_ID = re.compile(r"[0-9a-f]{64}")
_log = logging.getLogger("tuner.service")


class Column(BaseModel):
    """A column of a data file."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Literal["numbers", "times", "text", "nothing"]


class Dataset(BaseModel):
    """A data file."""

    model_config = ConfigDict(frozen=True)

    id: str
    """SHA-256 of the content, in hexadecimal digits."""
    name: str
    """Of the file."""
    bytes: int
    rows: int
    columns: tuple[Column, ...]
    uploaded: str
    """Time in UTC."""
    used_by: tuple[str, ...] = ()
    """The owner's studies that use it."""


def file_name(given: str) -> str:
    """Return a name for an uploaded file: without folders, and as every file system has it."""
    base = re.split(r"[/\\]", given)[-1]
    found = re.fullmatch(r"(.*)(\.[A-Za-z0-9]{1,10})", base, re.DOTALL)
    stem, suffix = (base, ".csv") if found is None else found.groups()
    return f"{mended(stem, _LONGEST_NAME - len(suffix)) or 'data'}{suffix}"


def reading_allowed(n_bytes: int) -> Allowed:
    """Return what may be taken to read files of this size together."""
    return Allowed(_SECONDS + n_bytes / _BYTES_A_SECOND, most_memory())


class DatasetStore:
    """The data files of all owners; its methods may be called from any thread.

    Args:
        root: the service's folder.
        limits: of rows and columns, and of owners who have no other ones.
    """

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        self._folder = root.absolute() / "datasets"
        self._limits = limits or Limits()
        self.confined = Confined(root)
        self._lock = threading.RLock()
        self._arriving, self._in_use = Counter[str](), Counter[tuple[str, str]]()
        shutil.rmtree(self._folder / _INCOMING, ignore_errors=True)
        for folder in (root, self._folder, self._folder / _INCOMING):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._known = self._read_all()

    @property
    def size_limits(self) -> dict[str, int]:
        """The most `rows` and `columns` of a file."""
        return {"rows": self._limits.rows, "columns": self._limits.columns}

    def close(self) -> None:
        """End the process that reads files."""
        self.confined.close()

    def list(self, owner: str) -> Sequence[Dataset]:
        """Return what is known of an owner's files, the newest first."""
        with self._lock:
            found = [*self._known.get(owner, {}).values()]
        return sorted(found, key=lambda one: (one.uploaded, one.id), reverse=True)

    def get(self, owner: str, dataset: str) -> Dataset:
        """Return what is known of a file.

        Raises:
            Problem: 404, the owner has no such file.
        """
        with self._lock:
            found = self._known.get(owner, {}).get(dataset)
        if found is None:
            raise not_found("dataset", dataset[:80])
        return found

    def path_of(self, owner: str, dataset: str) -> Path:
        """Return the absolute path of a file; raises as `get` does."""
        return self._folder / owner / dataset / self.get(owner, dataset).name

    def upload(self, owner: Owner, name: str, expected: str | None = None) -> Upload:
        """Begin to receive a file.

        Args:
            owner: whose file it is.
            name: as the client calls it.
            expected: the SHA-256 that the content must have.
        """
        return Upload(self, owner, file_name(name), expected)

    def delete(self, owner: str, dataset: str, used_by: Callable[[], Sequence[str]]) -> None:
        """Delete a file.

        Args:
            owner: whose file it is.
            dataset: its id.
            used_by: returns the studies that use it.

        Raises:
            Problem: 404, the owner has no such file; 409, a study uses it, or one that uses it is
                being submitted.
        """
        with self._lock:
            path = self.path_of(owner, dataset).parent
            if studies := used_by():
                shown = ", ".join(map(repr, studies[:3])) + (", ..." if len(studies) > 3 else "")
                raise Problem(409, f"study {shown} uses this dataset; delete the study first")
            if self._in_use[owner, dataset]:
                raise Problem(409, "a study that uses this dataset is being submitted; try again")
            trash = self._folder / _INCOMING / secrets.token_hex(16)
            path.rename(trash)
            del self._known[owner][dataset]
        _sync(self._folder / owner)
        shutil.rmtree(trash, ignore_errors=True)

    @contextlib.contextmanager
    def in_use(self, owner: str, datasets: Iterable[str]) -> Iterator[None]:
        """Keep files from being deleted while a study that uses them is submitted."""
        held = {(owner, dataset) for dataset in datasets}
        with self._lock:
            self._in_use.update(held)
        try:
            yield
        finally:
            with self._lock:
                self._in_use.subtract(held)

    def size(self, owner: str) -> int:
        """Return the bytes of an owner's files, with those that are arriving."""
        with self._lock:
            known = sum(one.bytes for one in self._known.get(owner, {}).values())
            return known + self._arriving[owner]

    def _read_all(self) -> dict[str, dict[str, Dataset]]:
        found = dict[str, dict[str, Dataset]]()
        for path in self._folder.glob(f"*/*/{_META}"):
            if path.parent.parent.name == _INCOMING:
                continue
            try:
                known = Dataset.model_validate_json(path.read_bytes())
                (path.parent / known.name).stat()
            except (OSError, ValidationError) as error:
                _log.error("a dataset is left out: %s: %s", path, error)
                continue
            found.setdefault(path.parent.parent.name, {})[path.parent.name] = known
        return found


class Upload:
    """A file that arrives; `close` removes it unless `commit` has kept it.

    All of its methods block for the disk.
    """

    def __init__(self, store: DatasetStore, owner: Owner, name: str, expected: str | None) -> None:
        self._store, self._owner, self._name, self._expected = store, owner, name, expected
        self._folder = store._folder / _INCOMING / secrets.token_hex(16)
        self._folder.mkdir(mode=0o700)
        self._file: IO[bytes] = (self._folder / name).open("xb")
        self._hash, self._n_bytes = hashlib.sha256(), 0

    def write(self, part: bytes) -> None:
        """Write the next part.

        Raises:
            Problem: 413, the file or all files of the owner are too large.
            OSError: the disk is full.
        """
        store, limits = self._store, self._owner.limits
        with store._lock:
            self._n_bytes += len(part)
            store._arriving[self._owner.name] += len(part)
        if self._n_bytes > limits.upload_bytes:
            raise Problem(413, f"the file has more than {limits.upload_bytes:,} bytes, the limit")
        if store.size(self._owner.name) > limits.dataset_bytes:
            detail = f"your files have more than {limits.dataset_bytes:,} bytes, the limit"
            raise Problem(413, f"{detail}; delete some")
        self._hash.update(part)
        self._file.write(part)

    def commit(self) -> tuple[Dataset, bool]:
        """Check and keep the file, once all of it has arrived.

        Returns:
            What is known of it, and whether it is new.

        Raises:
            InputError: it cannot be read as a table, or exceeds a limit.
            Problem: 422, its content is another than expected.
            OSError: the disk is full.
        """
        dataset = self._hash.hexdigest()
        if self._expected not in (None, dataset):
            detail = f"the content has another SHA-256 than the path, {dataset}; send it again"
            raise Problem(422, detail)
        store, owner = self._store, self._owner.name
        with contextlib.suppress(Problem):
            return store.get(owner, dataset), False
        self._file.flush()
        os.fsync(self._file.fileno())
        path = self._folder / self._name
        profile = store.confined.run(
            "profile",
            {"path": str(path), **store.size_limits},
            owner=owner,
            what=self._name,
            allowed=reading_allowed(self._n_bytes),
        )
        known = Dataset(
            id=dataset,
            name=self._name,
            bytes=self._n_bytes,
            uploaded=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            **profile,
        )
        with (self._folder / _META).open("x", encoding="utf-8") as file:
            file.write(known.model_dump_json(exclude={"used_by"}))
            file.flush()
            os.fsync(file.fileno())
        _sync(self._folder)
        return self._keep(known)

    def _keep(self, known: Dataset) -> tuple[Dataset, bool]:
        store, owner = self._store, self._owner.name
        of_owner = store._folder / owner
        with store._lock:
            if (same := store._known.get(owner, {}).get(known.id)) is not None:
                return same, False  # it arrived twice at once
            of_owner.mkdir(mode=0o700, exist_ok=True)
            self._folder.rename(of_owner / known.id)
            store._known.setdefault(owner, {})[known.id] = known
        _sync(of_owner)
        _sync(of_owner.parent)
        return known, True

    def close(self) -> None:
        """Remove what has arrived, unless it was kept."""
        with contextlib.suppress(OSError):  # what could not be written on a full disk
            self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        with self._store._lock:
            self._store._arriving[self._owner.name] -= self._n_bytes
            self._n_bytes = 0

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
