"""Finalists: which are retrained, and what is reported of them."""

import dataclasses
from pathlib import Path

import optuna
import pytest
from helpers.retrained import repeats
from helpers.search_bench import make_experiment
from helpers.simulated_executor import Killed, SimulatedExecutor
from helpers.simulated_study import SPACE, PretendExecutor, everything

from tuner.coordination.finalists import (
    default_of,
    enqueue_finalists,
    find_winner,
    rank_finalists,
    untuned,
)
from tuner.data import prepared
from tuner.errors import Interrupted, RunError
from tuner.journal.records import Status
from tuner.journal.storage import FINALIST_ATTR, Role, read_journal, trial_key, write_journal
from tuner.progress.display import number, show_result
from tuner.results.summary import summarize
from tuner.strategies.rng import training_seed


@pytest.fixture
def record(bench):
    return bench.run(make_experiment("random", trials=8), SimulatedExecutor(2))[1]


def no_default(record, **fields):
    """The record of a study without the untuned default, which trial 0 is."""
    finalists = record.experiment.finalists.model_copy(update={"baseline": False})
    experiment = record.experiment.model_copy(update={"finalists": finalists})
    return dataclasses.replace(record, experiment=experiment, **fields)


def top(record):
    return [t.number for t in record.ranked()[:3]]


def test_the_mean_over_fresh_seeds_decides_and_not_the_luckiest(record):
    a, b, c = top(record)
    judged = repeats(record, {a: [1.0, 9.0, 9.0], b: [5.0, 5.0, 5.0], c: [6.0, 6.0, 6.0]})
    assert [f.trial.number for f in rank_finalists(judged)] == [b, c, a]
    winner = find_winner(judged)
    assert winner.trial.number == b
    assert winner.reproducible.seed == training_seed(3, Role.FINALIST, b, 0)


def test_a_finalist_with_a_failed_repeat_ranks_last(record):
    a, b, c = top(record)
    judged = repeats(record, {a: [1.0, 1.0, None], b: [5.0, 5.0, 5.0], c: [None, None, None]})
    assert [f.trial.number for f in rank_finalists(no_default(judged))] == [b, a]


def test_repeats_that_are_missing_have_not_failed(record):
    a, b, c = top(record)
    judged = repeats(record, {a: [5.0, 5.0, 5.0], b: [1.0, 1.0], c: [3.0, 3.0, None]})
    judged = no_default(judged, first_repeats=2)
    assert [f.trial.number for f in rank_finalists(judged)] == [b, c, a]


def test_where_no_repeat_is_common_those_with_most_are_compared(record):
    a, b, c = top(record)
    judged = repeats(record, {a: [5.0, 5.0, 5.0], b: [3.0, 3.0, 3.0], c: [1.0, 9.0, 9.0]})
    left = {(a, 1), (a, 2), (b, 1), (c, 0)}
    judged = dataclasses.replace(
        no_default(judged, first_repeats=1),
        finalists=tuple(r for r in judged.finalists if (r.configuration, r.repeat) in left),
    )
    assert [f.trial.number for f in rank_finalists(judged)] == [b, a, c]


def test_without_finalists_the_best_trial_wins(record):
    winner = find_winner(record)
    assert winner.trial is record.ranked()[0]
    assert winner.reproducible is winner.trial


def test_a_study_without_a_complete_trial_has_no_winner(bench):
    _, record = bench.run(
        make_experiment("random", trials=3), SimulatedExecutor(1, fails=lambda job: True)
    )
    with pytest.raises(RunError, match="no complete trial; the last failure: it failed"):
        find_winner(record)


def test_finalists_are_queued_once_and_new_ones_are_added(bench, record):
    for _ in range(2):
        with write_journal(bench.location) as storage:
            study = enqueue_finalists(storage, record)
            queued = [tuple(t.user_attrs[FINALIST_ATTR]) for t in study.get_trials()]
        assert sorted(queued) == sorted((c, r) for c in top(record) for r in range(3))


def test_training_seeds_differ_between_roles_and_numbers():
    seeds = [training_seed(s, Role.TRIAL, n) for s in range(3) for n in range(50)]
    seeds += [
        training_seed(s, Role.FINALIST, n, r) for s in range(3) for n in range(50) for r in (0, 1)
    ]
    seeds += [training_seed(s, Role.BASELINE, r) for s in range(3) for r in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)


def runs(record, role):
    return [r for r in record.finalists if r.role is role]


def test_the_default_is_trained_like_a_finalist(case):
    record = case.run()
    found = default_of(record)
    assert found.name == "default LSTM"
    assert found.params == {"hidden_size": 32, "dropout": 0.0}
    assert [r.repeat for r in found.repeats] == [0, 1, 2]
    assert [r.seed for r in found.repeats] == [training_seed(0, Role.BASELINE, r) for r in range(3)]
    assert all(r.configuration is None for r in found.repeats)
    assert len(runs(record, Role.FINALIST)) == 2 * 3
    first, second, last = rank_finalists(record)
    assert {first.number, second.number} == {t.number for t in record.ranked()[:2]}
    assert (last.number, last.name, last.repeats) == (None, "default LSTM", found.repeats)
    study = optuna.load_study(study_name="s.finalists", storage=read_journal(case.location))
    drawn = [
        t.params for t in study.trials if trial_key(t.number, t.user_attrs).role is Role.BASELINE
    ]
    assert drawn == [{}] * 3  # no parameter of the search space is made up for it
    tested = record.test.default
    assert tested.scores == pytest.approx(found.scores)  # it is off by as much as it scored
    assert not tested.is_winner
    seeds = [r.seed for r in (*record.trials, *record.finalists)]
    assert len(set(seeds)) == len(seeds)


def test_the_trained_default_is_the_configuration_without_search(case):
    case.run(hyperparameters={"hidden_size": 50, "learning_rate": 0.01})
    jobs = [job for job in case.executor._jobs.values() if job.key.startswith("baseline")]
    assert len(jobs) == 3
    for job in jobs:
        found = job.hyperparameters
        assert (found["hidden_size"], found["dropout"], found["learning_rate"]) == (32, 0.0, 0.01)
        assert job.keep_weights
        assert not job.can_be_pruned


def test_finalists_are_whole_trainings_of_trials_never_pruned(case):
    """Nothing of a trial is reused but its configuration: no weights, no seed, no decision."""
    pruner = {"name": "percentile", "percentile": 25.0, "n_startup_trials": 2, "n_warmup_steps": 0}
    record = case.run(16, pruner=pruner)
    pruned = {t.number for t in record.trials if t.status is Status.PRUNED}
    assert len(pruned) > 2
    found = runs(record, Role.FINALIST)
    assert len(found) == 2 * 3
    assert not pruned & {run.configuration for run in found}
    assert not {t.seed for t in record.trials} & {run.seed for run in found}
    jobs = [job for job in case.executor._jobs.values() if job.key.startswith("finalist")]
    assert len(jobs) == len(found)
    for job in jobs:
        assert not job.can_be_pruned
        assert job.epochs == record.experiment.budget.epochs
    assert {len(run.outcome.history) for run in found} == {record.experiment.budget.epochs}


def test_finished_trainings_are_not_repeated_but_test_models(case):
    with pytest.raises(Killed):
        case.run(executor=PretendExecutor(1, die_after=8 + 8))
    record = case.run(executor=PretendExecutor(1))
    begun = [key for key in case.executor.begun if not key.startswith("trial")]
    winner = find_winner(record).runs
    needed = {f"{r.role} {r.number}" for r in (*winner, *runs(record, Role.BASELINE))}
    (missing,) = {f"{r.role} {r.number}" for r in record.finalists} - {
        f"{r.role} {r.number}" for r in record.finalists if r.number < 8
    }
    assert set(begun) == needed | {missing}
    assert len(begun) == len(set(begun))


TWIN = {"hidden_size": {"type": "categorical", "choices": [16, 32, 64, 128]}}


def test_a_finalist_that_is_the_default_is_not_trained_twice(case):
    record = case.run(4, space=TWIN)  # trial 0 is the default, and the best
    assert runs(record, Role.BASELINE) == []
    found = default_of(record)
    assert found.trial.number == 0
    assert found.repeats == rank_finalists(record)[0].repeats
    assert record.test.default.is_winner
    assert record.test.default.scores == record.test.scores
    assert summarize(record).worth in ("unpaid", "useless")


def test_a_default_found_later_is_not_retrained(case):
    # The start is another configuration; the default is found among the last two.
    keys = {"space": TWIN, "hyperparameters": {"hidden_size": 128}, "finalists": {"top": 4}}
    trials = 1
    while 32 not in [t.params["hidden_size"] for t in case.run(trials, **keys).trained]:
        before = case.read()
        trials += 1
    assert len(runs(before, Role.BASELINE)) == 3
    after = case.read()
    assert runs(after, Role.BASELINE) == runs(before, Role.BASELINE)
    found = default_of(after)
    assert after.trials[found.trial.number].params == {"hidden_size": 32}
    assert not [r for r in after.finalists if r.configuration == found.trial.number]
    (finalist,) = (f for f in rank_finalists(after) if f.trial.number == found.trial.number)
    assert finalist.repeats == found.repeats == tuple(runs(before, Role.BASELINE))


def test_a_finalist_that_is_the_default_keeps_its_retrainings(case):
    keys = {"space": TWIN | {"dropout": SPACE["dropout"]}, "finalists": {"top": 1}}
    keys["hyperparameters"] = {"hidden_size": 32, "dropout": 0.0}
    first = case.run(1, **keys)
    assert default_of(first).trial.number == 0
    assert runs(first, Role.BASELINE) == []
    later = dataclasses.replace(
        first,
        trials=(
            *first.trials,
            dataclasses.replace(
                first.trials[0],
                number=1,
                params={"hidden_size": 64, "dropout": 0.0},
                outcome=dataclasses.replace(first.trials[0].outcome, objective=0.0),
            ),
        ),
    )
    found = default_of(later)
    assert (found.trial.number, len(found.repeats)) == (0, 3)
    assert rank_finalists(later) == []  # the new one is not retrained yet


def test_without_finalists_the_default_is_trained_once(case):
    record = case.run(finalists={"top": 0})
    (only,) = record.finalists
    assert (only.role, only.repeat) == (Role.BASELINE, 0)
    assert find_winner(record).repeats == ()
    assert len(record.test.scores) == len(record.test.default.scores) == 1


def test_a_winning_default_without_finalists_is_not_retrained(case):
    record = case.run(4, space=TWIN, finalists={"top": 0})
    assert record.finalists == ()
    assert record.test.default.is_winner
    assert default_of(record).scores == [record.best.value]


def test_where_nothing_is_searched_there_is_no_default(case):
    record = case.run(1, space={}, hyperparameters={"hidden_size": 50})
    assert {r.role for r in record.finalists} == {Role.FINALIST}
    assert default_of(record) is record.test.default is None


def test_the_default_is_left_out_where_one_says_so(case):
    record = case.run(finalists={"baseline": False})
    assert {r.role for r in record.finalists} == {Role.FINALIST}
    assert default_of(record) is None
    assert record.test.default is None
    assert summarize(record).worth in ("better", "useless")


def test_a_default_that_fails_is_no_reason_to_fail(case):
    executor = PretendExecutor(2, fails=lambda job: job.key.startswith("baseline"))
    record = case.run(executor=executor)
    assert default_of(record).scores == []
    assert default_of(record).failed == 3
    assert record.test.default.mean is None
    assert record.test.mean is not None
    assert summarize(record).default.failed == 3


def test_the_time_limit_does_not_apply_to_finalists(case):
    case.run(8, stages={"finalists": False})
    record = case.run(20, budget={"timeout": 1e-6})
    assert len(record.trained) == 8
    assert len(runs(record, Role.FINALIST)) == 6
    assert len(runs(record, Role.BASELINE)) == 3
    assert record.test is not None


def test_the_test_part_is_opened_once_and_after_all_else(case, monkeypatch):
    really, n_opened = prepared.open_test_part, []

    def opened(experiment, folder, **keys):
        record = case.read()
        assert len(record.trained) == 8
        assert len(record.finalists) == 9
        assert all(r.outcome is not None for r in record.finalists)
        n_opened.append(1)
        return really(experiment, folder, **keys)

    monkeypatch.setattr(prepared, "open_test_part", opened)
    case.run(stages={"open_test": False})
    assert not n_opened
    case.run()
    assert len(n_opened) == 1
    case.run()
    case.run(stages={"reopen_test": True})
    assert len(n_opened) == 1


def test_a_finished_study_that_is_run_again_only_prints(case, openings):
    case.run()
    before = Path(case.location).read_bytes()
    case.run()
    assert Path(case.location).read_bytes() == before
    assert case.executor.begun == []
    assert case.notes.said == []
    case.run(stages={"reopen_test": True})
    assert Path(case.location).read_bytes() == before
    assert case.notes.said == [
        "--reopen-test: no new evaluation on the test set, because it would change nothing: no "
        "trial was trained since the last one"
    ]
    assert len(openings) == 1


def extended(case):
    """Search on until another configuration wins; return how many trials that took."""
    record = case.read()
    before, trials = find_winner(record).trial.number, len(record.trained)
    while find_winner(case.run(trials := trials + 4)).trial.number == before:
        assert trials < 100
    return trials


def test_an_extended_study_gets_a_test_score_only_on_request(case, openings):
    first = case.run(2).test
    trials = extended(case)
    record = case.read()
    assert record.openings == [first]
    assert len(openings) == 1
    said = " ".join(summarize(record).opened)
    assert "once, after 2 trials" in said
    assert "has no test score" in said
    assert "--reopen-test" in said

    record = case.run(trials, stages={"reopen_test": True})
    assert len(openings) == 2
    assert record.openings[0] == first
    assert [o.after_trials for o in record.openings] == [2, trials]
    assert record.test.configuration == find_winner(record).trial.number
    summary = summarize(record).to_json()
    assert not summary["test"]["unseen"]
    assert [o["scores"] for o in summary["openings"]] == [o.scores for o in record.openings]
    assert f"2 times, after 2 and {trials} trials" in summary["opened"][0]
    assert "no longer of unseen rows" in summary["opened"][0]

    before = Path(case.location).read_bytes()
    case.run(trials, stages={"reopen_test": True})
    assert Path(case.location).read_bytes() == before
    assert len(openings) == 2


def test_a_third_opening_loses_neither_of_the_first_two(case):
    seen = case.run(1).openings
    for _ in range(2):
        trials = len(case.read().trained)
        while len(case.read().openings) == len(seen):
            trials += 1
            assert trials < 60
            case.run(trials, stages={"reopen_test": True})
        assert case.read().openings[:-1] == seen
        seen = case.read().openings
    assert len(seen) == 3


def test_a_winner_that_stays_is_not_tested_again(case, openings):
    case.run()
    winner = find_winner(case.read()).trial.number
    record = case.run(9, stages={"reopen_test": True})
    assert find_winner(record).trial.number == winner, "the ninth trial was to be no winner"
    assert len(openings) == 1
    (said,) = (text for text in case.notes.said if "--reopen-test" in text)
    assert said.endswith(f"trial {winner}, which was evaluated then, still wins")
    assert summarize(record).to_json()["test"]["unseen"]
    assert "the same configuration won: its score stands" in summarize(record).opened[1]


def test_an_interrupted_reopening_resumes(make_case, monkeypatch):
    case, calm, scout = make_case("case"), make_case("calm"), make_case("scout")
    for each in (case, calm, scout):
        each.run(2)
    trials = extended(scout)
    reference = everything(calm.run(trials, stages={"reopen_test": True}))
    stages = {"reopen_test": True}
    with pytest.raises(Killed):  # while the finalists are retrained
        case.run(trials, stages=stages, executor=PretendExecutor(2, die_after=trials - 2 + 1))
    really = prepared.open_test_part

    def stopped(*args, **keys):
        really(*args, **keys)
        raise Interrupted("stopped")

    monkeypatch.setattr(prepared, "open_test_part", stopped)
    with pytest.raises(Interrupted):
        case.run(trials, stages=stages)
    assert len(case.read().openings) == 1
    monkeypatch.undo()
    assert everything(case.run(trials, stages=stages)) == reference


def test_the_terminal_says_what_the_default_came_to(make_case, capsys):
    def shown(record):
        capsys.readouterr()
        show_result(record)
        return " ".join(capsys.readouterr().out.split())

    own = make_case("own").run(finalists={"repeats": 5})
    text = shown(own)
    assert "default LSTM, on 5 fresh seeds" in text
    parts = [summarize(own).default, own.test.default]
    both = " ".join(f"{number(part.mean)} ± {number(part.std, 2)}" for part in parts)
    assert f"default LSTM, on 5 fresh seeds {both}" in text
    assert "Evaluated on the test set once, after 8 trials. Verdict: " in text
    assert f"First and second: {summarize(own).first_and_second}." in text
    assert "too few" not in text
    won = shown(make_case("won").run(4, space=TWIN))
    assert "The winner is the default LSTM." in won
    assert (
        "too few repeats to tell (3; five or more are needed: the same command with "
        "--set finalists.repeats=5)" in won
    )
    executor = PretendExecutor(2, fails=lambda job: job.key.startswith("baseline"))
    failed = shown(make_case("failed").run(executor=executor))
    assert "default LSTM; 3 trainings of it failed - " in failed
    again = make_case("again")
    first = find_winner(again.run(2)).trial.number
    trials = extended(again)
    assert f"Verdict: of trial {first}, which no longer wins: " in shown(again.read())
    reopened = shown(again.run(trials, stages={"reopen_test": True}))
    assert "2 times, after" in reopened
    assert "no longer of unseen rows" in reopened


def test_the_default_is_the_librarys_and_not_the_start(case):
    keys = {"hyperparameters": {"hidden_size": 100, "dropout": 0.3, "batch_size": 4}}
    experiment = case.experiment(**keys)
    assert experiment.start() == {"hidden_size": 100, "dropout": 0.3}
    assert untuned(experiment) == {"hidden_size": 32, "dropout": 0.0}
