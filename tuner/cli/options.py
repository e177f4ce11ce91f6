"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tuner.errors import InputError
from tuner.user_code import allow

__all__ = [
    "AllData",
    "AllowCode",
    "AsJson",
    "DataFile",
    "DataPath",
    "Ensemble",
    "Events",
    "Executor",
    "ExperimentFile",
    "Features",
    "Force",
    "From",
    "Id",
    "Journal",
    "Model",
    "ReopenTest",
    "Set",
    "Strategy",
    "Strict",
    "Study",
    "Target",
    "Test",
    "Time",
    "Tracking",
    "Trials",
    "Workers",
    "study_name",
    "whole",
]


def whole(option: str, example: int) -> Callable[[str | int], int]:
    """Return what reads an option's whole number; `example` stands in its errors."""

    def parse(text: str | int) -> int:
        try:
            return int(text)
        except ValueError:
            rule = "must be a whole number"
            remedy = f"write {option} {example}"
            raise InputError(rule, where=option, got=repr(text), remedy=remedy) from None

    return parse


def study_name(text: str) -> str:
    """Return a study's name; of the path of a journal in studies/, the study that it is of."""
    from tuner.experiment.fields import normalized  # with pydantic and YAML: not for predict

    path = Path(text)
    if path.suffix == ".journal" and path.absolute().parent == Path("studies").absolute():
        return normalized(path.stem)
    return normalized(text)


ExperimentFile = Annotated[
    Path, typer.Argument(metavar="EXPERIMENT.yaml", help="The experiment file.")
]

Study = Annotated[str, typer.Argument(metavar="STUDY", parser=study_name, help="The study's name.")]

Journal = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="A file, sqlite:///FILE or postgresql+psycopg://... "
        "\\[default: studies/STUDY.journal]",
    ),
]

Strategy = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Search with this one instead; tuner strategies lists them."),
]

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key: budget.epochs=50. Repeatable."),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

Events = Annotated[
    bool, typer.Option("--json", help="Print what happens as JSON, an object a line.")
]

Trials = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        parser=whole("--trials", 40),
        help="Configurations to train; a swarm paces itself by them.",
    ),
]

Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        parser=whole("--workers", 2),
        help="Trials at a time. \\[default: one per core]",
    ),
]

Executor = Annotated[
    str, typer.Option(metavar="NAME", help="local, ray or ray://HOST:PORT: where trials run.")
]

Tracking = Annotated[
    bool, typer.Option("--tracking/--no-tracking", help="Copy the trials to MLflow.")
]

From = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        metavar="STUDY",
        help="Begin a new study from this one, or a CSV file of configurations. Repeatable.",
    ),
]

Force = Annotated[bool, typer.Option("--force", help="Overwrite any file.")]


def _allow_code(value: bool) -> bool:
    """Have this command, and the workers that it starts, import what else would be refused."""
    if value:
        allow()
    return value


AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        callback=_allow_code,
        help="Import cells and metrics of the current folder, and those of an exported file.",
    ),
]

AllData = Annotated[
    bool,
    typer.Option("--all-data", help="Train on the validation set too, to deploy it: no score."),
]

Ensemble = Annotated[
    bool,
    typer.Option("--ensemble", help="Train on every recorded seed; the mean of the models."),
]

DataFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Train on this file, not on the one that is named."),
]

DataPath = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Write this as data.path. \\[default: where the data is]"),
]

Model = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Train it again, and write the model here.")
]

Register = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Register the winner's model in MLflow under this name."),
]

ReopenTest = Annotated[
    bool,
    typer.Option(
        "--reopen-test", help="Open it once more for an extended study; that is recorded."
    ),
]

Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse data that is not what was searched on.")
]

Test = Annotated[
    bool,
    typer.Option("--test/--no-test", help="Evaluate on the test set at the end, once for a study."),
]

Target = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Column to predict, or several. \\[default: by its name]"),
]

Features = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Columns the model sees. \\[default: the numeric ones]"),
]

Time = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of times. \\[default: the first found]")
]

Id = Annotated[
    str | None,
    typer.Option("--id", metavar="COLUMN", help="Column that tells several series apart."),
]


_DATA = (".csv", ".parquet")
