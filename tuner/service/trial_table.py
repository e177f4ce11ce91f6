"""The trials of each study as rows, so that a page of 100,000 trials needs no journal.

A row is a line of JSON, with the keys of `all_trials` in `tuner show --json`. The rows are in a
file beside the journal too, where the last one of a trial counts. The file is made again from the
journal whenever the study runs, so nothing depends on it.
"""

from __future__ import annotations

import contextlib
import json
import threading
from array import array
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from tuner.coordination.coordinator import Asked, Observer, SearchStart
from tuner.jobs import Outcome
from tuner.journal.records import Status, TrialRecord
from tuner.journal.storage import Role, TrialKey
from tuner.outputs import written_whole
from tuner.progress.reporters import to_json
from tuner.results.summary import trial_to_json

Order = Literal["number", "-number", "score"]

_KEPT = 8  # tables of studies that do not run
_STATUSES = [status.value for status in Status]
_RUNNING = _STATUSES.index(Status.RUNNING.value)
_NAN = float("nan")


class TrialTable(Observer):
    """The trials of one study. Thread-safe.

    Args:
        path: the file of rows.
        sign: the factor of a value with which less is better.
        count: is called with the status of each trial that ends.
    """

    def __init__(
        self, path: Path, sign: int, count: Callable[[str], None] = lambda status: None
    ) -> None:
        self._path, self._sign, self._count = path, sign, count
        self._lock = threading.RLock()
        self._rows: list[str] = []  # by number
        self._values = array("d")  # nan without one
        self._statuses = bytearray()  # places in `_STATUSES`
        self._repeats: dict[int, list[int]] = defaultdict(list)  # duplicates by their original
        self._n_trained = 0  # trials that have ended, without duplicates
        self._by_score: list[int] | None = None
        self._load()

    def __len__(self) -> int:
        return len(self._rows)

    def page(
        self, order: Order, status: str | None, after: int | None, limit: int
    ) -> dict[str, Any]:
        """Return rows as `items`, `next` as the place of the next page, and their `total`.

        Args:
            order: by number, the newest first, or the best value first and those without a value
                last.
            status: of the trials; None for all.
            after: `next` of the page before; None for the first one.
            limit: rows at most.
        """
        with self._lock:
            numbers: Sequence[int] = range(len(self._rows))
            if order == "score":
                numbers = self._ranked()
            elif order == "-number":
                numbers = numbers[::-1]
            if status is not None:
                wanted = _STATUSES.index(status)
                numbers = [n for n in numbers if self._statuses[n] == wanted and self._rows[n]]
            begin = after or 0
            rows = [json.loads(r) for n in numbers[begin : begin + limit] if (r := self._rows[n])]
            more = begin + limit < len(numbers)
            return {
                "items": rows,
                "next": str(begin + limit) if more else None,
                "total": len(numbers),
            }

    def progress(self) -> tuple[int, dict[str, Any] | None]:
        """Return how many trials have ended, without duplicates, and the row of the best one."""
        with self._lock:
            for number in self._ranked():
                row = json.loads(self._rows[number]) if self._rows[number] else {"value": None}
                if row["value"] is None:
                    break
                if row["status"] == Status.COMPLETE.value:
                    return self._n_trained, row
            return self._n_trained, None

    def scores(self) -> list[float | None]:
        """Return the value of each trial, by number; None without one."""
        with self._lock:
            return [None if value != value else value for value in self._values]

    def on_start(self, start: SearchStart) -> None:
        self.begin(start.record.trials)

    def begin(self, trials: Sequence[TrialRecord]) -> None:
        """Replace all rows by those of a study that begins to run."""
        with self._lock:
            self._clear()
            for trial in trials:
                self._set(trial_to_json(trial))
            with written_whole(self._path) as new:
                new.write_text("".join(f"{row}\n" for row in self._rows if row), encoding="utf-8")

    def asked(self, trial: Asked) -> None:
        if trial.key.role is not Role.TRIAL:
            return
        with self._lock:
            number = trial.key.number
            known = number < len(self._rows) and self._rows[number]
            if known and self._statuses[number] != _STATUSES.index(Status.RUNNING.value):
                return  # it ended in an earlier run
            add = self._set if known else self._append
            add(
                {
                    "number": number,
                    "status": Status.RUNNING.value,
                    "value": None,
                    "params": dict(trial.params),
                    "repeat_of": trial.repeat_of,
                    "seed": trial.seed,
                    **_of_outcome(None),
                }
            )
            if trial.repeat_of is not None:
                self._repeats[trial.repeat_of].append(number)
                if self._statuses[trial.repeat_of] != _STATUSES.index(Status.RUNNING.value):
                    self._repeat(trial.repeat_of)

    def finished(self, key: TrialKey, outcome: Outcome, earlier: bool = False) -> None:
        if key.role is not Role.TRIAL or earlier:
            return
        with self._lock:
            row = json.loads(self._rows[key.number])
            row |= {"status": outcome.state.value, "value": outcome.objective}
            row |= _of_outcome(outcome)
            self._append(row)
            self._repeat(key.number)
        self._count(row["status"])

    def _repeat(self, original: int) -> None:
        """Give duplicates the outcome of their original."""
        kept = ("number", "params", "repeat_of", "seed")
        for number in self._repeats.pop(original, ()):
            own = json.loads(self._rows[number])
            found = json.loads(self._rows[original])
            self._append(found | {key: own[key] for key in kept})

    def _append(self, row: dict[str, Any]) -> None:
        self._set(row)
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(self._rows[row["number"]] + "\n")

    def _set(self, row: dict[str, Any], text: str | None = None) -> None:
        number, missing = row["number"], row["number"] + 1 - len(self._rows)
        if missing > 0:
            self._rows += [""] * missing
            self._values.extend([_NAN] * missing)
            self._statuses += bytes(missing)
        if row["repeat_of"] is None:
            had_ended = bool(self._rows[number]) and self._statuses[number] != _RUNNING
            self._n_trained += (row["status"] != Status.RUNNING.value) - had_ended
        self._rows[number] = text or to_json(row)
        self._values[number] = _NAN if row["value"] is None else row["value"]
        self._statuses[number] = _STATUSES.index(row["status"])
        self._by_score = None

    def _ranked(self) -> list[int]:
        if self._by_score is None:

            def rank(number: int) -> tuple[bool, float, int]:
                value = self._values[number]
                return value != value, self._sign * value if value == value else 0.0, number

            self._by_score = sorted(range(len(self._rows)), key=rank)
        return self._by_score

    def _clear(self) -> None:
        self._rows, self._values, self._statuses = [], array("d"), bytearray()
        self._by_score, self._n_trained = None, 0
        self._repeats.clear()

    def _load(self) -> None:
        for line in _lines_of(self._path):
            with contextlib.suppress(ValueError):  # the last line of a process that was killed
                self._set(json.loads(line), line.rstrip("\n"))


def _lines_of(path: Path) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
        yield from file


def _of_outcome(outcome: Outcome | None) -> dict[str, Any]:
    return {
        "epochs": len(outcome.history) if outcome else 0,
        "seconds": outcome.seconds if outcome else None,
        "weights": outcome.n_weights if outcome else None,
        "latency_ms": outcome.latency_ms if outcome else None,
        "reason": outcome.reason if outcome else None,
    }


class TrialTables:
    """The tables of all studies; those that run, and the last ones read, are in memory.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._tables: OrderedDict[tuple[str, str], TrialTable] = OrderedDict()
        self._running: dict[tuple[str, str], list[TrialTable]] = {}  # once for each opener
        self._counting, self._ended = threading.Lock(), Counter[str]()

    @property
    def ended(self) -> Counter[str]:
        """How many trials have ended since the start, of all studies, by status."""
        with self._counting:
            return self._ended.copy()

    def _count(self, status: str) -> None:
        with self._counting:
            self._ended[status] += 1

    def of(self, owner: str, study: str, *, sign: int) -> TrialTable:
        """Return the table of a study."""
        with self._lock:
            return self._of(owner, study, sign)

    def _of(self, owner: str, study: str, sign: int) -> TrialTable:
        key = (owner, study)
        if running := self._running.get(key):
            return running[-1]
        if key not in self._tables:
            self._tables[key] = TrialTable(self._path(owner, study), sign, self._count)
        self._tables.move_to_end(key)
        while len(self._tables) > _KEPT:
            self._tables.popitem(last=False)
        return self._tables[key]

    @contextlib.contextmanager
    def running(self, owner: str, study: str, *, sign: int) -> Iterator[TrialTable]:
        """Keep the table of a study that runs, which observes its search."""
        with self._lock:
            table = self._of(owner, study, sign)
            openers = self._running.setdefault((owner, study), [])
            openers.append(table)
        try:
            yield table
        finally:
            with self._lock:
                openers.pop()
                if not openers:
                    self._running.pop((owner, study), None)

    def remove(self, owner: str, study: str) -> None:
        """Remove the table of a study."""
        with self._lock:
            self._tables.pop((owner, study), None)
            self._path(owner, study).unlink(missing_ok=True)

    def _path(self, owner: str, study: str) -> Path:
        folder = self._folder / owner
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder / f"{study}.jsonl"
