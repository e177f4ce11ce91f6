"""What `--from` names: earlier studies, and files of configurations with their scores."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import InputError, JournalError, nearest, one_line
from tuner.experiment import Domain, Experiment
from tuner.launching.finding import read

if TYPE_CHECKING:
    from tuner.coordination.warm_start import Earlier

__all__ = ["read_earlier"]

_NOT_SEARCHED = (
    *("trial", "status", "epochs", "seconds", "weights", "latency_ms", "seed", "repeat_of"),
    "reason",
)
"""Columns of the table of trials that are no part of a configuration."""


def read_earlier(
    names: Sequence[str], experiment: Experiment, study: str, journal: str | None
) -> list[Earlier]:
    """Return what a new study begins from.

    Args:
        names: of studies here or in the journal, paths of journals, or of CSV files with a column
            for each searched hyperparameter, one called `score` or after the metric, and those of
            `Study.trials`.
        experiment: what is searched.
        study: the new study's name.
        journal: as `--journal` gave it.

    Raises:
        InputError: there is no such study or file; a column is unknown or missing, or a value
            lies outside the search space.
    """
    from tuner.coordination.warm_start import Earlier

    found = []
    for name in names:
        if name.lower().endswith(".csv"):
            found.append(Earlier(name, configurations=_read_table(Path(name), experiment)))
            continue
        if name == study:
            raise InputError(
                f"--from: must be another study than the one that is searched, got {name!r}; "
                f"leave it out to resume, or give another --study name"
            )
        found.append(Earlier(name, _read_study(name, journal)))
    return found


def _read_study(name: str, journal: str | None) -> Any:
    path = Path(name)
    if path.suffix == ".journal":
        return read(path.stem, name)
    own = Path("studies") / f"{name}.journal"
    try:
        return read(name, journal if journal is not None and not own.exists() else None)
    except JournalError as error:
        raise InputError(f"--from: {error}") from None


def _read_table(path: Path, experiment: Experiment) -> tuple[dict[str, Any], ...]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, restkey="", strict=True))
    except FileNotFoundError:
        raise InputError(f"--from: {path}: no such file; check the path") from None
    except (OSError, ValueError, csv.Error) as error:
        problem = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"--from: {path}: cannot be read: {problem}; write a CSV file") from None
    space, metric = experiment.search_space, experiment.objective.metric
    columns = [name for name in rows[0] if name] if rows else []
    if not columns:
        raise InputError(f"--from: {path}: has no configuration; write a line for each")
    known = [*space, "score", metric]
    for column in columns:
        if column not in known and column not in _NOT_SEARCHED:
            raise InputError(f"--from: {path}: unknown column {column!r}{nearest(column, known)}")
    for name in space:
        if name not in columns:
            raise InputError(f"--from: {path}: {name}: has no column; add one, as it is searched")
    scored = next((name for name in ("score", metric) if name in columns), None)
    configurations: list[tuple[float, dict[str, Any]]] = []
    sign = -1.0 if experiment.objective.direction == "maximize" else 1.0
    for line, row in enumerate(rows, 2):
        where = f"--from: {path}: line {line}"
        params = {name: _value(row[name], domain, f"{where}: {name}")
                  for name, domain in space.items()}  # fmt: skip
        score = 0.0
        if scored is not None:
            if not (row[scored] or "").strip():
                continue  # a trial that failed, or was pruned
            try:
                score = sign * float(row[scored])
            except ValueError:
                text = f"must be a number, got {row[scored]!r}; correct it, or leave it empty"
                raise InputError(f"{where}: {scored}: {text}") from None
        configurations.append((score, params))
    configurations.sort(key=lambda pair: pair[0])  # equal ones stay as they are
    return tuple(params for _, params in configurations)


def _value(text: str | None, domain: Domain, where: str) -> Any:
    """Read a value of a search space."""
    text = (text or "").strip()
    if domain.type == "categorical":
        for choice in domain.choices:
            if text in (str(choice), str(choice).lower()):
                return choice
        numbers = [c for c in domain.choices if isinstance(c, int | float)]
        value: Any = _number(text)
        found = [c for c in numbers if not isinstance(c, bool) and c == value]
        if found:
            return found[0]
    else:
        value = _number(text)
        if value is not None and domain.type == "int" and value == int(value):
            value = int(value)
        if value is not None and value in domain:
            return value
    ends = domain.bounds()
    allowed = f"one of {', '.join(map(str, ends))}"
    if domain.type != "categorical":
        step = f" in steps of {domain.step}" if domain.step not in (None, 1) else ""
        allowed = f"from {min(ends)} to {max(ends)}{step}"
    raise InputError(
        f"{where}: must lie in the search space, {allowed}, got {text!r}; remove the line, or "
        f"widen the space"
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
