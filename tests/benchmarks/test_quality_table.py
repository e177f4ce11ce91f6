"""The table of forecasts: what is asked of tuner, what is read, what is said of it."""

import calendar
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tuner.data.prepared import check_data
from tuner.experiment import Experiment

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def imported(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name):
        return importlib.import_module(name)

    yield load
    for name in ("quality", "real_series", "competitors"):
        sys.modules.pop(name, None)


@pytest.fixture
def quality(imported):
    return imported("quality")


@pytest.fixture
def real_series(imported):
    return imported("real_series")


def packages(folder):
    """Lay files out as the packages do, with a few rows each."""

    def file(name, text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    file("statsmodels/datasets/co2/co2.csv", "date,co2\n19580329,316\n19580405,\n19580412,318\n")
    months = ",".join(f'"{month.upper()}"' for month in calendar.month_abbr[1:])
    years = [",".join(map(str, [1950 + k, *range(12 * k, 12 * k + 12)])) for k in range(2)]
    file("statsmodels/datasets/elnino/elnino.csv", "\n".join([f'"YEAR",{months}', *years]))
    file(
        "statsmodels/datasets/macrodata/macrodata.csv",
        "year,quarter,realgdp,unemp\n1959,1,2710.3,5.8\n1959,4,2785.2,5.6\n",
    )
    file("sktime/datasets/data/seatbelts/seatbelts.csv", ",KSI,label\n1969-01-01,1687,0\n")
    file(
        "vega_datasets/_data/stocks.csv",
        "symbol,date,price\nMSFT,Jan 1 2000,39.81\nAAPL,Dec 1 2009,200.5\n",
    )
    for part, case in (("TRAIN", "1,2:3,4:b"), ("TEST", "5,6,7:8,9,10:a")):
        text = f"# said of it\n@classLabel true a b\n@data\n{case}\n"
        file(f"sktime/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts", text)
    return folder


def test_files_of_packages_become_plain_series(real_series, tmp_path):
    sources = real_series.Sources(packages(tmp_path / "site"))
    names = ["co2", "elnino", "gdp", "seatbelts", "stocks"]
    facts = real_series.write_sets(tmp_path / "data", names, sources)
    rows = {name: pd.read_csv(tmp_path / "data" / f"{name}.csv").values.tolist() for name in names}
    assert rows["co2"] == [["1958-03", 316.0], ["1958-04", 318.0]]
    assert rows["elnino"][0] == ["1950-01", 0]
    assert rows["elnino"][23] == ["1951-12", 23]
    assert rows["gdp"] == [["1959-01", 2710.3], ["1959-10", 2785.2]]
    assert rows["seatbelts"] == [["1969-01", 1687]]
    assert rows["stocks"] == [["MSFT", "2000-01", 39.81], ["AAPL", "2009-12", 200.5]]
    assert json.loads((tmp_path / "data" / "sets.json").read_text()) == facts
    assert facts["elnino"]["test_rows"] == 4  # 15 % of 24, and a half goes up


def test_a_file_of_sequences_becomes_rows_with_an_id(real_series, tmp_path):
    read = real_series._sequences("JapaneseVowels", "speaker", ["c1", "c2"])
    frame = read(real_series.Sources(packages(tmp_path)))
    assert frame["sequence"].tolist() == [0, 0, 1, 1, 1]
    assert frame["c2"].tolist() == [3, 4, 8, 9, 10]
    assert frame["speaker"].tolist() == ["b", "b", "a", "a", "a"]


def test_a_set_whose_file_is_not_here_is_left_out(
    quality, real_series, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(real_series.importlib.util, "find_spec", lambda name: None)
    written = quality.write_all(tmp_path, ["nile", "sunspots", "etth1_ot"], real_series.Sources())
    assert written == ["sunspots"]
    said = capsys.readouterr().err
    assert "nile is left out: no statsmodels/datasets/nile/nile.csv here" in said
    assert "etth1_ot is left out: no ETTh1.csv here; say where it is with --etth1" in said


@pytest.mark.parametrize(("n_rows", "horizon"), [(90, 1), (110, 6), (130, 7)])
def test_others_score_the_windows_that_we_score(real_series, tmp_path, n_rows, horizon):
    wanted = real_series.RealSet("about", pd.DataFrame, "y", horizon=horizon)
    frame = pd.DataFrame({"y": np.arange(n_rows, dtype=float)})
    frame.to_csv(tmp_path / "y.csv", index=False)
    raw = {
        "name": "y",
        "data": {"path": str(tmp_path / "y.csv"), "target": "y"},
        "task": {"window": 5, "horizon": horizon},
    }
    parts = {
        part.name: part.count for part in check_data(Experiment.model_validate(raw)).facts.parts
    }
    facts = wanted.facts("y", frame)
    assert (facts["validation_rows"], facts["test_rows"]) == (parts["validation"], parts["test"])
    assert facts["test_windows"] == facts["test_rows"] - horizon + 1


def test_sets_with_rows_of_their_own_tell_them_to_the_search(quality):
    of = quality.SETS["etth1_hufl"]
    assert quality.init_arguments(of) == ["--target", "HUFL", "--horizon", "24"]
    said = quality.settings(of)
    assert said[1::2] == [
        "task.intervals=[0.8]",
        "data.split.validation=2880",
        "data.split.test=2880",
    ]
    vowels = quality.SETS["japanese_vowels"]
    assert quality.settings(vowels) == []
    assert quality.init_arguments(vowels)[2:] == ["--id", "sequence", "--task", "classify"]


def shown(mean, plain, **others):
    """Return what `tuner show --json` says, as far as it is read."""
    test = {
        "metric": "rmse",
        "rows": 22,
        "mean": mean,
        "scores": [mean],
        "baselines": plain,
        "default": {"mean": 2 * mean},
    }
    return {
        "study": "s",
        "trials": {"trained": 30},
        "test": test | others,
        "best": {"mean": 1.0, "hyperparameters": {"hidden_size": 8}},
        "verdict": "the search paid",
    }


def test_scores_are_those_of_refitted_models_if_any(quality):
    refit = {
        "mean": 15.0,
        "scores": [15.0],
        "ensemble": 14.0,
        "baselines": {"linear": 16.0},
        "default": {"mean": 18.0},
        "intervals": [{"level": 0.8, "coverage": 0.77}, {"level": 0.95, "coverage": 0.9}],
    }
    result = quality.result_of(shown(20.0, {"linear": 17.0}, refit=refit))
    assert (result["single"], result["ensemble"], result["default"]) == (15.0, 14.0, 18.0)
    assert result["baselines"] == {"linear": 16.0}
    assert result["coverage"] == 0.77
    assert result["without_refit"]["mean"] == 20.0
    failed = quality.result_of(shown(20.0, {"linear": 17.0}, refit={"failed": "why"}))
    assert (failed["single"], failed["coverage"]) == (20.0, None)


@pytest.fixture
def rows(quality):
    results = {
        "air_passengers_init": [(15.0, 15.6), (17.0, 15.6), (16.5, 15.6)],
        "co2": [(0.29, 0.3), (0.28, 0.3)],
    }
    kept = {}
    for name, of_seeds in results.items():
        for seed, (mean, linear) in enumerate(of_seeds):
            plain = {"last_value": 50.0, "linear": linear}
            intervals = [{"level": 0.8, "coverage": 0.7 if name == "co2" else 0.8}]
            result = quality.result_of(shown(mean, plain, intervals=intervals))
            kept[quality.key_of(name, seed, 30)] = result
    competitors = {
        str(k): {"set": "air_passengers", "seed": k, "rmse": rmse, "windows": 22}
        for k, rmse in enumerate([24.0, 29.0, 26.0])
    }
    return quality.rows_of(["air_passengers_init", "co2", "gdp"], kept, competitors, 3, 30)


def test_the_table_shows_medians_beside_the_best_baseline(quality, rows):
    lines = quality.table(rows).splitlines()
    assert len(lines) == 4  # nothing is known of gdp
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert cells[0][3] == "16.5"
    assert cells[0][5:9] == ["33", "15.6 linear", "26", "1.06"]
    assert cells[1][3] == "0.285 (2)"  # two seeds only, and no competitor
    assert cells[1][7:] == ["-", "0.95", "0.7"]
    assert "| co2 | rmse | 50 | 0.3 |" in quality.plain_table(rows)


def test_the_summary_counts_wins_and_names_what_misses(quality, rows):
    said = quality.summary(rows)
    assert (
        "single: better than every baseline on 1 of 2 series; at worst 1.058 times the best "
        "one (air_passengers_init)." in said
    )
    assert "single: better than AutoLSTM on 1 of 1 series." in said
    assert said[-1].endswith("on 1 of 2 series; not co2 (0.70).")


def test_what_is_kept_is_not_searched_again(quality, tmp_path, monkeypatch, capsys):
    asked = []

    def fake(folder, *arguments):
        asked.append(arguments)
        return json.dumps(shown(15.0, {"linear": 16.0})) if arguments[0] == "show" else ""

    monkeypatch.setattr(quality, "tuner", fake)
    file = tmp_path / "kept.json"
    options = ["--series", "air_passengers,sunspots_init", "--seeds", "2", "--trials", "4"]
    monkeypatch.setattr(sys, "argv", ["quality.py", *options, "--json", str(file)])
    quality.main()
    first = capsys.readouterr().out
    # The fake init writes nothing, so it is asked before each run.
    shipped, by_init = ["run", "show"], ["init", "run", "show"]
    assert [a[0] for a in asked] == [*shipped, *by_init, *shipped, *by_init]
    assert "--trials" not in asked[0]
    assert asked[0][1].endswith("air_passengers.yaml")
    assert asked[3][asked[3].index("--trials") + 1] == "4"
    assert len(json.loads(file.read_text())) == 4
    asked.clear()
    quality.main()
    assert not asked
    assert capsys.readouterr().out == first
