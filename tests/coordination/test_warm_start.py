"""Studies that begin from earlier ones: what is taken over, what is tried first, and again."""

import optuna
import pytest
from helpers.search_bench import DATA, SPACE, make_experiment, told
from helpers.simulated_executor import Killed, SimulatedExecutor

from tuner.coordination.opening import Earlier
from tuner.errors import StudyError
from tuner.journal.storage import TAKEN_ATTR, read_journal

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


def test_a_study_without_a_source_takes_none_later(before, bench):
    bench.run(narrow(), SimulatedExecutor(2))
    with pytest.raises(StudyError, match="has begun without --from; leave it out"):
        run(bench, before)
