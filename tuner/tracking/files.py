"""The files of a study's run: written where they have changed, named where they cannot be made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tuner.coordination.records import StudyRecord
from tuner.errors import one_line
from tuner.tracking.layout import record_digest, text_digest
from tuner.tracking.state import SyncState
from tuner.tracking.writing import log, log_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["Files", "all_made", "keep_files"]

Files = Mapping[str, str | bytes | Exception]
"""Texts and pictures by file name; an exception says why there is no such file."""

_FILES_OF = "files_of"  # the tag that says of which record the study's run has the files
_ALL = "its files"  # of a function that failed as a whole
_LONGEST = 300  # characters of what an exception says


def all_made(make: Callable[[], Files]) -> Files:
    """Return the files that a function makes; where it fails, its exception in their place."""
    try:
        return make()
    except Exception as error:
        return {_ALL: error}


def keep_files(
    client: MlflowClient,
    record: StudyRecord,
    state: SyncState,
    artifacts: Files | Callable[[], Files],
) -> tuple[str, ...]:
    """Write the files that the study's run lacks, as far as they can be made.

    Args:
        client: of the store.
        record: the study.
        state: what is known of its run.
        artifacts: as for `sync_study`.

    Returns:
        Those that cannot be made, as `NAMES (WHY)` for each reason.

    Raises:
        Exception: MLflow's own.
    """
    assert state.parent is not None
    run_id, known, tags = state.parent.run_id, state.parent.tags, dict[str, str]()
    digest = None
    if not isinstance(artifacts, Mapping):
        digest = record_digest(record, {key: c.digest for key, c in state.children.items()})
        if known.get(_FILES_OF) == digest:
            return ()
        artifacts = all_made(artifacts)
    contents, lacking = _sorted_out(artifacts)
    for name, content in contents.items():
        tag, file_digest = f"artifact {name}", text_digest(content)
        if known.get(tag) != file_digest:
            tags[tag] = file_digest
    if digest is not None and not lacking:
        tags[_FILES_OF] = digest  # without it the next sync tries again
    if replaced := dict.fromkeys(tags.keys() & known.keys() - {_FILES_OF}, ""):
        log(client, run_id, {}, replaced, [])  # who is killed in between knows neither
    for name, content in contents.items():
        if f"artifact {name}" in tags:
            log_file(client, run_id, name, content)
    log(client, run_id, {}, tags, [])
    known |= tags
    return tuple(f"{', '.join(names)} ({why})" for why, names in lacking.items())


def _sorted_out(files: Files) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    """Return the contents of the files that there are, and the names of the others by reason."""
    contents: dict[str, bytes] = {}
    lacking: dict[str, list[str]] = {}
    for name, file in files.items():
        try:
            if isinstance(file, Exception):
                raise file
            contents[name] = file.encode() if isinstance(file, str) else file
        except Exception as error:  # or what no UTF-8 can say
            why = f"{type(error).__name__}: {one_line(error)[:_LONGEST]}"
            lacking.setdefault(why, []).append(name)
    return contents, lacking
