"""The tasks that prepare the data of searches; `tuner.service.confined` runs them within limits.

Arrays are handed over as .npy files, tables in the format of Arrow, all else as JSON.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from tuner.data.baselines import baselines_record
from tuner.data.prepared import Facts, Prepared, check_data, check_same
from tuner.data.sample_names import SampleNames
from tuner.experiment import Experiment
from tuner.prediction import load_model
from tuner.service.job_records import plain, ref_from_record, ref_to_record
from tuner.winner import example_of

_RECORD, _NAMES = "prepared.json", "names"
_IMPORTED = (
    "onnxruntime",
    "openpyxl",
    "pyarrow.parquet",
    "statsmodels.tsa.exponential_smoothing.ets",
    "statsmodels.tsa.statespace.sarimax",
    "tuner.data.sequences",
    "tuner.data.series",
)


def import_all() -> None:
    """Import what tasks need, before any is there."""
    for name in _IMPORTED:
        try:
            importlib.import_module(name)
        except ImportError:  # the task that needs it says so
            continue


def prepare(given: dict[str, Any]) -> list[str]:
    """Prepare the data of a search.

    Args:
        given: `experiment`, with absolute paths; `folder`, of the arrays; `preparations`, as
            `Experiment.preparation` returns them; `all_data`; and `test`, whether with the test
            part, of the file with this `sha256`.

    Returns:
        Of each preparation, the folder of which `read_prepared` returns it.

    Raises:
        InputError: the data is refused, or has changed.
    """
    experiment, folder = Experiment.from_dict(given["experiment"]), Path(given["folder"])
    _enter(experiment)
    dataset = check_data(experiment, all_data=given["all_data"])
    if given["test"]:
        check_same(dataset.facts, given["sha256"])
    preparations = dataset.preparations(folder / "arrays", test=given["test"])
    return [
        _write(preparations.of(chosen), folder / str(number))
        for number, chosen in enumerate(given["preparations"])
    ]


def baselines(given: dict[str, Any]) -> dict[str, Any]:
    """Return the record of the baselines.

    Args:
        given: `metric`, `season`, and `folds`, references; `others`, pairs of a preparation and
            the references in it.
    """
    folds = [ref_from_record(ref) for ref in given["folds"]]
    others = [(chosen, [ref_from_record(ref) for ref in refs]) for chosen, refs in given["others"]]
    return baselines_record(given["metric"], folds, given["season"], others)


def example(given: dict[str, Any]) -> str:
    """Return the first rows from which a model can predict; `table_of` makes them a table.

    Args:
        given: `model`, its folder; `experiment`, with absolute paths; and `sha256`, of the data.

    Raises:
        InputError: the data cannot be read any more, or has changed.
    """
    import pyarrow

    experiment = Experiment.from_dict(given["experiment"])
    _enter(experiment)
    frame = example_of(load_model(given["model"]), experiment.data, given["sha256"])
    named = frame.select_dtypes("category")  # of a file with many names, few rows have few
    frame = frame.assign(**{str(n): named[n].cat.remove_unused_categories() for n in named})
    table, content = pyarrow.Table.from_pandas(frame), pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(content, table.schema) as stream:
        stream.write_table(table)
    return base64.b64encode(content.getvalue()).decode()


def table_of(text: str) -> pd.DataFrame:
    """Return the table of an `example`."""
    import pyarrow

    with pyarrow.ipc.open_stream(base64.b64decode(text)) as stream:
        table: pd.DataFrame = stream.read_pandas()
    return table


def read_prepared(folder: str) -> Prepared:
    """Return the data that `prepare` has prepared; raises OSError where that was not whole."""
    place = Path(folder)
    record = json.loads((place / _RECORD).read_text(encoding="utf-8"))
    return Prepared(
        TypeAdapter(Facts).validate_python(record["facts"]),
        tuple(ref_from_record(ref) for ref in record["folds"]),
        record["pipeline"],
        SampleNames.load(place / _NAMES),
    )


def _write(prepared: Prepared, folder: Path) -> str:
    prepared.name_of.save(folder / _NAMES)
    facts = plain(dataclasses.asdict(prepared.facts) | {"path": str(prepared.facts.path)})
    folds = [ref_to_record(ref) for ref in prepared.folds]
    record = {"facts": facts, "folds": folds, "pipeline": prepared.pipeline}
    (folder / _RECORD).write_text(json.dumps(record), encoding="utf-8")
    return str(folder)


def _enter(experiment: Experiment) -> None:
    """Enter the folder of the data: messages then have its name alone."""
    os.chdir(Path(experiment.data.path).parent)
