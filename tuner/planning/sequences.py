"""Plans an experiment on independent sequences."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from rich.markup import escape

from tuner.data import SequencesRef
from tuner.data.linear_models import MOST_VALUES, values_say_more
from tuner.errors import InputError, nearest, refusal
from tuner.planning.text import (
    Asked,
    Written,
    check_text,
    commented,
    flow_list,
    flow_map,
    printable,
    quoted,
)
from tuner.tables.table import RawTable

_SECONDS = 25.0  # that a trial may take on one core, about
_LONG = 48  # steps, from which on they are read in segments, behind a convolution
_STEPS_READ = 16  # about, of a long sequence
_FEW = 500  # sequences: a hundred or so validate


@dataclass(frozen=True)
class SequencePlan:
    """Everything about a first search over sequences that depends on them."""

    metric: str
    linear_paths: tuple[bool, ...]  # that are searched, where it begins first; one is fixed
    bidirectional: bool
    segments: tuple[int, ...]  # that are searched; one is fixed, and 1 is none
    channels: tuple[int, ...]  # of a convolution, likewise; 0 is none
    poolings: tuple[str, ...]
    hidden_sizes: tuple[int, int]
    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, float]
    trials: int
    epochs: int
    patience: int
    startup: int
    warmup: int
    repeats: int


def too_few_to_choose(lengths: np.ndarray) -> bool:
    """Return whether luck on the validation sequences would choose between unlike models."""
    return len(lengths) < _FEW


def plan_sequences(kind: str, lengths: np.ndarray, *, n_features: int) -> SequencePlan:
    """Choose what a first search begins with.

    Sequences of one length may have a linear path. It is searched here: a linear model that
    nearly fits the training sequences leaves the layers little to learn. Where there are too few
    to choose (`too_few_to_choose`) the caller may keep it.

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
    batches = (8, 16, 32) if trained < 1000 else (16, 32, 64) if trained < 5000 else (64, 128, 256)
    seconds = trained / batches[1] * 0.006 + trained * read * 8e-6
    of_values = kind in ("regress", "regress_steps")
    most = 150 if of_values else 60
    epochs = int(min(most, max(8, _SECONDS / seconds)))
    return SequencePlan(
        metric="rmse" if of_values else "accuracy",
        linear_paths=(True, False) if linear else (),
        bidirectional=True,
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
        repeats=3,
    )


@dataclass(frozen=True)
class SequenceColumns:
    """The columns, and what of the data key is already decided."""

    title: list[str]  # of the file: comments at its head
    name: str
    path: str
    read: dict[str, Any]  # how the file is written
    time: str | None
    id: str
    why_id: str
    why_target: str
    target: str
    features: list[str]
    kind: str


def sequence_text(columns: SequenceColumns, plan: SequencePlan) -> str:
    """Return the file."""
    metrics = dict.fromkeys(("regress", "regress_steps"), "rmse, mae, mape, smape, mase, r2")
    return "\n".join(
        [
            *[f"# {line}" for line in columns.title],
            f"name: {columns.name}",
            "data:",
            f"  path: {columns.path}",
            *([f"  read: {flow_map(columns.read)}"] if columns.read else []),
            *([f"  time: {quoted(columns.time)}"] if columns.time is not None else []),
            commented(f"  id: {quoted(columns.id)}", columns.why_id),
            commented(f"  target: {quoted(columns.target)}", columns.why_target),
            f"  features: {flow_list(columns.features)}",
            commented(
                "  split: {validation: 0.2, test: 0.15, seed: 0}",
                "drawn" if columns.kind != "classify" else "drawn, each class its share",
            ),
            commented("  scale: standard", "standard, minmax, none"),
            f"task: {{kind: {columns.kind}}}",
            commented("hyperparameters:", "fixed; of what is searched, where it starts"),
            *_fixed(plan, columns.kind),
            "search_space:",
            *_space(plan),
            commented("strategy: {name: tpe}", "tuner strategies lists them"),
            f"budget: {{trials: {plan.trials}, epochs: {plan.epochs}, patience: {plan.patience}}}",
            commented(
                f"pruner: {{name: median, n_startup_trials: {plan.startup}, "
                f"n_warmup_steps: {plan.warmup}}}",
                "ends poor trials",
            ),
            commented(
                f"objective: {{metric: {plan.metric}}}",
                metrics.get(columns.kind, "accuracy, f1, auroc, cross_entropy"),
            ),
            commented(
                f"finalists: {{top: 3, repeats: {plan.repeats}}}",
                "five can tell luck from a gain, and take longer",
            ),
            "seed: 0",
            "",
        ]
    )


def _fixed(plan: SequencePlan, kind: str) -> list[str]:
    begins = "a ridge regression" if kind == "regress" else "a logistic regression"
    lines = [
        *(
            [commented("  linear_path: true", f"begins as {begins}; the layers learn the rest")]
            if plan.linear_paths
            else []
        ),
        commented("  bidirectional: true", "a sequence is known to its end"),
        commented("  optimizer: adamw", "its weight_decay is searched"),
        commented("  schedule: cosine", "the learning rate falls to 0 over budget.epochs"),
        "  learning_rate: 0.005",
        "  weight_decay: 0.01",
    ]
    for name, values, why in (
        ("segment", plan.segments, "steps that are read as one"),
        ("conv_channels", plan.channels, "a convolution sees what neighbouring steps do"),
    ):
        if values not in ((0,), (1,)):
            lines.append(commented(f"  {name}: {values[len(values) // 2]}", why))
    return lines


def _space(plan: SequencePlan) -> list[str]:
    (least, most), (slow, fast) = plan.hidden_sizes, plan.learning_rates
    lines = [
        f"  hidden_size: {{type: int, low: {least}, high: {most}, log: true}}",
        "  dropout: {type: float, low: 0.0, high: 0.5}",
        f"  learning_rate: {{type: float, low: {slow:g}, high: {fast:g}, log: true}}",
        "  weight_decay: {type: float, low: 0.0001, high: 0.3, log: true}",
        _choices("batch_size", plan.batch_sizes),
    ]
    if len(plan.linear_paths) > 1:
        lines.append(_choices("linear_path", plan.linear_paths))
    if plan.poolings:
        lines.append(_choices("pooling", plan.poolings))
    if len(plan.segments) > 1:
        lines.append(_choices("segment", plan.segments))
    if len(plan.channels) > 1:
        lines.append(_choices("conv_channels", plan.channels))
    return lines


def _choices(name: str, values: tuple[int, ...] | tuple[str, ...] | tuple[bool, ...]) -> str:
    return f"  {name}: {{type: categorical, choices: {flow_list(values)}}}"


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
        rule = "no column of numbers beside the target"
        remedy = "add one, or write data.text by hand, see docs/tasks-and-data.md"
        raise refusal(asked.path, "data.features", rule, remedy=remedy)
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
