"""A study of a service."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.client.connection import Connection, segment
from tuner.client.events import follow
from tuner.errors import InputError, RunError, one_line
from tuner.outputs import check_model_folder, temporary_folder
from tuner.prediction import Model, PredictionWarning, load_model

if TYPE_CHECKING:
    import pandas as pd

    from tuner.api import Report, Study
    from tuner.journal.records import StudyRecord, StudyState

ENDED = frozenset({"done", "cancelled", "failed"})
"""States of a study that trains no more."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0  # between two questions about a state
_MOST_FILES, _MOST_BYTES = 1_000, 8 * 2**30  # of a model


class RemoteStudy:
    """A study of a service. `Client.submit` and `Client.study` return it.

    Every access asks the service, but its text in a notebook, which has what was seen last. All
    methods raise RefusedError, an InputError, if the service refuses the request, and RunError if
    it fails or does not answer for half a minute.

    Attributes:
        is_new: whether `Client.submit` has created it; False for one that was there.
    """

    def __init__(
        self, connection: Connection, name: str, facts: Mapping[str, Any], *, is_new: bool = False
    ) -> None:
        self._connection, self._name, self.is_new = connection, name, is_new
        self._path, self._seen = f"/v1/studies/{segment(name)}", facts

    def __repr__(self) -> str:
        place = f"{self._name!r} at {self._connection.server}"
        return f"{type(self).__name__}({place}: {_in_words(self._seen)})"

    @property
    def name(self) -> str:
        """The name."""
        return self._name

    def facts(self) -> dict[str, Any]:
        """Return what the service lists of the study: state, progress, best trial, times."""
        found: dict[str, Any] = self._connection.json("GET", self._path)
        self._seen = found
        return found

    @property
    def state(self) -> str:
        """`queued`, `running`, `cancelled`, `done` or `failed`."""
        return str(self.facts()["state"])

    def wait(self, timeout_s: float | None = None) -> RemoteStudy:
        """Wait until the search has ended, and return this study.

        Args:
            timeout_s: the longest wait in seconds; None waits for ever.

        Raises:
            RunError: the search failed, was cancelled, or has not ended in time.
        """
        begun, pause = time.monotonic(), _FIRST_PAUSE_S
        while (facts := self.facts())["state"] not in ENDED:
            left = None if timeout_s is None else timeout_s - (time.monotonic() - begun)
            if left is not None and left <= 0:
                rule = f"has not ended after {timeout_s:g} s, it is {facts['state']}"
                raise RunError(rule, where=self._name, remedy="wait longer")
            time.sleep(pause if left is None else min(pause, left))
            pause = min(1.5 * pause, _LONGEST_PAUSE_S)
        if facts["state"] == "failed":
            raise RunError(facts["error"] or "the search failed", where=self._name)
        if facts["state"] == "cancelled":
            raise RunError("was cancelled", where=self._name, remedy="resume() goes on with it")
        return self

    def events(self, after: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the events as they happen, each once, until the search has ended.

        The stream goes on over a restart of the service.

        Args:
            after: the `event_id` of an event: only later ones are yielded. None yields all.

        Yields:
            The objects that `tuner run --json` prints, and the key `event_id`.
        """
        path = f"{self._path}/events"
        for number, event in follow(self._connection, path, after, self._has_ended):
            yield {**event, "event_id": number}

    def _has_ended(self) -> bool:
        return self.state in ENDED

    def record(self) -> tuple[StudyRecord, StudyState]:
        """Return the record of the study, as a journal here would have it, and its state."""
        from tuner.journal.record_json import record_from_text  # with optuna

        return record_from_text(self._connection.send("GET", f"{self._path}/record").text)

    def load(self) -> Study:
        """Return the study as it is now, as `tuner.load_study` does; its model is downloaded."""
        return _loaded(self)

    @property
    def trials(self) -> pd.DataFrame:
        """All trials: (trials, columns), as `tuner.Study.trials` has them."""
        return self.load().trials

    @property
    def best(self) -> Any:
        """The winner, a `tuner.Best`: the best mean of the retrainings, or the best trial."""
        return self.load().best

    def summary(self) -> dict[str, Any]:
        """Return the result as nested dicts and lists, as `tuner show --json` prints it."""
        found: dict[str, Any] = self._connection.json("GET", f"{self._path}/summary")
        return found

    def report(self) -> Report:
        """Return the result as an HTML page with pictures."""
        from tuner.api import Report

        accepts = {"Accept": "text/html"}
        page = self._connection.send("GET", f"{self._path}/report", headers=accepts)
        return Report(self._name, page.content.decode("utf-8"))

    def export(self, path: str | Path) -> Path:
        """Write the best configuration as an experiment file, as `tuner.Study.export` does.

        `data.path` in it is the file that was uploaded, as it is called here.

        Args:
            path: a new file, or an earlier export; `.yaml`, `.yml` or `.json`.
        """
        return self.load().export(path)

    def model(self, folder: str | Path) -> Model:
        """Download the winner's model into a folder, and return it.

        Args:
            folder: a new or empty folder, or that of an earlier model, which is replaced.

        Raises:
            InputError: the folder holds other files; there is no model yet.
            ModelError: what the service sends is not a model folder.
        """
        path = Path(folder)
        check_model_folder("folder", path)
        path.parent.mkdir(parents=True, exist_ok=True)
        accepts = {"Accept": "application/x-tar", "Accept-Encoding": "identity"}
        answer = self._connection.send("GET", f"{self._path}/model", headers=accepts, stream=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as name, answer:
            fresh = Path(name) / "model"
            _extract(answer.raw, fresh, self._connection.server)
            load_model(fresh)  # complete, and with its own checksums
            path.mkdir(exist_ok=True)
            for stale in path.iterdir():
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
            for file in sorted(fresh.iterdir(), key=lambda file: file.name == "pipeline.json"):
                file.replace(path / file.name)
        return load_model(path)

    def predict(
        self, data: pd.DataFrame | Mapping[str, Any], all_windows: bool = False
    ) -> pd.DataFrame:
        """Predict with the winner's model on the service, in the units of the data.

        Args:
            data: a data frame, (rows, columns), with the columns of the search; others are
                ignored. A forecast starts after the last row.
            all_windows: whether to forecast after every row that has a full window before it.

        Returns:
            (rows, columns), as `tuner.prediction.Model.predict` returns it.

        Raises:
            RefusedError: the data does not match that of the search, there is no model yet, or the
                rows are more than a request may have: `model` downloads the model.
        """
        from tuner.client.frames import frame_of, rows_of

        rows, dtypes = rows_of(data)
        body = {"rows": rows, "dtypes": dtypes, "all": all_windows, "other_columns": True}
        answer = self._connection.json("POST", f"{self._path}/predict", body=body)
        for note in answer.get("notes", ()):
            warnings.warn(note, PredictionWarning, stacklevel=2)
        return frame_of(answer["rows"], answer["dtypes"])

    def cancel(self) -> dict[str, Any]:
        """End the search; its finished trials are kept, and `resume` goes on with it."""
        return self._change("cancel")

    def resume(self) -> dict[str, Any]:
        """Queue a search again that was cancelled or has failed."""
        return self._change("resume")

    def extend(self, trials: int | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Give the search a larger budget, and queue it again; a smaller one is refused.

        Args:
            trials: the number of trials in all; None leaves it.
            timeout: the time of the search in seconds, over all its runs; None leaves it.
        """
        given = {"trials": trials, "timeout": timeout}
        return self._change("extend", {k: v for k, v in given.items() if v is not None})

    def delete(self) -> None:
        """Delete a study that has ended, with its journal and model."""
        self._connection.json("DELETE", self._path)

    def _change(self, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self._connection.json("POST", f"{self._path}/{verb}", body=body)
        self._seen = found
        return found


def _in_words(facts: Mapping[str, Any]) -> str:
    """Return where a study stands, from what the service lists of it or from a part of that."""
    words = [str(facts.get("state"))]
    if (trained := facts.get("trained")) is not None:
        of = "" if facts["trials"] is None else f" of {facts['trials']:,}"
        words.append(f"{trained:,}{of} trials")
    if best := facts.get("best"):
        of = "of the untuned default" if best["trial"] is None else f"in trial {best['trial']}"
        words.append(f"best {facts['metric']} {best['score']:.6g} {of}")
    return ", ".join(words)


def _loaded(remote: RemoteStudy) -> Study:
    from tuner.api import Study

    class Fetched(Study):
        """A study whose model is downloaded, not trained again."""

        @cached_property
        def model(self) -> Model:
            folder = temporary_folder(self, "lstm-tuner-model-")
            return remote.model(folder)

    return Fetched(remote.record()[0])


def _extract(stream: Any, folder: Path, server: str) -> None:
    """Extract a tar of files into a new folder: no links, devices, or paths out of it."""
    n_bytes = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for number, member in enumerate(tar):
                n_bytes += member.size
                if number >= _MOST_FILES or n_bytes > _MOST_BYTES:
                    raise InputError("the model is too large", where=server)
                if not member.isfile() and not member.isdir():
                    rule = f"the model has {member.name!r}, which is no file"
                    raise InputError(rule, where=server)
                tar.extract(member, folder, filter="data")
        folder.mkdir(exist_ok=True)
    except (tarfile.TarError, EOFError) as error:
        rule = f"the model cannot be read: {one_line(error)}"
        raise RunError(rule, where=server, remedy="try again") from None
