"""`tuner train`."""

from __future__ import annotations

from pathlib import Path

import typer

from tuner.cli.display import console
from tuner.cli.overrides import load
from tuner.errors import InputError
from tuner.results.model_folder import write_model
from tuner.results.reproduce import train_again

__all__ = ["train"]


def train(path: Path, output: Path | None, set_: list[str]) -> None:
    """Train one configuration and compare its score with the recorded one."""
    experiment = load(path, None, set_)
    if output is not None and output.exists() and not output.is_dir():
        raise InputError(f"-o: must be a folder, got the file {output}; give another name")
    if experiment.search_space:
        searched = ", ".join(experiment.search_space)
        console.print(f"training the values under hyperparameters; not searching {searched}")
    training = train_again(experiment)
    score, metric = training.outcome.objective, experiment.objective.metric
    if output is not None:
        write_model(training, output)
        console.print(f"wrote [bold]{output}[/]")
    recorded = experiment.recorded
    if recorded is None:
        console.print(f"validation {metric}: {score}")
    elif training.reproduced:
        console.print(f"reproduced: {score}")
    else:
        why = "; ".join(training.differences()) or "same data and versions: another kind of CPU?"
        console.print(f"not reproduced: {recorded.score}, got {score}: {why}")
        raise typer.Exit(1)
