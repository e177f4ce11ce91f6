"""Exports the winner: experiment file, model folder with README, texts for MLflow."""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from tuner import __version__
from tuner.coordination.finalists import Winner, find_winner, winner_of
from tuner.data import DataRef, SeriesRef
from tuner.errors import RunError, TunerError, one_line
from tuner.executors import Executor, LocalExecutor
from tuner.executors.base import run_jobs
from tuner.experiment import Experiment, dump_yaml
from tuner.experiment.cells import cell_of, named_code
from tuner.experiment.yaml_files import value_of
from tuner.jobs import ExportJob, Outcome, Weights
from tuner.journal.records import StudyRecord
from tuner.prediction.model import FORMAT, MODEL, OLDEST, PIPELINE, checksum, record_checksum
from tuner.results.retraining import Training, best_epochs, refit_epochs
from tuner.results.summary import summarize
from tuner.user_code import is_reference

ENDINGS = (".yaml", ".yml", ".json")  # of exported files
_OF_THE_SEARCH = ("search_space", "strategy", "pruner", "finalists", "asynchronous")
_OF_A_TRAINING = ("epochs", "patience")  # keys of the budget
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")  # allowed in JSON


def exported(
    record: StudyRecord,
    folder: Path,
    file_name: str,
    data_path: str | None = None,
    trial: int | None = None,
) -> dict[str, Any]:
    """Return the experiment that trains the winner again, with its scores.

    Args:
        record: the study.
        folder: the folder of the file; `data.path` and a test file are relative to it.
        file_name: the file's name in the command that reproduces the score.
        data_path: replaces `data.path`.
        trial: number of a trial to export instead of the winner.

    Raises:
        InputError: `trial` is no complete trial.
        RunError: the study has no complete trial.
    """
    winner = find_winner(record) if trial is None else winner_of(record, trial)
    experiment = record.experiment.to_dict()
    for key in _OF_THE_SEARCH:
        experiment.pop(key, None)
    experiment["objective"].pop("metrics", None)
    experiment["training"].pop("execution", None)
    experiment["budget"] = {key: experiment["budget"][key] for key in _OF_A_TRAINING}
    experiment["hyperparameters"] = winner.hyperparameters(record)
    chosen = record.experiment.preparation(winner.params)
    experiment["data"] |= {name: value_of(text) for name, text in chosen.items()}
    if window := record.experiment.search_space.get("window"):
        # All trials were scored on the rows after the longest window.
        experiment["task"]["window"] = max(window.bounds())
    experiment["data"]["path"] = record.data["path"]
    if (test_file := record.data.get("test_file")) is not None:
        experiment["data"]["split"]["test_file"] = test_file
    _move(experiment, folder)
    if data_path is not None:
        experiment["data"]["path"] = data_path
    if not is_reference(experiment["hyperparameters"]["cell"]):
        experiment.pop("cells", None)
    command = train_command(file_name, own_code=named_code(experiment) is not None)
    experiment["recorded"] = _recorded(record, winner) | {"command": command}
    Experiment.model_validate(experiment)
    return experiment


def _move(experiment: dict[str, Any], folder: Path) -> None:
    """Make the paths of data relative to the folder of the experiment file."""
    data, folder = experiment["data"], folder.resolve()  # `..` leads out of the target of a link
    data["path"] = os.path.relpath(data["path"], folder)
    if (test_file := data["split"].get("test_file")) is not None:
        data["split"]["test_file"] = os.path.relpath(test_file, folder)


def _recorded(record: StudyRecord, winner: Winner) -> dict[str, Any]:
    run, retrained = winner.reproducible, bool(winner.repeats)
    assert run.outcome is not None
    test = record.test if winner.was_tested(record.test) else None
    recorded = {
        "study": record.name,
        "seed": run.seed,
        "score": run.value,
        "batched": True if run.group else None,
        "metric": record.experiment.objective.metric,
        "epochs": best_epochs(run.outcome),
        "refit_epochs": refit_epochs(record, winner),
        "search": winner.search_score if retrained else None,
        "seeds": [repeat.seed for repeat in winner.repeats] or None,
        "scores": winner.scores or None,
        "mean": winner.mean if retrained else None,
        "std": winner.std,
        "test": test.mean if test else None,
        "refit": test.refit.mean if test and test.refit else None,
        "preparations": _searched_rows(record.experiment),
        "data_sha256": record.data["sha256"],
        "rows": record.data["rows"],
        "device": run.outcome.device or None,
        "versions": dict(record.versions),
    }
    return {key: value for key, value in recorded.items() if value is not None}


def _searched_rows(experiment: Experiment) -> dict[str, list[str]] | None:
    """Return the searched preparations on which the scored rows depend."""
    found: dict[str, list[str]] = {
        name: list(dict.fromkeys([experiment.given(name), *experiment.search_space[name].bounds()]))
        for name in ("transform", "lags")
        if name in experiment.search_space
    }
    return found or None


def train_command(path: str, *, own_code: bool) -> str:
    """Return the command that trains an exported file; `own_code` is whether it has user code."""
    command = f"tuner train {shlex.quote(f'./{path}' if path.startswith('-') else path)}"
    return f"{command} --allow-code" if own_code else command


def render(experiment: dict[str, Any], as_json: bool) -> str:
    """Format an exported experiment as YAML, or as JSON that is also YAML."""
    if not as_json:
        return dump_yaml(experiment)
    # No \\u escapes otherwise: two for one character are no YAML.
    text = json.dumps(experiment, indent=2, ensure_ascii=False)
    return _NOT_IN_YAML.sub(lambda c: f"\\u{ord(c[0]):04x}", text) + "\n"


def is_json(path: Path) -> bool:
    """Return whether a file's name asks for JSON."""
    return path.suffix.lower() == ".json"


def is_export(path: Path, study: str) -> bool:
    """Return whether a file is an export of a study, which may be replaced."""
    try:
        recorded = Experiment.load(path).recorded
    except TunerError:
        return False
    return recorded is not None and recorded.study == study


def readme(training: Training, folder: Path) -> str:
    """Return the model folder's README in Markdown."""
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

{_description(experiment)}
The cell is {cell}, with {units} units. Trained by lstm-tuner {__version__}. {_scored(training)}

{_input(training)} Then, in the folder above this one:

    tuner predict {shlex.quote(folder.absolute().name)} data.csv -o predicted.csv

Prediction reads `model.onnx` and `pipeline.json` alone and needs no torch: `pip install numpy
onnxruntime pandas typer`, then `pip install --no-deps lstm-tuner`. `weights.safetensors` holds
the weights by torch's names; `tuner train experiment.yaml{option}` trains the model again.
Change no file but this one: `pipeline.json` knows their checksums.
"""


def _scored(training: Training) -> str:
    """Describe the model's training and scores."""
    metric, recorded = training.experiment.objective.metric, training.experiment.recorded
    n_models = len(training.model.weights)
    it = "It is" if n_models < 2 else f"It is the mean of {n_models} models, each"
    scores = ", ".join(f"{score:.6g}" for score in training.scores)
    if not scores:
        if n_models > 1:
            return f"{it} trained on training and validation set together, so no score is known."
        return "It learned from the validation set too, so no score is known."
    if training.refit is None:
        scored = f"scored a validation {metric} of {scores}."
        return (
            f"{it} trained on the training set. They {scored}" if n_models > 1 else f"It {scored}"
        )
    epochs = (training.refit.outcome.best_epoch or 0) + 1
    tested = ""
    if recorded is not None and recorded.refit is not None:
        tested = f"; such models scored a test {metric} of {recorded.refit:.6g}"
    return (
        f"{it} trained again on training and validation set together, for {epochs} "
        f"epoch{'s' * (epochs != 1)}{tested}. On the training set alone a validation {metric} "
        f"of {scores} was scored."
    )


def _description(experiment: Experiment) -> str:
    task, targets = experiment.task, _columns(experiment.data.targets)
    match task.kind:
        case "forecast":
            rows = f"{task.horizon} rows" if task.horizon > 1 else "row"
            quantiles = ", ".join(f"{quantile:g}" for quantile in task.quantiles)
            how = f", with quantiles {quantiles}" if quantiles else ""
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
            return f"It writes a text, {targets}, for a text: {how}."
        case "regress_steps":
            return f"It predicts {targets} of every step of a sequence."


def _input(training: Training) -> str:
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


_NEWER = {"known_future", "categories", "static"}  # keys that older versions would ignore
_STEPS = 32  # of sequences in the check of an export; of a forecast the window
_README = "README.md"  # has no checksum: users may edit it


def write_model(
    training: Training, folder: Path, executor: Executor | None = None, *, moves: bool = False
) -> str | None:
    """Write a trained model as `model.onnx`, with all files for prediction, into `folder`.

    `pipeline.json` holds columns, transform, scaling, window, classes and the checksums of the
    other files: `weights.safetensors`, `experiment.yaml`, attention. Nothing is pickled. It is
    written last, so that an incomplete folder is no model. A worker of the executor, or a new one,
    writes and checks ONNX. With `moves`, `experiment.yaml` has the data's absolute path.

    The model is that of the refit, if there is one; validation scores are of the training before.

    Returns:
        Why there is no `model.onnx`, for a user's cell that torch cannot export correctly.

    Raises:
        RunError: the model cannot be exported, or ONNX computes other outputs than torch.
    """
    from safetensors.numpy import save

    model = training.model
    outcome = _export(model, executor)
    exported = outcome.exported
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as name:
        written = Path(name)
        if exported is not None:
            (written / MODEL).write_bytes(exported.file)
        (written / "weights.safetensors").write_bytes(save(_all_weights(model)))
        experiment = training.experiment.to_dict()
        if not moves:
            _move(experiment, folder)
        (written / "experiment.yaml").write_text(dump_yaml(experiment), encoding="utf-8")
        if model.attention is not None:
            model.attention.write(written)
        files = {path.name: checksum(path.read_bytes()) for path in sorted(written.iterdir())}
        record = _pipeline(training, outcome) | {"files": files}
        record["sha256"] = record_checksum(record)
        (written / _README).write_text(readme(training, folder), encoding="utf-8")
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        (written / PIPELINE).write_text(text + "\n", encoding="utf-8")
        for path in sorted(written.iterdir(), key=lambda path: path.name == PIPELINE):
            path.replace(folder / path.name)
        for stale in {MODEL, "attention.csv", "attention.png"} - set(files):
            (folder / stale).unlink(missing_ok=True)
    return outcome.reason if exported is None else None


def _export(training: Training, given: Executor | None) -> Outcome:
    (first, *others), experiment = training.weights, training.experiment
    job = ExportJob(
        key=MODEL,
        hyperparameters=experiment.configuration({}),
        weights=first,
        shape=_data(training).shape,
        steps=_window(training) or _STEPS,
        others=tuple(others),
    )
    executor = given or LocalExecutor(1)
    own = cell_of(experiment.cells, experiment.hyperparameters.cell) is not None
    try:
        (outcome,) = run_jobs(executor, [job], may_fail=own)
    finally:
        if given is None:
            executor.close()
    if outcome.exported is None and not own:
        raise RunError("the worker returned none", where=MODEL, remedy="run the command again")
    return outcome


def _all_weights(training: Training) -> Weights:
    """Return the weights by torch's names, with a prefix for each model of an ensemble."""
    if len(training.weights) == 1:
        return training.weights[0]
    return {
        f"models.{i}.{name}": array
        for i, weights in enumerate(training.weights)
        for name, array in weights.items()
    }


def _data(training: Training) -> DataRef:
    """Return the data with the model's window."""
    return training.data.folds[-1].with_window(training.experiment.hyperparameters.window)


def _window(training: Training) -> int | None:
    """Return the window of a forecast; None for sequences."""
    data = _data(training)
    return data.window if isinstance(data, SeriesRef) else None


def _pipeline(training: Training, outcome: Outcome) -> dict[str, Any]:
    experiment, model = training.experiment, training.model
    parameters = experiment.hyperparameters
    metric, score = experiment.objective.metric, training.outcome.objective
    whole, graph = score is None or training.refit is not None, outcome.exported
    return {
        "format": FORMAT if _NEWER & model.data.pipeline.keys() else OLDEST,
        "tuner": __version__,
        **model.data.pipeline,
        **({} if (window := _window(training)) is None else {"window": window}),
        **_intervals(training),
        **({"beam": parameters.beam} if experiment.task.kind == "translate" else {}),
        "width": max(
            (2 if parameters.bidirectional else 1) * max(parameters.widths),
            parameters.conv_channels,
        ),
        "hyperparameters": parameters.model_dump(),
        "models": len(model.weights),
        "trained_on": "training and validation" if whole else "training",
        "validation": None if score is None else {metric: score},
        **({"onnx_difference": graph.difference} if graph else {"no_graph": outcome.reason}),
    }


def _intervals(training: Training) -> dict[str, Any]:
    """Return the intervals of a forecast as JSON, with scales by name of the series."""
    if not training.experiment.task.of_series:
        return {}
    found = training.intervals
    if found is None:
        return {"intervals": None}
    scales = None if found.scales is None else found.scales.tolist()
    record = {"levels": list(found.levels), "radii": found.radii.tolist(), "scales": scales}
    return {"intervals": record}


T = TypeVar("T")


def made(make: Callable[[], T]) -> T | Exception:
    """Return the result of a function, or its exception."""
    try:
        return make()
    except Exception as error:
        return error


def study_artifacts(record: StudyRecord) -> dict[str, str | Exception]:
    """Return experiment, best configuration and result by file name; an exception for a failure."""
    files = {"experiment.yaml": made(record.experiment.to_yaml)}
    if record.best is not None:
        folder = Path(record.data["path"]).parent
        files["best.yaml"] = made(lambda: dump_yaml(exported(record, folder, "best.yaml")))
        files["result.json"] = made(
            lambda: json.dumps(summarize(record).to_json(), indent=2) + "\n"
        )
    return files
