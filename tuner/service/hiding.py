"""What clients are not shown: where the server keeps its files, its journal and its MLflow.

Texts for a user of the command name them; so all that a client gets passes here: problems, notes,
and why a trial or a study has failed.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from tuner.errors import JournalError, JournalInUse, RunError, TunerError
from tuner.executors.base import Event, Finished, Lost

_URL = (
    r"\b(?:cockroachdb|mariadb|mssql|mysql|oracle|postgres|postgresql|sqlite)(?:\+\w+)?://"
    r".*?(?=: |; |, |['\"`\n]|$)"
)
_DATABASE = re.compile(_URL)
_REPLACED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"MLflow server at \S+: .*?(?=; |$)"), "MLflow server cannot be used"),
    (re.compile(r"MLflow server at \S+?(?=[:;,]?(?:\s|$))"), "MLflow server"),
    (re.compile(r"MLflow store .*?(?=; |$)"), "MLflow store cannot be used"),
    (re.compile(r"database does not answer \(.*?\)(?=;|$)"), "database does not answer"),
    (re.compile(rf"(?:--journal:? '?)?{_URL}'?"), "the journal"),
)
_log = logging.getLogger("tuner.service")


def for_clients(text: str, root: Path | None) -> str:
    """Return a text without places of the server.

    Of a file in one of its folders the name is left; URLs of databases and of MLflow, and what
    their drivers say, which names hosts and users, become what they are.

    Args:
        text: for people, of one line.
        root: the service's folder; None where there is none.
    """
    for pattern, instead in _REPLACED:
        text = pattern.sub(instead, text)
    return _folders(root).sub("", text)


def public(error: TunerError, root: Path | None) -> TunerError:
    """Return an error as clients may see it; see `for_clients`.

    One about the database of the journal says no more than that, and one about a journal in use
    not by whom; the log has the rest.
    """
    if isinstance(error, JournalInUse):
        _log.error("%s", error)
        rule, remedy = "another process uses the journal of the study", "try again later"
        return error.with_(rule=rule, where=None, key=None, got=None, remedy=remedy)
    if isinstance(error, JournalError | RunError) and _DATABASE.search(str(error)):
        _log.error("%s", error)
        rule, remedy = "the database of the service cannot be used now", "try again later"
        return error.with_(rule=rule, where=None, key=None, got=None, remedy=remedy)
    texts = {name: getattr(error, name) for name in ("where", "key", "rule", "got", "remedy")}
    return error.with_(**{name: t and for_clients(t, root) for name, t in texts.items()})


def public_event(event: Event) -> Event:
    """Return an event of a worker whose reason clients may see; see `for_clients`."""
    match event:
        case Lost():
            return dataclasses.replace(event, reason=for_clients(event.reason, None))
        case Finished() if event.outcome.reason is not None:
            reason = for_clients(event.outcome.reason, None)
            return dataclasses.replace(
                event, outcome=dataclasses.replace(event.outcome, reason=reason)
            )
    return event


@lru_cache
def _folders(root: Path | None) -> re.Pattern[str]:
    """Return what matches the folders of a path below a folder of the server."""
    own = [] if root is None else [root, root.resolve()]
    code = Path(__file__).parents[2]
    folders = [*own, code, Path.cwd(), Path.home(), sys.prefix, tempfile.gettempdir()]
    names = sorted({str(folder) for folder in folders} - {".", "/"}, key=len, reverse=True)
    either = "|".join(map(re.escape, names))
    return re.compile(rf"(?:file://)?(?<![\w.])(?:{either})/(?:[^/\s:;,'\"]+/)*")
