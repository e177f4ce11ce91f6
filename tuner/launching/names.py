"""The names that a search is given: its study's, and its journal's."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from tuner.errors import InputError
from tuner.experiment.explain import shown
from tuner.experiment.naming import STUDY_BYTES, mended, normalized, why_refused

__all__ = ["check_journal", "check_study_name"]


def check_study_name(study: str | None) -> str | None:
    """Return the name of a study as files and MLflow have it.

    Raises:
        InputError: it is no file's name, or is kept for finalists.
    """
    if study is None:
        return None
    study = normalized(study)
    if why := why_refused(study, STUDY_BYTES):
        near = shlex.quote(mended(study, STUDY_BYTES) or "first")
        raise InputError(f"--study: {why}, got {shown(study)}; write --study {near}, say")
    if study.endswith(".finalists"):
        raise InputError(
            f"--study: .finalists is kept for a study's finalists, got {study!r}; leave it out"
        )
    return study


def check_journal(journal: str | None) -> None:
    """Refuse a `--journal` where none can be.

    Raises:
        InputError: naming the folder that is missing, or may not be written to.
    """
    if journal is None:
        return
    if journal in ("", "sqlite://", "sqlite:///") or journal.endswith(":memory:"):
        raise InputError(
            f"--journal: must name a file or a database that lasts, got {journal!r}; "
            f"write --journal studies/first.journal, say"
        )
    scheme, in_database, database = journal.partition(":///")
    if "://" in journal and not (in_database and scheme.partition("+")[0] == "sqlite"):
        return
    path = Path(database.partition("?")[0] if in_database else journal)
    folder = next((p for p in path.absolute().parents if p.exists()), Path("/"))
    if not folder.is_dir() or (not path.exists() and not os.access(folder, os.W_OK)):
        raise InputError(
            f"--journal: cannot be written in {folder}, got {journal!r}; give another folder"
        )
    if not path.parent.exists() and path.parent != Path("studies"):  # which is made where needed
        raise InputError(f"--journal: no folder {path.parent}, got {journal!r}; create it first")
