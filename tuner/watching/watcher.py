"""What a way of watching a search is: a person's table, a person's lines, a program's events."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tuner.coordination.observer import Observer
from tuner.coordination.records import StudyRecord

__all__ = ["Beginning", "Watcher"]


@dataclass(frozen=True)
class Beginning:
    """What is known when all has been checked and a search begins, or goes on."""

    record: StudyRecord
    journal: str  # where it is, without a password
    n_workers: int
    executor: str
    warnings: tuple[str, ...] = ()  # about what was asked for; nothing is wrong


class Watcher(Observer):
    """Shows a search from its beginning to its result. This one shows nothing.

    All between `__enter__` and `__exit__` but the result and the end, which come after them.
    """

    def __enter__(self) -> Self:
        """Begin to draw, where there is something to draw."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""

    def begun(self, beginning: Beginning) -> None:
        """The input is good, and the study is open: called once, before anything is trained."""

    def result(self, record: StudyRecord, commands: list[tuple[str, str]]) -> None:
        """The search came to its end; `commands` are what to type next, each with a remark."""

    def ended(self, state: str, reason: str | None, exit_status: int) -> None:
        """Called last of all; `state` is done, interrupted or failed.

        The reason is None where it is done. Else the entry point prints it, with any watcher.
        """
