"""`tuner sync` and `tuner ui`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import webbrowser
from functools import partial
from pathlib import Path

import typer

from tuner.coordination.journal import quiet_journal
from tuner.coordination.records import StudyRecord, read_study
from tuner.errors import InputError, RunError, TunerError, show_location
from tuner.launching.finding import locate, read
from tuner.launching.typed import sync_command
from tuner.launching.winner import check_register, log_winner
from tuner.report.artifacts import final_artifacts
from tuner.tracking import (
    SyncState,
    explain,
    only_copier,
    open_store,
    start_ui,
    sync_study,
    tracking_uri,
)
from tuner.watching.display import console

__all__ = ["sync", "ui"]


def sync(
    study: str, journal: str | None, register: str | None = None, *, ensemble: bool = False
) -> None:
    """Make MLflow agree with a study's journal, and log the winner's model where it is missing."""
    if register is not None:
        check_register(register)
    location = locate(study, journal)
    with quiet_journal(location, study) as storage:  # a search copies what it does itself
        record = read_study(storage, study, location)
        lacking = _sync(record, sync_command(study, journal, register))
    if record.test is not None or register is not None or ensemble:
        _log_winner(record, register, ensemble, sync_command(study, journal, register))
    if lacking:
        raise typer.Exit(1)


def _log_winner(record: StudyRecord, register: str | None, ensemble: bool, command: str) -> None:
    """Log the winner's model; what is wrong with it is said, and MLflow has all else."""

    def note(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    try:
        log_winner(record, note, register=register, ensemble=ensemble)
    except TunerError as error:
        note(f"without the winner's model: {error}")
        if register is not None or ensemble:
            raise typer.Exit(1) from error
    except Exception as error:
        again = f"run `{command}` again later"
        raise RunError(f"the winner's model: {explain(error)}; {again}") from error


def _sync(record: StudyRecord, command: str) -> bool:
    """Copy a study; return whether files are lacking then, which has been said.

    `command` is the one that does it.
    """
    try:
        with only_copier(record.id):  # or two would both create what is missing
            count = sync_study(
                open_store(),
                record,
                SyncState(),
                running=False,
                artifacts=partial(final_artifacts, record),
            )
    except InputError:
        raise
    except Exception as error:
        raise RunError(f"{explain(error)}; run `{command}` again later") from error
    where, but = show_location(tracking_uri()), " but for some files" if count.lacking else ""
    changed = [f"{getattr(count, what)} {what}" for what in ("created", "completed", "replaced")]
    text = f"MLflow agrees with the journal{but}: {', '.join(changed)}, {count.unchanged} unchanged"
    console.print(f"{text} ({where})", markup=False, soft_wrap=True)
    if count.lacking:
        again = f"run `{command}` again once that is mended"
        text = f"without {'; '.join(count.lacking)}; {again}"
        console.print(text, markup=False, soft_wrap=True)
    return bool(count.lacking)


def ui(study: str | None, port: int | None, journal: str | None) -> None:
    """Serve the MLflow UI until Ctrl-C; print its links, and open the first on a terminal."""
    record = read(study, journal) if study else _newest()
    if port is not None and not 0 < port < 65536:
        raise InputError(f"--port: must lie between 1 and 65535, got {port}; write --port 5000")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server ends with this command
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        with console.status("starting the MLflow UI"):
            shown = stack.enter_context(start_ui(record, of_study=study is not None, port=port))
        for link in shown.links:
            console.print(f"{link.url}  ({link.shows})", markup=False, soft_wrap=True)
        if shown.earlier is not None:
            console.print(f"It is served already, by process {shown.earlier}")
        if console.is_terminal:
            if shown.server is not None:
                console.print("Ctrl-C ends it")
            _open(shown.links[0].url)
        shown.wait()


def _open(url: str) -> None:
    """Open a page in a browser with windows: one of text would take the terminal."""
    if sys.platform == "darwin" or {"BROWSER", "DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        webbrowser.open(url)


def _newest() -> StudyRecord | None:
    """Return the study that was written to last in this folder, if there is one."""
    journals = sorted(Path("studies").glob("*.journal"), key=lambda p: p.stat().st_mtime)
    with contextlib.suppress(InputError):  # a file that is no journal: the UI opens without it
        return read(journals[-1].stem, None) if journals else None
    return None
