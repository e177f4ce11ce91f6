"""An Optuna storage wrapper that retries on lost connections.

An operation whose connection is lost may have been done or not. Each is attempted again until the
database answers, in a way that gives the same whether or not it had been done before.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy
from optuna.study._study_direction import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from tuner.errors import JournalError, RunError, TunerError, one_line
from tuner.journal.locks import Held

__all__ = ["ConnectionLost", "Enduring", "Refused"]

_T = TypeVar("_T")

_PATIENCE_S = 3600.0  # with a database that does not answer

_LONGEST_PAUSE_S = 5.0  # between two attempts


class ConnectionLost(Exception):
    """The database does not answer; whether it did what it was asked to is not known."""


class Refused(Exception):
    """The database answers, and did not do what it was asked to: its disk is full, say."""


class Enduring(BaseStorage):
    """What another storage holds, through all interruptions of its database.

    One operation is attempted at a time, whatever thread asks for it.

    Args:
        inner: the storage; an operation of it raises `ConnectionLost` or `Refused`, and not both
            that and any effect on what the storage keeps in memory.
        shown: where it is, for messages.
        note: is told, once each time, that the database does not answer and that it does again.
        patience_s: how long to wait for it; a reader does not.
        reading: whether nothing is written.
    """

    def __init__(
        self,
        inner: BaseStorage,
        shown: str,
        note: Callable[[str], None] = lambda text: None,
        *,
        patience_s: float = _PATIENCE_S,
        reading: bool = False,
    ) -> None:
        self._inner, self._shown, self._note = inner, shown, note
        self._patience_s, self._reading = 0.0 if reading else patience_s, reading
        self._alone = threading.RLock()
        self._away = False  # and that has been said
        self._over: BaseException | None = None  # why nothing more is attempted
        self._ended = threading.Event()
        self._n_trials: dict[int, int] = {}  # of each study that is written to

    def close(self) -> None:
        """Have every later operation fail, also that of a thread which is left over."""
        self._end(RunError(f"{self._shown}: is closed"))

    def _do(self, attempt: Callable[[], _T], again: Callable[[], _T] | None = None) -> _T:
        """Attempt an operation until the database answers.

        Args:
            attempt: the operation.
            again: takes its place after an attempt of which nobody knows what it did.
        """
        # Who clears up after an interruption waits no more: no signal would get through to it.
        hurried = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        begun, pause_s = time.monotonic(), 0.0
        while True:
            try:
                with self._alone:
                    self._check_not_over()
                    result = attempt()
                    self._say_back()
                    return result
            except ConnectionLost as lost:
                attempt = again or attempt
                if pause_s:  # a connection that was idle for too long is no news
                    self._say_away(lost)
                if hurried:
                    raise KeyboardInterrupt from None
                if time.monotonic() - begun >= self._patience_s:
                    error = self._error(f"does not answer: {lost}")
                    raise (error if self._reading else self._end(error)) from None
            except Refused as refused:
                raise self._error(str(refused)) from None
            except Held as held:
                raise self._end(
                    RunError(
                        f"{self._shown}: while it did not answer, it was taken: {held}; what is "
                        f"in it is kept, and this search ends"
                    )
                ) from None
            except (SQLAlchemyError, StorageInternalError) as error:
                raise self._error(one_line(error.__cause__ or error)[:200]) from error
            try:
                self._ended.wait(pause_s)
            except KeyboardInterrupt as interrupt:
                raise self._end(interrupt) from None
            pause_s = min(max(0.1, 2 * pause_s), _LONGEST_PAUSE_S)

    def _error(self, reason: str) -> TunerError:
        if self._reading:
            return JournalError(f"{self._shown}: cannot be read: {reason}; try again later")
        return RunError(
            f"{self._shown}: cannot be written: {reason}; what is in it is kept: mend that, and "
            f"the same command resumes"
        )

    def _end(self, why: BaseException) -> BaseException:
        """Attempt nothing more, in any thread."""
        if self._over is None:
            self._over = why
        self._ended.set()
        return self._over

    def _check_not_over(self) -> None:
        if self._over is None:
            return
        if isinstance(self._over, TunerError):
            raise type(self._over)(*self._over.args)
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        raise RunError(f"{self._shown}: the search was interrupted")

    def _say_away(self, lost: ConnectionLost) -> None:
        with self._alone:
            if self._away or self._over is not None or self._patience_s == 0:
                return
            self._away = True
        self._note(
            f"the journal's database does not answer ({lost}); waiting for it; Ctrl-C twice stops "
            f"the search, what is in the journal is kept, and the same command resumes"
        )

    def _say_back(self) -> None:
        if self._away:
            self._away = False
            self._note("the journal's database answers again; the search goes on")

    # Operations that give the same when they are done twice

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write an attribute of a study."""
        self._do(lambda: self._inner.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write an attribute that Optuna keeps of a study."""
        self._do(lambda: self._inner.set_study_system_attr(study_id, key, value))

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Write a parameter of a trial; a second one of that name is not taken."""
        self._do(
            lambda: self._inner.set_trial_param(
                trial_id, param_name, param_value_internal, distribution
            )
        )

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Write an intermediate value of a trial."""
        self._do(
            lambda: self._inner.set_trial_intermediate_value(trial_id, step, intermediate_value)
        )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write an attribute of a trial."""
        self._do(lambda: self._inner.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write an attribute that Optuna keeps of a trial."""
        self._do(lambda: self._inner.set_trial_system_attr(trial_id, key, value))

    def get_study_id_from_name(self, study_name: str) -> int:
        """Read."""
        return self._do(lambda: self._inner.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        """Read."""
        return self._do(lambda: self._inner.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Read."""
        return self._do(lambda: self._inner.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Read."""
        return self._do(lambda: self._inner.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Read."""
        return self._do(lambda: self._inner.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        """Read."""
        return self._do(self._inner.get_all_studies)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """Read."""
        return self._do(
            lambda: self._inner.get_trial_id_from_study_id_trial_number(study_id, trial_number)
        )

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Read."""
        return self._do(lambda: self._inner.get_trial(trial_id))

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Read."""
        return self._do(lambda: self._inner.get_all_trials(study_id, deepcopy, states))

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Read."""
        return self._do(lambda: self._inner.get_best_trial(study_id))

    # Operations of which the second time must know about the first

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """Create a study, once."""

        def again() -> int:
            try:
                return self._inner.create_new_study(directions, study_name)
            except DuplicatedStudyError:  # which the first attempt did not find
                assert study_name is not None
                return self._inner.get_study_id_from_name(study_name)

        return self._do(lambda: self._inner.create_new_study(directions, study_name), again)

    def delete_study(self, study_id: int) -> None:
        """Delete a study."""

        def again() -> None:
            if study_id in {study._study_id for study in self._inner.get_all_studies()}:
                self._inner.delete_study(study_id)

        self._do(lambda: self._inner.delete_study(study_id), again)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial, once: nobody else writes to the study, so one too many is that one."""
        before = self._n_trials.pop(study_id, None)
        if before is None:
            before = len(self.get_all_trials(study_id, deepcopy=False))

        def again() -> int:
            trials = self._inner.get_all_trials(study_id, deepcopy=False)
            if len(trials) > before:
                return trials[before]._trial_id
            return self._inner.create_new_trial(study_id, template_trial)

        trial_id = self._do(lambda: self._inner.create_new_trial(study_id, template_trial), again)
        self._n_trials[study_id] = before + 1
        return trial_id

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Begin a waiting trial, or end one, once; Optuna refuses the second time."""

        def again() -> bool:
            if self._inner.get_trial(trial_id).state is state:
                return True
            return self._inner.set_trial_state_values(trial_id, state, values)

        return self._do(lambda: self._inner.set_trial_state_values(trial_id, state, values), again)
