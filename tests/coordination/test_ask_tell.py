"""Ask and tell: whatever clients do, the trials are those of a plain search."""

import json
import math
import os
import signal

import pytest
from helpers.examples import examples
from helpers.external_studies import (
    FEW,
    MEDIAN,
    Chaos,
    Clock,
    curve,
    make_spec,
    run_plainly,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.coordination.ask_tell import AskTell
from tuner.coordination.coordinator import Observer
from tuner.coordination.leases import LeaseConflict, NoSuchTrial
from tuner.errors import InputError, StudyError
from tuner.jobs import OutcomeState
from tuner.journal.external import read_external, read_trials
from tuner.journal.records import Status, read_study
from tuner.journal.storage import group_commit, read_journal, write_journal
from tuner.strategies import STRATEGIES


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.journal"


@pytest.fixture
def opened(path, clock):
    """Opens the study, as a process does that was started again."""
    stack, contexts = [], []

    def close():
        while contexts:
            contexts.pop().__exit__(None, None, None)

    def start(spec=None, **keys):
        close()
        contexts.append(write_journal(str(path)))
        stack.append(contexts[-1].__enter__())
        return AskTell(stack[-1], str(path), "s", spec, clock=clock, **keys)

    yield start
    close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_clients_do_changes_no_trial(strategy, tmp_path):
    space = {"space": FEW} if strategy == "brute" else {}
    spec = make_spec(strategy, pruner=MEDIAN, **space)
    expected = run_plainly(spec, tmp_path / "plain.journal")
    if strategy != "brute":
        assert {"complete", "pruned"} <= {t[3] for t in expected}, "it would prove little"
    for seed in range(3):
        chaos = Chaos(spec, tmp_path / f"{seed}.journal", seed)
        assert chaos.run() == expected


@settings(max_examples=examples(50))
@given(st.integers(0, 10**6), st.sampled_from(["random", "pso", "tpe"]), st.booleans())
def test_no_order_loss_or_kill_changes_a_trial(seed, strategy, few):
    import tempfile
    from pathlib import Path

    spec = make_spec(strategy, size=3, trials=8, pruner=MEDIAN, **({"space": FEW} if few else {}))
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(spec, Path(folder) / "chaos.journal", seed, unrest=0.25)
        assert chaos.run() == run_plainly(spec, Path(folder) / "plain.journal")


def test_chaos_kills_and_loses_enough_to_prove_something(tmp_path):
    spec = make_spec("pso", pruner=MEDIAN)
    chaos = Chaos(spec, tmp_path / "s.journal", 1, unrest=0.2)
    trials = chaos.run()
    assert chaos.n_kills >= 2
    assert chaos.n_given > len(trials) + 3


def test_a_lost_trial_is_given_out_again_as_it_was(opened, clock):
    study = opened(make_spec(lease_s=60.0))
    [lost] = study.ask("a")
    clock.now += 61
    [again] = study.ask("b")
    assert (again.number, again.params, again.seed) == (lost.number, lost.params, lost.seed)
    assert (again.attempt, again.id != lost.id) == (2, True)
    assert study.record.trials[0].lost == ("client 'a' did not report for 60 s",)
    with pytest.raises(
        LeaseConflict, match="this lease of trial 0 expired or was given back, and the"
    ):
        study.tell(lost.number, lost.id, 1.0)
    with pytest.raises(LeaseConflict, match="out again"):
        study.report(lost.number, lost.id, 0, [1.0])
    assert study.tell(again.number, again.id, 2.0).value == 2.0
    with pytest.raises(LeaseConflict, match="given out again, and has ended; stop, and ask"):
        study.tell(lost.number, lost.id, 2.0)


def test_a_late_tell_counts_while_nobody_else_has_the_trial(opened, clock):
    study = opened(make_spec())
    [late] = study.ask("a")
    clock.now += 1000
    assert study.expire() == 1
    assert study.tell(late.number, late.id, 1.0).state is OutcomeState.COMPLETE
    assert [lease.number for lease in study.ask("b", 2)] == [1, 2]
    assert study.record.trials[0].lost == ()


def test_a_report_renews_the_lease_also_a_late_one(opened, clock):
    study = opened(make_spec(lease_s=60.0))
    [lease] = study.ask("a")
    for step in range(3):
        clock.now += 59
        assert study.report(0, lease.id, step, [1.0]).expires == clock.now + 60
    clock.now += 61
    assert study.expire() == 1
    study.report(0, lease.id, 99, [])  # no values: it is renewed alone
    assert [other.number for other in study.ask("b")] == [1]
    clock.now += 61
    assert study.expire() == 2
    assert [other.number for other in study.ask("c", 2)] == [0, 1]


def test_a_trial_that_is_lost_too_often_has_failed(opened, clock):
    study = opened(make_spec(retries=2, trials=1))
    for attempt in (1, 2, 3):
        [lease] = study.ask("a")
        assert lease.attempt == attempt
        clock.now += 61
    assert study.ask("a") == []
    [trial] = study.record.trials
    assert trial.status is Status.FAILED
    assert trial.outcome.reason == "lost 3 times: client 'a' did not report for 60 s"
    assert study.progress.done
    with pytest.raises(LeaseConflict, match=r"has ended with failed \(lost 3 times"):
        study.tell(0, lease.id, 1.0)


def test_a_wrong_lease_is_answered_with_the_truth(opened):
    study = opened(make_spec(size=6))
    mine, other = study.ask("a", 2)
    calls = (
        lambda lease: study.tell(0, lease, 1.0),
        lambda lease: study.report(0, lease, 0, [1.0]),
        lambda lease: study.release(0, lease),
    )

    def refused(lease, calls=calls):
        texts = set()
        for call in calls:
            with pytest.raises(LeaseConflict) as error:
                call(lease)
            texts.add(str(error.value))
        [text] = texts
        return text

    never = "trial 0 was never given out with this lease"
    never += "; send number and lease as `ask` answered them"
    for unknown in ("x", "0" * 32, other.id, mine.id.upper(), "\ud800" * 32):
        assert refused(unknown) == never
    study.release(0, mine.id)
    back = refused(mine.id, calls[:2])
    assert back == "this lease of trial 0 was given back; stop, and ask for another trial"
    [again] = study.ask("b")
    over = "this lease of trial 0 expired or was given back, and the trial was given out again"
    stop = "; stop, and ask for another trial"
    for _ in range(2):
        assert refused(mine.id) == over + stop
        assert refused("x") == never
        study = opened()
    study.tell(0, again.id, 1.0)
    assert refused(mine.id) == f"{over}, and has ended{stop}"
    assert refused("x") == never
    ended = "trial 0 has ended with the value 1.0; ask for another trial"
    assert refused(again.id, calls[1:]) == ended


def test_a_trial_that_is_given_back_is_not_lost(opened):
    study = opened(make_spec(retries=0))
    for attempt in range(1, 5):
        [lease] = study.ask("a")
        study.report(0, lease.id, 0, [1.0, 2.0])
        assert (lease.number, lease.attempt) == (0, attempt)
        study.release(0, lease.id)
        study.release(0, lease.id)  # again is fine
        with pytest.raises(LeaseConflict, match="given back"):
            study.tell(0, lease.id, 1.0)
    [last] = study.ask("b")
    with pytest.raises(LeaseConflict):
        study.release(0, lease.id)
    study.report(0, last.id, 0, [5.0])
    study.tell(0, last.id, 1.0)
    [trial] = study.record.trained
    assert trial.lost == ()
    assert [e.metric for e in trial.outcome.history] == [5.0]


def test_every_lease_comes_back_after_a_kill(opened, clock):
    study = opened(make_spec("pso", pruner=MEDIAN, lease_s=60.0))
    leases = study.ask("a", 2) + study.ask("b", 2)
    for lease in leases:
        study.report(lease.number, lease.id, 0, [1.0, 2.0])
    clock.now += 3600  # the service was away for longer than a lease lasts
    study = opened()
    assert study.ask("c", 4) == []
    assert study.report(leases[0].number, leases[0].id, 2, [3.0]).expires == clock.now + 60
    for lease in leases[:3]:
        study.tell(lease.number, lease.id, 1.0)
    clock.now += 61
    [again] = study.ask("c", 4)
    assert (again.number, again.attempt) == (leases[3].number, 2)
    assert [e.metric for e in study.record.trials[0].outcome.history] == [1.0, 2.0, 3.0]


def test_a_lease_goes_on_where_its_renewals_are_known(opened, clock):
    study = opened(make_spec(lease_s=60.0))
    first, second, third = study.ask("a", 3)
    clock.now += 30
    study.report(first.number, first.id, 0, [])
    study.release(third.number, third.id)
    expiries = study.expiries
    assert expiries == {first.id: clock.now + 60, second.id: clock.now + 30}
    study = opened(expiries=expiries)
    clock.now += 31
    assert [lease.number for lease in study.ask("b", 2)] == [second.number, third.number]
    assert study.tell(first.number, first.id, 1.0).value == 1.0


def test_a_lease_lasts_from_its_last_report_or_the_start(opened, clock):
    study = opened(make_spec(lease_s=60.0))
    reported, silent = study.ask("a", 2)
    start = clock.now + 10
    clock.now += 30
    study.report(reported.number, reported.id, 0, [1.0])
    clock.now += 15
    study = opened(served_since=start)
    assert study.expiries == {reported.id: start + 80, silent.id: start + 60}


def test_telling_twice_is_fine_and_otherwise_a_conflict(opened):
    study = opened(make_spec())
    a, b, c, d = study.ask("a", 4)
    first = study.tell(a.number, a.id, 1.5)
    study.tell(b.number, b.id, failed="out of\n memory")
    study.tell(c.number, c.id, pruned=True)
    for _ in range(2):
        assert study.tell(a.number, a.id, 1.5) == first
        assert study.tell(b.number, b.id, failed="out of memory").reason == "out of memory"
        assert study.tell(c.number, c.id, pruned=True).state is OutcomeState.PRUNED
        with pytest.raises(LeaseConflict, match=r"trial 0 has ended with the value 1\.5"):
            study.tell(a.number, a.id, 1.6)
        with pytest.raises(LeaseConflict, match=r"trial 1 has ended with failed \(out of memory\)"):
            study.tell(b.number, b.id, 1.0)
        with pytest.raises(LeaseConflict):
            study.tell(a.number, d.id, 1.5)
        study = opened()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_a_failure(value, opened):
    study = opened(make_spec())
    [lease] = study.ask("a")
    told_ = study.tell(0, lease.id, value)
    assert (told_.state, told_.value) == (OutcomeState.FAILED, None)
    assert told_.reason == f"the value is {value}"
    assert study.tell(0, lease.id, value) == told_


def test_the_same_key_gives_a_client_the_same_trials(opened, clock):
    study = opened(make_spec(size=6))
    first = study.ask("a", 2, key="k")
    other = study.ask("b", 1, key="k")
    assert other[0].number not in [lease.number for lease in first]
    clock.now += 30
    for _ in range(2):
        again = study.ask("a", 2, key="k")
        assert [lease.id for lease in again] == [lease.id for lease in first]
        assert all(lease.expires == clock.now + 60 for lease in again)
        study = opened()
    study.tell(first[0].number, first[0].id, 1.0)
    assert [lease.id for lease in study.ask("a", 2, key="k")] == [lease.id for lease in first]
    clock.now += 61
    [taken, _] = study.ask("c", 2)
    assert taken.number == first[1].number
    assert [lease.number for lease in study.ask("a", 2, key="k")] == [first[0].number]


def test_a_retry_does_not_renew_the_lease_of_another_client(opened, clock):
    study = opened(make_spec(size=6))
    study.ask("a", key="k")
    clock.now += 61
    [taken] = study.ask("b")
    clock.now += 30
    assert [lease.number for lease in study.ask("a", key="k")] != [taken.number]
    clock.now += 31
    assert [lease.number for lease in study.ask("c")] == [taken.number]


def test_an_ask_whose_answer_nobody_got_is_undone(opened):
    study = opened(make_spec(size=6))
    first = study.ask("a", 2, key="k")
    study.abandon(first)
    again = study.ask("a", 2, key="k")
    assert [(lease.number, lease.attempt) for lease in again] == [(0, 2), (1, 2)]
    study.abandon(first)  # these leases are over
    study.tell(0, again[0].id, 1.0)
    study.abandon(again)
    [given] = study.ask("b")
    assert (given.number, given.attempt) == (1, 3)


def test_a_lease_in_two_answers_stays_until_both_are_undone(opened):
    study = opened(make_spec(size=6))
    first, again = (study.ask("a", key="k") for _ in range(2))
    study.abandon(first)
    assert study.ask("b")[0].number == 1
    study.abandon(again)
    assert study.ask("b")[0].number == 0
    study = opened()
    again = study.ask("b", key=None) + study.ask("a", key="k")
    assert {lease.number for lease in again} == {2, 3}
    study = opened()
    study.abandon(study.ask("a", key="k"))
    assert study.ask("c")[0].number == 4, "its client may have got it before the restart"


def test_a_repeated_configuration_takes_the_first_outcome(opened):
    study = opened(make_spec("random", space=FEW, trials=6, size=2))
    given = []
    while not study.progress.done:
        for lease in study.ask("a", 2):
            given.append(lease.number)
            study.tell(lease.number, lease.id, float(lease.params["a"]))
    record = study.record
    assert len(given) == 6 < len(record.trials)
    for trial in record.trials:
        if trial.repeat_of is not None:
            assert trial.number not in given
            assert trial.value == record.trials[trial.repeat_of].value
    repeated = next(t for t in record.trials if t.repeat_of is not None)
    with pytest.raises(LeaseConflict, match="was given to nobody"):
        study.tell(repeated.number, "x", 1.0)


def test_without_distinct_a_configuration_is_given_out_again(opened):
    study = opened(make_spec("random", space=FEW, trials=20, distinct=False))
    while leases := study.ask("a", 3):
        for lease in leases:
            study.tell(lease.number, lease.id, 1.0)
    assert len(study.record.trained) == 20


def test_a_generation_waits_for_its_last_trial(opened):
    study = opened(make_spec("pso", size=3, trials=6))
    first = study.ask("a", 10)
    assert len(first) == 3
    for lease in first[:2]:
        study.tell(lease.number, lease.id, 1.0)
        assert study.ask("b") == []
        assert not study.progress.done
    study.tell(first[2].number, first[2].id, 1.0)
    assert [lease.number for lease in study.ask("b", 10)] == [3, 4, 5]


def test_asynchronous_clients_never_wait_for_each_other(opened):
    study = opened(make_spec("tpe", size=1, trials=30, asynchronous=True))
    first = study.ask("a", 20)
    assert [lease.number for lease in first] == list(range(20))
    study.tell(7, first[7].id, 1.0)
    assert [lease.number for lease in study.ask("b", 20)] == list(range(20, 30))
    assert study.ask("c") == []


def test_a_trial_is_asked_when_a_client_wants_it(opened):
    study = opened(make_spec("pso", size=100, trials=None))
    study.ask("a", 3)
    assert len(study.record.trials) == 3


def test_the_pruner_stops_a_bad_trial_also_after_a_kill(opened):
    study = opened(make_spec("pso", size=4, pruner=MEDIAN, trials=None))
    for lease in study.ask("a", 4):
        assert not study.report(lease.number, lease.id, 0, [1.0, 1.0, 1.0]).prune
        study.tell(lease.number, lease.id, 1.0)
    [bad] = study.ask("a")
    assert study.report(bad.number, bad.id, 0, [9.0, 9.0, 9.0]).prune
    study = opened()
    assert study.report(bad.number, bad.id, 2, [9.0]).prune
    study.tell(bad.number, bad.id, pruned=True)
    trial = study.record.trials[-1]
    assert trial.status is Status.PRUNED
    assert [e.metric for e in trial.outcome.history] == [9.0, 9.0], "up to the decision"


def test_reported_steps_have_no_gaps_and_do_not_change(opened):
    study = opened(make_spec(steps=5))
    [lease] = study.ask("a")
    study.report(0, lease.id, 0, [1.0, math.nan])
    study.report(0, lease.id, 0, [1.0, math.nan, 3.0])
    with pytest.raises(LeaseConflict, match="step 4 is reported before step 3; report from step 3"):
        study.report(0, lease.id, 4, [1.0])
    with pytest.raises(LeaseConflict, match=r"step 0 has the value 1\.0 already, got 2\.0"):
        study.report(0, lease.id, 0, [2.0])
    with pytest.raises(InputError, match="at most 5 steps, got 6"):
        study.report(0, lease.id, 3, [1.0, 1.0, 1.0])


def test_a_cancelled_study_gives_nothing_and_takes_results(opened):
    study = opened(make_spec())
    a, b = study.ask("a", 2)
    study.cancelled = True
    assert study.ask("a") == []
    with pytest.raises(LeaseConflict, match="is cancelled"):
        study.report(b.number, b.id, 0, [1.0])
    study.tell(a.number, a.id, 1.0)
    study.cancelled = False
    study.report(b.number, b.id, 0, [1.0])
    assert [lease.number for lease in study.ask("a")] == [2]


@pytest.mark.parametrize("number", [-1, 1, 10**9])
def test_a_trial_that_nobody_was_given_is_unknown(number, opened):
    study = opened(make_spec())
    study.ask("a")
    for call in (
        lambda: study.tell(number, "x", 1.0),
        lambda: study.report(number, "x", 0, [1.0]),
        lambda: study.release(number, "x"),
    ):
        with pytest.raises(NoSuchTrial, match=f"study 's' has no trial {number}"):
            call()


def test_progress_and_record_agree(opened):
    study = opened(make_spec("random", direction="maximize"))
    for value, lease in zip([3.0, 5.0, 5.0, math.nan], study.ask("a", 4), strict=True):
        study.tell(lease.number, lease.id, value)
    study.ask("a", 2)
    for _ in range(2):
        progress, record = study.progress, study.record
        assert (progress.trained, progress.leased, progress.best.number) == (4, 2, 1)
        assert record.best.number == 1
        assert len(record.trained) == 4
        assert record.count(Status.RUNNING) == 2
        study = opened()


def test_the_same_study_is_opened_again_and_another_refused(opened, path):
    opened(make_spec("pso"))
    opened(make_spec("pso"))
    with pytest.raises(StudyError, match=r"study 's' was created with seed=3, got 4; put it back"):
        opened(make_spec("pso", seed=4))
    with pytest.raises(StudyError, match=r"created with strategy.name='pso', got 'woa'"):
        opened(make_spec("woa"))


def test_other_kinds_of_studies_are_told_apart(opened, path, make_bench):
    from helpers.search_bench import make_experiment
    from helpers.simulated_executor import SimulatedExecutor

    bench = make_bench("s")
    bench.run(make_experiment("random", trials=2), SimulatedExecutor(1))
    with pytest.raises(StudyError, match="study 's' is a search, not an external study"):
        opened(make_spec())
    path.unlink()
    opened(make_spec())
    with pytest.raises(StudyError, match="study 's' is external: its models train elsewhere"):
        read_study(read_journal(str(path)), "s", str(path))
    opened()
    with pytest.raises(StudyError, match="study 't'"):
        AskTell(opened()._storage, str(path), "t")


def test_a_study_that_was_not_quite_created_is_created_again(opened, path):
    opened(make_spec())
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0])
    with pytest.raises(StudyError, match="holds no study"):
        opened()
    assert len(opened(make_spec()).ask("a")) == 1


def test_trials_are_read_by_number(opened, path):
    study = opened(make_spec())
    for lease in study.ask("a", 4):
        study.tell(lease.number, lease.id, float(lease.number))
    record = read_external(read_journal(str(path)), "s", str(path))
    assert record.trials == study.record.trials
    page = read_trials(study._study, study.spec, [2, 0])
    assert [t.value for t in page] == [2.0, 0.0]


def test_events_are_sent_once_also_across_a_restart(opened):
    class Epochs(Observer):
        def __init__(self):
            self.seen = []

        def epoch(self, key, epoch):
            self.seen.append((key.number, epoch.epoch))

    observer = Epochs()
    study = opened(make_spec(pruner=MEDIAN), observer=observer)
    [lease] = study.ask("a")
    study.report(0, lease.id, 0, [1.0, 2.0])
    study = opened(observer=observer)
    study.report(0, lease.id, 2, [3.0])
    assert observer.seen == [(0, 0), (0, 1), (0, 2)]


def test_an_acknowledged_tell_survives_sigkill(path):
    """A child acknowledges after each group's wait for the disk; it is killed again and again."""
    spec, acknowledged = make_spec("random", trials=400, size=50), {}
    for life in range(8):
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _serve(spec, path, write_end)
            finally:
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as acks:
            for _ in range(3 + 2 * life):
                line = acks.readline()
                if not line.endswith("\n"):
                    break
                for number, value in json.loads(line):
                    assert number not in acknowledged
                    acknowledged[number] = value
            os.kill(child, signal.SIGKILL)
            for line in acks:  # what it acknowledged before it died
                if line.endswith("\n"):
                    acknowledged |= dict(json.loads(line))
        os.waitpid(child, 0)
    record = read_external(read_journal(str(path)), "s", str(path))
    assert len(acknowledged) > 50
    assert {n: record.trials[n].value for n in acknowledged} == acknowledged


def _serve(spec, path, write_end):
    with write_journal(str(path)) as storage:
        study = AskTell(storage, str(path), "s", spec)
        while True:
            acks = []
            with group_commit(storage):
                for lease in study.ask("a", 5):
                    value = curve(lease.params, lease.seed)[-1]
                    study.tell(lease.number, lease.id, value)
                    acks.append([lease.number, value])
            os.write(write_end, (json.dumps(acks) + "\n").encode())


def test_one_wait_for_the_disk_serves_a_group(opened, monkeypatch):
    study = opened(make_spec("random", size=50, trials=None))
    syncs = []
    monkeypatch.setattr("tuner.journal.storage.os.fsync", syncs.append)
    with group_commit(study._storage):
        for lease in study.ask("a", 20):
            study.tell(lease.number, lease.id, 1.0)
        assert not syncs
    assert len(syncs) == 1
    [lease] = study.ask("a")
    assert len(syncs) == 2, "a lease is on the disk before it is given"
    study.tell(lease.number, lease.id, 1.0)
    assert len(syncs) == 3
