"""`tuner strategies`, `studies`, `show`, `report`, `sync` and `ui`."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import webbrowser
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from tuner.cli.app import Report, Show, Strategies, Studies, Sync, Ui
from tuner.cli.external import is_external, print_json, show_external
from tuner.cli.remote import (
    client_of,
    facts_before_trials,
    fetched_model,
    place_in_words,
    row_of,
    server_option,
)
from tuner.coordination.finalists import trial_name
from tuner.errors import InputError, NotReadyError, RunError, TunerError, show_location
from tuner.journal.records import StudyRecord, StudyState, read_study, read_with_state
from tuner.journal.storage import lock_for_reading, read_journal, study_names
from tuner.orchestrator import journal_option, sync_command
from tuner.outputs import check_file, written_whole
from tuner.progress.display import console, number, show_result, show_running, show_trials
from tuner.report import page
from tuner.report.page import final_artifacts
from tuner.results.summary import minute, summarize, trials_to_json
from tuner.strategies import Strategy, every_strategy
from tuner.studies import locate, read, read_as_it_stands, refuse_for_now
from tuner.tracking import (
    StudyLinks,
    SyncState,
    explain,
    explained,
    find_links,
    has_study,
    only_copier,
    open_store,
    start_ui,
    sync_study,
    tracking_uri,
)
from tuner.winner import check_register, log_winner

if TYPE_CHECKING:
    from tuner.client import Client, RemoteStudy


def strategies(command: Strategies) -> None:
    """Print every strategy with its options and their defaults."""
    found, errors = every_strategy()
    for error in errors:  # a broken package does not hide the others
        sys.stderr.write(f"tuner: {error}\n")
    if command.json:
        print_json({name: _options(strategy) for name, strategy in found.items()})
        return
    for name, strategy in found.items():
        console.print(f"[bold]{name}[/]  {strategy.summary()}")
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for option, facts in _options(strategy)["options"].items():
            table.add_row(f"    {option}", str(facts["default"]), facts["meaning"])
        console.print(table)


def _options(strategy: type[Strategy]) -> dict[str, Any]:
    return {
        "summary": strategy.summary(),
        "options": {
            option: {"default": field.default, "meaning": field.description or ""}
            for option, field in strategy.model_fields.items()
            if option != "name"
        },
    }


def studies(command: Studies) -> None:
    """Print the studies of this folder's journals, or of the one given, or of a service."""
    if (client := client_of(command)) is not None:
        found = [row_of(facts) for facts in client.studies()]
        where = server_option(command.server)
        starts = bool(found) or client.me()["role"] != "read"
        _list(found, command.json, f"no studies at {client.server}", where, starts=starts)
        return
    journal, rows, unreadable = command.journal, list[dict[str, Any]](), False
    for location in [journal] if journal else sorted(map(str, Path("studies").glob("*.journal"))):
        try:
            storage = read_journal(location)
            names = study_names(storage)
        except InputError as error:  # one bad file does not hide the others
            if journal:
                raise
            sys.stderr.write(f"tuner: {error}\n")
            unreadable = True
            continue
        for name in names:
            try:
                record, state = read_with_state(storage, name, location)
                rows.append(summarize(record).to_json() | {"state": state})
            except InputError as error:  # nor does another program's study
                sys.stderr.write(f"tuner: {error}\n")
    _list(rows, command.json, None if unreadable else "no studies here")
    if unreadable:
        raise typer.Exit(InputError.exit_status)


def _list(
    rows: list[dict[str, Any]],
    as_json: bool,
    none: str | None,
    where: str = "",
    *,
    starts: bool = True,
) -> None:
    """Print studies.

    Args:
        rows: the studies.
        as_json: whether to print JSON.
        none: the text if there are none.
        where: the option for a new one.
        starts: whether the user may start one.
    """
    if as_json:
        print_json(rows)
    elif rows:
        _print_studies(rows)
    elif none is not None:
        start = f"; start one: [bold]tuner run EXPERIMENT.yaml{escape(where)}[/]"
        console.print(escape(none) + (start if starts else ""), soft_wrap=True)


def _print_studies(rows: list[dict[str, Any]]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("study", "experiment", "strategy", "seed"):
        table.add_column(heading)
    table.add_column("trials", justify="right")
    table.add_column("state")
    table.add_column("best", justify="right")
    table.add_column("created")
    for row in rows:
        score = "-"
        if best := row["best"]:
            found = best["mean"] if best["search_score"] is None else best["search_score"]
            score = f"{row['metric']} {number(found)}"
        experiment = "(external)" if row.get("kind") == "external" else row["experiment"]
        names = escape(row["study"]), escape(experiment), row["strategy"], str(row["seed"])
        trials = _trained(row["trials"]["trained"], row["budget"])
        why = row.get("waits", "").partition(":")[0]
        state = f"{row['state']}, {why}" if why else row["state"]
        table.add_row(*names, trials, state, score, minute(row["created"]))
    console.print(table)


def _trained(trained: int, budget: int | None) -> str:
    """Return the number of trained trials, and the budget if it differs."""
    if budget is None or trained == budget:
        return str(trained)
    return f"{trained} of {budget}" if trained < budget else f"{trained} ({budget} asked for)"


def show(command: Show) -> None:
    """Print one study's result, its best trials and where they are in MLflow."""
    if (client := client_of(command)) is not None:
        study = client.study(command.study)
        if is_external(study):
            show_external(study, as_json=command.json)
        else:
            _show_remote(study, as_json=command.json)
        return
    record, state = read_as_it_stands(command.study, command.journal)
    if command.json:
        known = {"state": state, "links": links_as_json(record)}
        print_json(summarize(record).to_json() | {"all_trials": trials_to_json(record)} | known)
        return
    _show(record, state)
    if (links := find_links(record)) is not None:
        _print_links(links)
    elif has_study(record):
        ui_command = f"tuner ui {shlex.quote(record.name)}{journal_option(command.journal)}"
        console.print(f"\nIn MLflow: [bold]{escape(ui_command)}[/]")


def _show(record: StudyRecord, state: StudyState) -> None:
    show_result(record, state)
    if state is StudyState.RUNNING:
        show_running(record)
    show_trials(record)


def _show_remote(study: RemoteStudy, *, as_json: bool) -> None:
    """Print a study of a service; before a trial has ended, its state or its place in the queue."""
    if (facts := facts_before_trials(study)) is not None:
        if as_json:
            print_json(facts)
        else:
            begun = "running, no trial has ended yet"
            where = place_in_words(facts) if facts["state"] == "queued" else begun
            console.print(f"{study.name}: {where}", markup=False, soft_wrap=True)
    elif as_json:
        print_json(study.summary())
    else:
        _show(*study.record())


def links_as_json(record: StudyRecord) -> dict[str, Any] | None:
    """Return a study's links as JSON; None if no running UI has the study."""
    if (links := find_links(record)) is None:
        return None
    numbers = {trial_name(trial.number): trial.number for trial in record.trials}
    best = [{"trial": numbers.get(n), "name": n, "link": link} for n, link in links.best.items()]
    return {"study": links.study, "report": links.report, "trials": links.trials, "best": best}


def _print_links(links: StudyLinks) -> None:
    named = {"study": links.study, "report": links.report, "trials": links.trials, **links.best}
    width = max(len(name) for name, link in named.items() if link is not None)
    console.print("\n[bold]In MLflow[/]")
    for name, link in named.items():
        if link is not None:
            console.print(f"  {name:{width}}  {link}", markup=False, soft_wrap=True)


def report(command: Report) -> None:
    """Write the report of a study as one HTML page."""
    client, name = client_of(command), command.study
    what = f"report of {name}"
    if client is None:
        record, state = read_as_it_stands(name, command.journal)
        if not record.trained:
            refuse_for_now(name, state, "trial that has ended")
            raise InputError(
                f"study {name!r} has no trial that has ended",
                remedy="the same `tuner run` resumes it",
            )
        study_id: str | None = record.id
    else:
        text = client.study(name).report().html
        what, study_id = f"{what} at {client.server}", page.id_of(text)
    output = command.output or Path(f"{name}.html")
    of_it = None if command.force else partial(page.is_report, study=name, study_id=study_id)
    check_file(output, what, page.ENDINGS, of_it)
    if client is None:
        text = page.report(record)
    with written_whole(output) as new:
        new.write_text(text, encoding="utf-8")
    console.print(f"wrote [bold]{escape(str(output))}[/]", soft_wrap=True)


def sync(command: Sync) -> None:
    """Copy to MLflow what it lacks of a study, and the winner's model."""
    study, journal, register = command.study, command.journal, command.register
    if register is not None:
        check_register(register)
    if (client := client_of(command, takes=("register",))) is not None:
        _sync_remote(client, command)
        return
    location, again = locate(study, journal), sync_command(study, journal, register)
    with lock_for_reading(location, study) as storage:  # a running search copies its own trials
        record = read_study(storage, study, location)
        lacks_files = _sync(record, again)
    if record.test is not None or register is not None or command.ensemble:
        _log_winner(record, register, command.ensemble, again)
    if lacks_files:
        raise typer.Exit(1)


def _sync_remote(client: Client, command: Sync) -> None:
    """Copy a study of a service to the MLflow of this machine, and its model."""
    record, state = client.study(command.study).record()
    if state is StudyState.RUNNING:
        rule = f"{record.name} is running"
        raise NotReadyError(rule, where=client.server, remedy="wait until it has ended")
    where = server_option(command.server)
    again = f"{sync_command(record.name, None, command.register)}{where}"
    lacks_files = _sync(record, again)
    if record.test is not None or command.register is not None:
        with fetched_model(client, record.name) as folder:
            _log_winner(record, command.register, False, again, folder)
    if lacks_files:
        raise typer.Exit(1)


def _sync(record: StudyRecord, command: str) -> bool:
    """Copy a study, and return whether MLflow lacks files; `command` copies it again."""
    artifacts = partial(final_artifacts, record)
    # One copier at a time: two would create the same runs.
    with explained(f"run `{command}` again later"), only_copier(record.id):
        count = sync_study(open_store(), record, SyncState(), running=False, artifacts=artifacts)
    where, but = show_location(tracking_uri()), " but for some files" if count.lacking else ""
    changed = [f"{getattr(count, what)} {what}" for what in ("created", "completed", "replaced")]
    _note(
        f"MLflow agrees with the journal{but}: {', '.join(changed)}, "
        f"{count.unchanged} unchanged ({where})"
    )
    if count.lacking:
        _note(f"without {'; '.join(count.lacking)}; run `{command}` again once that is mended")
    return bool(count.lacking)


def _log_winner(
    record: StudyRecord,
    register: str | None,
    ensemble: bool,
    command: str,
    folder: Path | None = None,
) -> None:
    """Log the winner's model, of a folder or trained again; without it, MLflow has the rest."""
    try:
        log_winner(record, _note, folder=folder, register=register, ensemble=ensemble)
    except TunerError as error:
        _note(f"without the winner's model: {error}")
        if register is not None or ensemble:
            raise typer.Exit(1) from error
    except Exception as error:
        rule = f"the winner's model: {explain(error)}"
        raise RunError(rule, remedy=f"run `{command}` again later") from error


def _note(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def ui(command: Ui) -> None:
    """Serve the MLflow UI until Ctrl-C; print its links, and open the first on a terminal."""
    study, port = command.study, command.port
    record = read(study, command.journal) if study else _newest()
    if port is not None and not 0 < port < 65536:
        rule = "must lie between 1 and 65535"
        raise InputError(rule, where="--port", got=port, remedy="write --port 5000")
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
    """Open a page in a graphical browser; a text browser would take over the terminal."""
    if sys.platform == "darwin" or {"BROWSER", "DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        webbrowser.open(url)


def _newest() -> StudyRecord | None:
    journals = sorted(Path("studies").glob("*.journal"), key=lambda p: p.stat().st_mtime)
    with contextlib.suppress(InputError):  # a file that is no journal: the UI opens without it
        return read(journals[-1].stem, None) if journals else None
    return None
