"""`tuner run --server`: submit a search to a service, and follow it as if it ran here."""

from __future__ import annotations

import contextlib
import math
import queue
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tuner.cli.app import Run
from tuner.cli.remote import place_in_words, server_option
from tuner.cli.run import next_commands, notes_of_command
from tuner.client import Client, RefusedError, RemoteStudy
from tuner.client.study import ENDED
from tuner.errors import InputError, Interrupted, RunError, TunerError, one_line
from tuner.experiment import Experiment
from tuner.experiment.cells import named_code
from tuner.orchestrator import SearchOptions, sync_command
from tuner.progress.replay import EventClock, Replay, newest_run
from tuner.progress.reporters import JsonReporter, Reporter, make_reporter
from tuner.signals import stopped_by_signals

_NOT_FOUND = 404
_RESUMABLE = ("cancelled", "failed")
_ASK_S, _TICK_S = 2.0, 0.1  # between two questions about the queue; to notice Ctrl-C
_LATE_S = 2.0  # by which the time of an answer may be late
_AGAIN_S = 2.0  # within which a second Ctrl-C cancels the search
_RESUMES = "the same command resumes it"

Event = dict[str, Any]


def run(command: Run, experiment: Experiment, options: SearchOptions, client: Client) -> None:
    """Submit a search, or join it, and show its events and its result.

    Raises:
        InputError: the service refuses it.
        RunError: the search failed, or the service does not answer any more.
        Interrupted: Ctrl-C, after which the search goes on; or it was cancelled.
    """
    study, after = _submitted(client, experiment, options)
    clock = EventClock(client.server_time)
    reporter = make_reporter(lambda: False, as_json=command.json, clock=clock)
    show: Callable[[Event], None]
    if isinstance(reporter, JsonReporter):
        show = reporter.write
    else:
        show = Replay(
            reporter,
            clock,
            lambda: study.record()[0],
            at_start=partial(notes_of_command, experiment, command),
            muted_until=_joined_at(study, after, client),
        ).show
    with _detached(study, reporter, command):
        stop = threading.Event()
        with stopped_by_signals(stop), reporter:
            watch = _Watch(study, reporter, after, stop, experiment.n_trials)
            client.note_to(watch.note)
            ended = watch.until_ended(show)
    if ended["state"] != "done":
        raise _end_of(study, ended)
    if not isinstance(reporter, JsonReporter):  # whose events have the result
        own_code = named_code(experiment.to_dict()) is not None
        where = server_option(command.server)
        to_sync = None if options.tracking else f"{sync_command(study.name, None)}{where}"
        commands = next_commands(study.name, where, own_code=own_code, to_sync=to_sync)
        reporter.result(study.record()[0], commands)


def _joined_at(study: RemoteStudy, after: str | None, client: Client) -> float:
    """Return the time there until which events are of before this command joined the search."""
    if study.is_new or after is not None:
        return 0.0
    return math.inf if study.state == "done" else client.server_time + _LATE_S


def _end_of(study: RemoteStudy, ended: Event) -> TunerError:
    """Return the error with which a search has ended that is not done."""
    reason = ended["reason"] or f"the search is {ended['state']}"
    if ended["exit_status"] == InputError.exit_status:
        return InputError(reason)
    if ended["exit_status"] == Interrupted.exit_status:
        return Interrupted(f"{study.name}: {reason}", remedy=_RESUMES)
    return RunError(reason)


@contextlib.contextmanager
def _detached(study: RemoteStudy, reporter: Reporter, command: Run) -> Iterator[None]:
    """Name the way back if this command ends before the search; a second Ctrl-C cancels it."""
    try:
        yield
    except Interrupted as error:
        if isinstance(error, _Left) or error.exit_status != Interrupted.exit_status:
            name = f"{shlex.quote(study.name)}{server_option(command.server)}"
            ways = f"`tuner show {name}` shows it, `tuner cancel {name}` ends it"
            remedy = f"the same command follows it again, {ways}"
            stopped = Interrupted(f"{study.name} goes on at the service", remedy=remedy)
            stopped.exit_status = error.exit_status
        else:  # a second Ctrl-C
            study.cancel()
            stopped = Interrupted(f"{study.name} is cancelled", remedy=_RESUMES)
        _write_end(reporter, stopped)
        raise stopped from None
    except RunError as error:  # the service does not answer any more
        _write_end(reporter, error)
        raise


def _write_end(reporter: Reporter, error: TunerError) -> None:
    """Write the last event for programs: this command ends, and the search may go on."""
    if isinstance(reporter, JsonReporter):
        facts = {"state": "detached", "reason": one_line(error), "exit_status": error.exit_status}
        reporter.write({"event": "ended", "time": round(time.time(), 3), **facts})


def _submitted(
    client: Client, experiment: Experiment, options: SearchOptions
) -> tuple[RemoteStudy, str | None]:
    """Submit a search; the service extends one that was submitted with a smaller budget.

    Returns:
        The study, and the id of the last event before this run of it; None for its first run, and
        for one that runs already.
    """
    before = _last_event(client, options.study_of(experiment))
    study = client.submit(
        experiment,
        name=options.study_of(experiment),
        max_workers=options.workers,
        tracking=options.tracking,
        test=options.open_test,
        reopen_test=options.reopen_test,
        start_from=options.start_from,
    )
    state = study.state
    if state in _RESUMABLE:
        study.resume()
    return study, None if state == "done" else before


def _last_event(client: Client, name: str) -> str | None:
    """Return the id of the last event of a study that has ended; None for any other one."""
    try:
        study = client.study(name)
    except RefusedError as error:
        if error.status != _NOT_FOUND:
            raise
        return None
    if study.state not in ENDED:
        return None
    last = None
    for event in study.events():
        last = event["event_id"]
    return last


class _Left(Interrupted):
    """Ctrl-C, after which the search goes on."""


class _Watch:
    """Follows a study in a thread of its own, so that signals are noticed."""

    def __init__(
        self,
        study: RemoteStudy,
        reporter: Reporter,
        after: str | None,
        stop: threading.Event,
        n_trials: int | None,  # that were asked for; None: no limit
    ) -> None:
        self._study, self._reporter, self._after, self._stop = study, reporter, after, stop
        self._n_trials = n_trials
        self._events: queue.Queue[dict[str, Any] | Exception | str | None] = queue.Queue()
        self._has_begun, self._place, self._asked = False, "", 0.0

    def until_ended(self, show: Callable[[Event], None]) -> Event:
        """Show the events until the search has ended, and return the last one.

        Raises:
            RunError: the service does not answer any more.
            Interrupted: Ctrl-C.
        """
        ended: Event | None = None
        self._note_joined()
        threading.Thread(target=self._read, daemon=True).start()
        while not self._stop.is_set():
            try:
                event = self._events.get(timeout=_TICK_S)
            except queue.Empty:
                self._note_place()
                continue
            if event is None:
                return ended or self._end()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, str):
                self._reporter.note(event)
                continue
            self._has_begun = True
            show(event)
            ended = event if event["event"] == "ended" else None
        if sys.stdout.isatty():  # where a second Ctrl-C interrupts this
            self._reporter.note(f"Ctrl-C again within {_AGAIN_S:g} s cancels the search")
            time.sleep(_AGAIN_S)
        raise _Left("stopped")

    def note(self, text: str) -> None:
        """Show a line among the events; any thread may call this."""
        self._events.put(text)

    def _read(self) -> None:
        try:
            for event in newest_run(self._study.events(), self._after):
                self._events.put(event)
            self._events.put(None)
        except Exception as error:  # raised in the main thread
            self._events.put(error)

    def _end(self) -> Event:
        """Return the end of a study whose log lacks it."""
        facts = self._study.facts()
        if facts["state"] == "done":
            return {"event": "ended", "state": "done", "reason": None, "exit_status": 0}
        status = 130 if facts["state"] == "cancelled" else 1
        return {"event": "ended", "state": facts["state"], "reason": facts["error"],
                "exit_status": status}  # fmt: skip

    def _note_joined(self) -> None:
        if self._study.is_new:
            return
        facts = self._study.facts()
        most, asked_for = (math.inf if n is None else n for n in (facts["trials"], self._n_trials))
        if asked_for < most:
            keeps = "no limit of trials" if facts["trials"] is None else f"{most} trials"
            self._reporter.note(f"{self._study.name} keeps its {keeps}, not {asked_for}")
        if self._after is not None:
            return
        if facts["state"] not in ENDED and facts["trained"]:  # queued: it was extended just now
            of = "" if facts["trials"] is None else f" of {facts['trials']}"
            self._reporter.note(
                f"joining {self._study.name}: {facts['trained']}{of} trials trained"
            )

    def _note_place(self) -> None:
        """Note the place of the study in the queue, whenever it is another one."""
        if self._has_begun or time.monotonic() - self._asked < _ASK_S:
            return
        self._asked = time.monotonic()
        facts = self._study.facts()
        if facts["state"] == "queued" and (place := place_in_words(facts)) != self._place:
            self._place = place
            self._reporter.note(place)
