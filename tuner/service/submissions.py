"""Searches that clients submit: checked before they are queued.

An experiment names its data by the id of an uploaded dataset. It cannot name a file, and no code
unless the service was started with it allowed, so nothing of a client's choosing is opened.
"""

from __future__ import annotations

import copy
import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tuner.errors import ExperimentError, InputError, nearest
from tuner.experiment import Experiment
from tuner.experiment.cells import named_code
from tuner.experiment.data import PREPARED
from tuner.experiment.yaml_files import Bounds, parse_mapping
from tuner.orchestrator import default_study_name
from tuner.service.access import Owner
from tuner.service.datasets import DatasetStore
from tuner.service.problems import Problem
from tuner.service.settings import Limits, Settings
from tuner.studies import check_study_name

PREFIX = "dataset:"
"""What stands before the id of a dataset, in place of a path."""

_ID = re.compile(r"[0-9a-f]{64}")
_SOURCE = "experiment"
DatasetPath = Annotated[str, Field(max_length=4096)]
DatasetId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


BOUNDS = Bounds(n_bytes=256 << 10, n_values=10_000, depth=32)
"""Of a client's experiment: the time to check it grows with its values."""

_LONGEST_TEXT = 10_000  # characters
_MOST_KEYS = 500  # of a mapping
_MOST_CHOICES, _MOST_PREPARED = 500, 100  # of a hyperparameter, of a preparation
_MOST_OF_SPACE = 2_000  # values in a search space; each text in it is read as YAML


class SubmissionBody(BaseModel):
    """A search to queue."""

    model_config = ConfigDict(extra="forbid")

    experiment: dict[str, Any] | str
    """The experiment as an object, or its file's text. Its paths of data are `dataset:ID`, or
    keys of `datasets`."""
    datasets: Annotated[dict[DatasetPath, DatasetId], Field(max_length=10)] = {}
    """The id of a dataset for each path in the experiment."""
    name: Annotated[str, Field(max_length=200)] | None = None
    """Of the study; `EXPERIMENT-STRATEGY-SEED` by default."""
    priority: Annotated[int, Field(ge=-10, le=10, strict=True)] = 0
    """Among the studies of the owner; more comes first."""
    max_workers: Annotated[int, Field(ge=1, le=10_000, strict=True)] | None = None
    """Trials at a time; by default as many as there are workers."""
    tracking: Annotated[bool, Field(strict=True)] = True
    """Whether trials are copied to the service's MLflow."""
    test: Annotated[bool, Field(strict=True)] = True
    """Whether the winner is evaluated on the test set, once per study."""
    reopen_test: Annotated[bool, Field(strict=True)] = False
    """Whether to evaluate again after an extended search has another winner."""
    from_: Annotated[list[str], Field(alias="from", max_length=20, fail_fast=True)] = []
    """Names of the owner's studies that a new study starts from."""


@dataclass(frozen=True)
class Submission:
    """A checked search.

    Attributes:
        name: of the study.
        experiment: with the absolute paths of the data in this service.
        spec: what the service keeps, as JSON; its experiment has `dataset:ID` in place of paths.
        given: keys of `spec` that the body had; the others have their defaults.
    """

    name: str
    experiment: Experiment
    spec: dict[str, Any]
    given: frozenset[str]


def parse_submission(
    body: SubmissionBody, owner: Owner, datasets: DatasetStore, settings: Settings
) -> Submission:
    """Check a search that a client submits.

    Raises:
        InputError: the experiment breaks a rule, or names a file or code.
        Problem: 404, the owner has no such dataset; 422, it has too many trials.
    """
    raw, experiment = parse_experiment(body.experiment, body.datasets, owner, datasets, settings)
    check_trials(experiment, owner.limits)
    name = check_study_name(body.name, in_python=True) or default_study_name(experiment)
    for source in body.from_:
        check_study_name(source, in_python=True)  # it names a file of the service
    spec = {
        "experiment": raw,
        "datasets": dict(sorted(body.datasets.items())),
        "priority": body.priority,
        "max_workers": body.max_workers,
        "tracking": body.tracking,
        "test": body.test,
        "reopen_test": body.reopen_test,
        "from": list(body.from_),
    }
    return Submission(name, experiment, spec, frozenset(body.model_fields_set & spec.keys()))


def parse_experiment(
    given: dict[str, Any] | str,
    ids: Mapping[str, str],
    owner: Owner,
    datasets: DatasetStore,
    settings: Settings,
) -> tuple[dict[str, Any], Experiment]:
    """Check an experiment of a client.

    Args:
        given: the experiment, or the text of its file.
        ids: the dataset of each path in it.
        owner: of the datasets.
        datasets: the uploaded data.
        settings: say whether code is allowed.

    Returns:
        The experiment with `dataset:ID` in place of paths, and the checked one.

    Raises:
        InputError: it breaks a rule, or names a file or code.
        Problem: 404, the owner has no such dataset.
    """
    raw = parse_mapping(given, _SOURCE, BOUNDS) if isinstance(given, str) else given
    raw = _plain(raw)
    raw.pop("cells", None)  # inspected again
    _check_space(raw.get("search_space"))
    if isinstance(raw.get("search_space"), str):
        rule = "must be in the experiment itself: the service opens no file of a client's"
        remedy = "write the search space here"
        raise ExperimentError(rule, where=_SOURCE, key="search_space", remedy=remedy)
    if not settings.allow_code and (code := named_code(raw)) is not None:
        raise _refused_code(*code)
    for holder, key, dotted in _paths(raw):
        holder[key] = PREFIX + _id_of(holder[key], dotted, ids)
    placed = _placed(raw, lambda dataset: datasets.path_of(owner.name, dataset))
    experiment = Experiment.from_dict(placed)
    if not settings.allow_code and (code := named_code(experiment.to_dict())) is not None:
        raise _refused_code(*code)
    return raw, experiment


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment of JSON values alone, within `BOUNDS`; dates become texts.

    A set or a tuple of YAML would be read as a list after the search for code in lists.
    """
    left = BOUNDS.n_values

    def plain(value: Any, key: str, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise _beyond(f"must hold at most {BOUNDS.n_values:,} values", None)
        if depth > BOUNDS.depth:
            raise _beyond(f"must be at most {BOUNDS.depth} lists and mappings deep", None)
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dt.date):
            return value.isoformat()
        if isinstance(value, str):
            if len(value) > _LONGEST_TEXT:
                raise _beyond(f"must have at most {_LONGEST_TEXT:,} characters", key)
            return value
        if isinstance(value, list):
            return [plain(inner, key, depth + 1) for inner in value]
        if not isinstance(value, dict):
            rule = "must be a text, a number, true, false, null, a list or a mapping"
            raise _beyond(rule, key, got=f"a {type(value).__name__}", remedy="write a list, say")
        if len(value) > _MOST_KEYS:
            raise _beyond(f"must have at most {_MOST_KEYS:,} keys", key or None)
        found = {}
        for name, inner in value.items():
            if not isinstance(name, str):
                raise _beyond("keys must be texts", key, remedy="put them in quotes")
            left -= 1
            inner_key = f"{key}.{name[:80]}" if key else name[:80]
            found[name] = plain(inner, inner_key, depth + 1)
        return found

    found: dict[str, Any] = plain(given, "", 0)
    return found


def _beyond(
    rule: str, key: str | None, got: str | None = None, remedy: str = "write less"
) -> ExperimentError:
    return ExperimentError(rule, where=_SOURCE, key=key, got=got, remedy=remedy)


def _check_space(space: Any) -> None:
    """Refuse a search space that takes long to check; its values are plain."""
    waiting, n_values = [space], 0
    while waiting:
        value, n_values = waiting.pop(), n_values + 1
        waiting += value.values() if isinstance(value, dict) else ()
        waiting += value if isinstance(value, list) else ()
    if n_values > _MOST_OF_SPACE:
        raise _beyond(f"must hold at most {_MOST_OF_SPACE:,} values", "search_space")
    for name, domain in space.items() if isinstance(space, dict) else ():
        choices = domain.get("choices") if isinstance(domain, dict) else None
        most = _MOST_PREPARED if name in PREPARED else _MOST_CHOICES
        if isinstance(choices, list) and len(choices) > most:
            rule = f"must have at most {most} items"
            raise _beyond(rule, f"search_space.{name[:80]}.choices", f"{len(choices):,}")


def _refused_code(key: str, reference: str) -> InputError:
    rule = "may not name code: this service imports none"
    remedy = "use what tuner has, or ask for a service with --allow-code"
    return ExperimentError(rule, where=_SOURCE, key=key, got=repr(reference), remedy=remedy)


def load_experiment(spec: Mapping[str, Any], owner: str, datasets: DatasetStore) -> Experiment:
    """Return the experiment of a kept submission, with the places that its data has now.

    Raises:
        InputError: this version of tuner cannot read it.
        Problem: 404, a dataset is gone.
    """
    placed = _placed(spec["experiment"], lambda dataset: datasets.path_of(owner, dataset))
    return Experiment.from_dict(placed)


def completed(spec: Mapping[str, Any], experiment: Experiment) -> dict[str, Any]:
    """Return the experiment of a submission with all defaults, and `dataset:ID` for its data.

    Args:
        spec: of the submission.
        experiment: the checked one.
    """
    whole = experiment.to_dict()
    given = {dotted: holder[key] for holder, key, dotted in _paths(spec["experiment"])}
    for holder, key, dotted in _paths(whole):
        holder[key] = given[dotted]
    return whole


def datasets_of(spec: Mapping[str, Any]) -> list[str]:
    """Return the ids of the datasets of a kept submission; an external study has none."""
    raw = spec.get("experiment")
    if not isinstance(raw, dict):
        return []
    return [str(holder[key]).removeprefix(PREFIX) for holder, key, _ in _paths(raw)]


def client_paths(spec: Mapping[str, Any], owner: str, datasets: DatasetStore) -> dict[str, str]:
    """Return the paths that the client wrote, by the paths of the same data in this service."""
    written = {dataset: path for path, dataset in spec.get("datasets", {}).items()}
    return {
        str(datasets.path_of(owner, dataset)): written.get(dataset, PREFIX + dataset)
        for dataset in datasets_of(spec)
    }


def check_trials(experiment: Experiment, limits: Limits) -> None:
    """Raise a Problem if an experiment has more trials than its owner may have."""
    n_trials = experiment.n_trials
    if n_trials is None or n_trials > limits.trials:
        got = "no limit" if n_trials is None else f"{n_trials:,}"
        rule = f"budget.trials: must be at most {limits.trials:,} here, got {got}"
        raise Problem(422, f"{rule}; write a smaller number", key="budget.trials")


def _paths(raw: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Yield the places of paths in an experiment: mapping, key, dotted key."""
    data = raw.get("data")
    if not isinstance(data, dict):
        return
    if "path" in data:
        yield data, "path", "data.path"
    split = data.get("split")
    if isinstance(split, dict) and split.get("test_file") is not None:
        yield split, "test_file", "data.split.test_file"


def _id_of(path: Any, key: str, ids: Mapping[str, str]) -> str:
    """Return the id of the dataset that stands in place of a path."""
    if isinstance(path, str):
        if path in ids:
            return ids[path]
        if path.startswith(PREFIX) and _ID.fullmatch(path.removeprefix(PREFIX)):
            return path.removeprefix(PREFIX)
    rule = "must be an uploaded dataset"
    remedy = nearest(str(path), ids) if ids else "upload it, and write dataset:ID"
    got = repr(path) if len(repr(path)) <= 200 else "a long value"
    raise ExperimentError(rule, where=_SOURCE, key=key, got=got, remedy=remedy)


def _placed(raw: Mapping[str, Any], place: Callable[[str], Path]) -> dict[str, Any]:
    """Return a copy of an experiment with paths in place of references to datasets."""
    placed = copy.deepcopy(dict(raw))
    for holder, key, _ in _paths(placed):
        holder[key] = str(place(str(holder[key]).removeprefix(PREFIX)))
    return placed
