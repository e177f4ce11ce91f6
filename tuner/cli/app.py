"""The command line: its commands, their options, and what ends a command in one line.

Each command is a dataclass of its arguments and options. The function that executes it takes that
dataclass; its module is imported when the command is called, so that help is printed at once and
`tuner predict` needs no torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gc
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, dataclass_transform, get_type_hints

import typer

from tuner.errors import InputError, TunerError, one_line
from tuner.outputs import checked_output, to_nowhere

_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_MOST_LINES = 20  # about what is wrong
_YOUNG = 20_000  # objects between two collections: imports make many, and no garbage
_Command = TypeVar("_Command", bound=type)


def main() -> None:
    """Run the command line and exit."""
    gc.set_threshold(_YOUNG)
    status = run(sys.argv[1:])
    gc.freeze()  # at its end Python looks for garbage among all there is: a second after MLflow
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status.

    0 done, 1 failed, 2 bad input, 3 not ready yet, 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by
    SIGHUP.
    """
    try:
        with checked_output():
            status = app(args=arguments or ["--help"], prog_name="tuner", standalone_mode=False)
            sys.stdout.flush()
    except TunerError as error:
        return _failed(*error.lines, status=error.exit_status)
    except typer.TyperException as error:  # the command line itself cannot be parsed
        return _failed(_usage(error), status=2)
    except (KeyboardInterrupt, typer.Abort):
        return _failed("stopped", status=130)
    except (BrokenPipeError, SystemExit) as error:  # `head`, say, has closed the pipe
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        to_nowhere(sys.stdout)
        return 0
    except ModuleNotFoundError as error:  # only what prediction needs is installed
        name = str(error.name).partition(".")[0]
        if name == "tuner":
            raise
        return _failed(
            f"this needs {name}, which is not installed: only what predicts is; "
            f"pip install lstm-tuner installs the rest"
        )
    except OSError as error:  # a full disk, a folder that may not be written to
        if error.filename is None and error.errno not in _OF_A_DISK:
            raise
        what = error.filename or "the output"
        return _failed(f"{what}: {error.strerror}; check the path, its rights and the disk")
    return status if isinstance(status, int) else 0


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "tuner"
    text = one_line(error.format_message()).rstrip(".")
    return f"{text[:1].lower()}{text[1:]}; {command} --help shows what there is"


def _failed(*lines: str, status: int = 1) -> int:
    """Print what is wrong on stderr, a line each, and return the exit status."""
    shown, n_more = lines[:_MOST_LINES], len(lines) - _MOST_LINES
    if n_more > 0:
        shown += (f"and {n_more} more",)
    try:
        sys.stderr.write("".join(f"tuner: {one_line(line)}\n" for line in shown))
    except OSError:  # the terminal is closed
        to_nowhere(sys.stderr)
    return status


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

    def declare(declared: _Command) -> _Command:
        options: Any = dataclasses.dataclass(frozen=True)(declared)
        name = declared.__name__.lower()

        def call(**given: object) -> None:
            command = options(**given)
            with _beside_workers(command):
                getattr(importlib.import_module(f"tuner.cli.{module}"), name)(command)

        hints = get_type_hints(options, include_extras=True)
        for field in dataclasses.fields(options):
            if (option := field.metadata.get("option")) is not None:
                hints[field.name] = Annotated[hints[field.name], option]
        signature = inspect.signature(options)
        call.__doc__, call.__annotations__ = options.__doc__, hints
        call.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[p.replace(annotation=hints[p.name]) for p in signature.parameters.values()],
            return_annotation=None,
        )
        app.command(name, rich_help_panel=section)(call)
        return cast("_Command", options)

    return declare


def _beside_workers(command: object) -> contextlib.AbstractContextManager[None]:
    """Have workers start while the command imports and reads, if it trains on this machine."""
    from tuner.cli.remote import server_of
    from tuner.template import workers_expected

    match command:
        case Run(executor=None | "local", server=server) | Export(model=Path(), server=server):
            return workers_expected(server_of(server) is None)
        case Compare(executor="local") | Train():
            return workers_expected()
    return contextlib.nullcontext()


def _given(help: str, metavar: str | None = None, *names: str) -> Any:
    """Return the annotation of an option, called as its field unless `names` are given."""
    return typer.Option(*names, metavar=metavar, help=help)


def _option(help: str, metavar: str | None = None, *names: str, default: Any = None) -> Any:
    return dataclasses.field(default=default, metadata={"option": _given(help, metavar, *names)})


def _flag(help: str, *names: str, default: bool = False) -> Any:
    return _option(help, None, *names, default=default)


def _argument(metavar: str, help: str) -> Any:
    return typer.Argument(metavar=metavar, help=help)


def _whole(option: str, example: int, help: str) -> Any:
    """Return the annotation of an option for a whole number; errors show `example`."""

    def parse(text: str | int) -> int:
        try:
            return int(text)
        except ValueError:
            rule = "must be a whole number"
            remedy = f"write {option} {example}"
            raise InputError(rule, where=option, got=repr(text), remedy=remedy) from None

    return typer.Option(option, metavar="N", parser=parse, help=help)


def key_and_value(option: str, text: str, example: str) -> tuple[str, str]:
    """Split the value KEY=VALUE of an option; errors show `example`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        remedy = f"write {example}"
        raise InputError("must be KEY=VALUE", where=option, got=repr(text), remedy=remedy)
    return key.strip(), value


def _study_name(text: str) -> str:
    """Return the name of a study, given by name or by the path of its journal in `studies/`."""
    from tuner.experiment.schema import normalized  # with pydantic and YAML: not for predict

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


_Experiment = Annotated[Path, _argument("EXPERIMENT.yaml", "The experiment file.")]
_Study = Annotated[
    str, typer.Argument(metavar="STUDY", parser=_study_name, help="The study's name.")
]
_Output = Annotated[
    Path | None, _given("The file. [default: the terminal]", None, "-o", "--output")
]
_Journal = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="A file, sqlite:///FILE or postgresql+psycopg://... [default: studies/STUDY.journal]",
    ),
]
_Server = Annotated[
    str | None,
    _given("At the service of this URL; local for this machine. [default: TUNER_SERVER]", "URL"),
]
_Service = Annotated[str | None, _given("The URL of the service. [default: TUNER_SERVER]", "URL")]
_Set = Annotated[
    list[str] | None, _given("Change a key: budget.epochs=50. Repeatable.", "KEY=VALUE", "--set")
]
_AsJson = Annotated[bool, _given("Print JSON, for scripts.", None, "--json")]
_Events = Annotated[bool, _given("Print every event as a line of JSON.", None, "--json")]
_Trials = Annotated[
    int | None, _whole("--trials", 40, "Number of trials; schedules of a swarm depend on it.")
]
_Workers = Annotated[
    int | None, _whole("--workers", 2, "Trials at a time. [default: one per core]")
]
_Executor = Annotated[str, _given("Where trials run: local, ray or ray://HOST:PORT.", "NAME")]
_Tracking = Annotated[bool, _given("Copy the trials to MLflow.", None, "--tracking/--no-tracking")]
_Strategy = Annotated[
    str | None, _given("Search with this strategy; tuner strategies lists them.", "NAME")
]
_Register = Annotated[
    str | None, _given("Register the winner's model in MLflow under this name.", "NAME")
]
_AllData = Annotated[
    bool, _given("Train on the validation set too, to deploy it: no score.", None, "--all-data")
]
_Ensemble = Annotated[
    bool, _given("Train on every recorded seed; the mean of the models.", None, "--ensemble")
]
_Force = Annotated[bool, _given("Overwrite any file.", None, "--force")]
_AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        callback=_allow_code,
        help="Import cells and metrics from the current folder, and those of an exported file.",
    ),
]


@_command("Search", "init")
class Init:
    """Write an experiment file for a data file, based on its columns."""

    data: Annotated[Path, _argument("DATA.csv", "A CSV, Excel, JSON lines or Parquet file.")]
    output: Path | None = _option(
        "The file to write. [default: DATA.yaml, here]", None, "-o", "--output"
    )
    target: str | None = _option("Column to predict, or several. [default: by its name]", "A,B")
    features: str | None = _option("Columns the model reads. [default: the numeric ones]", "A,B")
    time: str | None = _option("Column of times. [default: the first found]", "COLUMN")
    id: str | None = _option("Column that names the series of a row.", "COLUMN")
    no_time: bool = _flag("Use the order of the rows, not their times.", "--no-time")
    resample: str | None = _option("Resample uneven times: to 15min, 1h or 1D, say.", "STEP")
    wide: str | None = _option(
        "Columns that are series of one quantity: 'store_*', or A,B.", "PATTERN"
    )
    horizon: Annotated[int | None, _whole("--horizon", 12, "Rows to forecast. [default: 1]")] = None
    task: str | None = _option(
        "forecast, classify, label or regress. [default: by the target]", "KIND"
    )
    read: list[str] | None = _option(
        "How the file is written, a key of data.read: 'decimal=,'. Repeatable.", "KEY=VALUE"
    )
    server: _Server = None
    force: _Force = False


@_command("Search", "run")
class Check:
    """Check an experiment and its data, and show what a search would do."""

    experiment: _Experiment
    strategy: _Strategy = None
    set_: _Set = None
    server: _Server = None
    allow_code: _AllowCode = False


@_command("Search", "run")
class Run:
    """Search, or resume the search that an earlier run began."""

    experiment: _Experiment
    strategy: _Strategy = None
    trials: _Trials = None
    timeout: str | None = _option("Start no trial after this: 90s, 10m, 1h30m.", "TIME")
    workers: _Workers = None
    seed: Annotated[int | None, _whole("--seed", 1, "Seed of everything random.")] = None
    study: str | None = _option("The study's name. [default: EXPERIMENT-STRATEGY-SEED]", "NAME")
    journal: _Journal = None
    server: _Server = None
    executor: str | None = _option(
        "Where trials run: local, ray or ray://HOST:PORT. [default: local]", "NAME"
    )
    asynchronous: bool = _flag(
        "Let no worker wait; the search cannot be repeated exactly.", "--asynchronous"
    )
    tracking: _Tracking = True
    register: _Register = None
    test: bool = _flag(
        "Evaluate the winner on the test set, once per study.", "--test/--no-test", default=True
    )
    reopen_test: bool = _flag(
        "Evaluate again after an extended search; that is recorded.", "--reopen-test"
    )
    from_: list[str] | None = _option(
        "Begin a new study from this one, or a CSV file of configurations. Repeatable.",
        "STUDY",
        "--from",
    )
    set_: _Set = None
    json: _Events = False
    allow_code: _AllowCode = False


@_command("Search", "compare")
class Compare:
    """Compare strategies: search with each on several seeds, and test the differences."""

    experiment: _Experiment
    strategies: str = _option(
        "Names; tuner strategies lists them.", "A,B", default="random,tpe,pso,woa"
    )
    seeds: Annotated[
        int, _whole("--seeds", 5, "Searches per strategy, from the experiment's seed upwards.")
    ] = 5
    trials: _Trials = None
    workers: _Workers = None
    output: Path | None = _option(
        "Folder for page, picture and tables. [default: EXPERIMENT-comparison]",
        "DIR",
        *("-o", "--output"),
    )
    journal: _Journal = None
    executor: _Executor = "local"
    tracking: _Tracking = True
    set_: _Set = None
    force: _Force = False
    json: _Events = False
    allow_code: _AllowCode = False


@_command("Search", "studies")
class Strategies:
    """List the strategies and their options."""

    json: _AsJson = False


@_command("Results", "studies")
class Studies:
    """List the studies in this folder."""

    journal: _Journal = None
    server: _Server = None
    json: _AsJson = False


@_command("Results", "studies")
class Show:
    """Show a study: its best configurations and scores."""

    study: _Study
    journal: _Journal = None
    server: _Server = None
    json: _AsJson = False


@_command("Results", "models")
class Export:
    """Write the best configuration as an experiment file that trains again, and its model."""

    study: _Study
    output: _Output = None
    format: str | None = _option("[default: by the file's name]", "yaml|json")
    model: Path | None = _option("Train it again, and write the model here.", "DIR")
    trial: Annotated[
        int | None,
        _whole("--trial", 3, "This trial, such as one of the Pareto front. [default: the winner]"),
    ] = None
    all_data: _AllData = False
    ensemble: _Ensemble = False
    data: str | None = _option("Write this as data.path. [default: where the data is]", "PATH")
    journal: _Journal = None
    server: _Server = None
    force: _Force = False
    allow_code: _AllowCode = False


@_command("Results", "models")
class Train:
    """Train one configuration, and check whether an exported one reproduces its score."""

    experiment: _Experiment
    output: Path | None = _option("Write the trained model here.", "DIR", "-o", "--output")
    data: Path | None = _option("Train on this file, not on data.path.", "FILE")
    all_data: _AllData = False
    ensemble: _Ensemble = False
    strict: bool = _flag("Refuse data other than that of the search.", "--strict")
    set_: _Set = None
    allow_code: _AllowCode = False


@_command("Results", "predict")
class Predict:
    """Predict with a trained model, as CSV; this needs no torch."""

    model: Annotated[
        Path, _argument("MODEL_DIR", "Of train -o or export --model; with --server, a study.")
    ]
    data: Annotated[Path, _argument("DATA.csv", "A CSV or Parquet file like the training's.")]
    output: _Output = None
    all_: bool = _flag("Forecast after every row, not only the last.", "--all")
    future: Path | None = _option(
        "Rows to come, with the columns that are known ahead. [default: DATA's last]", "FILE"
    )
    numpy: bool = _flag("Run the model in numpy, without onnxruntime.", "--numpy")
    server: _Server = None
    force: _Force = False


@_command("Results", "studies")
class Report:
    """Write a study's result as one HTML page with plots."""

    study: _Study
    output: Path | None = _option(
        "The page to write. [default: STUDY.html]", "FILE", "-o", "--output"
    )
    journal: _Journal = None
    server: _Server = None
    force: _Force = False


@_command("Service", "serve")
class Serve:
    """Serve searches over HTTP: a queue, shared workers, a page; Ctrl-C ends it."""

    host: str = _option(
        "The address to bind. Other machines reach 0.0.0.0; that needs --tokens.",
        "ADDRESS",
        default="127.0.0.1",
    )
    port: Annotated[int, _whole("--port", 8080, "The port; 0: any free one.")] = 8080
    workers: Annotated[
        int | None,
        _whole("--workers", 2, "Trials at a time, of all studies. [default: one per core]"),
    ] = None
    executor: _Executor = "local"
    root: Path = _option("The service's folder.", "DIR", default=Path("tuner-service"))
    journal: str | None = _option(
        "Keep all journals here: sqlite:///FILE or postgresql+psycopg://... [default: files]",
        "URL",
    )
    tokens: Path | None = _option("The file of tokens; tuner token adds one.", "FILE")
    allow_host: list[str] | None = _option(
        "A name by which clients reach this server. Repeatable.", "NAME"
    )
    public_url: str | None = _option("The URL of the reverse proxy in front of it.", "URL")
    allow_code: _AllowCode = False


@_command("Service", "serve")
class Token:
    """Make a token for an owner, print it, and add its hash to a file."""

    owner: Annotated[str, _argument("OWNER", "Whose token it is: a namespace of the service.")]
    tokens: Annotated[Path, _given("The file of tokens; it is created.", "FILE")]
    role: str = _option(
        "What it may do: write reads too; worker runs trials.", "read|write|worker", default="write"
    )


@_command("Service", "worker")
class Worker:
    """Run trials of a service on this machine, until Ctrl-C hands them back."""

    server: _Service = None
    workers: _Workers = None


@_command("Service", "remote_changes")
class Cancel:
    """End a study of a service now; its finished trials are kept."""

    study: _Study
    server: _Service = None


@_command("Service", "remote_changes")
class Resume:
    """Go on with a study of a service that was cancelled or has failed.

    One that is done is extended by `tuner run EXPERIMENT.yaml --trials N`.
    """

    study: _Study
    server: _Service = None


@_command("Service", "remote_changes")
class Delete:
    """Delete a study of a service that has ended, with its journal and model."""

    study: _Study
    yes: bool = _flag("Do not ask; needed where no terminal answers.", "--yes")
    server: _Service = None


@_command("Tracking", "studies")
class Sync:
    """Copy what MLflow lacks of a study from its journal."""

    study: _Study
    journal: _Journal = None
    server: _Server = None
    register: _Register = None
    ensemble: _Ensemble = False


@_command("Tracking", "studies")
class Ui:
    """Start the MLflow UI on this folder's trials; Ctrl-C ends it."""

    study: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", parser=_study_name, help="Open at this study's trials."),
    ] = None
    port: Annotated[int | None, _whole("--port", 5000, "[default: its usual one]")] = None
    journal: _Journal = None
