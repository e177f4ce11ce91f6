"""`tuner train`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from rich.markup import escape

from tuner.cli.overrides import load
from tuner.data.preparing import check_data
from tuner.errors import InputError
from tuner.outputs import check_model_folder
from tuner.results.model_folder import write_model
from tuner.results.reproduce import (
    Training,
    epochs_without_score,
    seeds_of_ensemble,
    train_again,
)
from tuner.watching.display import console, counted, number

__all__ = ["say_whether_reproduced", "say_written", "train", "warn"]


def train(
    path: Path,
    output: Path | None,
    set_: list[str],
    *,
    data: Path | None,
    all_data: bool,
    strict: bool,
    ensemble: bool = False,
) -> None:
    """Train one configuration and compare its score with the recorded one."""
    elsewhere = None if data is None else str(data.absolute())
    experiment = load(path, None, set_, data=("data.path", elsewhere))
    if output is not None:
        check_model_folder("-o", output)
    if experiment.recorded and any(text.startswith("seed=") for text in set_):
        raise InputError("--set: seed: this file trains on its own seed; set recorded.seed instead")
    if strict and all_data:
        raise InputError(
            "--strict: is for reproducing a score, and --all-data has none; leave one of them out"
        )
    if strict and experiment.recorded is None:
        raise InputError(
            f"--strict: {path} records no data that this must be; give a file that `tuner export` "
            f"wrote, or leave it out"
        )
    if all_data:
        epochs_without_score(experiment)
        if output is None:
            raise InputError("--all-data: is for the trained model; add -o DIR")
    if ensemble:
        seeds_of_ensemble(experiment)
        if output is None:
            raise InputError("--ensemble: is for the trained model; add -o DIR")
    if experiment.search_space:
        check_data(experiment)  # refused before anything is said
        searched = ", ".join(experiment.search_space)
        console.print(f"training the values under hyperparameters; not searching {searched}")
    training = train_again(
        experiment,
        all_data=all_data,
        ensemble=ensemble,
        refit=output is not None,
        strict=strict,
        warn=warn,
    )
    if output is not None:
        say_written(training, output, write_model(training, output))
    changed = [f"--set {text}" for text in set_]
    if not say_whether_reproduced(training, changed):
        raise typer.Exit(1)


def say_whether_reproduced(training: Training, changed: list[str]) -> bool:
    """Print what came of a training, and return False where that is not what was recorded.

    Args:
        training: it.
        changed: the options that changed the experiment.
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
        why = why or f"{alike} are the same: was the file edited?"
        was = ", ".join(map(str, training.recorded_scores))
        got = ", ".join(map(str, training.scores))  # to the last digit, which may be what differs
        text = f"not reproduced: {was}, got {got}: {why}"
        console.print(text, markup=False, soft_wrap=True)
        return False
    return True


def say_written(training: Training, folder: Path, no_graph: str | None) -> None:
    """Print which model was written: one that was trained again is another than was scored.

    `no_graph` says why there is no `model.onnx`.
    """
    what = f"wrote [bold]{escape(str(folder))}[/]"
    n_models = len(training.model.weights)
    if n_models > 1:
        what += f": an ensemble of {n_models} models"
    if training.refit is not None:
        what += f"{',' if n_models > 1 else ':'} trained again {_on_both(training.refit)}"
    console.print(what, soft_wrap=True)
    if no_graph is not None:
        warn(f"no model.onnx, so `tuner predict` cannot use it: {no_graph}")


def _on_both(training: Training) -> str:
    part, epochs = training.data.facts.parts[0], training.outcome.best_epoch
    assert epochs is not None
    return (
        f"on training and validation part together, {counted(part.count, part.unit)}, for "
        f"{counted(epochs + 1, 'epoch')}"
    )


def warn(text: str) -> None:
    """Write a warning on stderr, in one line."""
    sys.stderr.write(f"tuner: warning: {text}\n")
