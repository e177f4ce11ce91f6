"""The second part of the page: what was done with which rows, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from tuner.coordination.finalists import Default, default_of
from tuner.coordination.records import StudyRecord
from tuner.experiment import Experiment, Split
from tuner.report.markup import Html, code, details, items, paragraph, section, table
from tuner.results.judged import has_refit
from tuner.results.winner import tested_name

__all__ = ["protocol", "reproduction"]

_FITTED = "What is fitted to data (scaling, vocabulary) is fitted on the training part alone."


def protocol(record: StudyRecord) -> Html:
    """Return which rows were what, what was fitted on what, and when the test part was opened."""
    experiment, test = record.experiment, record.test
    parts = record.data.get("parts") or (test or {}).get("parts")
    if parts:
        split = experiment.data.split
        rows = [(p["name"], f"{p['count']:,} {p['unit']}s", _span(p, split)) for p in parts]
        shown = table(("part", "size", "from … to"), rows, numbers=1)
    else:
        shown = paragraph(_split_in_words(experiment))
    of_series = experiment.task.of_series
    said = [
        _FITTED + (" Each fold has its own." if experiment.n_folds > 1 else ""),
        "Every trial was trained on the training part and scored on the validation part; its score "
        "is that of its best epoch"
        + (f", the mean over {experiment.n_folds} folds." if experiment.n_folds > 1 else "."),
    ]
    said += _own_split(experiment.data.split)
    if of_series:
        said.append("The parts follow one another in time. A window may read rows before its part, "
                    "but every target belongs to one part only.")  # fmt: skip
    if experiment.finalists.top:
        said.append(
            f"The best {experiment.finalists.top} configurations are retrained on "
            f"{experiment.finalists.repeats} seeds that the search did not use, on the same "
            f"training part."
        )
    if default := default_of(record):
        said.append(_how_default(default))
    if test is not None and has_refit(test):
        epochs = test["refit"]["epochs"]
        said.append(
            f"Before the test part was opened the winner was trained again on training and "
            f"validation part together, on the same seeds, for {epochs} epoch"
            f"{'s' * (epochs != 1)}: the median of its best ones. Scaling is fitted on both then."
        )
    said.append("Plain predictions know the training part, and of a series the rows before the "
                "one that they forecast.")  # fmt: skip
    if test is None:
        said.append("The test part has not been opened: nothing here was chosen by it.")
    openings = record.openings
    said += [_opening(o, of_series, o is openings[0], len(openings)) for o in openings]
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


def _how_default(default: Default) -> str:
    """Say what the default is, and whence its scores."""
    if default.trial is not None:
        return f"The {default.name} is trial {default.number}, and was not trained again."
    values = ", ".join(f"{name} {value}" for name, value in default.params.items())
    seeds = f"{len(default.scores)} seed{'s' * (len(default.scores) != 1)} of its own"
    return (
        f"The {default.name} has every searched hyperparameter as it is without a search "
        f"({values}), and was trained like the finalists, on {seeds}. It is one of them: where no "
        f"other has a better mean, it wins."
    )


def _opening(opening: Mapping[str, Any], of_series: bool, is_first: bool, of: int) -> str:
    """Say when the test part was opened, and for what."""
    how = "again" if not is_first else "once:" if of == 1 else "first"
    span = f", {opening['from']} to {opening['to']}" if opening["from"] is not None else ""
    unit = "rows" if of_series else "sequences"
    models = len(opening["scores"])
    return (
        f"The test part was opened {how} at {opening['opened_at']}, "
        f"after {opening['after_trials']:,} trials, for the configuration of "
        f"{tested_name(opening)} ({models} model{'s' * (models != 1)}, {opening['rows']:,} "
        f"{unit}{span})." + ("" if is_first else " Its rows were no longer unseen then.")
    )


def _span(part: dict[str, Any], split: Split) -> str:
    """Say from where to where a part goes, or how it came about."""
    if part["first"] is not None:
        return f"{part['first']} … {part['last']}"
    if part["unit"] == "row":
        return "of each series"
    if split.column is not None:
        return "by the column"
    given = part["name"] == "test" and split.test_file is not None
    return "of the test file" if given else "drawn by seed"


def _own_split(split: Split) -> list[str]:
    """Say what told the parts, where it was no share of the rows."""
    if split.column is not None:
        return [f"The column {split.column} of the data says which part a row is of."]
    said = []
    if split.test_file is not None:
        said.append(f"The test part is the file {PurePath(split.test_file).name}.")
    if split.group is not None:
        said.append(f"All sequences of one {split.group} are in one part.")
    return said


def _split_in_words(experiment: Experiment) -> str:
    split: Split = experiment.data.split
    if split.column is not None:
        return f"data.split: the column {split.column}."
    validation = (
        f"{experiment.n_folds} rolling origins" if experiment.n_folds > 1 else split.validation
    )
    test = split.test if split.test_file is None else PurePath(split.test_file).name
    return f"data.split: validation {validation}, test {test}; the rest was trained on."
