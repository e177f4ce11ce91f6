"""The names that a search is given: its study's, and its journal's."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tuner.errors import InputError

__all__ = ["check_journal", "check_study_name"]


def check_study_name(study: str | None) -> None:
    """Refuse a name that no study can have.

    Raises:
        InputError: it is no file's name, or is kept for finalists.
    """
    if study is None:
        return
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,149}", study):
        raise InputError(
            f"--study: must begin with a letter or digit and hold only letters, digits, '_', '-' "
            f"and '.', 150 at most, got {study!r}; write --study first, say"
        )
    if study.endswith(".finalists"):
        raise InputError(
            f"--study: .finalists is kept for a study's finalists, got {study!r}; leave it out"
        )


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
