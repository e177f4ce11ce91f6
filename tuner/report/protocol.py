"""The second part of the page: what was done with which rows, and how to do it again."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Any

from tuner.experiment import Experiment, Split
from tuner.report.markup import Html, code, details, items, paragraph, section, table
from tuner.search.records import StudyRecord

__all__ = ["protocol", "reproduction"]

_FITTED = "What is fitted to data (scaling, vocabulary) is fitted on the training part alone."


def protocol(record: StudyRecord) -> Html:
    """Return which rows were what, what was fitted on what, and when the test part was opened."""
    experiment, test = record.experiment, record.test
    parts = record.data.get("parts") or (test or {}).get("parts")
    if parts:
        rows = [(p["name"], f"{p['count']:,} {p['unit']}s", _span(p)) for p in parts]
        shown = table(("part", "size", "from … to"), rows, numbers=1)
    else:
        shown = paragraph(_split_in_words(experiment))
    forecast = experiment.task.kind == "forecast"
    said = [
        _FITTED + (" Each fold has its own." if experiment.n_folds > 1 else ""),
        "Every trial was trained on the training part and scored on the validation part; its score "
        "is that of its best epoch"
        + (f", the mean over {experiment.n_folds} folds." if experiment.n_folds > 1 else "."),
    ]
    if forecast:
        said.append("The parts follow one another in time. A window may read rows before its part, "
                    "but every target belongs to one part only.")  # fmt: skip
    if experiment.finalists.top:
        said.append(
            f"The best {experiment.finalists.top} configurations are retrained on "
            f"{experiment.finalists.repeats} seeds that the search did not use."
        )
    if test is None:
        said.append("The test part has not been opened: nothing here was chosen by it.")
    else:
        span = f", {test['from']} to {test['to']}" if test["from"] is not None else ""
        unit = "rows" if forecast else "sequences"
        said.append(
            f"The test part was opened once: at {test['opened_at']}, after {test['after_trials']} "
            f"trials, for the configuration of trial {test['configuration']} "
            f"({len(test['scores'])} models, {test['rows']:,} {unit}{span})."
        )
    name = PurePath(str(record.data["path"])).name
    said.append(f"Data: {name}, {record.data['rows']:,} rows, sha256 {record.data['sha256']}.")
    return section("protocol", "Protocol", shown, items(said))


def reproduction(record: StudyRecord) -> Html:
    """Return the commands, the seeds and the versions that give this result again."""
    study = shlex.quote(record.name)
    commands = [
        f"tuner run experiment.yaml --study {study}",
        f"tuner export {study} -o best.yaml",
        "tuner train best.yaml",
    ]
    said = paragraph(
        "The first command repeats the search with the file below, the others train the winner "
        "again and compare its score to the last digit. The same experiment and seed give the same "
        "trials on the same kind of CPU with the same versions, whatever the number of workers"
        + (
            "; but this search was asynchronous, and none of its kind can be repeated exactly."
            if record.experiment.asynchronous
            else "."
        )
    )
    rows: list[tuple[str, object]] = [("seed", record.experiment.seed)]
    rows += [("study id", record.id), ("created", record.created)]
    rows += list(record.versions.items())
    return section(
        "reproduce",
        "How to reproduce it",
        code("\n".join(commands)),
        said,
        table(("", ""), rows),
        details("experiment.yaml", code(record.experiment.to_yaml())),
    )


def _span(part: dict[str, Any]) -> str:
    return f"{part['first']} … {part['last']}" if part["first"] is not None else "drawn by seed"


def _split_in_words(experiment: Experiment) -> str:
    split: Split = experiment.data.split
    validation = (
        f"{experiment.n_folds} rolling origins" if experiment.n_folds > 1 else split.validation
    )
    return f"data.split: validation {validation}, test {split.test}; the rest was trained on."
