"""`tuner train`."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.markup import escape

from tuner.cli.display import console
from tuner.cli.overrides import load
from tuner.data.preparing import check_data
from tuner.errors import InputError
from tuner.results.model_folder import write_model
from tuner.results.reproduce import train_again

__all__ = ["train"]


def train(path: Path, output: Path | None, set_: list[str]) -> None:
    """Train one configuration and compare its score with the recorded one."""
    experiment = load(path, None, set_)
    if output is not None:
        _check_output(output)
    if experiment.recorded and any(text.startswith("seed=") for text in set_):
        raise InputError("--set: seed: this file trains on its own seed; set recorded.seed instead")
    if experiment.search_space:
        check_data(experiment)  # refused before anything is said
        searched = ", ".join(experiment.search_space)
        console.print(f"training the values under hyperparameters; not searching {searched}")
    training = train_again(experiment)
    score, metric = training.outcome.objective, experiment.objective.metric
    if output is not None:
        write_model(training, output)
        console.print(f"wrote [bold]{escape(str(output))}[/]")
    recorded = experiment.recorded
    if recorded is None:
        console.print(f"validation {metric}: {score}")
    elif training.reproduced:
        console.print(f"reproduced: {score}")
    else:
        why = "; ".join([*(f"--set {text}" for text in set_), *training.differences()])
        why = why or "same data and versions: was the file edited, or is the CPU of another kind?"
        text = f"not reproduced: {recorded.score}, got {score}: {why}"
        console.print(text, markup=False, soft_wrap=True)
        raise typer.Exit(1)


def _check_output(folder: Path) -> None:
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise InputError(f"-o: must be a folder, got the file {existing}; give another name")
    if existing is folder and any(folder.iterdir()) and not (folder / "pipeline.json").exists():
        raise InputError(f"-o: {folder} is not empty and holds no model; give another name")
