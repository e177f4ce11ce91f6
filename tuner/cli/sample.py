"""The first rows of a large data file: `tuner init` looks at these, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tuner.errors import InputError, show_path

__all__ = ["Sample", "sampled"]

_MOST_BYTES = 2_000_000  # that are looked at in two seconds
_LARGE = 2  # times as many: of a file that is hardly larger, all


@dataclass(frozen=True)
class Sample:
    """A file whose rows are looked at: the data file, or one with its first lines."""

    path: Path
    times_more: float  # bytes, and so about rows, in the data file

    @property
    def whole(self) -> bool:
        """Whether all rows are looked at."""
        return self.times_more == 1.0


@contextmanager
def sampled(path: Path, most: int = _MOST_BYTES) -> Iterator[Sample]:
    """Give the first lines of a large text file, in a file of the same name; else the file.

    An error about the sample names the data file: its lines are the same.

    Args:
        path: of the data.
        most: bytes of the sample; a file of twice as many is large.
    """
    head = _first_lines(path, most)
    if head is None:
        yield Sample(path, 1.0)
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(head)
        try:
            yield Sample(copy, path.stat().st_size / len(head))
        except InputError as error:
            text = str(error)
            for written in (show_path(copy), str(copy)):
                text = text.replace(written, show_path(path))
            raise type(error)(text) from None


def _first_lines(path: Path, most: int) -> bytes | None:
    """Return whole lines from the beginning of a large text file; None of any other file."""
    try:
        if path.stat().st_size <= _LARGE * most:
            return None
        with path.open("rb") as file:
            head = file.read(most)
    except OSError:
        return None  # reading says what is wrong
    end = head.rfind(b"\n")
    while end >= 0 and head.count(b'"', 0, end) % 2:  # within a quoted value
        end = head.rfind(b"\n", 0, end)
    if b"\0" in head or head.count(b"\n", 0, end + 1) < 2:
        return None
    return head[: end + 1]
