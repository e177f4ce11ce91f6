"""The winner's model, from the search that trained it into MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import InputError, RunError

if TYPE_CHECKING:
    from tuner.executors import Executor
    from tuner.results.reproduce import Training
    from tuner.search.records import StudyRecord

__all__ = ["KeptModel", "check_register", "log_winner"]


def check_register(name: str, tracking: bool = True) -> None:
    """Refuse a name under which MLflow registers no model.

    Raises:
        InputError: it is empty, holds what no link to a model may hold, or there is no MLflow.
    """
    if not tracking:
        raise InputError("--register: needs MLflow, got --no-tracking as well; leave one out")
    if not name.strip() or set(name) & set("/:.%\"'"):
        raise InputError(
            f"--register: must be a name without any of / : . % \" ', got {name!r}; "
            f"write --register demand, say"
        )


class KeptModel:
    """The model of a search that is about to end, until MLflow has it."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._parent = tempfile.TemporaryDirectory(prefix="lstm-tuner-model-")
        self.folder = Path(self._parent.name) / "model"

    def keep(self, training: Training, executor: Executor) -> None:
        """Write the model; what cannot be exported is noted, and the search is none the worse."""
        from tuner.results.model_folder import write_model

        try:
            write_model(training, self.folder, executor)
        except RunError as error:
            self._note(f"MLflow gets no model: {error}")

    @property
    def is_there(self) -> bool:
        """Whether there is one."""
        return self.folder.exists()

    def __enter__(self) -> KeptModel:
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.cleanup()


def log_winner(
    record: StudyRecord,
    note: Callable[[str], None],
    *,
    folder: Path | None = None,
    register: str | None = None,
) -> None:
    """Log the winner's model to MLflow, where it has none of it, and register it.

    Args:
        record: the study, which has come to its end.
        note: is told what takes long, and what was done.
        folder: the model, where it has been written; without one the winner is trained again.
        register: the name under which it is registered; by default it is not.

    Raises:
        InputError: the data cannot be read any more, or has changed.
        RunError: the training failed, or its model cannot be exported.
        Exception: MLflow's own.
    """
    from tuner.prediction import load_model
    from tuner.results.model_folder import write_model
    from tuner.results.winner_model import example_rows, retrained, training_name
    from tuner.tracking import only_copier, open_store
    from tuner.tracking.model import find_model, log_model, register_model, study_run

    client, training = open_store(), training_name(record)
    with only_copier(record.id), tempfile.TemporaryDirectory(prefix="lstm-tuner-model-") as made:
        run_id = study_run(client, record)
        logged = find_model(client, run_id, training)
        if logged is None:
            if folder is None:
                note("training the winner again, as MLflow has no model of it")
                folder = Path(made) / "model"
                write_model(retrained(record), folder)
            model = load_model(folder)
            logged = log_model(client, run_id, model, example_rows(model, record), training)
        if register is not None:
            version = register_model(client, logged, register)
            note(f"the winner's model is version {version} of {register} in MLflow's registry")
