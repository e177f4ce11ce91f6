"""The README of a model's folder: what the model is, what it expects, and how to predict."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from tuner import __version__
from tuner.errors import one_line
from tuner.experiment import Experiment
from tuner.results.reproduce import Training

__all__ = ["readme"]


def readme(training: Training, folder: Path) -> str:
    """Return the text, about ten lines of Markdown."""
    experiment, metric = training.experiment, training.experiment.objective.metric
    score = training.outcome.objective
    scored = " It learned from the validation part too, so no score is known."
    option = " --all-data"
    if score is not None:
        scored, option = f" It scored a validation {metric} of {score:.6g}.", ""
    parameters = experiment.hyperparameters
    units = ", ".join(map(str, parameters.widths))
    cell = f"bidirectional {parameters.cell}" if parameters.bidirectional else parameters.cell
    return f"""# {experiment.name}

{_says(experiment)}
The cell is {cell}, with {units} units. Trained by lstm-tuner {__version__}.{scored}

{_expects(training)} Then, in the folder above this one:

    tuner predict {shlex.quote(folder.absolute().name)} data.csv -o predicted.csv

Prediction reads `model.onnx` and `pipeline.json` alone and needs no torch: `pip install numpy
onnxruntime pandas typer`, then `pip install --no-deps lstm-tuner`. `weights.safetensors` holds
the weights by torch's names; `tuner train experiment.yaml{option}` trains the model again.
Change no file but this one: `pipeline.json` knows their checksums.
"""


def _says(experiment: Experiment) -> str:
    task, targets = experiment.task, _columns(experiment.data.targets)
    match task.kind:
        case "forecast":
            rows = f"{task.horizon} rows" if task.horizon > 1 else "row"
            how = f", with quantiles {_listed(task.quantiles)}" if task.quantiles else ""
            return (
                f"It forecasts the next {rows} of {targets} from the "
                f"{experiment.given('window')} before{how}."
            )
        case "regress":
            return f"It predicts {targets} of a sequence."
        case "classify":
            return f"It predicts the class, {targets}, of a sequence."
        case "label":
            return f"It predicts the class, {targets}, of every step of a sequence."


def _expects(training: Training) -> str:
    data, facts = training.experiment.data, training.data.facts
    pipeline = training.data.pipeline
    forecasts = training.experiment.task.kind == "forecast"
    names = [data.id, data.time, *pipeline["features"], *data.lags]
    names += data.targets if forecasts else []
    columns = _columns(dict.fromkeys(name for name in names if name is not None))
    text = f"It expects a CSV or Parquet file with the columns {columns}"
    if facts.frequency and data.resample is None:
        text += f", and rows at frequency {facts.frequency}"
    if forecasts:
        text += f"; {training.experiment.given('window')} of them at least"
        text += " in a series" if data.id else ""
    return text + "."


def _columns(names: Iterable[str]) -> str:
    return ", ".join(f"`{one_line(name)}`" for name in names)


def _listed(numbers: list[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
