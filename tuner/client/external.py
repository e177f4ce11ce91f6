"""External studies: the service proposes configurations, and the models train here."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import socket
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tuner.client.connection import Connection, RefusedError, ServiceError, segment
from tuner.client.study import RemoteStudy
from tuner.errors import InputError, NotReadyError, RunError, one_line

if TYPE_CHECKING:
    import pandas as pd

    from tuner.api import Best

_WAIT_S = 20.0  # for the next trial, in one request
_RENEWALS = 3  # of a lease before it expires
_SHORTEST_S = 0.1  # between two renewals
_PAUSE_S = 1.0  # after an answer that there is nothing to ask yet
_REASON_CHARACTERS, _SHOWN = 500, 80
_GONE, _CONFLICT = 410, 409
_BROKEN = (400, 413, 422)  # statuses of a request that breaks a rule
_COLUMNS = ("status", "value", "reason")


class Pruned(Exception):
    """Raised by an objective that ends a trial early, after `ExternalTrial.report`."""


class ObjectiveError(InputError, ValueError):
    """The value of a trial is no finite number."""


class ExternalTrial:
    """A trial to train: its configuration and its lease. `ExternalStudy.ask` returns it.

    As a context manager it fails with the reason if the block raises. It is given out again, to
    any client, if the block ends without a `tell`, is stopped by Ctrl-C, or ends as the service
    refuses or does not answer. Its lease is renewed while this object exists.
    """

    def __init__(self, connection: Connection, study: str, facts: Mapping[str, Any]) -> None:
        self._connection, self._study, self._facts = connection, study, dict(facts)
        path = f"/v1/external-studies/{segment(study)}/trials/{self.number}"
        self._path, self._step, self._is_open = path, 0, True
        self._end_shown = ""

    def __repr__(self) -> str:
        params = ", ".join(f"{name}={value!r}" for name, value in self.params.items())
        stand = self._end_shown or f"running, {self._step} steps reported"
        return f"{type(self).__name__}({self.number} of {self._study!r}: {params}; {stand})"

    @property
    def number(self) -> int:
        """The number in the study, from 0."""
        return int(self._facts["number"])

    @property
    def params(self) -> dict[str, Any]:
        """The value of every parameter of the space."""
        return dict(self._facts["params"])

    @property
    def seed(self) -> int:
        """The seed for everything random in the training, below 2**32."""
        return int(self._facts["seed"])

    @property
    def attempt(self) -> int:
        """How often the trial was given out, this time included."""
        return int(self._facts.get("attempt", 1))

    @property
    def lease_s(self) -> float:
        """The seconds after which another client may get the trial, unless it is renewed."""
        return float(self._facts["expires_s"])

    @property
    def is_open(self) -> bool:
        """Whether neither `tell`, `prune`, `fail` nor `release` has ended it here."""
        return self._is_open

    def report(self, value: float) -> bool:
        """Report the value after the next step, from step 0, and return whether to stop.

        Args:
            value: the metric, so far.

        Returns:
            Whether the pruner ends the trial: call `prune`, or raise `Pruned`.

        Raises:
            RefusedError: another client has the trial, as the lease here has expired.
        """
        return self._report([self._number(value)])

    def _report(self, values: list[float]) -> bool:
        body = {"step": self._step, "values": list(map(_in_json, values))}
        answer = self._send("report", body)
        self._step += len(values)
        return bool(answer["prune"])

    def renew(self) -> None:
        """Renew the lease."""
        self._report([])

    def tell(self, value: float) -> None:
        """End the trial with its value; one that is not finite is a failure.

        Raises:
            ObjectiveError: the value is no number.
            RefusedError: another client has the trial, or it has ended with another value.
        """
        number = self._number(value)
        self._end("tell", {"value": _in_json(number)}, f"value {number:g}")

    def tell_returned(self, value: Any) -> None:
        """End the trial with what an objective returned; what is no finite number fails it.

        Raises:
            ObjectiveError: it is none; the trial has failed with that reason.
            RefusedError: as `tell`.
        """
        try:
            number = self._number(value)
            if math.isfinite(number):
                self.tell(number)
                return
            raise self._no_value(value, "must be a finite number")
        except ObjectiveError as error:
            self.fail(f"the objective returned {error.got}")
            raise

    def prune(self) -> None:
        """End the trial early; its last report counts."""
        self._end("tell", {"pruned": True}, "pruned")

    def fail(self, reason: str) -> None:
        """End the trial without a value."""
        text = one_line(reason)[:_REASON_CHARACTERS] or "no reason"
        self._end("tell", {"failed": text}, f"failed: {text}")

    def release(self) -> None:
        """Give the trial back: any client gets it, with the same parameters and seed."""
        self._end("release", {}, "released")

    def _number(self, value: Any) -> float:
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            raise self._no_value(value, "must be a number") from None

    def _no_value(self, value: object, rule: str) -> ObjectiveError:
        remedy = "return the value" if value is None else "return a float"
        where = f"trial {self.number} of {self._study}"
        shown = repr(value) if len(repr(value)) <= _SHOWN else f"a {type(value).__name__}"
        return ObjectiveError(rule, where=where, key="value", got=shown, remedy=remedy)

    def _end(self, verb: str, body: dict[str, Any], shown: str) -> None:
        self._is_open = False  # it is renewed no more
        try:
            self._send(verb, body)
        except RunError:
            self._is_open = True
            raise
        self._end_shown = shown

    def _send(self, verb: str, body: dict[str, Any]) -> Any:
        body = {"lease": self._facts["lease"], **body}
        return self._connection.json("POST", f"{self._path}/{verb}", body=body)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not self._is_open:
            return False
        if error is not None and _is_pruned(error):
            self.prune()
            return True
        if error is None:
            self.release()
        elif isinstance(error, ServiceError):
            self._is_open = False  # the lease expires
        else:
            with contextlib.suppress(InputError, RunError):  # the block's own error is raised
                if isinstance(error, Exception) and not _is_refusal(error):
                    self.fail(f"{type(error).__name__}: {error}")
                else:  # Ctrl-C, or the service has refused it: another client trains it
                    self.release()
        return False


def _is_refusal(error: BaseException) -> bool:
    """Return whether an error is the service's, and not that of a request that breaks a rule."""
    return isinstance(error, RefusedError) and error.status not in _BROKEN


def _in_json(value: float) -> float | str:
    """Return a number, or the text that stands for one that JSON lacks."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity"


def _is_pruned(error: BaseException) -> bool:
    optuna = sys.modules.get("optuna")
    return isinstance(error, Pruned) or (
        optuna is not None and isinstance(error, optuna.TrialPruned)
    )


class ExternalStudy(RemoteStudy):
    """A study whose models train here. `Client.external` returns it.

    Iterating yields trials until the budget is used:

        for trial in study:
            with trial:
                trial.tell(train(**trial.params, seed=trial.seed))
    """

    def __init__(
        self, connection: Connection, name: str, facts: Mapping[str, Any], *, is_new: bool = False
    ) -> None:
        super().__init__(connection, name, facts, is_new=is_new)
        self._asks = f"/v1/external-studies/{segment(name)}/ask"
        self._client = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._leases = _Leases()
        self._done = False

    @property
    def done(self) -> bool:
        """Whether the last `ask` was answered that the budget is used; `extend` makes it false."""
        return self._done

    def ask(self, wait_s: float = _WAIT_S) -> ExternalTrial | None:
        """Ask for a trial.

        Args:
            wait_s: how long to wait for it, in seconds, at most 60.

        Returns:
            The trial; None once the budget is used, and `done` is true.

        Raises:
            NotReadyError: there is nothing to ask yet. In the repeatable mode the next trial
                depends on trials that are running, here or at other clients.
        """
        trials = self._answered(1, wait_s)
        if trials is None:
            return None
        if trials:
            return trials[0]
        remedy = "tell the trials that you have, or wait longer"
        raise NotReadyError("there is nothing to ask yet", where=self.name, remedy=remedy)

    def ask_many(self, n: int, wait_s: float = 0.0) -> list[ExternalTrial]:
        """Ask for several trials.

        Args:
            n: their number at most, 1 to 100.
            wait_s: how long to wait for the first one, in seconds, at most 60.

        Returns:
            The trials; an empty list if there is nothing to ask yet, or if the budget is used:
            then `done` is true.
        """
        return self._answered(n, wait_s) or []

    def _answered(self, n: int, wait_s: float) -> list[ExternalTrial] | None:
        """Return the trials of an answer; None if it is that the budget is used."""
        body = {"n": n, "client": self._client, "wait_s": wait_s}
        try:
            answer = self._connection.json("POST", self._asks, body=body)
        except RefusedError as error:
            self._done = error.status == _GONE
            if not self._done:
                raise
            with contextlib.suppress(InputError, RunError):  # for the text of this object
                self.facts()
            return None
        self._done = False
        trials = [ExternalTrial(self._connection, self.name, facts)
                  for facts in (answer or {}).get("trials", ())]  # fmt: skip
        self._leases.add(trials)
        return trials

    def extend(self, trials: int | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Give the study a larger budget, as `RemoteStudy.extend`; `ask` goes on."""
        found = super().extend(trials, timeout)
        self._done = False
        return found

    def __iter__(self) -> Iterator[ExternalTrial]:
        return self._asked(threading.Event())

    def _asked(self, stop: threading.Event) -> Iterator[ExternalTrial]:
        while not stop.is_set():
            begun = time.monotonic()
            trials = self._answered(1, _WAIT_S)
            if trials is None:
                return
            if trials and stop.is_set():
                trials.pop().release()
            elif trials:
                yield trials.pop()
            elif time.monotonic() - begun < _PAUSE_S:
                time.sleep(_PAUSE_S)

    def optimize(
        self,
        objective: Callable[[ExternalTrial], float],
        n_jobs: int = 1,
        catch: type[Exception] | Sequence[type[Exception]] = (),
    ) -> Self:
        """Train trials here until the budget is used; other clients may do the same.

        Args:
            objective: trains a trial and returns its value. It may call `trial.report` and raise
                `Pruned`. A trial for which it raises another exception, or returns no finite
                number, has failed with that reason.
            n_jobs: number of threads. After an exception, or Ctrl-C, they end with their trials.
            catch: exceptions of the objective after which the next trial follows, as those of
                Optuna; the first other one is raised here.

        Returns:
            This study.

        Raises:
            ObjectiveError: the objective returned no finite number; it is a ValueError.
            RefusedError: the service refuses to give trials: the study is cancelled, say.
            RunError: the service fails or does not answer; the trial is given out again.
        """
        if n_jobs < 1:
            rule, remedy = "must be at least 1", "write n_jobs=1"
            raise InputError(rule, where="n_jobs", got=n_jobs, remedy=remedy)
        stop = threading.Event()
        caught = (catch,) if isinstance(catch, type) else tuple(catch)
        if n_jobs == 1:
            self._work(objective, caught, stop)
            return self
        with ThreadPoolExecutor(n_jobs) as threads:
            works = [threads.submit(self._work, objective, caught, stop) for _ in range(n_jobs)]
            try:
                for work in works:
                    work.result()
            finally:  # after an exception here or in a thread, the other threads end as well
                stop.set()
        return self

    def _work(
        self,
        objective: Callable[[ExternalTrial], float],
        catch: tuple[type[Exception], ...],
        stop: threading.Event,
    ) -> None:
        try:
            for trial in self._asked(stop):
                self._train(trial, objective, catch)
        except BaseException:
            stop.set()
            raise

    def _train(
        self,
        trial: ExternalTrial,
        objective: Callable[[ExternalTrial], float],
        catch: tuple[type[Exception], ...],
    ) -> None:
        try:
            with trial:
                value = objective(trial)
                if trial.is_open:
                    trial.tell_returned(value)
        except RefusedError as error:
            if error.status != _CONFLICT:
                raise
            text = f"trial {trial.number} of {self.name} has ended elsewhere: {error}"
            warnings.warn(text, stacklevel=2)
        except catch:
            pass

    @property
    def trials(self) -> pd.DataFrame:
        """All trials: (trials, columns), indexed by number.

        The columns are `status`, `value`, `reason` (of a failure), and the parameters; a parameter
        of one of these names is `params_NAME`.
        """
        import pandas as pd

        rows = self.rows()
        table = pd.DataFrame(
            [
                {name: row[name] for name in _COLUMNS}
                | {_column(name): value for name, value in row["params"].items()}
                for row in rows
            ],
            index=pd.Index([row["number"] for row in rows], name="trial"),
            columns=None if rows else _COLUMNS,
        )
        return table.astype({"value": "float64", "reason": "object"})

    def rows(self, most: int | None = None) -> list[dict[str, Any]]:
        """Return trials as the service lists them.

        Args:
            most: only so many, the best first; None for all, by number.
        """
        if most is None:
            return list(self._connection.pages(f"{self._path}/trials", limit=1000))
        query = {"order": "score", "status": "complete", "limit": most}
        return list(self._connection.json("GET", f"{self._path}/trials", query=query)["items"])

    def best_text(self, *, as_json: bool = False) -> str:
        """Return the best trial, its score and its parameters as YAML, or as JSON."""
        query = {"format": "json" if as_json else "yaml"}
        return str(self._connection.send("GET", f"{self._path}/best", query=query).text)

    @property
    def best(self) -> Best:
        """The best trial, a `tuner.Best`; its `search_score` is the value that was told.

        Raises:
            RunError: no trial is complete.
        """
        from tuner.api import Best

        facts = self.facts()
        if (best := facts["best"]) is None:
            raise RunError("no trial is complete", where=self.name)
        return Best(
            trial=best["trial"],
            name=f"trial {best['trial']}",
            params=best["params"],
            hyperparameters=best["params"],
            metric=facts["metric"],
            search_score=best["score"],
            mean=None,
            std=None,
        )


def _column(name: str) -> str:
    return f"params_{name}" if name in _COLUMNS else name


class _Leases:
    """Renews the leases of trials in a thread, while their objects exist and are open."""

    def __init__(self) -> None:
        self._every_s = 0.0
        self._trials: weakref.WeakSet[ExternalTrial] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, trials: Sequence[ExternalTrial]) -> None:
        """Renew the leases of these trials as well."""
        if not trials:
            return
        with self._lock:
            self._every_s = max(_SHORTEST_S, min(trial.lease_s for trial in trials) / _RENEWALS)
            self._trials.update(trials)
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, daemon=True)
                self._thread.start()

    def _renew(self) -> None:
        time.sleep(self._every_s)
        while self._renewed():
            time.sleep(self._every_s)

    def _renewed(self) -> bool:
        """Renew all leases, and return False if there is none; then the thread ends."""
        with self._lock:
            trials = [trial for trial in self._trials if trial.is_open]
            if not trials:
                self._thread = None
                return False
        for trial in trials:
            with contextlib.suppress(InputError, RunError):  # the trial's next call raises it
                trial.renew()
        return True
