"""Metrics, and weights of rows and steps."""

import math

import numpy as np
import pandas as pd
import pytest
from helpers.examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from tuner.data import SequencesRef, SeriesRef, Shape
from tuner.data.metrics import score
from tuner.data.prepared import check_data, open_test_part, prepare
from tuner.errors import DataError
from tuner.experiment import Experiment
from tuner.metrics import METRICS, Scored

TRUTH = np.array([[[1.0, 10.0], [2.0, 20.0]], [[4.0, 40.0], [8.0, 80.0]]])  # 2 windows, 2 steps
FORECAST = TRUTH + np.array([1.0, 2.0])
OF_VALUES = [name for name, metric in METRICS.items() if metric.of == "values"]
OF_CLASSES = [name for name, metric in METRICS.items() if metric.of == "classes"]


class Held(SeriesRef):
    """Two windows, each of a series of its own."""

    def evaluate_samples(self):
        return np.arange(2)

    def naive_errors(self, samples):
        return np.array(self.scale).reshape(-1, 2)[samples]


def values(naive=(2.0, 8.0), quantiles=()):
    """Data whose naive errors are these in both series, or (series, targets) of them."""
    shape = Shape("forecast", 2, horizon=2, targets=2, quantiles=quantiles)
    return Held("", shape, scale=naive if len(naive) == 4 else naive * 2)


def classes(n):
    return SequencesRef("", Shape("classify", 2, classes=n))


def test_scores_are_means_over_targets_in_their_own_units():
    assert score("rmse", TRUTH, FORECAST, values()) == pytest.approx(1.5)
    assert score("mae", TRUTH, FORECAST, values()) == pytest.approx(1.5)
    mape = np.mean([1 / np.array([1, 2, 4, 8]), 2 / np.array([10, 20, 40, 80])])
    assert score("mape", TRUTH, FORECAST, values()) == pytest.approx(mape)
    flat = TRUTH.reshape(-1, 2)
    rest = 1 - 4 * np.array([1.0, 4.0]) / ((flat - flat.mean(axis=0)) ** 2).sum(axis=0)
    assert score("r2", TRUTH, FORECAST, values()) == pytest.approx(rest.mean())
    smape = np.mean(np.abs(FORECAST - TRUTH) / ((TRUTH + FORECAST) / 2))
    assert score("smape", TRUTH, FORECAST, values()) == pytest.approx(smape)
    assert score("mase", TRUTH, FORECAST, values()) == pytest.approx((1 / 2 + 2 / 8) / 2)


def test_integers_are_scored_as_the_same_floats():
    whole = [Scored(np.array([[1], [2]]), np.array([[3], [2]]))]
    whole += [Scored(*(each.astype(float) for each in (whole[0].truth, whole[0].predicted)))]
    for name in sorted(set(OF_VALUES) - {"mase"}):
        integers, floats = (METRICS[name].score(each) for each in whole)
        assert integers == floats, name


def test_a_perfect_prediction_has_the_best_score():
    assert [score(m, TRUTH, TRUTH, values()) for m in OF_VALUES] == [0, 0, 0, 0, 0, 1]
    truth = np.array([0, 1, 2, 1])
    best = [score(m, truth, np.eye(3)[truth], classes(3)) for m in OF_CLASSES]
    assert best == pytest.approx([1, 1, 1, 0])


def test_smape_of_nothing_is_zero_and_its_worst_is_two():
    zero, one = np.zeros((1, 2, 2)), np.ones((1, 2, 2))
    assert score("smape", zero, zero, values()) == 0
    assert score("smape", zero, one, values()) == 2
    assert score("smape", -one, one, values()) == 2
    assert score("smape", one, one * 1e308, values()) == pytest.approx(2)


def test_mase_divides_the_errors_of_each_series_by_its_own():
    each = values((1.0, 8.0, 2.0, 4.0))
    expected = np.mean([[1 / 1, 2 / 8], [1 / 2, 2 / 4]])
    assert score("mase", TRUTH, FORECAST, each) == pytest.approx(expected)
    one = values((1.0, 8.0, math.nan, math.nan))  # the second has no training rows
    assert score("mase", TRUTH, FORECAST, one) == pytest.approx(np.mean([1, 2 / 8]))
    assert math.isnan(score("mase", TRUTH, FORECAST, values((math.nan,) * 4)))


def test_mase_of_a_series_that_repeats_itself_is_nan():
    assert math.isnan(score("mase", TRUTH, FORECAST, values((2.0, 0.0))))
    assert math.isnan(score("mase", TRUTH, TRUTH, values((2.0, 0.0))))


def test_of_quantiles_the_middle_one_is_the_value_that_is_scored():
    ref = values(quantiles=(0.1, 0.5, 0.9))
    spread = np.stack([FORECAST - 5, FORECAST, FORECAST + 3], axis=-1)  # (windows, 2, 2, 3)
    for metric in OF_VALUES:
        assert score(metric, TRUTH, spread, ref) == score(metric, TRUTH, FORECAST, values())


def test_pinball_is_the_mean_over_the_quantiles():
    quantiles = (0.1, 0.5, 0.9)
    spread = np.stack([FORECAST - 5, FORECAST, FORECAST + 3], axis=-1)
    losses = []
    for i, q in enumerate(quantiles):
        over = spread[..., i] - TRUTH
        losses.append(np.mean(np.where(over > 0, (1 - q) * over, -q * over)))
    found = score("pinball", TRUTH, spread, values(quantiles=quantiles))
    assert found == pytest.approx(np.mean(losses))


@given(
    metric=st.sampled_from(OF_VALUES),
    bad=st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e308]),
    at=st.integers(0, 7),
    quantiles=st.sampled_from([(), (0.5,)]),
)
def test_an_overflowing_forecast_never_raises(metric, bad, at, quantiles):
    forecast = TRUTH.copy()
    forecast.flat[at] = bad
    forecast = forecast[..., None] if quantiles else forecast
    for name in (metric, "pinball") if quantiles else (metric,):
        value = score(name, TRUTH, forecast, values(quantiles=quantiles))
        assert not math.isinf(value)
        if not math.isfinite(bad):
            assert math.isnan(value)


def test_r2_of_one_value_and_a_score_of_nothing_are_nan():
    assert math.isnan(score("r2", TRUTH[:1, :1], TRUTH[:1, :1], values()))
    assert [math.isnan(score(m, TRUTH[:0], TRUTH[:0], values())) for m in OF_VALUES] == [True] * 6
    nothing = np.empty(0, np.int64), np.empty((0, 3))
    assert [math.isnan(score(m, *nothing, classes(3))) for m in OF_CLASSES] == [True] * 4


OF_SKLEARN = {
    "rmse": metrics.root_mean_squared_error,
    "mae": metrics.mean_absolute_error,
    "mape": metrics.mean_absolute_percentage_error,
}


@given(metric=st.sampled_from(sorted(OF_SKLEARN)), seed=st.integers(0, 10**6), some=st.booleans())
def test_scores_of_values_are_scikit_learns(metric, seed, some):
    random = np.random.default_rng(seed)
    truth, predicted = random.normal(size=(2, 2, 2, 2))
    truth[0, 0, 0] = 0.0 if seed % 2 else 1.0  # mape divides by the smallest number
    weights = random.uniform(0, 1, (2, 2)) if some else None
    found = score(metric, truth, predicted, values(), weights=weights)
    rows = truth.reshape(-1, 2), predicted.reshape(-1, 2)
    of_rows = None if weights is None else weights.ravel() / weights.max()
    assert found == pytest.approx(OF_SKLEARN[metric](*rows, sample_weight=of_rows), rel=1e-14)
    spread = np.stack([predicted - 1, predicted, predicted + 2], axis=-1)
    found = score("pinball", truth, spread, values(quantiles=(0.1, 0.5, 0.9)), weights=weights)
    losses = [
        metrics.mean_pinball_loss(
            rows[0], spread[..., i].reshape(-1, 2), alpha=q, sample_weight=of_rows
        )
        for i, q in enumerate((0.1, 0.5, 0.9))
    ]
    assert found == pytest.approx(np.mean(losses), rel=1e-14)


@given(n=st.integers(2, 5), seed=st.integers(0, 10**6), single=st.booleans())
def test_scores_of_classes_are_scikit_learns(n, seed, single):
    random = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(n), random.integers(n, size=30)])  # every class occurs
    predicted = random.dirichlet(np.ones(n), size=len(truth))
    best = predicted.argmax(axis=1)
    area = (
        metrics.roc_auc_score(truth, predicted[:, 1])
        if n == 2
        else metrics.roc_auc_score(truth, predicted, multi_class="ovr", average="macro")
    )
    expected = {
        "accuracy": metrics.accuracy_score(truth, best),
        "f1": metrics.f1_score(truth, best, average="macro"),
        "auroc": area,
        "cross_entropy": metrics.log_loss(truth, predicted),
    }
    predicted = predicted.astype(np.float32) if single else predicted
    for metric, value in expected.items():
        assert score(metric, truth, predicted, classes(n)) == pytest.approx(value, rel=1e-5)


@given(
    n=st.integers(2, 4), metric=st.sampled_from(OF_CLASSES), seed=st.integers(0, 10**6),
    size=st.integers(1, 6), bad=st.sampled_from([None, math.nan, math.inf, -1.0, 0.0]),
)  # fmt: skip
def test_classes_that_do_not_occur_never_raise(n, metric, seed, size, bad):
    random = np.random.default_rng(seed)
    truth, predicted = random.integers(n, size=size), random.dirichlet(np.ones(n), size=size)
    if bad is not None:
        predicted[0] = bad
    value = score(metric, truth, predicted, classes(n))
    assert not math.isinf(value)
    if bad is not None and not math.isfinite(bad):
        assert math.isnan(value)


def test_f1_averages_over_true_and_predicted_classes():
    predicted = np.eye(4)[[0, 0, 1, 2]]  # of 0: f1 2/3; of 1: 2/3; of 2: 0; 3 does not occur
    assert score("f1", np.array([0, 1, 1, 0]), predicted, classes(4)) == pytest.approx(
        (1 / 2 + 2 / 3 + 0) / 3
    )


def test_auroc_is_the_mean_over_the_classes_that_occur():
    predicted = np.array([[0.6, 0.2, 0.2], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    assert score("auroc", np.array([0, 1, 0]), predicted, classes(3)) == 1
    assert math.isnan(score("auroc", np.array([1, 1, 1]), predicted, classes(3)))
    assert math.isnan(score("auroc", np.array([1, 1, 1]), predicted[:, :2], classes(2)))


def test_an_impossible_class_has_a_large_finite_loss():
    value = score("cross_entropy", np.array([0, 1]), np.array([[1.0, 0.0]] * 2), classes(2))
    assert 15 < value < 20


N = 60
VALIDATION, TEST = slice(34, 48), slice(48, 60)


def table(weights=None, n=N, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"y": 50 + rng.normal(size=n).cumsum(), "x": rng.normal(size=n)})
    frame["w"] = np.ones(n) if weights is None else weights
    return frame


def experiment(folder, frame, *, task=None, metric=None, **data):
    frame.to_csv(folder / "data.csv", index=False)
    values = {
        "name": "weighed",
        "data": {
            "path": str(folder / "data.csv"), "target": "y", "weight": "w",
            "split": {"validation": 14, "test": 12}, **data,
        },
        "task": {"window": 3, "horizon": 2} if task is None else task,
    }  # fmt: skip
    values |= {} if metric is None else {"objective": {"metric": metric}}
    return Experiment.from_dict(values)


class Naive(SeriesRef):
    """Values whose naive errors are 2 and 8, of two targets."""

    def naive_errors(self, samples):
        return np.tile([2.0, 8.0], (len(samples), 1))


@settings(max_examples=examples(40))
@given(
    metric=st.sampled_from([*OF_VALUES, "pinball"]),
    counts=st.lists(st.integers(0, 4), min_size=6, max_size=6).filter(lambda c: sum(c) > 1),
    seed=st.integers(0, 99),
)
def test_a_target_of_weight_three_scores_like_three_of_it(metric, counts, seed):
    rng = np.random.default_rng(seed)
    quantiles = (0.1, 0.5, 0.9) if metric == "pinball" else ()
    truth = rng.uniform(1, 9, (3, 2, 2))
    forecast = truth[..., None] + rng.normal(size=(3, 2, 2, 3)).cumsum(axis=3)
    forecast = forecast if quantiles else forecast[..., 0]
    windows = Naive("", Shape("forecast", 2, horizon=2, targets=2, quantiles=quantiles))
    rows = Naive("", Shape("forecast", 2, horizon=1, targets=2, quantiles=quantiles))
    weights = np.reshape(counts, (3, 2)) * 0.37
    found = score(metric, truth, forecast, windows, np.arange(3), weights)
    each = [a.reshape(6, 1, *a.shape[2:]).repeat(counts, axis=0) for a in (truth, forecast)]
    expected = score(metric, *each, rows, np.arange(sum(counts)))
    assert found == pytest.approx(expected, nan_ok=True)
    if metric in ("rmse", "mae"):  # and by hand
        errors = np.abs(truth - forecast) ** (2 if metric == "rmse" else 1)
        means = [np.average(errors[:, :, k], weights=weights) for k in range(2)]
        by_hand = np.mean(np.sqrt(means) if metric == "rmse" else means)
        assert found == pytest.approx(by_hand)


@settings(max_examples=examples(40))
@given(
    metric=st.sampled_from(OF_CLASSES),
    counts=st.lists(st.integers(0, 4), min_size=8, max_size=8).filter(any),
    seed=st.integers(0, 99),
)
def test_a_class_of_weight_three_scores_like_three_of_it(metric, counts, seed):
    rng = np.random.default_rng(seed)
    truth, said = rng.integers(0, 3, 8), rng.dirichlet(np.ones(3), 8)
    ref = SequencesRef("", Shape("classify", 2, classes=3))
    found = score(metric, truth, said, ref, weights=np.array(counts) * 1e-3)
    repeated = truth.repeat(counts), said.repeat(counts, axis=0)
    assert found == pytest.approx(score(metric, *repeated, ref), nan_ok=True)


WEIGHTS = st.lists(st.sampled_from([0, 0, 0.5, 1, 3]), min_size=N, max_size=N)


@settings(max_examples=examples(40))
@given(weights=WEIGHTS, steps=st.sampled_from([None, [1, 0.5], [0, 2]]))
def test_samples_and_weights_match_a_loop_over_rows(weights, steps, tmp_path_factory):
    folder, window, horizon = tmp_path_factory.mktemp("weights"), 3, 2
    task = {"window": window, "horizon": horizon}
    task |= {} if steps is None else {"step_weights": steps}
    asked = experiment(folder, table(weights), task=task)
    of_steps = steps or [1, 1]

    def counts(t):
        return [weights[t + k] * of_steps[k] for k in range(horizon)]

    def samples(begin, end):
        inside = range(max(begin, window), end - horizon + 1)
        return [t for t in inside if any(counts(t))]

    every = [samples(0, 34), samples(34, 48), samples(48, 60)]
    if not all(every):
        with pytest.raises(DataError, match=r"data\.weight: column 'w' must be above 0 for some"):
            check_data(asked)
        return
    (ref,) = prepare(asked, folder / "search").folds
    (opened,) = open_test_part(asked, folder / "test").folds
    found = [ref.train_samples(), ref.evaluate_samples(), opened.evaluate_samples()]
    assert [part.tolist() for part in found] == every
    assert opened.weights_of(found[2]).tolist() == [counts(t) for t in every[2]]
    assert ref.weights_of(found[0]).tolist() == [counts(t) for t in every[0]]
    truth = ref.truth_of(found[1])
    forecast = truth + np.random.default_rng(0).normal(size=truth.shape)
    errors = np.abs(truth - forecast)[:, :, 0]
    of_part = np.array([counts(t) for t in every[1]])
    expected = (errors * of_part).sum() / of_part.sum()
    assert score("mae", truth, forecast, ref) == pytest.approx(expected)


def test_a_weight_column_is_neither_feature_nor_leak(tmp_path):
    weights = np.linspace(1, 2, N)
    other = weights.copy()
    other[TEST] = 7.0
    arrays = []
    for name, column in (("one", weights), ("two", other)):
        (tmp_path / name).mkdir()
        asked = experiment(tmp_path / name, table(column))
        prepared = prepare(asked, tmp_path / name / "search")
        assert prepared.facts.features == ("y", "x")
        assert "weight" not in prepared.pipeline
        files = sorted((tmp_path / name / "search").rglob("*.npy"))
        arrays.append({file.stem: np.load(file) for file in files})
    assert arrays[0].keys() == arrays[1].keys()
    assert all(np.array_equal(arrays[0][k], arrays[1][k]) for k in arrays[0])
    assert len(arrays[0]["weights"]) == TEST.start
    named = experiment(tmp_path, table(weights), features=["y", "w"])
    assert prepare(named, tmp_path / "named").facts.features == ("y", "w")


def test_weights_follow_their_rows(tmp_path):
    """Through an order of its own, gaps that are put in, steps that rows are brought to."""
    hours = pd.date_range("2020-01-01", periods=N, freq="h")
    frame = table(np.arange(1.0, N + 1)).assign(t=hours.astype(str))
    holes = frame.drop(index=[20]).iloc[::-1]
    asked = experiment(tmp_path, holes, time="t", missing="ffill")
    (ref,) = prepare(asked, tmp_path / "holes").folds
    expected = np.arange(1.0, TEST.start + 1)
    expected[20] = 0
    assert ref.load("weights").tolist() == expected.tolist()
    split = {"validation": 7, "test": 6}
    asked = experiment(tmp_path, frame, time="t", resample="2h", split=split)
    (ref,) = prepare(asked, tmp_path / "resampled").folds
    assert ref.load("weights").tolist() == (np.arange(24) * 2 + 1.5).tolist()


def sequences(weights, kind="regress"):
    rng = np.random.default_rng(1)
    rows = [(i, rng.normal(), w) for i, w in enumerate(weights) for _ in range(3)]
    frame = pd.DataFrame(rows, columns=["id", "x", "w"])
    frame["y"] = frame["id"] % 2 if kind in ("classify", "label") else frame["id"] * 1.5
    return frame


@pytest.mark.parametrize("kind", ["regress", "classify", "label", "regress_steps"])
def test_sequences_of_weight_zero_are_left_out(kind, tmp_path):
    weights = np.tile([1.0, 0.0, 2.0, 0.5, 3.0], 8)
    frame = sequences(weights, kind)
    asked = experiment(tmp_path, frame, task={"kind": kind}, id="id")
    prepared = prepare(asked, tmp_path / "search")
    (ref,) = prepared.folds
    assert prepared.facts.features == ("x",)
    for samples in (ref.train_samples(), ref.evaluate_samples()):
        assert len(samples)
        names = [int(prepared.name_of(sample)) for sample in samples]
        expected = np.array([weights[name] for name in names])
        assert (expected > 0).all()
        per_step = kind in ("label", "regress_steps")
        assert ref.weights_of(samples).tolist() == expected.repeat(3 if per_step else 1).tolist()
    if kind == "label":  # a row of its own weight
        frame.loc[0, "w"] = 9.0
        (ref,) = prepare(experiment(tmp_path, frame, task={"kind": kind}, id="id"), tmp_path).folds
        assert 9.0 in ref.load("weights")


def test_the_class_of_a_coming_row_counts_what_its_row_does(tmp_path):
    weights = np.tile([1.0, 0.0, 2.0], 20)
    frame = table(weights).assign(y=np.where(np.arange(N) // 2 % 2, "up", "down"))
    asked = experiment(tmp_path, frame, task={"kind": "classify", "window": 3})
    prepared = prepare(asked, tmp_path / "search")
    (ref,) = prepared.folds
    samples = ref.evaluate_samples()
    assert samples.tolist() == [t for t in range(34, 48) if weights[t]]
    assert ref.weights_of(samples).tolist() == weights[samples].tolist()
    assert "w" not in prepared.facts.features


@pytest.mark.parametrize(
    ("row", "value", "problem"),
    [
        (7, "", "number from 0 to below 1e30 in every row, got none in line 9; fill it in"),
        (7, "-0.5", "number from 0 to below 1e30 in every row, got -0.5 in line 9; correct it"),
        (7, "1e31", "got 1e[+]31 in line 9; correct it"),
        (7, "much", "got 'much' in line 9; write a number there"),
    ],
)
def test_a_weight_that_is_none_is_refused_with_its_line(row, value, problem, tmp_path):
    weights = ["1"] * N
    weights[row] = value
    with pytest.raises(DataError, match=rf"data\.weight: column 'w' must .*{problem}"):
        check_data(experiment(tmp_path, table(weights)))
    with pytest.raises(DataError, match=r"data\.weight: no column 'weights' in the file"):
        check_data(experiment(tmp_path, table(), weight="weights"))


def test_a_row_without_a_target_needs_no_weight(tmp_path):
    frame = table()
    frame.loc[10, ["y", "w"]] = np.nan
    (ref,) = prepare(experiment(tmp_path, frame, missing="ffill"), tmp_path / "search").folds
    assert not {9, 10} & set(ref.train_samples().tolist())


@pytest.mark.parametrize("part", ["training", "validation", "test"])
@pytest.mark.parametrize("kind", ["forecast", "regress"])
def test_a_part_of_which_nothing_counts_is_refused(part, kind, tmp_path):
    if kind == "forecast":
        weights = np.ones(N)
        weights[{"training": slice(0, 34), "validation": VALIDATION, "test": TEST}[part]] = 0
        asked = experiment(tmp_path, table(weights))
    else:
        words = np.repeat(["train", "validation", "test"], [20, 10, 10])
        weights = np.where(words == {"training": "train"}.get(part, part), 0.0, 1.0)
        frame = sequences(weights).assign(part=words.repeat(3))
        asked = experiment(tmp_path, frame, task={"kind": kind}, id="id", split={"column": "part"})
    with pytest.raises(DataError, match=rf"data\.weight: .*the {part} part, got 0 for all"):
        check_data(asked)


def test_a_metric_that_divides_asks_for_values_that_count(tmp_path):
    frame = table()
    frame.loc[40, "y"] = 0.0
    with pytest.raises(DataError, match="mape divides by the values, got 0"):
        check_data(experiment(tmp_path, frame, metric="mape"))
    frame.loc[40, "w"] = 0.0
    check_data(experiment(tmp_path, frame, metric="mape"))


def test_a_sequence_has_one_weight(tmp_path):
    frame = sequences(np.ones(40))
    frame.loc[4, "w"] = 2.0
    asked = experiment(tmp_path, frame, task={"kind": "regress"}, id="id")
    with pytest.raises(DataError, match=r"data\.weight: column 'w' must be the same in all rows"):
        check_data(asked)


def test_an_experiment_without_weights_says_nothing_of_them(tmp_path):
    asked = experiment(tmp_path, table(), weight=None)
    assert "weight" not in asked.to_dict()["data"]
    assert "step_weights" not in asked.to_dict()["task"]
    (ref,) = prepare(asked, tmp_path / "search").folds
    assert not ref.has_weights
    assert ref.weights_of(ref.train_samples()) is None
    assert "w" in prepare(asked, tmp_path / "again").facts.features
