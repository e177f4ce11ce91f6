"""`tuner train` and `tuner export`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from tuner.cli.app import Export, Train
from tuner.cli.external import export_external, is_external
from tuner.cli.remote import client_of
from tuner.cli.run import load
from tuner.coordination.finalists import find_winner
from tuner.data.prepared import check_data
from tuner.errors import InputError, nearest
from tuner.experiment import Experiment
from tuner.experiment.cells import named_code
from tuner.journal.records import StudyRecord, StudyState
from tuner.journal.storage import journal_location
from tuner.outputs import check_file, check_model_folder, written_whole
from tuner.progress.display import console, counted, number
from tuner.results.export import (
    ENDINGS,
    exported,
    is_export,
    is_json,
    render,
    train_command,
    write_model,
)
from tuner.results.retraining import Training, epochs_without_score, seeds_of_ensemble, train_again
from tuner.studies import read_as_it_stands, refuse_for_now
from tuner.tables.files import is_upload


def train(command: Train) -> None:
    """Train one configuration and compare its score with the recorded one."""
    set_, output = command.set_ or [], command.output
    elsewhere = None if command.data is None else str(command.data.absolute())
    experiment = load(command.experiment, None, set_, data=("data.path", elsewhere))
    if output is not None:
        check_model_folder("-o", output)
    if experiment.recorded and any(text.startswith("seed=") for text in set_):
        rule = "this file trains on its own seed"
        raise InputError(rule, where="--set", key="seed", remedy="set recorded.seed instead")
    if command.strict and command.all_data:
        rule = "is for reproducing a score, and --all-data has none"
        raise InputError(rule, where="--strict", remedy="leave one of them out")
    if command.strict and experiment.recorded is None:
        rule = f"{command.experiment} records no data to compare with"
        remedy = "give a file that `tuner export` wrote, or leave it out"
        raise InputError(rule, where="--strict", remedy=remedy)
    if command.all_data:
        epochs_without_score(experiment)
    if command.ensemble:
        seeds_of_ensemble(experiment)
    _check_trains(command, output, "add -o DIR")
    if experiment.search_space:
        check_data(experiment)  # refuses before anything is printed
        searched = ", ".join(experiment.search_space)
        console.print(f"training the values under hyperparameters; not searching {searched}")
    training = train_again(
        experiment,
        all_data=command.all_data,
        ensemble=command.ensemble,
        refit=output is not None,
        strict=command.strict,
        warn=_warn,
    )
    if output is not None:
        _print_model(training, output, write_model(training, output))
    if not print_reproduced(training, [f"--set {text}" for text in set_]):
        raise typer.Exit(1)


def _check_trains(command: Train | Export, folder: Path | None, remedy: str) -> None:
    for option, given in (("--all-data", command.all_data), ("--ensemble", command.ensemble)):
        if given and folder is None:
            raise InputError("is for the trained model", where=option, remedy=remedy)


def print_reproduced(training: Training, changed: list[str]) -> bool:
    """Print the scores of a training, and return False if they differ from the recorded ones.

    `changed` are the options that changed the experiment.
    """
    recorded = training.experiment.recorded
    score = ", ".join(map(number, training.scores))
    if not score:
        console.print(f"trained {_on_both(training)}; there is no validation score")
    elif recorded is None:
        console.print(f"validation {training.experiment.objective.metric}: {score}")
    elif training.reproduced:
        console.print(f"reproduced: {score}", soft_wrap=True)
    else:
        alike = "data, versions and device" if recorded.device else "data and versions"
        why = "; ".join([*changed, *training.differences()])
        if training.was_batched:
            why = why or (
                f"{alike} are the same, but it was trained in a group, which rounds otherwise: at "
                f"a large learning rate, the scores part"
            )
        why = why or f"{alike} are the same: was the file edited?"
        was = ", ".join(map(str, training.recorded_scores))
        got = ", ".join(map(str, training.scores))  # to the last digit, which may be what differs
        text = f"not reproduced: {was}, got {got}: {why}"
        console.print(text, markup=False, soft_wrap=True)
        return False
    return True


def _print_model(training: Training, folder: Path, no_graph: str | None) -> None:
    """Print which model was written; `no_graph` is the reason why `model.onnx` is missing."""
    n_models = len(training.model.weights)
    what = f": an ensemble of {n_models} models" if n_models > 1 else ""
    if training.refit is not None:
        what += f"{',' if n_models > 1 else ':'} trained again {_on_both(training.refit)}"
    _print_wrote(folder, what)
    if no_graph is not None:
        _warn(f"no model.onnx, so `tuner predict` cannot use it: {no_graph}")


def _on_both(training: Training) -> str:
    part, epochs = training.data.facts.parts[0], training.outcome.best_epoch
    assert epochs is not None
    return (
        f"on training and validation set together, {counted(part.count, part.unit)}, for "
        f"{counted(epochs + 1, 'epoch')}"
    )


def _print_wrote(path: Path, more: str = "") -> None:
    console.print(f"wrote [bold]{escape(str(path))}[/]{more}", soft_wrap=True)


def _warn(text: str) -> None:
    sys.stderr.write(f"tuner: warning: {text}\n")


def export(command: Export) -> None:
    """Write the best configuration of a study as an experiment file, and its trained model."""
    output, model, data = command.output, command.model, command.data
    client = client_of(command)
    as_json = _as_json(command.format, output)
    _check_trains(command, model, "add --model DIR")
    if data == "":
        rule = "must be a path"
        raise InputError(rule, where="--data", got="''", remedy="write --data sales.csv, say")
    if client is None:
        record, state = read_as_it_stands(command.study, command.journal)
    else:
        study = client.study(command.study)
        if is_external(study):
            export_external(study, command, as_json=as_json)
            return
        record, state = study.record()
    if record.best is None:
        refuse_for_now(record.name, state, "complete trial")
    folder, name = (Path.cwd(), "best.yaml") if output is None else (output.parent, output.name)
    if output is not None:
        _check_spared(output, record, command.journal)
        of_it = None if command.force else partial(is_export, study=record.name)
        check_file(output, f"export of {record.name}", ENDINGS, of_it)
    if model is not None:
        check_model_folder("--model", model)
    best = exported(record, folder, name, data, command.trial)
    if command.ensemble:
        seeds_of_ensemble(Experiment.model_validate(best))
    _warn_unless_done(record, state)
    text, own_code = render(best, as_json), named_code(best) is not None
    if output is None and model is None:
        sys.stdout.write(text)
        return
    is_trained = model is not None and client is None
    training = _trained(best, record, command) if is_trained else None
    if output is not None:
        with written_whole(output) as new:
            new.write_text(text, encoding="utf-8")
        next_, first = train_command(str(output), own_code=own_code), ""
        if is_upload(best["data"]["path"]):  # a data frame that was submitted
            next_, first = f"{next_} --data FILE", "save its data, which was no file, as FILE; "
        _print_wrote(output, f"; {first}next: [bold]{escape(next_)}[/]")
    if client is not None and model is not None:
        client.study(record.name).model(model)
        _print_wrote(model)
    if training is not None and model is not None:
        if not print_reproduced(training, []):
            option = " --ensemble" if command.ensemble else ""
            again = f"{train_command('best.yaml', own_code=own_code)} -o DIR{option}"
            console.print(f"no model is written; `{again}` does it")
            raise typer.Exit(1)
        _print_model(training, model, write_model(training, model))


def _as_json(format_: str | None, output: Path | None) -> bool:
    if format_ not in (None, "yaml", "json"):
        rule = f"unknown format {format_!r}"
        raise InputError(rule, where="--format", remedy=nearest(format_, ["yaml", "json"]))
    return format_ == "json" or (format_ is None and output is not None and is_json(output))


def _check_spared(output: Path, record: StudyRecord, journal: str | None) -> None:
    """Refuse to overwrite the study's data or journal, even with `--force`."""
    kept = {"data file": record.data["path"], "journal": journal_location(record.name, journal)}
    for what, path in kept.items():
        if output.resolve() == Path(path).resolve():
            rule = f"{output} is the {what} of {record.name}"
            raise InputError(rule, where="-o", remedy="write elsewhere")


def _warn_unless_done(record: StudyRecord, state: StudyState) -> None:
    """Warn if the study is not done: its best configuration may change."""
    if state is StudyState.DONE:
        return
    stands = "is running or was killed" if state is StudyState.UNKNOWN else f"is {state.value}"
    text = f"{record.name} {stands}: this is the best of the trials so far"
    if record.experiment.finalists.top:
        lack = "are not all retrained" if find_winner(record).repeats else "are missing"
        text += f", and its finalists {lack}"
    _warn(text)


def _trained(best: dict[str, Any], record: StudyRecord, command: Export) -> Training:
    """Train the exported configuration on the study's data, whatever `--data` names."""
    data = best["data"] | {"path": record.data["path"]}
    experiment = Experiment.model_validate(best | {"data": data})
    return train_again(
        experiment,
        all_data=command.all_data,
        ensemble=command.ensemble,
        refit=True,
        must_reproduce=True,
        strict=True,
    )
