"""`tuner predict`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pandas as pd

from tuner.cli.app import Predict
from tuner.cli.remote import client_of, fetched_model
from tuner.errors import InputError
from tuner.outputs import check_file, written_whole
from tuner.prediction import Model, PredictionWarning, load_model
from tuner.prediction.model import PIPELINE, with_full_times


def predict(command: Predict) -> None:
    """Predict with an exported model, or that of a service, into a file or on standard output.

    Where only TUNER_SERVER names the service, a folder of a model is used rather than a study.
    """
    is_here = command.server is None and (command.model / PIPELINE).is_file()
    if is_here or (client := client_of(command)) is None:
        _predict(load_model(command.model, numpy=command.numpy), command)
        return
    with fetched_model(client, str(command.model)) as folder:
        _predict(load_model(folder, numpy=command.numpy), command)


def _predict(model: Model, command: Predict) -> None:
    output = command.output
    if output is not None:
        for read in (command.data, command.future):
            if read is not None:
                _check_output(output, read, model, command.force)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", PredictionWarning)
        predicted = model.predict(command.data, all_windows=command.all_, future=command.future)
    for note in notes:
        sys.stderr.write(f"tuner: note: {note.message}\n")
    predicted = with_full_times(predicted, model)
    if output is None:
        predicted.to_csv(sys.stdout, index=False)
        return
    with written_whole(output) as new:
        predicted.to_csv(new, index=False)
    rows = f"{len(predicted)} row{'s' * (len(predicted) != 1)}"
    sys.stderr.write(f"wrote {output}: {rows}, {', '.join(model.columns)}\n")


def _check_output(output: Path, data: Path, model: Model, force: bool) -> None:
    def is_prediction(path: Path) -> bool:
        """Return whether this model, or one like it, wrote the file."""
        if not path.is_file():  # a pipe, a terminal: nothing is lost
            return True
        with path.open(encoding="utf-8", errors="replace") as file:
            header = file.readline(1_000_000).rstrip("\n")
        return header == pd.DataFrame(columns=model.columns).to_csv(index=False).rstrip("\n")

    if output.resolve() == data.resolve():
        raise InputError(f"{output} is the data that is read", where="-o", remedy="write elsewhere")
    if output.resolve().parent == model.folder.resolve():
        rule = f"{output} lies in the model's folder"
        raise InputError(rule, where="-o", remedy="write elsewhere")
    what = "prediction of this model"
    check_file(output, what, (".csv", ".csv.gz"), None if force else is_prediction)
