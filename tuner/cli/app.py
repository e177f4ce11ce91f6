"""The commands: each is a dataclass of its arguments and options.

The function that executes a command takes that dataclass; its module is imported when the command
is called, so that help is printed at once and `tuner predict` needs no torch.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, dataclass_transform, get_type_hints

import typer

from tuner.cli.options import (
    AllData,
    AllowCode,
    AsJson,
    Ensemble,
    Events,
    Executor,
    ExperimentFile,
    Force,
    Journal,
    Output,
    Register,
    Set,
    Strategy,
    Study,
    Tracking,
    Trials,
    Workers,
    study_name,
    whole,
)

_Command = TypeVar("_Command", bound=type)


class _Commands(typer.core.TyperGroup):
    """Lists the commands by section, with their descriptions in full.

    Typer's own layout of help imports Rich's Markdown, which takes longer than all else here.
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            rows = sections.setdefault(str(getattr(command, "rich_help_panel", "")), [])
            rows.append((name, command.help or ""))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 120},
    help="Search the hyperparameters of LSTM models, and evaluate the winner without leakage.",
)


def _version(show: bool) -> None:
    if show:
        from tuner import __version__

        typer.echo(f"tuner {__version__}")
        raise typer.Exit


@app.callback()
def _tuner(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@dataclass_transform(frozen_default=True)
def _command(section: str, module: str) -> Callable[[_Command], _Command]:
    """Declare a dataclass as a command of the same name, executed by a function of `module`."""

    def declare(fields: _Command) -> _Command:
        options: Any = dataclass(frozen=True)(fields)
        name = fields.__name__.lower()

        def call(**given: object) -> None:
            getattr(importlib.import_module(f"tuner.cli.{module}"), name)(options(**given))

        call.__doc__ = options.__doc__
        call.__annotations__ = get_type_hints(options, include_extras=True)
        call.__signature__ = inspect.signature(options, eval_str=True)  # type: ignore[attr-defined]
        app.command(name, rich_help_panel=section)(call)
        return cast("_Command", options)

    return declare


@_command("Search", "init")
class Init:
    """Write an experiment file for a data file, based on its columns."""

    data: Annotated[
        Path, typer.Argument(metavar="DATA.csv", help="A CSV, Excel, JSON lines or Parquet file.")
    ]
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The file to write. [default: DATA.yaml, here]"),
    ] = None
    target: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Column to predict, or several. [default: by its name]"),
    ] = None
    features: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Columns the model reads. [default: the numeric ones]"),
    ] = None
    time: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of times. [default: the first found]"),
    ] = None
    id: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column that names the series of a row.")
    ] = None
    no_time: Annotated[
        bool, typer.Option("--no-time", help="Use the order of the rows, not their times.")
    ] = False
    resample: Annotated[
        str | None,
        typer.Option(metavar="STEP", help="Resample uneven times: to 15min, 1h or 1D, say."),
    ] = None
    wide: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="Columns that are series of one quantity: 'store_*', or A,B."
        ),
    ] = None
    horizon: Annotated[int | None, whole("--horizon", 12, "Rows to forecast. [default: 1]")] = None
    task: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="forecast, classify, label or regress. [default: by the target]",
        ),
    ] = None
    read: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="How the file is written, a key of data.read: 'decimal=,'. Repeatable.",
        ),
    ] = None
    force: Force = False


@_command("Search", "run")
class Check:
    """Check an experiment and its data, and show what a search would do."""

    experiment: ExperimentFile
    strategy: Strategy = None
    set_: Set = None
    allow_code: AllowCode = False


@_command("Search", "run")
class Run:
    """Search, or resume the search that an earlier run began."""

    experiment: ExperimentFile
    strategy: Strategy = None
    trials: Trials = None
    timeout: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Start no trial after this: 90s, 10m, 1h30m."),
    ] = None
    workers: Workers = None
    seed: Annotated[int | None, whole("--seed", 1, "Seed of everything random.")] = None
    study: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The study's name. [default: EXPERIMENT-STRATEGY-SEED]"),
    ] = None
    journal: Journal = None
    executor: Executor = "local"
    asynchronous: Annotated[
        bool,
        typer.Option(
            "--asynchronous", help="Let no worker wait; the search cannot be repeated exactly."
        ),
    ] = False
    tracking: Tracking = True
    register: Register = None
    test: Annotated[
        bool,
        typer.Option(
            "--test/--no-test", help="Evaluate the winner on the test set, once per study."
        ),
    ] = True
    reopen_test: Annotated[
        bool,
        typer.Option(
            "--reopen-test", help="Evaluate again after an extended search; that is recorded."
        ),
    ] = False
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="STUDY",
            help="Begin a new study from this one, or a CSV file of configurations. Repeatable.",
        ),
    ] = None
    set_: Set = None
    json: Events = False
    allow_code: AllowCode = False


@_command("Search", "compare")
class Compare:
    """Compare strategies: search with each on several seeds, and test the differences."""

    experiment: ExperimentFile
    strategies: Annotated[
        str, typer.Option(metavar="A,B", help="Names; tuner strategies lists them.")
    ] = "random,tpe,pso,woa"
    seeds: Annotated[
        int, whole("--seeds", 5, "Searches per strategy, from the experiment's seed upwards.")
    ] = 5
    trials: Trials = None
    workers: Workers = None
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Folder for page, picture and tables. [default: EXPERIMENT-comparison]",
        ),
    ] = None
    journal: Journal = None
    executor: Executor = "local"
    tracking: Tracking = True
    set_: Set = None
    force: Force = False
    json: Events = False
    allow_code: AllowCode = False


@_command("Search", "studies")
class Strategies:
    """List the strategies and their options."""

    json: AsJson = False


@_command("Results", "studies")
class Studies:
    """List the studies in this folder."""

    journal: Journal = None
    json: AsJson = False


@_command("Results", "studies")
class Show:
    """Show a study: its best configurations and scores."""

    study: Study
    journal: Journal = None
    json: AsJson = False


@_command("Results", "models")
class Export:
    """Write the best configuration as an experiment file that trains again, and its model."""

    study: Study
    output: Output = None
    format: Annotated[
        str | None,
        typer.Option(metavar="yaml|json", help="[default: by the file's name]"),
    ] = None
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Train it again, and write the model here.")
    ] = None
    trial: Annotated[
        int | None,
        whole("--trial", 3, "This trial, one of the Pareto front say. [default: the winner]"),
    ] = None
    all_data: AllData = False
    ensemble: Ensemble = False
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Write this as data.path. [default: where the data is]"),
    ] = None
    journal: Journal = None
    force: Force = False
    allow_code: AllowCode = False


@_command("Results", "models")
class Train:
    """Train one configuration, and check whether an exported one reproduces its score."""

    experiment: ExperimentFile
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Write the trained model here."),
    ] = None
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Train on this file, not on data.path."),
    ] = None
    all_data: AllData = False
    ensemble: Ensemble = False
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse data other than that of the search.")
    ] = False
    set_: Set = None
    allow_code: AllowCode = False


@_command("Results", "predict")
class Predict:
    """Predict with a trained model, as CSV; this needs no torch."""

    model: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", help="Written by train -o or export --model.")
    ]
    data: Annotated[
        Path, typer.Argument(metavar="DATA.csv", help="A CSV or Parquet file like the training's.")
    ]
    output: Output = None
    all_: Annotated[
        bool,
        typer.Option("--all", help="Forecast from every row on, not only after the last one."),
    ] = False
    future: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Rows to come, with the columns that are known ahead. [default: DATA's last]",
        ),
    ] = None
    numpy: Annotated[
        bool, typer.Option("--numpy", help="Run the model in numpy, without onnxruntime.")
    ] = False
    force: Force = False


@_command("Results", "studies")
class Report:
    """Write a study's result as one HTML page with plots."""

    study: Study
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The page to write. [default: STUDY.html]"
        ),
    ] = None
    journal: Journal = None
    force: Force = False


@_command("Tracking", "studies")
class Sync:
    """Copy what MLflow lacks of a study from its journal."""

    study: Study
    journal: Journal = None
    register: Register = None
    ensemble: Ensemble = False


@_command("Tracking", "studies")
class Ui:
    """Start the MLflow UI on this folder's trials; Ctrl-C ends it."""

    study: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", parser=study_name, help="Open at this study's trials."),
    ] = None
    port: Annotated[int | None, whole("--port", 5000, "[default: its usual one]")] = None
    journal: Journal = None
