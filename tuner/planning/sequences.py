"""Plans an experiment on independent sequences."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from rich.markup import escape

from tuner.data import SequencesRef
from tuner.data.linear_models import MOST_VALUES, values_say_more
from tuner.errors import InputError, nearest, refusal
from tuner.experiment.yaml_files import text_of
from tuner.metrics import metrics_of
from tuner.planning.columns import MOST_CLASSES
from tuner.planning.proposal import (
    Choice,
    Proposal,
    Request,
    SearchPlan,
    batch_sizes_for,
    check_text,
    choices,
    commented,
    key,
    printable,
)
from tuner.tables.table import RawTable

_SECONDS = 25.0  # that a trial may take on one core, about
_LONG = 48  # steps, from which on they are read in segments, behind a convolution
_STEPS_READ = 16  # about, of a long sequence
_FEW = 500  # sequences: a hundred or so validate


@dataclass(frozen=True)
class SequencePlan(SearchPlan):
    """Everything about a first search over sequences that depends on them."""

    linear_paths: tuple[bool, ...]  # that are searched, where it begins first; one is fixed
    segments: tuple[int, ...]  # that are searched; one is fixed, and 1 is none
    channels: tuple[int, ...]  # of a convolution, likewise; 0 is none
    poolings: tuple[str, ...]


def plan_sequences(kind: str, lengths: np.ndarray, *, n_features: int) -> SequencePlan:
    """Plan a first search.

    Sequences of one length may have a linear path. It is searched here: a linear model that
    nearly fits the training sequences leaves the layers little to learn. Where there are too few
    to choose, the caller may keep it.

    Args:
        lengths: steps of each sequence, (sequences,).
    """
    middle = int(np.median(lengths))
    one_length = lengths.min() == lengths.max() and middle * n_features <= MOST_VALUES
    each_step = kind in ("label", "regress_steps")
    linear = not each_step and one_length
    long = middle >= _LONG
    segments: tuple[int, ...] = (1,)
    if long and not each_step:
        near = max(2, middle // _STEPS_READ)
        segments = tuple(sorted({max(2, near // 2), near, 2 * near}))
    read = math.ceil(middle / segments[0])
    trained = max(1, int(len(lengths) * 0.65))
    batches = batch_sizes_for(trained)
    seconds = trained / batches[1] * 0.006 + trained * read * 8e-6
    of_values = kind in ("regress", "regress_steps")
    most = 150 if of_values else 60
    epochs = int(min(most, max(8, _SECONDS / seconds)))
    metrics = metrics_of("values" if of_values else "classes")
    return SequencePlan(
        metric=Choice(metrics[0], ", ".join(metrics)),
        linear_paths=(True, False) if linear else (),
        segments=segments,
        channels=(0, 32) if long else (0,),
        poolings=() if each_step else ("last", "mean", "max", "attention"),
        hidden_sizes=(16, 128),
        batch_sizes=batches,
        learning_rates=(0.001, 0.02),
        trials=30 if epochs > 15 else 20,
        epochs=epochs,
        patience=min(epochs, max(5, epochs // 4)),
        startup=8,
        warmup=max(3, epochs // 5),
    )


def sequence_text(
    asked: Request, kind: str, title: str, features: list[str], plan: SequencePlan
) -> str:
    """Return the text of the experiment file; `title` is the comment at its head."""
    columns, drawn = asked.columns, "drawn, each class its share" if kind == "classify" else "drawn"
    time = columns.time if asked.time_given or columns.dialect.time_columns else None
    why_repeats = "five can tell luck from a gain, and take longer"
    regression = "a ridge regression" if kind == "regress" else "a logistic regression"
    rest = f"begins as {regression}; the layers learn the rest"
    lines = [
        f"# {title}",
        f"name: {text_of(asked.name)}",
        "data:",
        *key("path", asked.written_path),
        *key("read", columns.dialect.to_dict() or None),
        *key("time", time),
        *key("id", columns.id, columns.why_id or "the rows of one sequence"),
        *key("target", columns.target, columns.why_target),
        *key("features", features),
        *key("split", {"validation": 0.2, "test": 0.15, "seed": 0}, drawn),
        *key("scale", "standard", "standard, minmax, none"),
        f"task: {{kind: {kind}}}",
        commented("hyperparameters:", "fixed; of what is searched, where it starts"),
        *key("linear_path", True if plan.linear_paths else None, rest),
        *key("bidirectional", True, "a sequence is known to its end"),
        *key("optimizer", "adamw", "its weight_decay is searched"),
        *key("schedule", "cosine", "the learning rate falls to 0 over budget.epochs"),
        *key("learning_rate", 0.005),
        *key("weight_decay", 0.01),
        *key("segment", _middle(plan.segments), "steps that are read as one"),
        *key("conv_channels", _middle(plan.channels), "a convolution sees neighbouring steps"),
        "search_space:",
        *plan.space_lines(),
        *key("weight_decay", {"type": "float", "low": 0.0001, "high": 0.3, "log": True}),
        *choices("batch_size", plan.batch_sizes),
        *choices("linear_path", plan.linear_paths),
        *choices("pooling", plan.poolings),
        *choices("segment", plan.segments),
        *choices("conv_channels", plan.channels),
        *plan.search_lines(),
        commented("finalists: {top: 3, repeats: 3}", why_repeats),
        "seed: 0",
        "",
    ]
    return "\n".join(lines)


def _middle(values: tuple[int, ...]) -> int | None:
    """Return where a search of several values begins; None where there is no search."""
    return values[len(values) // 2] if len(values) > 1 else None


_TASKS = ("forecast", "classify", "label", "regress", "regress_steps")
_TO_A_CLASS = 4  # sequences at least, on average


@dataclass(frozen=True)
class _Target:
    """Facts about the target's values in the sequences."""

    lengths: np.ndarray  # (sequences,)
    constant: bool  # within every sequence
    numbers: bool
    whole: bool  # numbers without a fraction
    distinct: int


def kind_of(asked: Request, task: str | None) -> tuple[str, str]:
    """Return the task, and the reason.

    Rows with an id are a panel of series, unless the target's values are texts, or a constant
    number within each id: then they are sequences.

    Raises:
        InputError: there is no such task, or it needs an id.
    """
    if task is not None and task not in _TASKS:
        names = ", ".join(_TASKS)
        rule = f"must be one of {names}"
        raise InputError(rule, where="--task", got=repr(task), remedy=nearest(task, _TASKS))
    if task is not None:
        if task != "forecast" and asked.columns.id is None:
            rule = f"{task} needs the column that tells sequences apart"
            raise InputError(rule, where="--task", remedy="name it with --id")
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
    few = target.distinct <= min(MOST_CLASSES, len(target.lengths) / _TO_A_CLASS)
    if target.whole and few and target.distinct > 1:
        return "classify", f"{name!r} is one of {target.distinct} whole numbers for each id"
    if target.distinct > 1:
        return "regress", f"{name!r} is one number for each id"
    return "forecast", f"{name!r} is the same for every id"


def sequence_file(asked: Request, kind: str) -> Proposal:
    """Write the experiment that follows from the sequences in a file.

    Raises:
        DataError: there is nothing to read but the target.
    """
    columns = asked.columns
    target = _look(asked)
    used = (columns.target, columns.id, columns.time if asked.time_given else None)
    features = [c for c in asked.features or columns.numbers if c not in used]
    if not features:
        rule = "no column of numbers beside the target"
        remedy = "add one, or write data.text by hand, see docs/tasks-and-data.md"
        raise refusal(asked.path, "data.features", rule, remedy=remedy)
    plan = plan_sequences(kind, target.lengths, n_features=len(features))
    n, longest, shortest = len(target.lengths), target.lengths.max(), target.lengths.min()
    steps = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
    found = f"{n} sequences of {steps} steps"
    if kind in ("classify", "label"):
        found += f", {target.distinct} classes"
    written = partial(
        sequence_text, asked, kind, f"{printable(asked.path.name)}: {found}.", features
    )
    # Luck on few validation sequences would choose between unlike models.
    few = len(plan.linear_paths) > 1 and n < _FEW
    if few and _values_say_more(written(plan), asked.path):
        plan = replace(plan, linear_paths=(True,))
    what = {
        "classify": "the class of a sequence",
        "label": "the class of every step",
        "regress": "the value of a sequence",
        "regress_steps": "the value of every step",
    }
    return Proposal(
        text=written(plan),
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


def _look(asked: Request) -> _Target:
    """Read the id and the target as strings."""
    columns = asked.columns
    table = RawTable.read(asked.path, columns.dialect, columns.time)
    assert columns.id is not None
    strings = table.raw_strings([columns.id, columns.target])
    codes, names = pd.factorize(strings[columns.id])
    values = pd.Series(strings[columns.target])
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
