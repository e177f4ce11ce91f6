"""Every pruner decides as Optuna's own does, and never by timing."""

import optuna
import pytest
from helpers import simulated_executor
from helpers.search_bench import PRUNER_OPTIONS, make_experiment, run_killed, told
from helpers.simulated_executor import SimulatedExecutor
from optuna.trial import TrialState, create_trial

from tuner.coordination.history import StudyTrial
from tuner.coordination.pruning import Evidence, make_pruner, should_prune
from tuner.experiment.schema import PRUNERS
from tuner.jobs import Epoch, ExternalJob
from tuner.journal.records import Status
from tuner.journal.storage import Role, TrialKey

OPTIONS = {"none": {}, **PRUNER_OPTIONS, "wilcoxon": {"p_threshold": 0.4}}
FOLDS = {"split": {"validation": {"folds": 5, "size": 0.1}}}
BEGINS_TO_OVERFIT = 4  # epochs


@pytest.fixture(autouse=True)
def trials_that_overfit(monkeypatch):
    plain = simulated_executor.curve

    def curve(job):
        worse = [0.4 * max(0, i % job.epochs - BEGINS_TO_OVERFIT) for i in range(len(plain(job)))]
        return [value + w for value, w in zip(plain(job), worse, strict=True)]

    monkeypatch.setattr(simulated_executor, "curve", curve)


BY_EPOCHS = [name for name in OPTIONS if name not in ("none", "wilcoxon")]


def experiment_with(name, **keys):
    options = OPTIONS[name]
    folds = {"data": FOLDS} if name == "wilcoxon" else {}
    epochs = 4 if folds else 9
    return make_experiment(pruner={"name": name, **options}, epochs=epochs, **folds, **keys)


def test_every_pruner_is_tried_here():
    assert {model.model_fields["name"].default for model in PRUNERS} == set(OPTIONS)


@pytest.mark.parametrize(
    ("name", "strategy"), list(zip(list(OPTIONS)[1:], ["woa", "tpe"] * 3, strict=True))
)
def test_a_pruner_gives_the_same_with_any_workers_or_kill(name, strategy, make_bench):
    experiment = experiment_with(name, strategy=strategy)
    _, reference = make_bench("one").run(experiment, SimulatedExecutor(1))
    assert reference.count(Status.PRUNED) > 0
    assert reference.count(Status.COMPLETE) > 0
    for workers, chaos in [(2, 1), (5, 2)]:
        _, record = make_bench(f"{workers}").run(experiment, SimulatedExecutor(workers, chaos))
        assert told(record) == told(reference)
    record, n_kills, _ = run_killed(make_bench("killed"), experiment, die_after=2)
    assert n_kills > 5
    assert told(record) == told(reference)


@pytest.mark.parametrize("name", BY_EPOCHS)
@pytest.mark.parametrize("metric", ["rmse", "r2"])
def test_trials_told_singly_are_pruned_as_by_optuna(name, metric, bench):
    """With a batch of one, every trial sees all the earlier ones, as in Optuna's own loop."""
    strategy = {"name": "random", "batch": 1}
    experiment = experiment_with(name, trials=40, objective={"metric": metric})
    experiment = type(experiment).model_validate(experiment.to_dict() | {"strategy": strategy})
    _, record = bench.run(experiment, SimulatedExecutor(1))
    study = optuna.create_study(
        study_name="s",
        direction=experiment.objective.direction,
        pruner=make_pruner(experiment.pruner, experiment.budget.epochs),
    )
    pruned = 0
    for ours in record.trials:
        trial = study.ask()
        curve = ours.outcome.history
        for epoch in curve[:-1]:
            trial.report(epoch.metric, epoch.epoch)
            assert not trial.should_prune()
        trial.report(curve[-1].metric, curve[-1].epoch)
        assert bool(trial.should_prune()) is (ours.status is Status.PRUNED)
        if ours.status is Status.PRUNED:
            pruned += 1
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, ours.value)
    assert pruned > 3


@pytest.mark.parametrize("wrapped", [False, True], ids=["median", "patient median"])
def test_after_an_easy_first_fold_a_bad_second_one_is_pruned(wrapped):
    told = [
        create_trial(state=TrialState.COMPLETE, value=1.5, intermediate_values={0: 1.0, 1: 1.5})
        for _ in range(5)
    ]
    median = {"name": "median", "n_startup_trials": 1}
    options = {"name": "patient", "patience": 0, "wrapped": median} if wrapped else median
    experiment = make_experiment("random", pruner=options)
    evidence = Evidence(optuna.create_study(), 5, told, told, n_folds=3)
    epochs = [Epoch(0, 1, 1, 0.9, 0.0, 0, 0.9), Epoch(1, 1, 1, 9.1, 0.0, 1, 9.1)]
    pruner = make_pruner(experiment.pruner, 10, 3)
    assert not should_prune(pruner, evidence, 5, {}, {}, epochs[:1], {})
    assert should_prune(pruner, evidence, 5, {}, {}, epochs, {})


def test_an_attempt_is_not_judged_by_values_of_one_before():
    told = [
        create_trial(state=TrialState.COMPLETE, value=1.0, intermediate_values={0: 1.0, 1: 1.0})
        for _ in range(5)
    ]
    options = {"name": "median", "n_startup_trials": 1, "n_warmup_steps": 0}
    experiment = make_experiment("random", pruner=options)
    pruner = make_pruner(experiment.pruner, 10)
    good, bad = ([Epoch(n, 1.0, 1.0, metric, 0.0) for n in range(2)] for metric in (0.5, 2.0))
    job = ExternalJob("5", 5, 5, {}, 0)
    trial = StudyTrial(optuna.create_study().ask(), TrialKey(Role.TRIAL, 5), {}, 5, seed=0)
    for epochs in (good, bad[:1], good):  # of attempts whose workers died, but for the last
        trial.start(job, (trial,))
        assert trial.evidence is None
        trial.evidence = Evidence(optuna.create_study(), 5, told, told)
        for n in range(len(epochs)):
            prune = should_prune(pruner, trial.evidence, 5, {}, {}, epochs[: n + 1], {})
            assert prune is (epochs is not good)
