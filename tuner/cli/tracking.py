"""`tuner sync` and `tuner ui`."""

from __future__ import annotations

import contextlib
import signal
import threading
import webbrowser
from pathlib import Path

from tuner.cli.display import console
from tuner.cli.inspect import read
from tuner.errors import InputError, RunError, show_location
from tuner.report.artifacts import final_artifacts
from tuner.search.journal import journal_location, quiet_journal
from tuner.search.records import StudyRecord, read_study
from tuner.tracking import (
    SyncState,
    explain,
    only_copier,
    open_store,
    start_ui,
    sync_study,
    tracking_uri,
)

__all__ = ["sync", "ui"]


def sync(study: str, journal: str | None) -> None:
    """Make MLflow agree with a study's journal."""
    read(study, journal)  # offers the nearest name
    location = journal_location(study, journal)
    with quiet_journal(location, study) as storage:  # a search copies what it does itself
        _sync(read_study(storage, study, location))


def _sync(record: StudyRecord) -> None:
    try:
        with only_copier(record.id):  # or two would both create what is missing
            count = sync_study(
                open_store(),
                record,
                SyncState(),
                running=False,
                artifacts=final_artifacts(record),
            )
    except Exception as error:
        raise RunError(f"{explain(error)}; run `tuner sync {record.name}` again later") from error
    where = show_location(tracking_uri())
    changed = [f"{getattr(count, what)} {what}" for what in ("created", "completed", "replaced")]
    text = f"MLflow agrees with the journal: {', '.join(changed)}, {count.unchanged} unchanged"
    console.print(f"{text} ({where})", markup=False, soft_wrap=True)


def ui(study: str | None, port: int | None, journal: str | None) -> None:
    """Serve the MLflow UI until Ctrl-C; print the link, and open it on a terminal."""
    record = read(study, journal) if study else _newest()
    name = record.experiment.name if record else None
    study_id = record.id if record and study else None
    ascending = record is None or record.experiment.objective.direction == "minimize"
    if port is not None and not 0 < port < 65536:
        raise InputError(f"--port: must lie between 1 and 65535, got {port}; write --port 5000")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server ends with this command
    with (
        contextlib.suppress(KeyboardInterrupt),
        start_ui(name, study_id, ascending=ascending, port=port) as link,
    ):
        console.print(link, markup=False, soft_wrap=True)
        if console.is_terminal:
            console.print("Ctrl-C ends it")
            webbrowser.open(link)
        threading.Event().wait()


def _newest() -> StudyRecord | None:
    """Return the study that was written to last in this folder, if there is one."""
    journals = sorted(Path("studies").glob("*.journal"), key=lambda p: p.stat().st_mtime)
    with contextlib.suppress(InputError):  # a file that is no journal: the UI opens without it
        return read(journals[-1].stem, None) if journals else None
    return None
