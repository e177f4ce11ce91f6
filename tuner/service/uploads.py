"""What a worker sends of the outcome of a job: files within what the job may produce."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from tuner.jobs import ExportJob, GroupJob, Job, TrainJob
from tuner.service.problems import Problem

_EPOCH_BYTES = 256  # of an epoch in a history, at most


@dataclass(eq=False)
class Upload:
    """A file that arrives, or has arrived."""

    name: str  # its SHA-256
    path: Path
    size: int = 0
    is_whole: bool = False


class JobUploads:
    """The files of one job of a worker: another job with the same arrays has its own.

    All methods are called with the lock of the pool held.

    Args:
        job: what the worker does.
        folder: for the files.
        most_bytes: of arrays.
    """

    def __init__(self, job: Job, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most, self._most_bytes = _limits(job, most_bytes)
        self._files: dict[str, Upload] = {}
        self._is_over = False

    def begin(self, name: str) -> Upload:
        """Return a new file, in place of an earlier one of that name.

        Raises:
            Problem: 413, the job gives fewer files.
        """
        if name not in self._files and len(self._files) >= self._most:
            raise Problem(413, f"this job gives at most {self._most} files; send no other")
        if (earlier := self._files.get(name)) is not None:
            earlier.path.unlink(missing_ok=True)
        upload = Upload(name, self._folder / f"{name}.{secrets.token_hex(8)}")
        self._files[name] = upload
        return upload

    def grow(self, upload: Upload, n_bytes: int) -> None:
        """Count bytes that have arrived.

        Raises:
            Problem: 409, nobody waits for the file any more; 413, it is too large.
        """
        self._check(upload)
        upload.size += n_bytes
        if sum(each.size for each in self._files.values()) > self._most_bytes:
            detail = f"this job gives at most {self._most_bytes} bytes of arrays; send less"
            raise Problem(413, detail)

    def end(self, upload: Upload) -> None:
        """Note that a file has arrived whole; raises as `grow` does."""
        self._check(upload)
        upload.is_whole = True

    def drop(self, upload: Upload) -> None:
        """Remove a file that has not arrived whole."""
        if self._files.get(upload.name) is upload:
            del self._files[upload.name]
        upload.path.unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Return a file that has arrived whole.

        Raises:
            KeyError: there is none of that name.
        """
        if not self._files[name].is_whole:
            raise KeyError(name)
        return self._files[name].path

    def close(self) -> None:
        """Remove all files: the job is over."""
        self._is_over = True
        for upload in self._files.values():
            upload.path.unlink(missing_ok=True)

    def _check(self, upload: Upload) -> None:
        if self._is_over or self._files.get(upload.name) is not upload:
            raise Problem(409, "the job has ended, or the file is sent once more; go on")


def _limits(job: Job, most_bytes: int) -> tuple[int, int]:
    """Return how many files a job may give, and how many bytes."""
    if isinstance(job, GroupJob):
        of_each = [_limits(each, most_bytes) for each in job.jobs]
        return sum(n for n, _ in of_each), sum(size for _, size in of_each)
    if isinstance(job, ExportJob):
        return 1, most_bytes
    if not isinstance(job, TrainJob):
        return 2, most_bytes  # predictions and attention
    if job.keep_weights:
        return 2, most_bytes  # weights, and a long history
    return 1, job.epochs * len(job.folds) * _EPOCH_BYTES
