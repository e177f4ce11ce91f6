"""The README of a model's folder: what the model is, what it expects, and how to predict."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from tuner import __version__
from tuner.errors import one_line
from tuner.experiment import Experiment
from tuner.experiment.cells import named_code
from tuner.results.reproduce import Training

__all__ = ["readme"]


def readme(training: Training, folder: Path) -> str:
    """Return the text, about ten lines of Markdown."""
    experiment = training.experiment
    option = " --ensemble" if training.others else ""
    if not training.scores or training.refit is not None:
        option += " --all-data"
    if named_code(experiment.to_dict()) is not None:
        option += " --allow-code"
    parameters = experiment.hyperparameters
    units = ", ".join(map(str, parameters.widths))
    cell = f"bidirectional {parameters.cell}" if parameters.bidirectional else parameters.cell
    return f"""# {experiment.name}

{_says(experiment)}
The cell is {cell}, with {units} units. Trained by lstm-tuner {__version__}. {_scored(training)}

{_expects(training)} Then, in the folder above this one:

    tuner predict {shlex.quote(folder.absolute().name)} data.csv -o predicted.csv

Prediction reads `model.onnx` and `pipeline.json` alone and needs no torch: `pip install numpy
onnxruntime pandas typer`, then `pip install --no-deps lstm-tuner`. `weights.safetensors` holds
the weights by torch's names; `tuner train experiment.yaml{option}` trains the model again.
Change no file but this one: `pipeline.json` knows their checksums.
"""


def _scored(training: Training) -> str:
    """Return which model it is, and what is known of how good it is."""
    metric, recorded = training.experiment.objective.metric, training.experiment.recorded
    n_models = len(training.model.weights)
    it = "It is" if n_models < 2 else f"It is the mean of {n_models} models, each"
    scores = ", ".join(f"{score:.6g}" for score in training.scores)
    if not scores:
        which = f"{it} trained on training and validation part together" if n_models > 1 else ""
        which = f"{which}, so" if which else "It learned from the validation part too, so"
        return f"{which} no score is known."
    if training.refit is None:
        return f"{f'{it} trained on the training part. ' if n_models > 1 else ''}" + (
            f"It scored a validation {metric} of {scores}."
            if n_models < 2
            else f"They scored a validation {metric} of {scores}."
        )
    epochs = (training.refit.outcome.best_epoch or 0) + 1
    tested = ""
    if recorded is not None and recorded.refit is not None:
        tested = f"; such models scored a test {metric} of {recorded.refit:.6g}"
    return (
        f"{it} trained again on training and validation part together, for {epochs} "
        f"epoch{'s' * (epochs != 1)}{tested}. On the training part alone a validation {metric} "
        f"of {scores} was scored."
    )


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
        case "classify" if task.of_coming_class:
            return (
                f"It predicts the class, {targets}, of the coming row of a series from the "
                f"{experiment.given('window')} rows before."
            )
        case "classify":
            return f"It predicts the class, {targets}, of a sequence."
        case "label":
            return f"It predicts the class, {targets}, of every step of a sequence."
        case "translate":
            how = f"the most probable of a beam of {experiment.hyperparameters.beam}"
            return f"It says a text, {targets}, of a text: {how}."
        case "regress_steps":
            return f"It predicts {targets} of every step of a sequence."


def _expects(training: Training) -> str:
    data, facts = training.experiment.data, training.data.facts
    pipeline = training.data.pipeline
    forecasts = training.experiment.task.of_series
    read = [c for c in pipeline["features"] if c not in pipeline.get("class_columns", ())]
    names = [data.id, data.time, *read, *data.lags]
    names += data.targets if forecasts else []
    columns = _columns(dict.fromkeys(name for name in names if name is not None))
    text = f"It expects a CSV or Parquet file with the columns {columns}"
    if facts.frequency and data.resample is None:
        text += f", and rows at frequency {facts.frequency}"
    if forecasts:
        text += f"; {training.experiment.given('window')} of them at least"
        text += " in a series" if data.id else ""
    if data.known_future:
        rows = f"{training.experiment.task.horizon} rows to come"
        text += f". Of the {rows} it needs {_columns(data.known_future)}, which are known ahead: "
        text += f"behind the last row, without {_columns(data.targets)}, or in a file of their own "
        text += "(`--future FILE`)"
    return text + "."


def _columns(names: Iterable[str]) -> str:
    return ", ".join(f"`{one_line(name)}`" for name in names)


def _listed(numbers: list[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
