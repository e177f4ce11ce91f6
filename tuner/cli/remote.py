"""`--server`: which service a command uses, and the studies that it reads there."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import InputError
from tuner.outputs import scratch_folder

if TYPE_CHECKING:
    from tuner.client import Client, RemoteStudy

SERVER = "TUNER_SERVER"
_HERE = ("", "local")  # values of --server for this machine

_UNUSED: Mapping[str, str] = {
    "journal": "--journal",
    "executor": "--executor",
    "register": "--register",
    "all_data": "--all-data",
    "ensemble": "--ensemble",
}
"""Options, by field, that are about this machine or about a training here."""

_DEFAULTS = (None, False)


def server_of(given: str | None) -> str | None:
    """Return the URL of the service that a command uses; None for this machine.

    Args:
        given: value of `--server`; None stands for that of the environment variable TUNER_SERVER.
            `local`, or nothing, stands for this machine.
    """
    chosen = os.environ.get(SERVER, "") if given is None else given
    return None if chosen.strip() in _HERE else chosen.strip()


def server_option(given: str | None) -> str:
    """Return ` --server URL` for a command to type, if it was given; TUNER_SERVER goes on."""
    return "" if given is None else f" --server {shlex.quote(given)}"


def client_of(command: Any, *, takes: tuple[str, ...] = ()) -> Client | None:
    """Return a client of the service that a command uses; None for this machine.

    Args:
        command: its arguments and options.
        takes: fields of options that it takes with a service too.

    Raises:
        InputError: the URL is none, or an option makes no sense with a service.
    """
    server = server_of(command.server)
    if server is None:
        return None
    from tuner.client import Client  # with requests

    for field, option in _UNUSED.items():
        if field not in takes and getattr(command, field, None) not in _DEFAULTS:
            what = f"--server {server}" if command.server is not None else f"{SERVER}={server}"
            remedy = "leave it out, or write --server local"
            raise InputError(f"makes no sense with {what}", where=option, remedy=remedy)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        client = Client(server, note=_write)
    for warning in raised:
        _write(f"warning: {warning.message}")
    return client


def _write(text: str) -> None:
    sys.stderr.write(f"tuner: {text}\n")


def facts_before_trials(study: RemoteStudy) -> dict[str, Any] | None:
    """Return the facts of a study that goes on and has no trial yet; None for any other one."""
    facts = study.facts()
    goes_on = facts["state"] in ("queued", "running")
    return facts if goes_on and not facts.get("trained") else None


def place_in_words(facts: Mapping[str, Any]) -> str:
    """Return the place of a study in the queue."""
    position, waits = facts.get("position"), facts.get("waits")
    place = "queued" if position is None else f"queued, number {position} in the queue"
    return place if waits is None else f"{place}; {waits}"


@contextlib.contextmanager
def fetched_model(client: Client, study: str) -> Iterator[Path]:
    """Yield a folder with the winner's model of a study, removed afterwards."""
    with scratch_folder() as folder:
        client.study(study).model(folder / "model")
        yield folder / "model"


def row_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study of the service's list under the names that a summary has."""
    best, score = facts.get("best"), None
    if best:
        of = "mean" if best["trial"] is None else "search_score"  # the untuned default was no trial
        score = {"trial": best["trial"], "search_score": None, of: best["score"]}
        score["params"] = best["params"]
    return {
        "study": facts["name"],
        "experiment": facts["experiment"],
        "strategy": facts["strategy"],
        "seed": facts["seed"],
        "created": facts["submitted"],
        "metric": facts["metric"],
        "direction": facts["direction"],
        "trials": {"trained": facts["trained"]},
        "budget": facts["trials"],
        "best": score,
        "state": facts["state"],
        **({"kind": "external"} if facts.get("kind") == "external" else {}),
        **({"waits": facts["waits"]} if facts.get("waits") else {}),
    }
