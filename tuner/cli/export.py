"""`tuner export`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from tuner.cli.train import say_whether_reproduced, say_written, warn
from tuner.coordination.journal import journal_location
from tuner.coordination.records import StudyRecord
from tuner.errors import InputError, nearest
from tuner.experiment import Experiment
from tuner.experiment.cells import named_code
from tuner.launching.finding import read_as_it_stands
from tuner.outputs import check_file, check_model_folder, written_whole
from tuner.results.export import (
    ENDINGS,
    exported,
    is_export,
    is_json,
    render,
    train_command,
)
from tuner.results.model_folder import write_model
from tuner.results.reproduce import Training, seeds_of_ensemble, train_again
from tuner.results.winner import find_winner
from tuner.watching.display import console
from tuner.watching.state import State

__all__ = ["export"]


def export(
    study: str,
    output: Path | None,
    format_: str | None,
    journal: str | None,
    *,
    force: bool,
    data: str | None,
    model: Path | None,
    all_data: bool,
    ensemble: bool = False,
    trial: int | None = None,
) -> None:
    """Write the best configuration of a study as an experiment file, and its trained model."""
    as_json = _as_json(format_, output)
    if all_data and model is None:
        raise InputError("--all-data: is for the trained model; add --model DIR")
    if ensemble and model is None:
        raise InputError("--ensemble: is for the trained model; add --model DIR")
    if data == "":
        raise InputError("--data: must be a path, got ''; write --data sales.csv, say")
    record, state = read_as_it_stands(study, journal)
    folder, name = (Path.cwd(), "best.yaml") if output is None else (output.parent, output.name)
    if output is not None:
        _check_spared(output, record, journal)
        of_it = None if force else partial(is_export, study=record.name)
        check_file(output, f"export of {record.name}", ENDINGS, of_it)
    if model is not None:
        check_model_folder("--model", model)
    best = exported(record, folder, name, data, trial)
    if ensemble:
        seeds_of_ensemble(Experiment.model_validate(best))
    _say_what_is_missing(record, state)
    own_code = named_code(best) is not None
    if output is None and model is None:
        sys.stdout.write(render(best, as_json))
        return
    training = None if model is None else _trained(best, record, all_data, ensemble)
    if output is not None:
        with written_whole(output) as new:
            new.write_text(render(best, as_json), encoding="utf-8")
        _say_written(
            output, f"; next: [bold]{escape(train_command(str(output), own_code=own_code))}[/]"
        )
    if training is not None and model is not None:
        if not say_whether_reproduced(training, []):
            option = " --ensemble" if ensemble else ""
            again = f"{train_command('best.yaml', own_code=own_code)} -o DIR{option}"
            console.print(f"no model is written; `{again}` does it")
            raise typer.Exit(1)
        say_written(training, model, write_model(training, model))


def _as_json(format_: str | None, output: Path | None) -> bool:
    if format_ is None:
        return output is not None and is_json(output)
    if format_ not in ("yaml", "json"):
        raise InputError(
            f"--format: unknown format {format_!r}{nearest(format_, ['yaml', 'json'])}"
        )
    return format_ == "json"


def _check_spared(output: Path, record: StudyRecord, journal: str | None) -> None:
    """Refuse to write over what the study is made of, also with `--force`."""
    kept = {
        "data file": Path(record.data["path"]),
        "journal": Path(journal_location(record.name, journal)),
    }
    for what, path in kept.items():
        if output.resolve() == path.resolve():
            raise InputError(f"-o: {output} is the {what} of {record.name}; write elsewhere")


def _say_what_is_missing(record: StudyRecord, state: State) -> None:
    """Warn of a study that has not come to its end: its best is not the best yet."""
    if state is State.DONE:
        return
    stands = "is running or was killed" if state is State.UNKNOWN else f"is {state.value}"
    text = f"{record.name} {stands}: this is the best of the trials so far"
    if record.experiment.finalists.top:
        lack = "are missing" if find_winner(record).finalist is None else "are not all retrained"
        text += f", and its finalists {lack}"
    warn(text)


def _trained(best: dict[str, Any], record: StudyRecord, all_data: bool, ensemble: bool) -> Training:
    """Train the exported configuration on the study's data, wherever the file will find it."""
    data = best["data"] | {"path": record.data["path"]}
    experiment = Experiment.model_validate(best | {"data": data})
    return train_again(
        experiment,
        all_data=all_data,
        ensemble=ensemble,
        refit=True,
        must_reproduce=True,
        strict=True,
    )


def _say_written(path: Path, more: str = "") -> None:
    console.print(f"wrote [bold]{escape(str(path))}[/]{more}", soft_wrap=True)
