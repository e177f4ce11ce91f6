"""Evaluated by a later run: models are trained again, as a journal keeps none."""

import dataclasses
import threading

import pytest
from helpers.simulated_study import PretendExecutor, Winners, everything

from tuner.coordination.finalists import find_winner
from tuner.errors import Interrupted
from tuner.executors.base import STOPPING, Finished
from tuner.results.summary import summarize

CLOSED = {"open_test": False}
N_MODELS = 3 + 3  # of the winner and of the default


def test_models_from_another_run_are_retrained_with_a_note(case, make_case):
    calm = everything(make_case("calm").run())
    case.run(stages=CLOSED)
    record = case.run()
    assert everything(record) == calm
    winner = find_winner(record).trial.number
    first, *rest = case.notes.said
    assert first == ("training 6 models again for the test set: a journal keeps scores, not models")
    names = [f"finalist {winner} repeat {i}" for i in range(3)]
    names += [f"default repeat {i}" for i in range(3)]
    assert sorted(text.split("] ")[1] for text in rest) == sorted(
        f"{name} trained again" for name in names
    )
    assert [text.split("]")[0] for text in rest] == [f"[{k}/6" for k in range(1, 7)]
    assert record.test.retrained_differently == []


class StopsAfter(PretendExecutor):
    """Somebody presses Ctrl-C when so many results have come."""

    def __init__(self, n_results):
        super().__init__(1)
        self.stop, self._left = threading.Event(), n_results

    def poll(self, timeout_s):
        events = super().poll(timeout_s)
        self._left -= sum(isinstance(event, Finished) for event in events)
        if self._left <= 0:
            self.stop.set()
        return events


@pytest.mark.parametrize("n_results", [0, 1, 4, N_MODELS])
def test_a_search_stopped_meanwhile_keeps_the_test_set_closed(case, make_case, openings, n_results):
    case.run(stages=CLOSED)
    executor = StopsAfter(n_results)
    if not n_results:
        executor.stop.set()
    with pytest.raises(Interrupted, match="the same command resumes"):
        case.run(executor=executor, stop=executor.stop)
    assert len(executor.begun) in (n_results, n_results + 1)
    if 0 < n_results < N_MODELS:
        assert STOPPING in case.notes.said
    assert openings == []
    assert case.read().test is None
    calm = make_case("calm")
    assert everything(case.run()) == everything(calm.run())


class AnotherMachine(PretendExecutor):
    """Its floating-point arithmetic is another one."""

    def poll(self, timeout_s):
        return [
            dataclasses.replace(event, outcome=self._changed(event.outcome))
            if isinstance(event, Finished) and event.key in ("finalist 0", "baseline 6")
            else event
            for event in super().poll(timeout_s)
        ]

    def _changed(self, outcome):
        return dataclasses.replace(outcome, objective=outcome.objective * (1 + 1e-12))


def test_a_model_with_another_score_is_named(case):
    case.run(stages=CLOSED)
    winners = Winners()
    record = case.run(executor=AnotherMachine(2), observers=[winners])
    winner = find_winner(record).trial.number
    names = [f"finalist {winner} repeat 0", "default repeat 0"]
    assert record.test.retrained_differently == names
    assert summarize(record).opened[1] == (
        f"Retrained for it, with other scores than in the journal (another CPU or version?): "
        f"{', '.join(names)}."
    )
    said = [text for text in case.notes.said if "and not to" in text]
    assert len(said) == 2
    assert all(text.endswith(": another CPU or version?") for text in said)
    assert winners.found == [], "its score is not the recorded one"
