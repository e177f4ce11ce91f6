"""The errors that tuner raises on purpose, and how they name what is wrong.

An error has the fields *where*, *key*, *rule*, *got* and *remedy*; its text is one line of them:
*file: key: rule, got value; remedy*. The command line prints it and exits with `exit_status`.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

# A parameter of a URL, by any of the names under which drivers take passwords.
_PASSWORD = re.compile(r"(?<=[?&])([^=&\s]*(?:password|passwd|pwd)[^=&\s]*=)[^&\s]*", re.IGNORECASE)


class TunerError(Exception):
    """Anything that tuner reports in one line rather than with a traceback.

    Args:
        rule: the broken rule, or what is wrong, without the value.
        where: the file, option or place; a `Path` is shown relative to the current folder.
        key: the dotted key of the experiment, or the column.
        got: the value that breaks the rule, as a person reads it.
        remedy: what to write or do instead.
    """

    exit_status = 1

    def __init__(
        self,
        rule: object,
        *,
        where: Path | str | None = None,
        key: str | None = None,
        got: object = None,
        remedy: str | None = None,
    ) -> None:
        self.rule = str(rule)
        super().__init__(self.rule)
        self.where = show_path(where) if isinstance(where, Path) else where
        self.key = key
        self.got = None if got is None else str(got)
        self.remedy = remedy

    def with_(self, **changes: Any) -> Self:
        """Return a copy with other fields."""
        changed = copy.copy(self)
        vars(changed).update(changes)
        return changed

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.where, self.key, self.rule) if part)
        if self.got is not None:
            text += f", got {self.got}"
        return one_line(f"{text}; {self.remedy}" if self.remedy else text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    @property
    def lines(self) -> list[str]:
        """What is wrong, a line for each broken rule."""
        return [str(self)]


class InputError(TunerError):
    """Bad input, found before anything was started or created."""

    exit_status = 2


class NotReadyError(InputError):
    """What is asked for does not exist yet; the same request may succeed later."""

    exit_status = 3


class ExperimentError(InputError, ValueError):
    """An experiment file, or an option that changes it, breaks a rule.

    It is a `ValueError`, so that validators of pydantic may raise it.

    Args:
        rule: see `TunerError`, as the other fields.
        example: a value that obeys the rule, as YAML.
        others: what else is wrong, each with its own fields.
    """

    def __init__(
        self,
        rule: object,
        *,
        example: str | None = None,
        others: Sequence[ExperimentError] = (),
        **fields: Any,
    ) -> None:
        super().__init__(rule, **fields)
        self.example, self.others = example, others

    def __str__(self) -> str:
        return super().__str__() + (f" (and {len(self.others)} more)" if self.others else "")

    @property
    def lines(self) -> list[str]:
        """What is wrong, a line for each broken rule."""
        return [str(self.with_(others=())), *map(str, self.others)]


class SpaceError(ExperimentError):
    """A search space breaks a rule."""


@dataclass(frozen=True)
class Setting:
    """A remedy that gives a key of the experiment another value.

    Args:
        key: the dotted key.
        value: what to write, as YAML; None where no value is known.
        note: follows the value, or is the remedy.
    """

    key: str
    value: str | None
    note: str = ""

    def __str__(self) -> str:
        return self.note if self.value is None else f"write {self.key}: {self.value}{self.note}"


Change = str | Setting | Sequence[str | Setting] | None
"""Remedies that change the experiment."""


class DataError(InputError):
    """The data cannot be used as the experiment asks.

    Args:
        rule: see `TunerError`, as the other fields; `remedy` changes the data.
        change: remedies that change the experiment.
    """

    def __init__(self, rule: object, *, change: Change = (), **fields: Any) -> None:
        super().__init__(rule, **fields)
        changes = (change,) if isinstance(change, str | Setting | None) else tuple(change)
        self.changes: tuple[str | Setting, ...] = tuple(filter(None, changes))

    def __str__(self) -> str:
        if not self.changes:
            return super().__str__()
        every = ", or ".join(map(str, filter(None, (self.remedy, *self.changes))))
        return str(self.with_(remedy=every, changes=()))


class StudyError(InputError):
    """A study does not exist, or is not the one that the experiment describes."""


class JournalError(InputError):
    """A journal cannot be read, is no journal, or is in use."""


class JournalInUse(JournalError):
    """Another process writes to a journal."""

    exit_status = NotReadyError.exit_status


class ModelError(InputError):
    """A folder is not a model folder, is not as it was written, or is of another version."""


class NoGraphError(ModelError):
    """A model folder has no graph to predict with, as there is no ONNX of its code."""


class RunError(TunerError):
    """A search that began could not be brought to a result."""


class JournalAway(RunError):
    """A journal does not take what is written now; later it may."""


class Interrupted(TunerError):
    """The user stopped the search; what was finished is kept."""

    exit_status = 130


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the remedy `"did you mean 'x'?"` for a near miss, else the list of what is known."""
    known = [str(k) for k in known]
    if (match := near_miss(word, known)) is not None:
        return f"did you mean {match!r}?"
    return f"choose from: {', '.join(known)}" if known else ""


def near_miss(word: str, known: Iterable[str]) -> str | None:
    """Return which of the known words a misspelt one may be; None where none is near."""
    word = str(word)
    matches = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    # Two swapped letters are a typing error.
    return max(matches, key=lambda m: sorted(m) == sorted(word), default=None)


def refusal(
    path: Path | str,
    key: str | None,
    rule: str,
    got: object = None,
    remedy: str | None = None,
    change: Change = None,
) -> DataError:
    """Return the error about a data file and the key of the experiment that it concerns."""
    return DataError(rule, where=show_path(path), key=key, got=got, remedy=remedy, change=change)


def show_path(path: Path | str) -> str:
    """Return a path as a person would write it: relative to the current folder if it is inside."""
    absolute = Path(path).resolve()
    here = Path.cwd()
    return str(absolute.relative_to(here) if here in absolute.parents else path)


def show_location(location: str) -> str:
    """Return a journal's location, or any text with URLs, without the passwords in it."""
    without = re.sub(r"://(?:[^/\s]*|[^@/:\s]*:(?!\d+/)\S*)@", "://", location)
    return _PASSWORD.sub(r"\1…", without)


def one_line(error: BaseException | str) -> str:
    """Return an exception's text with every run of white space made one space."""
    return " ".join(str(error).split())
