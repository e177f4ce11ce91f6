"""`tuner cancel`, `resume` and `delete`: what changes a study of a service."""

from __future__ import annotations

import shlex
import sys

import typer

from tuner.cli.app import Cancel, Delete, Resume
from tuner.cli.remote import SERVER, client_of, server_option
from tuner.client import RemoteStudy
from tuner.client.study import ENDED
from tuner.errors import InputError, NotReadyError, TunerError


def cancel(command: Cancel) -> None:
    """Cancel a study, and print how to go on with it."""
    study = _study_of(command, "a search on this machine ends with Ctrl-C")
    facts = study.cancel()
    again = f"`{_command('resume', study, command)}` goes on with it"
    typer.echo(f"{study.name} is {facts['state']}, {_trained(facts)}; {again}")


def resume(command: Resume) -> None:
    """Resume a study, and print how to follow it."""
    study = _study_of(command, "on this machine, the same `tuner run` resumes a search")
    facts = study.resume()
    shows = f"`{_command('show', study, command)}` shows it"
    typer.echo(f"{study.name} is {facts['state']}, {_trained(facts)}; {shows}")


def delete(command: Delete) -> None:
    """Delete a study that has ended, after a question unless `--yes` is given.

    Raises:
        InputError: there is nobody to ask.
        NotReadyError: it has not ended.
        TunerError: the answer is no.
    """
    study = _study_of(command, "on this machine, a study is the file studies/STUDY.journal")
    facts = study.facts()
    if facts["state"] not in ENDED:
        remedy = f"`{_command('cancel', study, command)}` ends it"
        raise NotReadyError(f"is {facts['state']}", where=study.name, remedy=remedy)
    if not command.yes:
        what = f"{study.name} ({facts['state']}, {_trained(facts)}) with its journal and model"
        if not sys.stdin.isatty():
            raise InputError(f"deletes {what} for good", where="delete", remedy="add --yes")
        if not typer.confirm(f"Delete {what} for good?", err=True):
            raise TunerError(f"{study.name} is kept")
    study.delete()
    typer.echo(f"{study.name} is deleted")


def _study_of(command: Cancel | Resume | Delete, here: str) -> RemoteStudy:
    """Return the study that a command names.

    Args:
        command: its arguments and options.
        here: what to do instead where the study is one of this machine.

    Raises:
        InputError: no service is named.
    """
    if (client := client_of(command)) is None:
        remedy = f"give --server URL, or set {SERVER}; {here}"
        raise InputError("the URL of a service is missing", where="--server", remedy=remedy)
    return client.study(command.study)


def _command(name: str, study: RemoteStudy, command: Cancel | Resume | Delete) -> str:
    return f"tuner {name} {shlex.quote(study.name)}{server_option(command.server)}"


def _trained(facts: dict[str, object]) -> str:
    of = "" if facts["trials"] is None else f" of {facts['trials']}"
    return f"{facts['trained']}{of} trials trained"
