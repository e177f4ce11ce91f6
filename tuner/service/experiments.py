"""What a file makes of an experiment, and what a search of one would do, without starting it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tuner.errors import InputError
from tuner.experiment import Experiment
from tuner.experiment.cells import named_code
from tuner.service.access import Owner
from tuner.service.confined import Allowed
from tuner.service.datasets import DatasetStore, reading_allowed
from tuner.service.settings import Settings
from tuner.service.submissions import (
    PREFIX,
    DatasetId,
    DatasetPath,
    client_paths,
    datasets_of,
    parse_experiment,
)

_NO_PART = ("name", "strategy", "budget", "pruner", "seed", "finalists", "resources",
            "asynchronous", "training")  # fmt: skip
"""Blocks of an experiment that the check of its data does not depend on."""

_REMEMBERED = 10_000  # checks that found nothing wrong

_Text = Annotated[str, Field(max_length=1000)]
_Names = _Text | Annotated[list[_Text], Field(max_length=2000)]


class InitBody(BaseModel):
    """A data file, and the options of `tuner init`; what is left out is guessed."""

    model_config = ConfigDict(extra="forbid")

    dataset: DatasetId
    name: _Text | None = None
    """Name of the experiment; by default that of the file, without its ending."""
    target: _Names | None = None
    """Column to predict, or several."""
    features: _Names | None = None
    """Columns that the model sees; by default the numeric ones."""
    time: _Text | None = None
    """Column of times."""
    id: _Text | None = None
    """Column that names the series of a row."""
    no_time: bool = False
    """Whether the order of the rows stands for their times."""
    resample: _Text | None = None
    """Frequency to which rows are resampled: 15min, 1h, 1D."""
    wide: _Names | None = None
    """Columns that are series of one quantity: a pattern such as `store_*`, or names."""
    horizon: int | None = None
    """Rows ahead that are forecast, 1 to 10,000."""
    task: _Text | None = None
    """forecast, classify, label or regress."""
    read: Annotated[dict[str, Any], Field(max_length=50)] = {}
    """How the file is written: keys of `data.read`."""

    def options(self) -> dict[str, Any]:
        """Return the fields of `tuner.planning.file.InitOptions`."""
        given = self.model_dump(exclude={"dataset", "name"})
        return given | {name: _line(given[name]) for name in ("target", "features", "wide")}


class CheckBody(BaseModel):
    """An experiment to check."""

    model_config = ConfigDict(extra="forbid")

    experiment: dict[str, Any] | str
    """The experiment as an object, or its file's text."""
    datasets: Annotated[dict[DatasetPath, DatasetId], Field(max_length=10)] = {}
    """The id of a dataset for each path in the experiment."""
    data: bool = True
    """Whether its data is checked too."""


class Proposal(BaseModel):
    """A proposed experiment."""

    yaml: str
    """An experiment file."""
    does: str
    """What it does, in a few words."""
    notes: list[str]
    """What `tuner init` prints about the file."""


class Checked(BaseModel):
    """An experiment, and what a search of it would do."""

    experiment: dict[str, Any]
    """With its defaults."""
    check: dict[str, Any] | None
    """What `tuner check` shows; null where the data is not checked."""


class Experiments:
    """Proposes and checks experiments; its methods may be called from any thread.

    Args:
        datasets: the data of all owners.
        settings: say whether code is allowed.
    """

    def __init__(self, datasets: DatasetStore, settings: Settings) -> None:
        self._datasets, self._settings = datasets, settings
        self._lock = threading.Lock()
        self._right: OrderedDict[str, None] = OrderedDict()

    def propose(self, owner: Owner, body: InitBody) -> Proposal:
        """Propose an experiment for a file, as `tuner init` does.

        Raises:
            InputError: the file cannot be used, or an option does not fit it.
            Problem: 404, the owner has no such file; 429 or 503, see `Confined`.
        """
        known = self._datasets.get(owner.name, body.dataset)
        given = {
            "path": str(self._datasets.path_of(owner.name, body.dataset)),
            "file": f"{body.name or PurePath(known.name).stem}.yaml",
            "written": PREFIX + body.dataset,
            "options": body.options(),
        }
        allowed = reading_allowed(2 * known.bytes)
        try:
            found = self._datasets.confined.run(
                "propose", given, owner=owner.name, what=known.name, allowed=allowed
            )
        except InputError as error:
            raise _of_key(error) from None
        return Proposal.model_validate(found)

    def check(
        self,
        owner: Owner,
        given: dict[str, Any] | str,
        ids: Mapping[str, str] | None = None,
        *,
        data: bool = True,
    ) -> Checked:
        """Check an experiment and its data, as `tuner check` does.

        Args:
            owner: of the data.
            given: the experiment, or the text of its file.
            ids: the dataset of each path in it.
            data: whether the data is checked too.

        Raises:
            InputError: the experiment or the data is refused.
            Problem: 404, the owner has no such dataset; 429 or 503, see `Confined`.
        """
        ids = ids or {}
        raw, experiment = parse_experiment(given, ids, owner, self._datasets, self._settings)
        spec = {"experiment": raw, "datasets": dict(ids)}
        found = self._checked(owner, experiment, spec) if data else None
        return Checked(experiment=self._as_written(owner, experiment, spec), check=found)

    def check_data(self, owner: Owner, experiment: Experiment, spec: Mapping[str, Any]) -> None:
        """Refuse data that `tuner run` refuses; what was right before is not read again.

        Args:
            owner: of the data.
            experiment: a checked experiment.
            spec: of its submission.

        Raises:
            InputError: the data is refused.
            Problem: 429 or 503, see `Confined`.
        """
        parts = {k: v for k, v in experiment.to_dict().items() if k not in _NO_PART}
        text = json.dumps([owner.name, parts], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        with self._lock:
            if key in self._right:
                return
        self._checked(owner, experiment, spec)  # twice, where the same comes at once: none waits
        with self._lock:
            self._right[key] = None
            while len(self._right) > _REMEMBERED:
                self._right.popitem(last=False)

    def _checked(
        self, owner: Owner, experiment: Experiment, spec: Mapping[str, Any]
    ) -> dict[str, Any]:
        names = {
            PurePath(path).name: PurePath(written).name
            for path, written in client_paths(spec, owner.name, self._datasets).items()
            if not written.startswith(PREFIX)
        }
        record = experiment.to_dict()
        own = PurePath(experiment.data.path).name
        n_bytes = sum(self._datasets.get(owner.name, one).bytes for one in set(datasets_of(spec)))
        allowed = reading_allowed(2 * n_bytes)
        if named_code(record) is not None:  # which the server allows
            allowed = Allowed(600.0, None)
        given = {"experiment": record, "names": names}
        found: dict[str, Any] = self._datasets.confined.run(
            "check", given, owner=owner.name, what=names.get(own, own), allowed=allowed
        )
        return found

    def _as_written(
        self, owner: Owner, experiment: Experiment, spec: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return an experiment with the paths that the client wrote."""
        written = client_paths(spec, owner.name, self._datasets)
        record = experiment.to_dict()
        record["data"]["path"] = written[record["data"]["path"]]
        split = record["data"]["split"]
        if split.get("test_file") is not None:
            split["test_file"] = written[split["test_file"]]
        return record


def _line(names: str | list[str] | None) -> str | None:
    """Return names as a line of CSV."""
    if not isinstance(names, list):
        return names
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(names)
    return out.getvalue()


def _of_key(error: InputError) -> InputError:
    """Return an error about an option of the command as one about a key of the body."""
    where = error.where or ""
    if not where.startswith("--"):
        return error
    return error.with_(where=None, key=where.removeprefix("--").replace("-", "_").replace(" ", "."))
