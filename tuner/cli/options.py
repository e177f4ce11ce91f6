"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tuner.errors import InputError


def whole(option: str, example: int, help: str) -> Any:
    """Return an option for a whole number; errors show `example`."""

    def parse(text: str | int) -> int:
        try:
            return int(text)
        except ValueError:
            rule = "must be a whole number"
            remedy = f"write {option} {example}"
            raise InputError(rule, where=option, got=repr(text), remedy=remedy) from None

    return typer.Option(option, metavar="N", parser=parse, help=help)


def study_name(text: str) -> str:
    """Return the name of a study, given by name or by the path of its journal in `studies/`."""
    from tuner.experiment.fields import normalized  # with pydantic and YAML: not for predict

    path = Path(text)
    if path.suffix == ".journal" and path.absolute().parent == Path("studies").absolute():
        return normalized(path.stem)
    return normalized(text)


def _allow_code(value: bool) -> bool:
    """Let this command and its workers import code that is refused otherwise."""
    if value:
        from tuner.user_code import allow

        allow()
    return value


ExperimentFile = Annotated[
    Path, typer.Argument(metavar="EXPERIMENT.yaml", help="The experiment file.")
]
Study = Annotated[str, typer.Argument(metavar="STUDY", parser=study_name, help="The study's name.")]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="The file. [default: the terminal]")
]
Journal = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="A file, sqlite:///FILE or postgresql+psycopg://... [default: studies/STUDY.journal]",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key: budget.epochs=50. Repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Events = Annotated[bool, typer.Option("--json", help="Print every event as a line of JSON.")]
Trials = Annotated[
    int | None, whole("--trials", 40, "Number of trials; schedules of a swarm depend on it.")
]
Workers = Annotated[int | None, whole("--workers", 2, "Trials at a time. [default: one per core]")]
Executor = Annotated[
    str, typer.Option(metavar="NAME", help="Where trials run: local, ray or ray://HOST:PORT.")
]
Tracking = Annotated[
    bool, typer.Option("--tracking/--no-tracking", help="Copy the trials to MLflow.")
]
Strategy = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Search with this one instead; tuner strategies lists them."),
]
Register = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Register the winner's model in MLflow under this name."),
]
AllData = Annotated[
    bool,
    typer.Option("--all-data", help="Train on the validation set too, to deploy it: no score."),
]
Ensemble = Annotated[
    bool,
    typer.Option("--ensemble", help="Train on every recorded seed; the mean of the models."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite any file.")]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        callback=_allow_code,
        help="Import cells and metrics from the current folder, and those of an exported file.",
    ),
]
