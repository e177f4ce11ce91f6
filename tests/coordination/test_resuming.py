"""Studies that go on: with raised budgets, and from the trials of another study."""

from pathlib import Path

import optuna
import pytest
from helpers.search_bench import DATA, SPACE, make_experiment, told
from helpers.simulated_executor import Killed, SimulatedExecutor
from helpers.simulated_study import PretendExecutor, everything

from tuner.coordination.finalists import default_of, find_winner, rank_finalists, retrained_of
from tuner.coordination.opening import Earlier
from tuner.errors import StudyError
from tuner.journal.storage import (
    BASELINE_ATTR,
    RUN_ATTR,
    STUDY_ATTR,
    TAKEN_ATTR,
    TEST_ATTR,
    Role,
    read_journal,
    study_names,
    write_journal,
)
from tuner.report.page import report
from tuner.results.summary import summarize

FIVE = {"finalists": {"repeats": 5}}


def scores(record):
    """What every retraining came to, whenever it was trained."""
    return {(r.role, r.configuration, r.repeat): (r.seed, r.value) for r in record.finalists}


def test_raised_repeats_train_only_what_is_new(make_case):
    case, whole = make_case("case"), make_case("whole").run(**FIVE)
    before = case.run()
    record = case.run(**FIVE)
    assert len(case.executor.begun) == len(set(case.executor.begun)) == 3 * 2
    assert not [key for key in case.executor.begun if key.startswith("trial")]
    assert scores(before).items() < scores(record).items()
    assert scores(record) == scores(whole)
    assert [len(f.repeats) for f in rank_finalists(record)] == [5, 5, 5]
    assert retrained_of(record) == (15, 15)
    assert record.experiment.finalists.repeats == case.read().experiment.finalists.repeats == 5
    assert find_winner(record).number == find_winner(whole).number


def test_a_higher_top_retrains_only_the_next_best(case):
    before = case.run()
    record = case.run(finalists={"top": 4})
    assert len(case.executor.begun) == 2 * 3
    new = {r.configuration for r in record.finalists[len(before.finalists) :]}
    assert new == {t.number for t in record.ranked()[2:4]}
    assert len(rank_finalists(record)) == 5


def test_more_repeats_of_a_search_that_goes_on_at_the_same_time(make_case):
    case, whole = make_case("case"), make_case("whole").run(16, **FIVE)
    case.run(8)
    record = case.run(16, **FIVE)
    top = {t.number for t in record.ranked()[:2]} | {None}
    assert scores(record).items() >= scores(whole).items()
    assert [len(f.repeats) for f in rank_finalists(record)] == [5, 5, 5]
    former = {r.configuration for r in record.finalists} - top
    for number in former:  # is no finalist any more, and gets no more
        assert sum(r.configuration == number for r in record.finalists) == 3


@pytest.mark.parametrize("workers", [1, 3])
def test_a_reopening_killed_in_training_ends_the_same(make_case, workers):
    more = {"finalists": {"repeats": 5, "top": 3}}
    n_new = 3 * 2 + 5
    calm = make_case("calm")
    calm.run()
    reference = everything(calm.run(executor=PretendExecutor(1), **more))
    assert len(calm.executor.begun) == n_new
    for at in (0, 1, 6, n_new - 1):
        killed = make_case(f"killed{at}")
        killed.run()
        with pytest.raises(Killed):
            killed.run(executor=PretendExecutor(workers, chaos=at, die_after=at), **more)
        kept = [r for r in killed.read().finalists if r.outcome is not None]
        assert len(kept) == 9 + at
        record = killed.run(executor=PretendExecutor(workers, chaos=at + 7), **more)
        assert everything(record) == reference
        assert len(killed.executor.begun) == n_new - at


def test_the_test_part_stays_opened_once_and_one_line_says_so(case, openings):
    before = case.run()
    record = case.run(**FIVE)
    assert len(openings) == 1
    assert record.openings == before.openings
    said = [text for text in case.notes.said if "test" in text]
    assert said == [
        "no new evaluation: evaluated on the test set once, after 8 trials; --reopen-test "
        "evaluates again"
    ]
    summary = summarize(record).to_json()
    assert len(summary["best"]["scores"]) == 5
    assert summary["best"]["mean"] == pytest.approx(sum(summary["best"]["scores"]) / 5)
    assert len(summary["test"]["scores"]) == 3
    assert "too few" in summarize(before).first_and_second
    assert "too few" not in summary["first_and_second"]
    assert summary["opened"][1] == (
        "The best 2 were retrained on 5 seeds since, and the same configuration won: its "
        "score stands, of its first 3 trainings."
    )

    again = case.run(**FIVE, stages={"reopen_test": True})
    assert len(openings) == 2
    assert [len(o.scores) for o in again.openings] == [3, 5]
    assert len(summarize(again).opened) == 1
    case.run(**FIVE, stages={"reopen_test": True})
    assert len(openings) == 2
    (why,) = (text for text in case.notes.said if "--reopen-test" in text)
    assert "it would change nothing: trial" in why


def test_a_study_raised_and_reopened_at_once_is_not_closed(case, openings):
    case.run()
    record = case.run(**FIVE, stages={"reopen_test": True})
    assert len(openings) == len(record.openings) == 2
    assert not [text for text in case.notes.said if "no new evaluation" in text]


@pytest.mark.parametrize("key", ["repeats", "top"])
def test_lowering_is_refused_in_a_line_that_names_key_and_value(case, key):
    case.run(finalists={"top": 1, "repeats": 2})
    case.run(finalists={"top": 3, "repeats": 4})
    before = Path(case.location).read_bytes()
    now = {"top": 3, "repeats": 4}
    with pytest.raises(StudyError) as error:
        case.run(finalists=now | {key: now[key] - 1})
    assert str(error.value) == (
        f"{case.location}: study 's' has finalists.{key}={now[key]}, which may be raised and not "
        f"lowered, got {now[key] - 1}; write --set finalists.{key}={now[key]}, or give another "
        f"--study name"
    )
    assert Path(case.location).read_bytes() == before


def test_the_original_file_runs_again_after_raised_repeats(case):
    case.run(finalists={"top": 1, "repeats": 2})
    case.run(finalists={"top": 1, "repeats": 3})
    before = Path(case.location).read_bytes()
    record = case.run(finalists={"top": 1, "repeats": 2})
    assert record.experiment.finalists.repeats == 3
    assert Path(case.location).read_bytes() == before


def test_a_run_that_retrains_nothing_neither_raises_nor_refuses(case):
    case.run()
    more = case.run(**FIVE, stages={"finalists": False})
    assert more.experiment.finalists.repeats == 3
    case.run(**FIVE)
    record = case.run(stages={"finalists": False})
    assert record.experiment.finalists.repeats == 5


def test_whether_the_default_is_trained_at_all_may_not_change(case):
    case.run()
    with pytest.raises(StudyError, match=r"begun with finalists\.baseline=true, got false"):
        case.run(finalists={"baseline": False})


def test_a_study_without_finalists_gets_them(case):
    keys = {"repeats": 3}
    before = case.run(finalists=keys | {"top": 0})
    assert len(before.finalists) == 1
    record = case.run(finalists=keys | {"top": 2})
    assert [r for r in record.finalists if r.number == 0] == list(before.finalists)
    assert len(default_of(record).repeats) == 3
    assert [len(f.repeats) for f in rank_finalists(record)] == [3, 3, 3]


def test_a_finalist_that_is_the_default_gets_all_repeats(make_case):
    case = make_case("case")
    # Trial 0 is the default, and here a poor one: the space has better ones.
    space = {"hidden_size": {"type": "int", "low": 8, "high": 128}, "batch_size": SMALL_BATCH}
    keys = {"space": space, "hyperparameters": {"hidden_size": 32, "batch_size": 32}}
    first = case.run(1, **keys, finalists={"top": 1, "repeats": 2})
    assert default_of(first).trial.number == 0
    assert not [r for r in first.finalists if r.role is Role.BASELINE]
    record = case.run(12, **keys, finalists={"top": 1, "repeats": 4})
    assert record.ranked()[0].number != 0, "there was to be a better one"
    assert not [r for r in record.finalists if r.role is Role.BASELINE]
    assert len(default_of(record).repeats) == 4
    assert [len(f.repeats) for f in rank_finalists(record)] == [4, 4]
    done, total = retrained_of(record)
    assert done == total == 8


SMALL_BATCH = {"type": "categorical", "choices": [1, 2, 4, 8, 16, 32]}


def test_an_old_finished_study_is_read_only_until_raised(case):
    record = case.run(finalists={"baseline": False})
    with write_journal(case.location, "s", lambda text: None) as storage:
        study = optuna.load_study(study_name="s", storage=storage)
        facts = study.user_attrs[STUDY_ATTR] | {"format": 1}
        del facts["experiment"]["finalists"]["baseline"]
        study.set_user_attr(STUDY_ATTR, facts)
        old = dict(study.user_attrs[TEST_ATTR])
        del old["repeats"], old["finalists"], old["default"]
        study.set_user_attr(TEST_ATTR, old)
    before = Path(case.location).read_bytes()
    assert case.run().format == 1
    assert Path(case.location).read_bytes() == before
    raised = case.run(**FIVE)
    assert scores(record).items() < scores(raised).items()
    assert len([r for r in raised.finalists if r.role is Role.BASELINE]) == 5
    assert "of its first 3 trainings" in summarize(raised).opened[1]


def test_a_journal_without_raised_budgets_reads_as_begun(case):
    case.run()
    study = optuna.load_study(study_name="s", storage=read_journal(case.location))
    assert set(study.user_attrs[RUN_ATTR]) == {"budget", "ended"}
    case.run(**FIVE)
    study = optuna.load_study(study_name="s", storage=read_journal(case.location))
    assert study.user_attrs[RUN_ATTR]["finalists"] == {"top": 2, "repeats": 5}
    assert BASELINE_ATTR not in study.user_attrs


def test_a_winner_changed_by_repeats_has_no_test_score(case):
    before = case.run()
    first, second = rank_finalists(before)[:2]
    worse = PretendExecutor(2)
    plain = worse.curve
    losers = {r.seed for r in case.run(**FIVE, stages={"finalists": False}).finalists}

    def curve(job):  # whatever of the winner is trained from now on is poor
        same = all(job.hyperparameters[k] == v for k, v in first.params.items())
        return [v + 9.0 * (same and job.seed not in losers) for v in plain(job)]

    worse.curve = curve
    record = case.run(**FIVE, executor=worse)
    assert find_winner(record).number == second.number
    summary = summarize(record).to_json()
    assert summary["best"]["trial"] == second.number
    assert not summary["best"]["tested"]
    assert summary["verdict"].startswith(f"of trial {first.number}, which no longer wins: ")
    assert summary["opened"][1] == (
        f"The best 2 were retrained on 5 seeds since, and trial {second.number} won, which "
        f"has no test score: tuner run with --reopen-test evaluates it."
    )
    assert report(record).count("retrained on 5 seeds since") == 1


def test_a_new_finalist_is_not_compared_by_one_repeat(case):
    before = case.run()
    lucky = PretendExecutor(1, die_after=1)
    plain, known = lucky.curve, {r.seed for r in before.finalists}
    lucky.curve = lambda job: [v - 9.0 * (job.seed not in known) for v in plain(job)]
    with pytest.raises(Killed):
        case.run(executor=lucky, finalists={"top": 4})
    record = case.read()
    assert record.first_repeats == 3
    ranked = rank_finalists(record)
    assert [f.name for f in ranked[:3]] == [f.name for f in rank_finalists(before)]
    assert len(ranked[3].repeats) == 1


NARROW = SPACE | {"hidden_size": {"type": "int", "low": 8, "high": 60, "log": True}}
OTHER_DATA = DATA | {"sha256": "f" * 64}


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A search over the whole space."""
    from helpers.search_bench import Bench

    bench = Bench(tmp_path_factory.mktemp("before") / "s.journal")
    return bench.run(make_experiment("tpe", trials=20), SimulatedExecutor(2))[1]


def narrow(strategy="woa", **keys):
    return make_experiment(strategy, space=NARROW, trials=30, **keys)


def run(bench, before, experiment=None, executor=None, **options):
    earlier = [Earlier("old", before)]
    executor = executor or SimulatedExecutor(2)
    return bench.run(experiment or narrow(), executor, earlier=earlier, **options)[1]


def test_trials_within_the_new_space_keep_their_outcomes(before, bench):
    executor = SimulatedExecutor(3)
    record = run(bench, before, executor=executor)
    kept = [t for t in before.trained if t.params["hidden_size"] <= 60]
    assert 0 < len(kept) < len(before.trained)
    for old, new in zip(kept, record.trials, strict=False):
        assert dict(new.params) == dict(old.params)
        assert (new.outcome, new.seed, new.status) == (old.outcome, old.seed, old.status)
    assert len(record.trained) == 30
    assert len(executor.begun) == 30 - len(kept)
    (said,) = record.begun_from
    assert said == (
        f"takes over {len(kept)} of {len(before.trained)} trials of old; "
        f"{len(before.trained) - len(kept)} lie outside of what is searched here"
    )
    study = optuna.load_study(study_name="s", storage=read_journal(bench.location))
    assert study.trials[0].user_attrs[TAKEN_ATTR] == {
        "study": before.name, "id": before.id, "trial": kept[0].number, "seed": kept[0].seed,
    }  # fmt: skip


@pytest.mark.parametrize("strategy", ["woa", "tpe", "cmaes", "nsga2"])
def test_neither_workers_nor_their_timing_change_what_follows(before, make_bench, strategy):
    reference = told(run(make_bench("a"), before, narrow(strategy)))
    for workers, chaos in ((1, 0), (5, 7)):
        executor = SimulatedExecutor(workers, chaos)
        other = run(make_bench(f"{workers}"), before, narrow(strategy), executor)
        assert told(other) == reference


@pytest.mark.parametrize("at", [0, 1, 4, 11])
def test_a_study_killed_as_it_begins_is_completed_and_ends_alike(
    before, make_bench, monkeypatch, at
):
    reference = told(run(make_bench("calm"), before))
    add, left = optuna.Study.add_trial, [at]

    def dying(study, trial):
        if not left[0]:
            raise Killed
        left[0] -= 1
        add(study, trial)

    killed = make_bench("killed")
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "add_trial", dying)
        with pytest.raises(Killed):
            run(killed, before)
    with pytest.raises(StudyError, match="was stopped before it had begun; write --from old again"):
        killed.run(narrow(), SimulatedExecutor(2))
    with pytest.raises(Killed):
        run(killed, before, executor=SimulatedExecutor(2, chaos=at, die_after=3))
    _, record = killed.run(narrow(), SimulatedExecutor(2, chaos=at))  # --from is not needed again
    assert told(record) == reference
    with pytest.raises(StudyError, match="was begun from old, got --from another"):
        killed.run(narrow(), SimulatedExecutor(2), earlier=[Earlier("another", before)])


def test_a_study_on_other_data_tries_the_best_first(before, bench):
    record = run(bench, before, data=OTHER_DATA)
    start = record.experiment.start()
    inside = [
        t for t in before.ranked() if t.params["hidden_size"] <= 60 and dict(t.params) != start
    ]
    assert record.begun_from == (
        "tries the 3 best configurations of old first, which has other data",
    )
    assert dict(record.trials[0].params) == record.experiment.start()
    found = [dict(t.params) for t in record.trials[1:4]]
    assert found == [dict(t.params) for t in inside[:3]]
    assert all(t.outcome.finished_at >= 1e9 for t in record.trials)
    assert len(record.trained) == 30


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"objective": {"metric": "mae"}}, "objective.metric='rmse', not 'mae'"),
        ({"epochs": 6}, "budget.epochs=5, not 6"),
        ({"data": {"scale": "minmax"}}, "data.scale"),
    ],
)
def test_scores_that_cannot_be_compared_are_not_taken_over(before, make_bench, change, why):
    record = run(make_bench("a"), before, narrow(**change))
    if why != "data.scale":  # a preparation is part of the configuration
        assert f"first, which has {why}" in record.begun_from[0]
    else:
        assert record.begun_from[0].startswith("takes over 0 of 20 trials")


def test_a_fixed_value_that_differs_leaves_a_trial_outside(before, bench):
    other = narrow(hyperparameters={"learning_rate": 0.02})
    assert run(bench, before, other).begun_from[0].startswith("takes over 0 of 20 trials of old")


def test_a_fixed_parameter_keeps_trials_with_its_value(before, bench):
    space = {name: domain for name, domain in SPACE.items() if name != "num_layers"}
    record = run(bench, before, make_experiment("woa", space=space, trials=40))
    kept = [t for t in before.trained if t.params["num_layers"] == 1]
    assert 0 < len(kept) < 20
    assert record.begun_from[0].startswith(f"takes over {len(kept)} of 20 trials")
    assert "num_layers" not in record.trials[0].params


def test_nothing_is_begun_where_nothing_is_left_to_train(before, bench):
    with pytest.raises(StudyError, match="leaves nothing to train: 20 trials.*write --trials 40"):
        run(bench, before, make_experiment("pso", trials=20))
    assert study_names(read_journal(bench.location)) == []


def test_a_study_without_a_source_takes_none_later(before, bench):
    bench.run(narrow(), SimulatedExecutor(2))
    with pytest.raises(StudyError, match="has begun without --from; leave it out"):
        run(bench, before)
