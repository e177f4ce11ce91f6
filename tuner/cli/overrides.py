"""Options that change the experiment, as overrides of its keys."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Any

from tuner.errors import ExperimentError, InputError
from tuner.experiment import Experiment, Override, parse_value
from tuner.experiment.yaml_files import read_mapping

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
            remedy = "write budget.epochs=50, say"
            raise InputError("must be KEY=VALUE", where="--set", got=repr(text), remedy=remedy)
        found.append(Override(key.strip(), parse_value(value, f"--set {key}"), "--set"))
    return found


def load(
    path: Path, strategy: str | None, set_: list[str], **options: tuple[str, Any]
) -> Experiment:
    """Load an experiment with options laid over it; `--set` comes last.

    A strategy that the file names keeps the options that it has there.

    Raises:
        ExperimentError: the file or an option breaks a rule.
        InputError: it is a file of data.
    """
    if path.suffix.lower() in _DATA and path.is_file():
        written = f"{path.stem}.yaml"  # as `tuner init` does
        command = f"tuner init {shlex.quote(str(path))}"
        remedy = f"give {written}" if Path(written).exists() else f"write `{command}` first"
        raise InputError("is a data file, not an experiment", where=path, remedy=remedy)
    same = strategy is None or strategy == own_strategy(path).get("name")
    block = None if same else {"name": strategy}
    return Experiment.load(path, overrides(set_, strategy=("strategy", block), **options))


def own_strategy(path: Path) -> dict[str, Any]:
    """Return the block `strategy` of an experiment file as it is written; {} without one."""
    with contextlib.suppress(ExperimentError):  # loading it says so
        block = read_mapping(path, "experiment file").get("strategy")
        return block if isinstance(block, dict) else {}
    return {}


def replaced_strategy(path: Path, experiment: Experiment) -> str | None:
    """Return the strategy of the file with its options, if the search uses another one."""
    own = own_strategy(path)
    if own.get("name") in (None, experiment.strategy.name):
        return None
    options = ", ".join(f"{key} {value}" for key, value in own.items() if key != "name")
    return f"{own['name']} ({options})" if options else str(own["name"])
