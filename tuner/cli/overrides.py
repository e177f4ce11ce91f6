"""Options that change the experiment, as overrides of its keys."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from tuner.errors import InputError
from tuner.experiment import Experiment, Override, parse_value

__all__ = ["load", "overrides"]

_DATA = (".csv", ".parquet")


def overrides(set_: list[str], **options: tuple[str, Any]) -> list[Override]:
    """Return the overrides of named options (option name -> key and value), then of `--set`.

    A value of None stands for an option that was not given.

    Raises:
        InputError: a `--set` is not KEY=VALUE.
    """
    found = [
        Override(key, value, f"--{name}")
        for name, (key, value) in options.items()
        if value is not None
    ]
    for text in set_:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set: must be KEY=VALUE, got {text!r}; write budget.epochs=50, say")
        found.append(Override(key.strip(), parse_value(value, f"--set {key}"), "--set"))
    return found


def load(
    path: Path, strategy: str | None, set_: list[str], **options: tuple[str, Any]
) -> Experiment:
    """Load an experiment with options laid over it; `--set` comes last.

    Raises:
        ExperimentError: the file or an option breaks a rule.
        InputError: it is a file of data.
    """
    if path.suffix.lower() in _DATA and path.is_file():
        written = f"{path.stem}.yaml"  # as `tuner init` does
        command = f"tuner init {shlex.quote(str(path))}"
        remedy = f"give {written}" if Path(written).exists() else f"write `{command}` first"
        raise InputError(f"{path}: is a data file, not an experiment; {remedy}")
    block = None if strategy is None else {"name": strategy}
    return Experiment.load(path, overrides(set_, strategy=("strategy", block), **options))
