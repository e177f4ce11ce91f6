"""Metrics and losses of one's own decide as tuner's do: search, stopping, export."""

import math

import numpy as np
import pandas as pd
import pytest

from tuner.data import SeriesRef, Shape
from tuner.data.metrics import score
from tuner.data.prepared import check_data
from tuner.errors import DataError, ExperimentError, InputError
from tuner.experiment import Experiment
from tuner.experiment.metrics import METRICS, short_name
from tuner.jobs import OutcomeState
from tuner.training import run_job
from tuner.training.user_models import look_at_loss

LATE = "mean(where(forecast < truth, 3, 1) * abs(truth - forecast))"
REF = SeriesRef("", Shape("forecast", 1, horizon=2))


def on(folder, metric, **blocks):
    frame = pd.DataFrame({"y": np.sin(np.arange(90) / 4), "k": list("abc") * 30})
    frame.to_csv(folder / "y.csv", index=False)
    data = {"path": str(folder / "y.csv"), "target": "y"}
    raw = {"name": "m", "data": data, "objective": {"metric": metric}} | blocks
    return Experiment.model_validate(raw)


def test_a_function_and_its_expression_are_one_metric():
    rng = np.random.default_rng(0)
    truth, forecast = rng.normal(size=(2, 5, 2, 1))
    by_text, by_name = (
        score(f"minimize {d}", truth, forecast, REF) for d in (LATE, "own_classes:late")
    )
    assert by_text == pytest.approx(by_name)
    assert by_text > score("mae", truth, forecast, REF)
    assert METRICS["maximize own_classes:late"].sign == -1
    assert METRICS[f"minimize {LATE}"].sign == 1
    assert [short_name(m) for m in ("rmse", "minimize own_classes:late", f"minimize {LATE}")] == [
        "rmse", "late", "own_metric",
    ]  # fmt: skip
    with pytest.raises(KeyError):
        METRICS["late"]


def test_quantiles_are_scored_by_their_median():
    shape = Shape("forecast", 1, horizon=2, quantiles=(0.1, 0.5))
    truth = np.ones((3, 2, 1))
    forecast = np.stack([truth - 9, truth + 1], axis=3)
    ref = SeriesRef("", shape)
    assert score("minimize mean(abs(truth - forecast))", truth, forecast, ref) == 1.0
    assert math.isnan(score("minimize mean(1 / (forecast - forecast))", truth, truth, REF))


def test_a_metric_cannot_change_the_next_epoch():
    truth = np.ones((3, 2, 1))
    with pytest.raises(InputError, match="own_classes:writes has no score.*read-only"):
        score("minimize own_classes:writes", truth, truth.copy(), REF)


def test_the_best_epoch_follows_the_metric_and_its_direction(make_ref, make_job):
    ref = make_ref(np.sin(np.arange(80) / 3)[:, None])
    found = {}
    for metric in (f"minimize {LATE}", f"maximize {LATE}"):
        outcome = run_job(make_job(ref, metric=metric, epochs=6), lambda epoch: True)
        assert outcome.state is OutcomeState.COMPLETE, outcome.reason
        scores = [epoch.metric for epoch in outcome.history]
        pick = min if metric.startswith("minimize") else max
        assert outcome.objective == pick(scores)
        found[metric] = scores
    assert len(set(map(tuple, found.values()))) == 1  # the same training, told otherwise


@pytest.mark.parametrize("loss", ["own_classes:fourth", LATE])
def test_a_loss_of_one_s_own_is_what_training_lowers(loss, make_ref, make_job):
    ref = make_ref(np.sin(np.arange(80) / 3)[:, None])
    outcome = run_job(make_job(ref, loss=loss, epochs=8, learning_rate=0.01), lambda epoch: True)
    assert outcome.state is OutcomeState.COMPLETE, outcome.reason
    losses = [epoch.train_loss for epoch in outcome.history]
    assert losses[-1] < 0.9 * losses[0]


def test_classes_have_metrics_and_losses_of_one_s_own(make_sequences, make_job):
    rng = np.random.default_rng(0)
    kinds = [i % 2 for i in range(24)]
    ref = make_sequences(
        "classify", [rng.normal(size=(4 + i % 3, 1)) + k for i, k in enumerate(kinds)], kinds,
        classes=2,
    )  # fmt: skip
    metric = "maximize own_classes:hits"
    job = make_job(ref, metric=metric, loss="own_classes:margin", epochs=5)
    own = run_job(job, lambda epoch: True)
    ours = run_job(
        make_job(ref, metric="accuracy", loss="own_classes:margin", epochs=5), lambda epoch: True
    )
    assert own.state is OutcomeState.COMPLETE, own.reason
    assert own.objective == pytest.approx(ours.objective)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("own_classes:late", "objective.metric: must say which way is better"),
        ("minimize rmse", "knows no 'rmse'"),
        ("rmes", "unknown metric 'rmes'; did you mean 'rmse'?"),
        ("minimize abs(truth - forecast)", r"write mean\(abs\(truth - forecast\)\), say"),
    ],
)
def test_a_metric_that_cannot_be_is_refused_by_its_text(metric, message, tmp_path):
    on(tmp_path, "rmse")
    raw = {"name": "m", "data": {"path": "y.csv", "target": "y"}, "objective": {"metric": metric}}
    path = tmp_path / "m.yaml"
    from tuner.experiment import dump_yaml

    path.write_text(dump_yaml(raw))
    with pytest.raises(ExperimentError, match=message) as refused:
        Experiment.load(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("minimize own_classes:array", r"must come to one number, got an array of shape \(4, 1, 1"),
        ("minimize own_classes:lat", "own_classes has no 'lat'.*did you mean 'late'?"),
        ("minimize not_there:late", "no module 'not_there' is installed"),
        ("minimize own_classes:Leaky", "has no score of these forecasts: TypeError"),
        ("minimize log(mean(truth - truth) - mean(abs(forecast)))", "must come to a finite number"),
    ],
)
def test_a_metric_that_does_not_work_is_refused_with_the_data(metric, message, tmp_path):
    with pytest.raises(DataError, match=f"objective.metric: .*{message}"):
        check_data(on(tmp_path, metric))


@pytest.mark.parametrize(
    ("loss", "kind", "message"),
    [
        ("own_classes:fourth", "forecast", None),
        ("own_classes:margin", "classify", None),
        ("own_classes:flat", "forecast", "has no gradient; calculate with torch alone"),
        ("own_classes:array", "forecast", "must come to one number of torch, got"),
        ("own_classes:fourht", "forecast", "did you mean 'fourth'?"),
        ("own_classes:margin", "forecast", "has no loss of a batch"),
    ],
)
def test_a_loss_is_tried_before_a_search(loss, kind, message):
    problem = look_at_loss(loss, kind).get("problem")
    assert (problem is None) == (message is None)
    assert message is None or message in str(problem)
