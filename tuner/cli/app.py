"""The commands with their arguments and options. Their bodies are imported when called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import (
    AllData,
    AllowCode,
    AsJson,
    DataFile,
    DataPath,
    Ensemble,
    Events,
    Executor,
    ExperimentFile,
    Features,
    Force,
    From,
    Id,
    Journal,
    Model,
    Register,
    ReopenTest,
    Set,
    Strategy,
    Strict,
    Study,
    Target,
    Test,
    Time,
    Tracking,
    Trials,
    Workers,
    study_name,
    whole,
)

__all__ = ["app", "compare", "predict", "sync", "ui"]


def sync(
    study: Study,
    journal: Journal = None,
    register: Register = None,
    ensemble: Ensemble = False,
) -> None:
    """Make MLflow agree with a study's journal."""
    from tuner.cli import studies as command

    command.sync(study, journal, register, ensemble=ensemble)


def ui(
    study: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", parser=study_name, help="Open at this study's trials."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", parser=whole("--port", 5000), help="\\[default: its usual one]"),
    ] = None,
    journal: Journal = None,
) -> None:
    """Start the MLflow UI on this folder's trials; Ctrl-C ends it."""
    from tuner.cli import studies as command

    command.ui(study, port, journal)


def compare(
    experiment: ExperimentFile,
    strategies: Annotated[
        str, typer.Option(metavar="A,B", help="Which ones; tuner strategies lists them.")
    ] = "random,tpe,pso,woa",
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=whole("--seeds", 5),
            help="Searches of each: on the experiment's seed and the ones after it.",
        ),
    ] = 5,
    trials: Trials = None,
    workers: Workers = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Where page, picture and tables go. \\[default: EXPERIMENT-comparison]",
        ),
    ] = None,
    journal: Journal = None,
    executor: Executor = "local",
    tracking: Tracking = True,
    set_: Set = None,
    force: Force = False,
    json: Events = False,
    allow_code: AllowCode = False,
) -> None:
    """Compare strategies: a search of each on several seeds, and which differences are real."""
    from tuner.cli import compare as comparing

    comparing.compare(
        experiment,
        strategies=strategies,
        n_seeds=seeds,
        trials=trials,
        workers=workers,
        journal=journal,
        executor=executor,
        tracking=tracking,
        set_=set_ or [],
        output=output,
        force=force,
        as_json=json,
    )


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", help="What train -o or export --model wrote.")
    ],
    data: Annotated[
        Path, typer.Argument(metavar="DATA.csv", help="A CSV or Parquet file like the training's.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file. \\[default: the terminal]")
    ] = None,
    all_: Annotated[
        bool,
        typer.Option("--all", help="Forecast from every row on, not only after the last one."),
    ] = False,
    future: Annotated[
        Path | None,
        typer.Option(
            "--future",
            metavar="FILE",
            help="Rows to come, with the columns that are known ahead. \\[default: DATA's last]",
        ),
    ] = None,
    numpy: Annotated[
        bool, typer.Option("--numpy", help="Run the model in numpy, without onnxruntime.")
    ] = False,
    force: Force = False,
) -> None:
    """Predict with a trained model, as CSV; this needs no torch."""
    from tuner.cli import predict as command

    command.predict(model, data, output, all_, force, future, numpy)


app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Search the hyperparameters of LSTM models, and believe the score.",
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


@app.command(rich_help_panel="Search")
def init(
    data: Annotated[
        Path, typer.Argument(metavar="DATA.csv", help="A CSV, Excel, JSON lines or Parquet file.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The file to write. \\[default: DATA.yaml, here]"),
    ] = None,
    target: Target = None,
    features: Features = None,
    time: Time = None,
    id_: Id = None,
    no_time: Annotated[
        bool, typer.Option("--no-time", help="Take the rows as they come, without their times.")
    ] = False,
    resample: Annotated[
        str | None,
        typer.Option(metavar="STEP", help="Bring uneven times to steps: 15min, 1h, 1D, say."),
    ] = None,
    wide: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="Columns that are series of one quantity: 'store_*', or A,B."
        ),
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(
            metavar="N", parser=whole("--horizon", 12), help="Rows ahead that are forecast: 1."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="forecast, classify, label or regress: by the target."),
    ] = None,
    read: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="How the file is written, as data.read: 'decimal=,', say."
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Write an experiment file for a data file, with what is found in it."""
    from tuner.cli import init as command

    command.init(
        data,
        output,
        target=target,
        time=time,
        id_=id_,
        no_time=no_time,
        resample=resample,
        wide=wide,
        features=features,
        horizon=horizon,
        task=task,
        read=read or [],
        force=force,
    )


@app.command(rich_help_panel="Search")
def check(
    experiment: ExperimentFile,
    strategy: Strategy = None,
    set_: Set = None,
    allow_code: AllowCode = False,
) -> None:
    """Check an experiment and its data, show what would be searched; start nothing."""
    from tuner.cli import run as command

    command.check(experiment, strategy, set_ or [])


@app.command(rich_help_panel="Search")
def run(
    experiment: ExperimentFile,
    strategy: Strategy = None,
    trials: Trials = None,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="No new trial after this: 90s, 10m, 1h30m.")
    ] = None,
    workers: Workers = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", parser=whole("--seed", 1), help="Seed of everything random."),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The study's name. \\[default: EXPERIMENT-STRATEGY-SEED]"
        ),
    ] = None,
    journal: Journal = None,
    executor: Executor = "local",
    asynchronous: Annotated[
        bool,
        typer.Option(
            "--asynchronous", help="Let no worker wait; the search cannot be repeated exactly."
        ),
    ] = False,
    tracking: Tracking = True,
    register: Register = None,
    test: Test = True,
    reopen_test: ReopenTest = False,
    from_: From = None,
    set_: Set = None,
    json: Events = False,
    allow_code: AllowCode = False,
) -> None:
    """Search; the same command again resumes."""
    from tuner.cli import run as command
    from tuner.cli.overrides import load, replaced_strategy
    from tuner.orchestrator import SearchOptions

    loaded = load(
        experiment,
        strategy,
        set_ or [],
        trials=("budget.trials", trials),
        timeout=("budget.timeout", timeout),
        seed=("seed", seed),
        asynchronous=("asynchronous", asynchronous or None),
    )
    options = SearchOptions(
        study=study,
        journal=journal,
        start_from=tuple(from_ or ()),
        workers=workers,
        executor=executor,
        tracking=tracking,
        register=register,
        open_test=test,
        reopen_test=reopen_test,
    )
    options.check()
    command.run(loaded, options, as_json=json, replaced=replaced_strategy(experiment, loaded))


app.command(rich_help_panel="Search")(compare)


@app.command(rich_help_panel="Results")
def studies(journal: Journal = None, json: AsJson = False) -> None:
    """List the studies in this folder."""
    from tuner.cli import studies as command

    command.studies(journal, json)


@app.command(rich_help_panel="Results")
def show(study: Study, journal: Journal = None, json: AsJson = False) -> None:
    """Show a study: its best configurations and scores."""
    from tuner.cli import studies as command

    command.show(study, journal, json)


@app.command(rich_help_panel="Results")
def export(
    study: Study,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file. \\[default: the terminal]")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="yaml|json", help="\\[default: by the file's name]"),
    ] = None,
    model: Model = None,
    trial: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=whole("--trial", 3),
            help="This trial, of the Pareto front say. \\[default: the winner]",
        ),
    ] = None,
    all_data: AllData = False,
    ensemble: Ensemble = False,
    data: DataPath = None,
    journal: Journal = None,
    force: Force = False,
    allow_code: AllowCode = False,
) -> None:
    """Write the best configuration as an experiment file that trains again, and its model."""
    from tuner.cli import models as command

    command.export(
        study,
        output,
        format_,
        journal,
        force=force,
        data=data,
        model=model,
        all_data=all_data,
        ensemble=ensemble,
        trial=trial,
    )


@app.command(rich_help_panel="Results")
def train(
    experiment: ExperimentFile,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Write the trained model here."),
    ] = None,
    data: DataFile = None,
    all_data: AllData = False,
    ensemble: Ensemble = False,
    strict: Strict = False,
    set_: Set = None,
    allow_code: AllowCode = False,
) -> None:
    """Train one configuration; of an exported one, say whether its score is reproduced."""
    from tuner.cli import models as command

    command.train(
        experiment,
        output,
        set_ or [],
        data=data,
        all_data=all_data,
        ensemble=ensemble,
        strict=strict,
    )


app.command(rich_help_panel="Results")(predict)


@app.command(rich_help_panel="Results")
def report(
    study: Study,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The page to write. \\[default: STUDY.html]",
            show_default=False,
        ),
    ] = None,
    journal: Journal = None,
    force: Force = False,
) -> None:
    """Write a study's result as one page, with pictures and what they rest on."""
    from tuner.cli import studies as command

    command.report(study, output, journal, force)


app.command(rich_help_panel="Tracking")(sync)

app.command(rich_help_panel="Tracking")(ui)


@app.command(rich_help_panel="Search")
def strategies(json: AsJson = False) -> None:
    """List the strategies and their options."""
    from tuner.cli import studies as command

    command.strategies(json)
