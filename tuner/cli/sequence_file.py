"""`tuner init` of independent sequences: which task it is, and the experiment that follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from rich.markup import escape

from tuner.cli.sequence_plan import plan_sequences, too_few_to_choose
from tuner.cli.sequence_text import SequenceColumns, sequence_text
from tuner.cli.written import Asked, Written, check_text
from tuner.cli.yaml_text import printable
from tuner.data import SequencesRef
from tuner.data.linear_sequences import values_say_more
from tuner.data.tables import RawTable, refusal
from tuner.errors import InputError, nearest

__all__ = ["kind_of", "sequence_file"]

_TASKS = ("forecast", "classify", "label", "regress", "regress_steps")
_MOST_CLASSES = 30  # that numbers may stand for
_TO_A_CLASS = 4  # sequences at least, on average


@dataclass(frozen=True)
class _Target:
    """What the target's values are, sequence by sequence."""

    lengths: np.ndarray  # (sequences,)
    constant: bool  # within every sequence
    numbers: bool
    whole: bool  # numbers without a fraction
    distinct: int


def kind_of(asked: Asked, task: str | None) -> tuple[str, str]:
    """Return the task, and why it is that one.

    What has an id is a panel of series, unless the target tells that it is sequences: its
    values are texts, or one number stands in all the rows of an id.

    Raises:
        InputError: there is no such task, or it needs an id.
    """
    if task is not None and task not in _TASKS:
        names = ", ".join(_TASKS)
        raise InputError(f"--task: must be one of {names}, got {task!r}{nearest(task, _TASKS)}")
    if task is not None:
        if task != "forecast" and asked.columns.id is None:
            text = "needs the column that tells sequences apart; name it with --id"
            raise InputError(f"--task: {task} {text}")
        return task, "the task is given"
    if asked.columns.wide is not None:
        return "forecast", "its columns are series"
    if asked.columns.id is None:
        return "forecast", "no column tells sequences apart"
    if len(asked.columns.targets) > 1:
        return "forecast", "several targets are series"
    target = _look(asked)
    name = asked.columns.target
    if not target.constant:
        if target.numbers:
            return "forecast", f"{name!r} are numbers that change within an id"
        return "label", f"{name!r} are texts that change within an id"
    if not target.numbers:
        return "classify", f"{name!r} is one text for each id"
    few = target.distinct <= min(_MOST_CLASSES, len(target.lengths) / _TO_A_CLASS)
    if target.whole and few and target.distinct > 1:
        return "classify", f"{name!r} is one of {target.distinct} whole numbers for each id"
    if target.distinct > 1:
        return "regress", f"{name!r} is one number for each id"
    return "forecast", f"{name!r} is the same for every id"


def sequence_file(asked: Asked, kind: str) -> Written:
    """Write the experiment that follows from the sequences in a file.

    Raises:
        DataError: there is nothing to read but the target.
    """
    columns = asked.columns
    target = _look(asked)
    used = (columns.target, columns.id, columns.time if asked.time_given else None)
    features = [c for c in asked.features or columns.numbers if c not in used]
    if not features:
        text = "no column of numbers beside the target; add one, or write data.text by hand"
        raise refusal(asked.path, "data.features", f"{text}, see docs/tasks-and-data.md")
    plan = plan_sequences(kind, target.lengths, n_features=len(features))
    n, longest, shortest = len(target.lengths), target.lengths.max(), target.lengths.min()
    steps = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
    found = f"{n} sequences of {steps} steps"
    if kind in ("classify", "label"):
        found += f", {target.distinct} classes"
    written = SequenceColumns(
        title=[f"{printable(asked.path.name)}: {found}."],
        name=asked.name,
        path=asked.written_path,
        read=columns.dialect.to_dict(),
        time=columns.time if asked.time_given or columns.dialect.time_columns else None,
        id=columns.id or "",
        why_id=columns.why_id or "the rows of one sequence",
        why_target=columns.why_target,
        target=columns.target,
        features=features,
        kind=kind,
    )
    text = sequence_text(written, plan)
    searched = len(plan.linear_paths) > 1 and too_few_to_choose(target.lengths)
    if searched and _values_say_more(text, asked.path):
        text = sequence_text(written, replace(plan, linear_paths=(True,)))
    what = {
        "classify": "the class of a sequence",
        "label": "the class of every step",
        "regress": "the value of a sequence",
        "regress_steps": "the value of every step",
    }
    return Written(
        text=text,
        does=f"predicts [bold]{escape(columns.target)}[/], {what[kind]}",
        found=found,
        read=columns.found,
    )


def _values_say_more(text: str, data: Path) -> bool:
    """Return whether the training sequences of an experiment are best read value by value."""
    with TemporaryDirectory() as folder:
        (ref,) = check_text(text, data, data.with_suffix(".yaml")).write(Path(folder)).folds
        assert isinstance(ref, SequencesRef)
        return values_say_more(ref)


def _look(asked: Asked) -> _Target:
    """Read the id and the target, as they are written."""
    columns = asked.columns
    table = RawTable.read(asked.path, columns.dialect, columns.time)
    assert columns.id is not None
    written = table.written([columns.id, columns.target])
    codes, names = pd.factorize(written[columns.id])
    values = pd.Series(written[columns.target])
    numbers = pd.to_numeric(values, errors="coerce")
    are_numbers = bool(numbers.notna().mean() >= 0.8)
    return _Target(
        lengths=np.bincount(codes, minlength=len(names)),
        constant=len(names) > 1
        and bool((values.groupby(codes).transform("first") == values).all()),
        numbers=are_numbers,
        whole=are_numbers and bool((numbers.dropna() % 1 == 0).all()),
        distinct=int(values.nunique()),
    )
