"""The winner's model, from the search that trained it into MLflow."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import InputError, NoGraphError, RunError, TunerError, one_line

if TYPE_CHECKING:
    from tuner.coordination.records import StudyRecord
    from tuner.executors import Executor
    from tuner.results.reproduce import Training

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
    """The model of a search that is about to end, until MLflow or a program has it.

    Whatever is wrong with it is noted: the search has its result already.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._stack = contextlib.ExitStack()
        self._folder: Path | None = None

    def keep(self, training: Callable[[], Training], executor: Executor) -> None:
        """Write the model."""
        from tuner.data.scratch import scratch_folder
        from tuner.results.model_folder import write_model

        folder = self._stack.enter_context(scratch_folder()) / "model"
        try:
            write_model(training(), folder, executor, moves=True)
        except Exception as error:
            self._note(f"the winner's model cannot be written: {one_line(error)}")
        else:
            self._folder = folder

    @property
    def folder(self) -> Path | None:
        """Where the model lies until the end; None where there is none."""
        return self._folder

    def log(self, record: StudyRecord, register: str | None, again: str) -> None:
        """Log the model, if there is one; `again` is the command that does it later."""
        from tuner.tracking import explain

        if self._folder is None and register is None:
            return
        try:
            log_winner(record, self._note, folder=self._folder, register=register)
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, NoGraphError):
                self._note(f"MLflow has no model of the winner: {one_line(error)}")
                return
            why = one_line(error) if isinstance(error, TunerError) else explain(error)
            if isinstance(error, KeyboardInterrupt):
                why = "stopped"
            self._note(f"MLflow has no model of the winner: {why}; `{again}` adds it")

    def __enter__(self) -> KeptModel:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def log_winner(
    record: StudyRecord,
    note: Callable[[str], None],
    *,
    folder: Path | None = None,
    register: str | None = None,
    ensemble: bool = False,
) -> None:
    """Log the winner's model to MLflow, where it has none of it, and register it.

    Args:
        record: the study, which has come to its end.
        note: is told what takes long, and what was done.
        folder: the model, where it has been written; without one the winner is trained again.
        register: the name under which it is registered; by default it is not.
        ensemble: whether it is the mean of the winner's models, trained again.

    Raises:
        InputError: the data cannot be read any more, or has changed.
        RunError: the training failed or came to another score, or its model cannot be exported.
        Exception: MLflow's own.
    """
    from tuner.data.scratch import scratch_folder
    from tuner.prediction import load_model
    from tuner.results.model_folder import write_model
    from tuner.results.winner_model import example_rows, retrained, training_name
    from tuner.tracking import only_copier, open_store
    from tuner.tracking.model import find_model, log_model, register_model, study_run

    client, name = open_store(), training_name(record, ensemble=ensemble)
    run_id = study_run(client, record)
    with scratch_folder() as made:
        if find_model(client, run_id, name) is None and folder is None:
            note("training the winner again, as MLflow has no model of it")
            training = retrained(record, ensemble=ensemble)
            if training.reproduced is False:
                why = "; ".join(training.differences()) or "is the CPU of another kind?"
                raise RunError(
                    f"its training came to {training.outcome.objective} this time, and not to "
                    f"what was recorded: {why}"
                )
            folder = made / "model"
            write_model(training, folder, moves=True)
        with only_copier(record.id):  # not while it trains: others would wait
            logged = find_model(client, run_id, name)
            if logged is None:
                assert folder is not None, "nobody else removes it"
                model = load_model(folder)
                logged = log_model(client, run_id, model, example_rows(model, record), name)
            if register is not None:
                version = register_model(client, logged, register)
                note(f"the winner's model is version {version} of {register} in MLflow's registry")
