"""Every task from its experiment file to a model that scores the same again."""
# ruff: noqa: E501

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tuner.cli.app import run
from tuner.data.prepared import check_data
from tuner.experiment import Experiment

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
TASKS = ("forecast", "coming_class", "regress", "classify", "label", "regress_steps", "translate")
SLOW = pytest.mark.slow
FAST = [("window", False), ("attention", True)]  # of those with everything on them
SMALL = ["--trials", "3", "--set", "budget.epochs=2", "--set", "finalists.top=1"]
SMALL += ["--set", "finalists.repeats=1", "--workers", "1", "--no-tracking"]


pytestmark = pytest.mark.usefixtures("empty_folder")


def result(study, capsys):
    capsys.readouterr()
    assert run(["show", study, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def searched_and_reproduced(experiment, options, capsys):
    """The result of a search whose exported winner was trained again to the same score."""
    assert run(["run", str(experiment), "--study", "s", *options]) == 0
    found = result("s", capsys)
    assert run(["export", "s", "-o", "best.yaml"]) == 0
    capsys.readouterr()
    assert run(["train", "best.yaml", "-o", "model"]) == 0
    assert "reproduced: " in capsys.readouterr().out
    assert json.loads(Path("model/pipeline.json").read_text())["task"] in TASKS
    return found


@pytest.mark.parametrize(
    "name", ["names", *(pytest.param(name, marks=SLOW) for name in ("sunspots", "digits", "waves"))]
)
def test_a_shipped_experiment_gives_a_reproducible_model(name, capsys):
    found = searched_and_reproduced(EXPERIMENTS / f"{name}.yaml", SMALL, capsys)
    assert found["test"]["mean"] is not None
    assert found["verdict"]


SERIES = """
name: stores
data:
  {path: stores.csv, id: store, time: hour, target: [units, visits], missing: interpolate,
   calendar: [hour, weekday], lags: {price: [24]}, split: {validation: {folds: 2, size: 0.15}}}
task: {kind: forecast, window: 6, horizon: 3}
"""
SPACES = {
    "stacked": "{hidden_size_1: {type: int, low: 4, high: 8}, hidden_size_2: {type: int, low: 2, high: 4}}",
    "window": "{window: {type: int, low: 4, high: 12}, cell: {type: categorical, choices: [gru, peephole]}}",
    "decoder": "{decoder: {type: categorical, choices: [recursive]}, hidden_size: {type: int, low: 4, high: 9}}",
    "attention": "{pooling: {type: categorical, choices: [attention]}, hidden_size: {type: int, low: 4, high: 9}}",
}  # fmt: skip


@pytest.fixture
def stores(empty_folder):
    hours = pd.date_range("2024-01-01", periods=150, freq="h")
    rng = np.random.default_rng(0)
    frames = [
        pd.DataFrame(
            {
                "store": store,
                "hour": hours,
                "units": 10 + 3 * np.sin(np.arange(150) / 4) + rng.normal(size=150),
                "visits": 50 + rng.normal(size=150),
                "price": rng.random(150),
            }
        ).drop(index=[30, 31, 90])
        for store in ("north", "south")
    ]
    frames[1] = frames[1].iloc[85:]  # begins late: a longer window leaves fewer rows of it
    frame = pd.concat(frames)
    frame.loc[40, "units"] = np.nan
    frame.to_csv("stores.csv", index=False)


@pytest.mark.slow
@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize(
    ("space", "quantiles"),
    [
        pytest.param(space, quantiles, marks=[] if (space, quantiles) in FAST else SLOW)
        for space in SPACES
        for quantiles in (False, True)
    ],
)
def test_series_with_every_feature_run_and_reproduce(space, quantiles, capsys):
    text = SERIES + f"search_space: {SPACES[space]}\n"
    if quantiles:
        text = text.replace("horizon: 3", "horizon: 3, quantiles: [0.1, 0.5, 0.9]")
    Path("stores.yaml").write_text(text)
    # The untuned default may win, and has nothing on it of what is searched.
    options = [*SMALL, "--set", "finalists.baseline=false"]
    found = searched_and_reproduced(Path("stores.yaml"), options, capsys)
    assert found["metric"] == ("pinball" if quantiles else "rmse")
    plain = {"last_value", "seasonal_naive", "training_mean", "linear"}
    assert found["baselines"].keys() == plain | {"exponential_smoothing", "seasonal_arima"}
    if space == "attention":
        weights = pd.read_csv("model/attention.csv", index_col="sample")
        assert weights.index[0].startswith("north 2024-01-0")
        assert weights.index[-1].startswith("south 2024-01-0")
        assert weights.shape[1] == 6
        assert weights.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4)
        assert Path("model/attention.png").stat().st_size > 5_000


@pytest.mark.slow
def test_digits_are_read_well(capsys):
    assert run(["run", str(EXPERIMENTS / "digits.yaml"), "--study", "s", "--no-tracking"]) == 0
    assert result("s", capsys)["test"]["mean"] >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("name", ["air_passengers", "sunspots"])
def test_a_retrained_winner_beats_the_plain_forecasts(name, capsys):
    assert run(["run", str(EXPERIMENTS / f"{name}.yaml"), "--study", "s", "--no-tracking"]) == 0
    test = result("s", capsys)["test"]
    assert test["mean"] < min(test["baselines"].values())


@pytest.mark.slow
def test_a_number_per_step_runs_from_search_to_prediction(capsys):
    rng, rows = np.random.default_rng(0), []
    for run_ in range(40):
        speed = rng.normal(size=rng.integers(4, 9))
        rows += [(f"r{run_}", s, p) for s, p in zip(speed, speed.cumsum(), strict=True)]
    pd.DataFrame(rows, columns=["run", "speed", "place"]).to_csv("runs.csv", index=False)
    assert (
        run(["init", "runs.csv", "--id", "run", "--target", "place", "--task", "regress_steps"])
        == 0
    )
    assert run(["check", "runs.yaml"]) == 0
    assert "a number of every step of a sequence" in capsys.readouterr().out
    found = searched_and_reproduced(Path("runs.yaml"), SMALL, capsys)
    assert found["metric"] == "rmse"
    assert found["baselines"].keys() == {"training_mean", "linear"}
    assert found["test"]["mean"] is not None
    assert run(["report", "s"]) == 0
    assert "Residuals on the test set" in next(Path().glob("**/*.html")).read_text()
    assert run(["predict", "model", "runs.csv", "-o", "said.csv"]) == 0
    said = pd.read_csv("said.csv")
    assert list(said) == ["run", "row", "place"]
    assert said["run"].tolist() == [name for name, _, _ in rows]


@pytest.mark.slow
def test_a_future_class_task_runs_from_search_to_prediction(capsys):
    rng = np.random.default_rng(0)
    price = rng.normal(size=300).cumsum()
    frame = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=300), "price": price})
    frame["move"] = np.where(frame["price"].diff() > 0, "up", "down")
    frame.to_csv("days.csv", index=False)
    Path("days.yaml").write_text(
        "name: days\ndata: {path: days.csv, time: day, target: move}\n"
        "task: {kind: classify, window: 5}\nhyperparameters: {class_weights: balanced}\n"
        "search_space: {hidden_size: {type: int, low: 4, high: 8}, window: {type: int, low: 3, high: 9}}\n"
    )
    assert run(["check", "days.yaml"]) == 0
    assert "the class of the coming row from the 3 to 9 before" in capsys.readouterr().out
    found = searched_and_reproduced(Path("days.yaml"), SMALL, capsys)
    assert found["metric"] == "accuracy"
    assert found["baselines"].keys() == {"class_frequencies", "last_class", "linear"}
    assert run(["report", "s"]) == 0
    assert "Confusion matrix of the test set" in next(Path().glob("**/*.html")).read_text()
    assert run(["predict", "model", "days.csv", "-o", "said.csv"]) == 0
    said = pd.read_csv("said.csv")
    assert list(said) == ["day", "move", "p_down", "p_up"]
    assert said["day"].tolist() == ["2024-10-27"]


def test_a_text_to_text_task_runs_from_search_to_prediction(capsys):
    rng = np.random.default_rng(0)
    words = sorted({"".join(rng.choice(list("abcd"), rng.integers(2, 5))) for _ in range(200)})
    frame = pd.DataFrame({"word": words, "name": [w[::-1] + w[0].upper() for w in words]})
    frame.to_csv("words.csv", index=False)
    Path("words.yaml").write_text(
        "name: words\ndata: {path: words.csv, text: word, target: name}\ntask: {kind: translate}\n"
        "hyperparameters: {learning_rate: 0.01}\n"
        "search_space: {hidden_size: {type: int, low: 8, high: 16}, beam: {type: int, low: 2, high: 3}}\n"
    )
    assert run(["check", "words.yaml"]) == 0
    assert "a text of a text" in capsys.readouterr().out
    # The untuned default has no beam.
    options = [*SMALL, "--set", "finalists.baseline=false"]
    found = searched_and_reproduced(Path("words.yaml"), options, capsys)
    assert found["metric"] == "exact_match"
    assert found["baselines"].keys() == {"most_frequent", "copy"}
    assert found["test"]["mean"] is not None
    assert run(["report", "s"]) == 0
    assert run(["predict", "model", "words.csv", "-o", "said.csv"]) == 0
    said = pd.read_csv("said.csv", keep_default_na=False)
    assert list(said) == ["row", "name"]
    assert len(said) == len(words)
    assert json.loads(Path("model/pipeline.json").read_text())["beam"] in (2, 3)


def test_a_test_sequence_of_another_length_is_tested(capsys):
    text = "name: runs\ndata: {path: runs.csv, id: run, target: total}\ntask: {kind: regress}\n"
    Path("runs.yaml").write_text(
        text + "search_space: {cell: {type: categorical, choices: [rnn, lstm]}}\n"
    )
    rng = np.random.default_rng(1)
    frames = [pd.DataFrame({"run": i, "x": rng.normal(size=6)}) for i in range(60)]
    for frame in frames:
        frame["total"] = frame["x"].iloc[2]  # which all values tell, and no summary
    pd.concat(frames).to_csv("runs.csv", index=False)
    drawn = check_data(Experiment.load(Path("runs.yaml"))).draw.test[0]
    frames[drawn] = frames[drawn].iloc[[0, 1, 2, 3, 4, 5, 5]]
    pd.concat(frames).to_csv("runs.csv", index=False)
    assert run(["run", "runs.yaml", "--study", "s", *SMALL]) == 0
    test = result("s", capsys)["test"]
    assert test["mean"] is not None
    assert 0 < test["baselines"]["linear"] < test["baselines"]["training_mean"]


PATHS = """
name: shops
data:
  {path: shops.csv, id: shop, time: day, target: units, scale_by: series,
   split: {validation: 20, test: 14}}
task: {window: 12, horizon: 2, intervals: [0.5, 0.8]}
hyperparameters: {normalize: standard, linear_path: true, segment: 4, decoder: segments}
search_space: {hidden_size: {type: int, low: 2, high: 6}}
strategy: {name: random}
budget: {trials: 2, epochs: 3}
pruner: {name: none}
finalists: {top: 1, repeats: 2, baseline: false, refit: true}
"""


@pytest.mark.slow
def test_levels_segments_refit_ensemble_and_intervals_combine(capsys):
    rng, t = np.random.default_rng(0), np.arange(90)
    frames = [
        pd.DataFrame(
            {
                "shop": shop,
                "day": pd.date_range("2024-01-01", periods=90, freq="D"),
                "units": size * (20 + t / 9 + 3 * np.sin(t / 2) + rng.normal(0, 0.5, 90)),
            }
        )
        for shop, size in (("small", 1), ("large", 300))
    ]
    rows = pd.concat(frames)
    rows.to_csv("shops.csv", index=False)
    Path("shops.yaml").write_text(PATHS)
    options = ["--study", "s", "--workers", "1", "--no-tracking"]
    assert run(["run", "shops.yaml", *options]) == 0
    test = result("s", capsys)["test"]
    assert test["refit"]["mean"] is not None

    assert run(["export", "s", "-o", "best.yaml", "--model", "exported", "--ensemble"]) == 0
    assert run(["train", "best.yaml", "-o", "trained", "--ensemble"]) == 0
    assert capsys.readouterr().out.count("reproduced: ") == 2
    for name in ("exported", "trained"):
        assert run(["predict", name, "shops.csv", "--all", "-o", f"{name}.csv"]) == 0
        told = json.loads(Path(name, "pipeline.json").read_text())
        assert (told["models"], told["trained_on"]) == (2, "training and validation")
    for name in ("weights.safetensors", "model.onnx"):
        assert Path("exported", name).read_bytes() == Path("trained", name).read_bytes()
    assert Path("exported.csv").read_bytes() == Path("trained.csv").read_bytes()

    # What was recorded of the test set is what the model says of it.
    found = pd.read_csv("exported.csv", parse_dates=["day"]).merge(
        rows.rename(columns={"units": "truth"}), on=["shop", "day"]
    )
    begins = found["day"] - pd.to_timedelta(found["step"] - 1, unit="D")
    last = rows["day"].max()
    of_test = found[(begins > last - pd.Timedelta(days=14)) & (begins < last)]
    assert len(of_test) == 2 * 13 * 2
    off = of_test["units"] - of_test["truth"]
    assert test["refit"]["ensemble"] == pytest.approx(float(np.sqrt((off**2).mean())), rel=1e-4)
    for level, said in zip((0.5, 0.8), test["refit"]["ensemble_intervals"], strict=True):
        lower, upper = (of_test[f"units_{end}_{level:g}"] for end in ("lower", "upper"))
        assert said["coverage"] == pytest.approx(of_test["truth"].between(lower, upper).mean())
        assert said["width"] == pytest.approx((upper - lower).mean(), rel=1e-4)
