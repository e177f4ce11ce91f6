"""The client: data, experiments and studies of a service."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from tuner.client.connection import SERVER, TOKEN, Connection, RefusedError, segment
from tuner.client.external import ExternalStudy
from tuner.client.study import RemoteStudy
from tuner.errors import InputError, nearest, refusal

if TYPE_CHECKING:
    import pandas as pd

    from tuner.experiment import Experiment

DEFAULT_SERVER = "http://127.0.0.1:8080"
_log = logging.getLogger("tuner.client")
_CREATED, _NOT_FOUND = 201, 404
_FILE_KEYS = (("data", "path"), ("data", "split", "test_file"))
_CHANGES = ("data", "name", "strategy", "trials", "seed")  # arguments of submit besides options


@dataclass(frozen=True)
class Dataset:
    """A file that the service has.

    Attributes:
        id: SHA-256 of its content, in hexadecimal digits.
        name: of the file.
        bytes: its size.
        rows: number of rows.
        columns: of each its `name` and `kind`.
        uploaded: when, ISO 8601, UTC.
        used_by: names of the studies that use it.
    """

    id: str
    name: str
    bytes: int
    rows: int | None = None
    columns: Sequence[Mapping[str, Any]] = ()
    uploaded: str | None = None
    used_by: Sequence[str] = ()

    @property
    def reference(self) -> str:
        """The value of `data.path` in an experiment on this data."""
        return f"dataset:{self.id}"

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Dataset:
        """Read an answer of the service; unknown keys are ignored."""
        return cls(**{key: raw[key] for key in cls.__dataclass_fields__ if key in raw})


class SubmitOptions(TypedDict, total=False):
    """Options of a submission."""

    priority: int | None
    """-10 to 10, by default 0: studies of a higher one get workers first."""
    max_workers: int | None
    """Number of trials that run at a time, at most."""
    tracking: bool | None
    """Whether the service copies the trials to its MLflow."""
    test: bool | None
    """Whether the winner is evaluated on the test set, once; by default true."""
    reopen_test: bool | None
    """Whether to evaluate again after an extended search has another winner."""
    start_from: Sequence[str]
    """Names of studies of the service whose best configurations are the first trials."""


@contextmanager
def _called_a_frame(sent: Dataset | None) -> Iterator[None]:
    """Let a refusal name a data frame in place of the file in which it was sent."""
    try:
        yield
    except RefusedError as error:
        if sent is None:
            raise
        raise error.with_(rule=error.rule.replace(sent.name, "the data frame")) from None


class Client:
    """A service of `tuner serve`.

    Requests are repeated for half a minute while the service restarts or is busy. Methods raise
    RefusedError, an InputError, with the service's line if it refuses a request, and RunError if
    it fails or does not answer.

    Args:
        server: URL; by default that of the environment variable TUNER_SERVER, or
            `http://127.0.0.1:8080`.
        token: by default that of TUNER_TOKEN; a service without tokens needs none.
        note: takes lines for the user: the service does not answer and is waited for, or it is
            back, or it needs no token. By default they are warnings in the log `tuner.client`,
            which Python prints.

    Raises:
        InputError: the URL or the token cannot be one.
    """

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        *,
        note: Callable[[str], None] | None = None,
    ) -> None:
        given = server or os.environ.get(SERVER) or DEFAULT_SERVER
        self._token = token or os.environ.get(TOKEN) or None
        self._connection = Connection(given, self._token, note or _log.warning)

    @property
    def server(self) -> str:
        """The URL of the service."""
        return self._connection.server

    @property
    def server_time(self) -> float:
        """Time of the newest answer by the service's clock: seconds since 1970, rounded down."""
        return self._connection.server_time

    def note_to(self, note: Callable[[str], None]) -> None:
        """Send the lines for the user elsewhere from now on; see `note` of the class."""
        self._connection.note = note

    def __repr__(self) -> str:
        token = "with a token" if self._token else "without a token"
        return f"{type(self).__name__}({self.server!r}, {token})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the client can still be used."""
        self._connection.close()

    def me(self) -> dict[str, Any]:
        """Return the owner of the token, its role and its limits."""
        found: dict[str, Any] = self._connection.json("GET", "/v1/me")
        return found

    def upload(self, data: pd.DataFrame | str | Path, name: str | None = None) -> Dataset:
        """Upload a file or a data frame, unless the service has the same content.

        Args:
            data: a file that an experiment can read; or a data frame, (rows, columns), which is
                sent as Parquet.
            name: of the file, there; by default as here.

        Raises:
            InputError: the file cannot be read here, or the service cannot read it as a table.
        """
        if isinstance(data, str | Path):
            return self._upload_file(Path(data), name)
        from tuner.studies import keep_frame  # with pandas

        with tempfile.TemporaryDirectory(prefix="lstm-tuner-upload-") as folder:
            path = keep_frame(data, Path(folder), Path(name or "table").stem)
            return self._upload_file(path, name or path.name)

    def _upload_file(self, path: Path, name: str | None) -> Dataset:
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0)
                if (known := self._dataset(digest)) is not None:
                    return known
                sent = self._connection.send(
                    "PUT",
                    f"/v1/datasets/{digest}",
                    query={"name": name or path.name},
                    file=file,
                    headers={"Content-Type": "application/octet-stream"},
                )
        except OSError as error:
            rule = f"cannot be read: {error.strerror}"
            raise InputError(rule, where=path, remedy="check the path") from None
        return Dataset.from_json(self._connection.parsed(sent))

    def _dataset(self, digest: str) -> Dataset | None:
        try:
            return self.dataset(digest)
        except RefusedError as error:
            if error.status != _NOT_FOUND:
                raise
            return None

    def dataset(self, id: str) -> Dataset:
        """Return what the service knows of a file; `id` is the SHA-256 of its content."""
        return Dataset.from_json(self._connection.json("GET", f"/v1/datasets/{segment(id)}"))

    def datasets(self) -> list[Dataset]:
        """Return the files that the service has."""
        return [Dataset.from_json(one) for one in self._connection.pages("/v1/datasets")]

    def delete_dataset(self, id: str) -> None:
        """Delete a file that no study uses."""
        self._connection.json("DELETE", f"/v1/datasets/{segment(id)}")

    def init(
        self, data: Dataset | pd.DataFrame | str | Path, **options: Any
    ) -> tuple[str, list[str]]:
        """Return an experiment for a file, based on its columns, as YAML, and notes on it.

        Args:
            data: uploaded first, unless it is.
            options: those of `tuner init`: `target`, `features`, `time`, `id`, `no_time`,
                `resample`, `wide`, `horizon`, `task`, `read`; and `name`, of the experiment.
        """
        dataset = data if isinstance(data, Dataset) else self.upload(data)
        answer = self.proposal(dataset, **options)
        return answer["yaml"], list(answer["notes"])

    def proposal(self, dataset: Dataset, **options: Any) -> dict[str, Any]:
        """Return the `yaml` and the `notes` of `init`, and what the experiment `does`, in words."""
        body = {"dataset": dataset.id, **options}
        found: dict[str, Any] = self._connection.json("POST", "/v1/experiments:init", body=body)
        return found

    def check(
        self,
        experiment: Experiment | Mapping[str, Any] | str | Path,
        data: Dataset | pd.DataFrame | str | Path | None = None,
    ) -> dict[str, Any]:
        """Check an experiment and its data, and start nothing; arguments as of `submit`.

        Returns:
            `experiment`, completed, and `check`, what `tuner check` shows.
        """
        body, frame = self._with_uploads(experiment, data)
        with _called_a_frame(frame):
            answer = self._connection.json("POST", "/v1/experiments:check", body=body)
        found: dict[str, Any] = answer
        return found

    def submit(
        self,
        experiment: Experiment | Mapping[str, Any] | str | Path,
        data: Dataset | pd.DataFrame | str | Path | None = None,
        name: str | None = None,
        *,
        strategy: str | None = None,
        trials: int | None = None,
        seed: int | None = None,
        **options: Unpack[SubmitOptions],
    ) -> RemoteStudy:
        """Submit a search, with its data. It is queued, and runs on the service.

        The same submission again returns the same study. A larger budget extends it, a smaller one
        leaves it as it is.

        Args:
            experiment: an experiment, the path of its file, or nested dicts; it is checked here
                first. Its files are uploaded; `data.path` may be a `Dataset.reference`.
            data: replaces `data.path`.
            name: of the study; by default `<experiment>-<strategy>-<seed>`.
            strategy: as of `tuner.search`, like the next two.
            trials: number of trials; by default the experiment's `budget.trials`.
            seed: of the search; by default the experiment's.
            options: see `SubmitOptions`; what is None or left out is the service's default.

        Raises:
            InputError: the experiment or the data is refused, or the name is that of another
                study.
        """
        if unknown := set(options) - set(SubmitOptions.__annotations__):
            word, known = min(unknown), [*_CHANGES, *SubmitOptions.__annotations__]
            remedy = nearest(word, known)
            raise InputError(f"unknown argument {word!r}", where="submit", remedy=remedy)
        body, frame = self._with_uploads(experiment, data, strategy, trials, seed)
        given = {"from": list(options.pop("start_from", ())) or None, "name": name, **options}
        body |= {key: value for key, value in given.items() if value is not None}
        with _called_a_frame(frame):
            sent = self._connection.send("POST", "/v1/studies", body=body)
        facts, is_new = self._connection.parsed(sent), sent.status_code == _CREATED
        return RemoteStudy(self._connection, facts["name"], facts, is_new=is_new)

    def _with_uploads(
        self,
        experiment: Experiment | Mapping[str, Any] | str | Path,
        data: Dataset | pd.DataFrame | str | Path | None,
        strategy: str | None = None,
        trials: int | None = None,
        seed: int | None = None,
    ) -> tuple[dict[str, Any], Dataset | None]:
        """Return an experiment as JSON, with the ids of its uploaded files, and a sent frame."""
        from tuner.studies import with_changes, with_data  # with optuna
        from tuner.tables.files import is_upload  # with pandas

        frame = None
        if data is not None and not isinstance(data, Dataset | str | Path):
            data = frame = self.upload(data)
        path = data.reference if isinstance(data, Dataset) else data
        chosen = with_changes(with_data(experiment, path, None), strategy, trials, seed)
        raw = chosen.to_submit()
        uploaded = {}
        for *blocks, key in _FILE_KEYS:
            block = raw
            for each in blocks:
                block = block[each]
            if (given := block.get(key)) is None:
                continue
            if is_upload(given):  # made absolute, as every path is
                block[key] = Path(given).name
            elif not Path(given).is_file():
                key = ".".join((*blocks, key))
                raise refusal(given, key, "no such file", remedy="check the path")
            else:
                uploaded[given] = self.upload(given).id
        return {"experiment": raw, "datasets": uploaded}, frame

    def studies(self, state: str | None = None, q: str | None = None) -> list[dict[str, Any]]:
        """Return what the service lists of each study, the newest first; see `RemoteStudy.facts`.

        Args:
            state: `queued`, `running`, `cancelled`, `done` or `failed`; None for all.
            q: a part of the name.
        """
        return list(self._connection.pages("/v1/studies", state=state, q=q, limit=1000))

    def study(self, name: str) -> RemoteStudy:
        """Return a study; an external one is an `ExternalStudy`.

        Raises:
            RefusedError: 404, there is none of this name; the line has the nearest one.
        """
        facts = self._connection.json("GET", f"/v1/studies/{segment(name)}")
        kind = ExternalStudy if facts.get("kind") == "external" else RemoteStudy
        return kind(self._connection, name, facts)

    def queue(self) -> dict[str, Any]:
        """Return the number of workers, how many are busy, and the queue."""
        found: dict[str, Any] = self._connection.json("GET", "/v1/queue")
        return found

    def external(
        self,
        name: str,
        space: Mapping[str, Any],
        strategy: str | Mapping[str, Any] = "tpe",
        direction: str = "minimize",
        **options: Any,
    ) -> ExternalStudy:
        """Create an external study: the service proposes configurations, and you train.

        The same call again, by any client of the owner, returns the same study.

        Args:
            name: of the study.
            space: the domain of each parameter, as `search_space` of an experiment:
                `{"x": {"type": "float", "low": 0, "high": 1}}`.
            strategy: its name, or its options with the key `name`.
            direction: `minimize` or `maximize`.
            options: `metric`, by default "value"; `seed`, 0; `trials`, the budget, by default the
                owner's limit, 100,000 unless the service has another; `lease_s`, the seconds after
                which a trial whose client vanished is given out again, 60; `asynchronous`, False;
                `pruner`; `steps`, the most of a trial; `distinct`, True; `retries`, 5.

        Raises:
            InputError: a value breaks a rule, or the name is that of another study.
        """
        chosen = {"name": strategy} if isinstance(strategy, str) else dict(strategy)
        body = {"name": name, "space": dict(space), "strategy": chosen, "direction": direction}
        body |= options
        sent = self._connection.send("POST", "/v1/external-studies", body=body)
        facts, is_new = self._connection.parsed(sent), sent.status_code == _CREATED
        return ExternalStudy(self._connection, facts["name"], facts, is_new=is_new)

    def external_study(self, name: str) -> ExternalStudy:
        """Return an external study that exists.

        Raises:
            InputError: there is none of this name, or it is a search of the service.
        """
        study = self.study(name)
        if not isinstance(study, ExternalStudy):
            rule, remedy = "is a search: workers of the service train it", "use client.study"
            raise InputError(rule, where=name, remedy=remedy)
        return study
