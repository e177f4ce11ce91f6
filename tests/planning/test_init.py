"""`tuner init` writes an experiment that the other commands accept, whatever the file is called."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tuner.cli.app import run
from tuner.data.profile import Profile
from tuner.experiment import Experiment
from tuner.planning.forecast import plan_forecast
from tuner.planning.proposal import sampled


def series(header, separator=","):
    rows = [f"{1900 + i}{separator}{i % 7 + 1}" for i in range(60)]
    return "\n".join([header, *rows]) + "\n"


pytestmark = pytest.mark.usefixtures("empty_folder")


def test_init_then_check_then_run_works_without_an_editor(capsys):
    Path("my data (1).csv").write_text(series('year,"net sales, €"'), encoding="utf-8")
    assert run(["init", "my data (1).csv"]) == 0
    printed = capsys.readouterr().out
    assert "wrote my data (1).yaml: forecasts net sales, € one row ahead" in printed
    assert "tuner check 'my data (1).yaml', then tuner run 'my data (1).yaml'" in printed
    assert run(["check", "my data (1).yaml"]) == 0
    assert "Next: tuner run 'my data (1).yaml'" in capsys.readouterr().out
    options = ["--trials", "2", "--set", "budget.epochs=2", "--set", "finalists.top=1"]
    options += ["--set", "finalists.repeats=1", "--workers", "1", "--no-tracking"]
    assert run(["run", "my data (1).yaml", *options]) == 0
    printed = capsys.readouterr().out
    assert "my data (1)-tpe-0: 2 trials trained" in printed
    assert "net sales, €, 9 rows" in printed


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("year,yes", "yes"),
        ("year,null", "null"),
        ("year,~", "~"),
        ("year,1e5", "1e5"),
        ("year,2020-01-01", "2020-01-01"),
        ('year,"a: b #c"', "a: b #c"),
        ('year,"[x]"', "[x]"),
        ('year,"[bold]x[/]"', "[bold]x[/]"),
        ('year,"quo""te\\"', 'quo"te\\'),
        ('year,"two\nlines"', "two\nlines"),
        ("year,be\x07ll", "be\x07ll"),
        ("year,line\u2028end", "line\u2028end"),
        ("year,売上", "売上"),
    ],
)
def test_any_name_of_a_column_can_be_the_target(header, target, capsys):
    Path("s.csv").write_text(series(header), encoding="utf-8")
    assert run(["init", "s.csv"]) == 0
    experiment = Experiment.load("s.yaml")
    assert experiment.data.targets == [target]
    assert experiment.data.time == "year"
    capsys.readouterr()
    assert run(["check", "s.yaml"]) == 0
    printed = capsys.readouterr().out
    assert " ".join(target.split()) in " ".join(printed.replace("\x07", "").split()) or (
        "\x07" in target
    )


@pytest.mark.parametrize(
    "name", ["[red].csv", ".csv", "日本.csv", "-x.csv", "a.b.csv", "null.csv", "2020.csv"]
)
def test_any_name_of_a_file_gives_an_experiment(name, tmp_path, capsys):
    Path(name).write_text(series("year,sales"))
    assert run(["init", "--", name]) == 0
    (written,) = [p for p in tmp_path.iterdir() if p.name != name]
    assert f"wrote {written.name}: " in capsys.readouterr().out
    assert Experiment.load(written).data.path == str(tmp_path / name)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_columns_that_no_comma_separates_are_read_and_it_is_said(separator, capsys):
    Path("s.csv").write_text(series(f"year{separator}sales", separator))
    assert run(["init", "s.csv"]) == 0
    assert f"read with separator: {json.dumps(separator)} (data.read)" in capsys.readouterr().out
    assert Experiment.load("s.yaml").data.read.separator == separator
    assert run(["check", "s.yaml"]) == 0


@pytest.fixture
def init(capsys):
    """Run `tuner init s.csv` on columns; return what it prints, or why it refuses."""

    def call(*options, **columns):
        if columns:
            pd.DataFrame(columns).to_csv("s.csv", index=False)
        before = Path("s.yaml").exists()
        status = run(["init", "s.csv", *options])
        printed = capsys.readouterr()
        assert status == (2 if printed.err else 0)
        assert Path("s.yaml").exists() == (before if printed.err else True)
        return printed.err.strip() or " ".join(printed.out.split())

    return call


def days(rows=60):
    return [str(d.date()) for d in pd.date_range("2020-01-01", periods=rows)]


def but(values, row, value):
    return [value if i == row else v for i, v in enumerate(values)]


NUMBERS = list(range(60))


def test_one_bad_time_does_not_hide_the_time_column(init):
    refused = init(date=but(days(), 4, "2023-99-99"), sales=NUMBERS)
    assert "data.time: column 'date' must hold a time in every row, got '2023-99-99'" in refused
    assert refused.endswith(
        "in line 6; write 1960-01-31, 1960-01 or 1960, say, or init with --no-time"
    )


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("n/a?", "must hold numbers, got 'n/a?' in line 6"),
        ("$1,200", "must hold numbers of one unit, got '$1,200' in line 6"),
        ("1,234", "holds numbers, and the file does not tell whether points or commas are decimal"),
    ],
)
def test_one_bad_cell_does_not_hide_a_column_of_numbers(init, bad, told):
    refused = init(date=days(), x=but(NUMBERS, 4, bad), n=NUMBERS)
    assert f"data.target: column 'x' {told}" in refused
    assert "choose other columns with --target" in refused
    if "unit" not in told:
        refused = init(date=days(), price=but(NUMBERS, 4, bad), sales=NUMBERS)
        assert f"data.features: column 'price' {told}" in refused
    assert "left out: x (" in init("--target", "n", date=days(), x=but(NUMBERS, 4, bad), n=NUMBERS)


def test_a_file_without_numbers_is_refused_with_a_cell(init):
    refused = init(date=days(), sales=["1x1"] * 60, store=["a"] * 60)
    assert "is no number in line 2, got '1x1'; write numbers there" in refused
    refused = init("--target", "sales", date=days(), sales=["1x1"] * 60, store=["a"] * 60)
    classes = "for classes name the column that tells sequences apart with --id, see"
    assert refused.endswith(f", or {classes} docs/tasks-and-data.md")
    refused = init("--target", "mood", mood=["good"] * 60, stars=NUMBERS)
    assert "got 'good' in line 2; choose another column, or " in refused
    assert "or for classes name the column that tells sequences apart with --id" in refused
    assert classes not in init("--target", "stars", stars=but(NUMBERS, 4, "x"))
    assert "no column of numbers to forecast, got date; add one" in init(date=days())


def test_what_is_left_out_is_told(init):
    printed = init(
        date=days(), until=days(), store=["a"] * 60, empty=[None] * 60, same=[1] * 60, x=NUMBERS
    )
    assert "left out: until (times), store (text), empty (nothing)" in printed
    assert "other columns: same; choose with --target" in printed
    assert "not read, as they do not help a linear forecast: same" in printed
    assert Experiment.load("s.yaml").data.features == ["x"]


def test_unix_times_are_times_and_no_feature(init):
    init(time=[1577836800 + 3600 * i for i in range(60)], sales=NUMBERS)
    data = Experiment.load("s.yaml").data
    assert (data.time, data.features) == ("time", ["sales"])


@pytest.mark.parametrize(
    "times",
    [
        but(days(), 30, "2020-01-30"),
        but(days(), 30, "2019-01-01"),
        but(days(), 30, "2020-01-31 00:00:07"),
    ],
    ids=["twice", "back", "jitter"],
)
def test_a_refused_time_column_can_be_left_out(init, times):
    refused = init(date=times, sales=NUMBERS)
    assert ": data.time: " in refused
    assert refused.endswith(
        (", or init with --no-time", "; init with --resample 1D, or with --no-time")
    )
    assert not re.search("data.time out|data.resample", refused)
    assert "left out: date (times)" in init("--no-time")
    assert Experiment.load("s.yaml").data.time is None


def test_uneven_times_can_be_brought_to_steps(init):
    times = but(days(), 30, "2020-01-31 00:00:07")
    assert "; init with --resample 1D, or with --no-time" in init(date=times, sales=NUMBERS)
    assert "next: tuner check" in init("--resample", "1D", date=times, sales=NUMBERS)
    data = Experiment.load("s.yaml").data
    assert (data.time, data.resample) == ("date", "1D")
    text = init("--resample", "often", "--force", date=times, sales=NUMBERS)
    assert "data.resample: must be a frequency that pandas knows, got 'often'; write" in text


def test_columns_can_be_chosen(init):
    init("--time", "b", "--features", 'x, "y"', a=days(), b=days(), x=NUMBERS, y=NUMBERS, z=NUMBERS)
    data = Experiment.load("s.yaml").data
    assert (data.time, data.targets, data.features) == ("b", ["y"], ["x", "y"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--time", "dat"], "data.time: no column 'dat' in the file; did you mean 'date'?"),
        (["--time", "store"], "data.time: column 'store' must hold a time in every row, got 'a'"),
        (["--target", ""], "data.target: no column '' in the file"),
        (["--features", "x"], "data.features: no column 'x' in the file"),
        (
            ["--features", "store"],
            "data.target: column 'store' must hold numbers, got 'a' in line 2",
        ),
        (["--features", ","], "--features: must name columns, got ','; write --features A,B"),
        (["--features", "sales,sales"], "--features: names must differ, got 'sales' twice"),
        (["--time", "sales", "--target", "sales"], "--target: must not name the time column"),
        (["--time", "date", "--no-time"], "--no-time: contradicts --time date; give one of them"),
        (["--resample", "1D", "--no-time"], "--no-time: contradicts --resample 1D; give one of"),
    ],
)
def test_columns_that_cannot_be_chosen_are_refused(init, options, text):
    assert text in init(*options, date=days(), store=["a"] * 60, sales=NUMBERS)


def test_a_flag_is_not_guessed_as_target_beside_a_number(init):
    flags = [i % 2 for i in NUMBERS]
    bools = [i % 2 == 0 for i in NUMBERS]
    printed = init(date=days(), a=NUMBERS, b=NUMBERS, holiday=flags, open=bools)
    assert "forecasts b one row ahead" in printed
    assert "other columns: a, holiday, open; choose with --target" in printed
    assert "forecasts OT one row" in init("--force", OT=NUMBERS, b=NUMBERS)
    printed = init("--force", date=days(), holiday=flags)
    assert "forecasts holiday one row" in printed
    assert "other columns" not in printed


def test_force_overwrites_a_file_but_never_the_data(init):
    init(date=days(), a=NUMBERS, b=NUMBERS)
    assert "exists already; give another name with -o, or add --force" in init("--target", "a")
    assert "forecasts a one" in init("--target", "a", "--force")
    assert "s.csv is the data file" in init("-o", "s.csv", "--force")
    assert ". is a folder" in init("-o", ".", "--force")


def test_an_experiment_is_no_data(capsys):
    Path("sales.yaml").write_text("name: sales\n")
    assert run(["init", "sales.yaml"]) == 2
    assert "sales.yaml: must be a CSV or Parquet file" in capsys.readouterr().err


def test_many_rows_of_text_are_judged_quickly_by_some_of_them(init):
    texts = [f"store {i}" for i in range(50_000)]
    printed = init(date=pd.date_range("1900", periods=50_000), t=texts, y=np.arange(50_000))
    assert "left out: t (text)" in printed


def test_several_series_are_told_apart_by_their_column(capsys):
    days = pd.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d")
    rows = [f"{store},{day},{i % 7}" for store in ("a", "b") for i, day in enumerate(days)]
    Path("stores.csv").write_text("\n".join(["store,day,units", *rows]) + "\n")
    assert run(["init", "stores.csv"]) == 0
    assert "id: store, times come again, and with it they do not" in capsys.readouterr().out
    assert "  id: store   " in Path("stores.yaml").read_text()
    Path("stores.yaml").unlink()
    assert run(["init", "stores.csv", "--id", "stores"]) == 2
    assert "did you mean 'store'" in capsys.readouterr().err
    assert run(["init", "stores.csv", "--id", "store"]) == 0
    experiment = Experiment.load("stores.yaml")
    assert (experiment.data.id, experiment.data.target) == ("store", "units")
    assert run(["check", "stores.yaml"]) == 0


def test_series_of_two_columns_are_refused_with_what_to_do(init):
    stores, items = ["a"] * 60 + ["b"] * 60, (["x"] * 30 + ["y"] * 30) * 2
    refused = init(store=stores, item=items, date=days(30) * 4, sales=NUMBERS * 2)
    assert "data.id: series are told apart by one column, got 'store' and 'item', which" in refused
    assert refused.endswith("together; write both into one column, and name that with --id")
    both = [f"{s} {i}" for s, i in zip(stores, items, strict=True)]
    assert "id: both" in init(both=both, date=days(30) * 4, sales=NUMBERS * 2)


def test_a_doubled_hour_is_no_second_series(init):
    refused = init(date=but(days(), 30, "2020-01-30"), weather=list("ab") * 30, sales=NUMBERS)
    assert "no time may appear twice, got 2020-01-30" in refused


def test_init_writes_filling_only_where_values_are_missing(capsys):
    days = pd.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d")
    rows = [f"{day},{i % 7}" for i, day in enumerate(days) if i != 20]
    Path("gaps.csv").write_text("\n".join(["day,units", *rows]) + "\n")
    assert run(["init", "gaps.csv"]) == 0
    assert "filled with the last known one (data.missing: ffill)" in capsys.readouterr().out
    assert Experiment.load("gaps.yaml").data.missing == "ffill"
    Path("whole.csv").write_text(series("year,units"))
    assert run(["init", "whole.csv"]) == 0
    assert "missing" not in capsys.readouterr().out
    assert Experiment.load("whole.yaml").data.missing == "refuse"


def test_a_file_in_a_folder_that_is_a_link_leads_to_the_data(tmp_path):
    Path("very/deep/folder").mkdir(parents=True)
    Path("link").symlink_to("very/deep/folder")
    Path("s.csv").write_text(series("year,y"))
    assert run(["init", "s.csv", "-o", "link/s.yaml"]) == 0
    assert Experiment.load("link/s.yaml").data.path == str(tmp_path / "s.csv")


MONTHS = [str(d.date())[:7] for d in pd.date_range("2000-01", periods=160, freq="MS")]
SEASON = np.sin(2 * np.pi * np.arange(160) / 12)


def growing():
    return np.exp(np.arange(160) / 60) * (10 + SEASON)


def test_a_growing_season_gets_a_logarithm_and_a_linear_path(init):
    printed = init(month=MONTHS, sales=growing())
    assert "forecasts sales one row ahead from the 25 before" in printed
    assert "found: a season of 12 rows, a level that wanders, a spread that grows" in printed
    experiment = Experiment.load("s.yaml")
    assert (experiment.data.transform, experiment.task.window) == ("log", 25)
    assert experiment.hyperparameters.linear_path
    assert experiment.hyperparameters.normalize == "last"
    assert experiment.search_space["window"].choices == [13, 25]
    assert experiment.task.intervals == [0.8]  # 32 rows are too few for more
    assert experiment.finalists.refit
    assert experiment.search_space["normalize"].choices == ["none", "last", "mean", "standard"]
    comments = [line for line in Path("s.yaml").read_text().splitlines() if "# " in line]
    assert any("the spread grows with the level" in line for line in comments)


def test_what_is_found_is_found_in_the_training_part_alone(init):
    init(month=MONTHS, sales=growing())
    written = Path("s.yaml").read_text()
    training = 160 - 32 - 24
    later = growing()
    later[training:] = np.random.default_rng(0).uniform(1, 2, 160 - training)
    init("--force", month=MONTHS, sales=later)
    assert Path("s.yaml").read_text() == written


def test_a_cycle_that_no_frequency_tells_is_written_down(init):
    cycle = np.sin(2 * np.pi * np.arange(160) / 9) + np.random.default_rng(0).normal(0, 0.2, 160)
    init(year=list(range(1800, 1960)), seen=cycle)
    task = Experiment.load("s.yaml").task
    assert (task.season, task.window) == (9, 19)
    assert "linear_path" in Experiment.load("s.yaml").search_space


def test_prices_keep_their_last_value(init):
    walk = 100 + np.random.default_rng(3).normal(size=400).cumsum()
    printed = init(date=days(400), close=walk)
    assert "steps like noise" in printed
    experiment = Experiment.load("s.yaml")
    assert experiment.hyperparameters.normalize == "last"
    assert "normalize" not in experiment.search_space


def test_a_long_season_is_read_in_segments(init):
    hours = pd.date_range("2024-01-01", periods=2400, freq="h").astype(str)
    wave = np.sin(2 * np.pi * np.arange(2400) / 24) + np.random.default_rng(0).normal(0, 0.1, 2400)
    init("--horizon", "48", time=hours, load=wave)
    experiment = Experiment.load("s.yaml")
    assert (experiment.task.window, experiment.task.horizon) == (96, 48)
    assert experiment.hyperparameters.segment == 24
    minutes = pd.date_range("2024-01-01", periods=9000, freq="min").astype(str)
    wave = np.sin(2 * np.pi * np.arange(9000) / 1440)
    init("--force", time=minutes, load=wave)
    experiment = Experiment.load("s.yaml")
    assert experiment.task.window == 240
    assert experiment.hyperparameters.segment == 12
    assert experiment.data.calendar == ["hour"]


def test_columns_are_read_where_they_help(init):
    rng = np.random.default_rng(0)
    leader, noise = rng.normal(size=200), rng.normal(size=200)
    sales = np.r_[0.0, leader[:-1]] + rng.normal(0, 0.1, 200)
    printed = init("--target", "sales", day=days(200), leader=leader, sales=sales)
    assert "not read" not in printed
    assert Experiment.load("s.yaml").data.features == ["leader", "sales"]
    printed = init("--force", "--target", "sales", day=days(200), noise=noise, sales=sales)
    assert "not read, as they do not help a linear forecast: noise; see --features" in printed
    assert Experiment.load("s.yaml").data.features == ["sales"]


def sequences(target, steps=6):
    """Return forty sequences of two columns and a target."""
    rows = [(i, s) for i in range(40) for s in range(steps)]
    return {
        "who": [i for i, _ in rows],
        "x": [float((i % 3) * s) for i, s in rows],
        "z": [float(s % 5) for _, s in rows],
        "y": [target(i, s) for i, s in rows],
    }


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (lambda i, s: "abc"[i % 3], "classify"),
        (lambda i, s: i % 3, "classify"),
        (lambda i, s: i * 1.5, "regress"),
        (lambda i, s: "ab"[s % 2], "label"),
        (lambda i, s: i * 0.5 + s, "forecast"),
    ],
    ids=["texts", "whole numbers", "numbers", "texts that change", "numbers that change"],
)
def test_the_target_of_an_id_tells_the_task(init, target, kind):
    printed = init(
        "--id", "who", "--target", "y", **sequences(target, 40 if kind == "forecast" else 6)
    )
    experiment = Experiment.load("s.yaml")
    assert experiment.task.kind == kind
    if kind != "forecast":
        assert experiment.data.features == ["x", "z"]
        assert "predicts y, the " in printed
        assert "found: 40 sequences of 6 steps" in printed
    assert run(["check", "s.yaml"]) == 0


def test_long_sequences_are_read_in_segments_but_labels_by_step(init):
    init("--id", "who", "--target", "y", **sequences(lambda i, s: "abc"[i % 3], 100))
    space = Experiment.load("s.yaml").search_space
    assert space["segment"].choices == [3, 6, 12]
    assert space["conv_channels"].choices == [0, 32]
    init("--force", "--id", "who", "--target", "y", **sequences(lambda i, s: "ab"[s % 2], 100))
    assert "segment" not in Experiment.load("s.yaml").search_space


@pytest.mark.parametrize(
    ("target", "begins"),
    [
        (lambda i, s: "abc"[i % 3], "begins as a logistic regression; the layers learn the rest"),
        (lambda i, s: i * 1.5, "begins as a ridge regression; the layers learn the rest"),
    ],
)
def test_sequences_of_one_length_begin_on_a_linear_path(init, target, begins):
    init("--id", "who", "--target", "y", **sequences(target))
    assert f"  linear_path: true                      # {begins}\n" in Path("s.yaml").read_text()
    experiment = Experiment.load("s.yaml")
    assert experiment.hyperparameters.linear_path
    assert experiment.start()["linear_path"]


def two_kinds(n, *, by_value):
    """Sequences of 20 noisy steps; the place of a bump, or the noise, tells the class."""
    rng, steps = np.random.default_rng(0), np.arange(20)
    rows = {"who": [], "x": [], "y": []}
    for i in range(n):
        bump = np.exp(-(((steps - 6 - 6 * (i % 2)) / 3) ** 2)) if by_value else 0.0
        noise = 0.3 if by_value else 0.3 + 0.3 * (i % 2)
        rows["who"] += [i] * 20
        rows["x"] += (bump + rng.normal(0, noise, 20)).round(4).tolist()
        rows["y"] += ["ab"[i % 2]] * 20
    return rows


@pytest.mark.parametrize("by_value", [True, False])
def test_a_linear_path_for_few_sequences_is_decided_in_training(init, by_value):
    init("--id", "who", "--target", "y", **two_kinds(60, by_value=by_value))
    experiment = Experiment.load("s.yaml")
    assert experiment.hyperparameters.linear_path
    searched = experiment.search_space.get("linear_path")
    assert (searched is None) == by_value


def test_many_sequences_choose_their_linear_path(init):
    init("--id", "who", "--target", "y", **two_kinds(500, by_value=True))
    assert Experiment.load("s.yaml").search_space["linear_path"].choices == [True, False]


@pytest.mark.parametrize("why", ["other lengths", "labels", "too many numbers"])
def test_other_sequences_get_no_linear_path(init, why):
    columns = sequences(lambda i, s: "abc"[(s if why == "labels" else i) % 3], 6)
    if why == "other lengths":
        columns = {name: values[:-1] for name, values in columns.items()}
    if why == "too many numbers":
        columns = sequences(lambda i, s: "abc"[i % 3], 1251)
    init("--id", "who", "--target", "y", **columns)
    assert "linear_path" not in Path("s.yaml").read_text()
    assert run(["check", "s.yaml"]) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ["--task", "clasify"],
            "--task: must be one of forecast, classify, label, regress, regress_steps, got",
        ),
        (["--task", "classify"], "--task: classify needs the column that tells sequences apart"),
        (
            ["--id", "who", "--target", "y", "--horizon", "3"],
            "--horizon: applies to forecasts only, got 3",
        ),
        (["--id", "who", "--target", "y", "--features", "y"], "no column of numbers beside"),
    ],
)
def test_what_no_sequence_can_have_is_refused(init, options, text):
    assert text in init(*options, **sequences(lambda i, s: i % 3))


@pytest.mark.parametrize("rows", [60, 144, 400])
def test_init_looks_at_the_rows_that_check_calls_training(rows, capsys):
    times = pd.date_range("2000-01-01", periods=rows, freq="D").strftime("%Y-%m-%d")
    lines = [f"{t},{i % 7 + 0.01 * i:g}" for i, t in enumerate(times)]
    Path("few.csv").write_text("\n".join(["day,sales", *lines]))
    assert run(["init", "few.csv"]) == 0
    told = re.search(r"The (\d+) training rows", Path("few.yaml").read_text())
    capsys.readouterr()
    assert run(["check", "few.yaml"]) == 0
    counted = re.search(r"training +(\d+) rows", capsys.readouterr().out)
    assert told
    assert counted
    assert told[1] == counted[1]


@pytest.mark.parametrize(
    ("names", "target", "why"),
    [
        (["sales", "temp"], "sales", "by its name"),
        (["daily_sales", "temp"], "daily_sales", "by its name"),
        (["DailyLoad", "temp"], "DailyLoad", "by its name"),
        (["日销量", "温度"], "日销量", "by its name"),
        (["负荷(MW)", "温度"], "负荷(MW)", "by its name"),
        (["Ventes nettes", "météo"], "Ventes nettes", "by its name"),
        (["Umsatz 2020", "Wetter"], "Umsatz 2020", "by its name"),
        (["Verkäufe", "Wetter"], "Verkäufe", "by its name"),
        (["price", "demand"], "demand", "by its name"),
        (["y", "sales"], "y", "by its name"),
        (["y_1", "x"], "x", "the last column of numbers"),
        (["sales_lag_1", "sales", "x"], "sales", "by its name"),
        (["last_price", "last"], "last", "by its name"),
        (["a", "b", "month"], "b", "the last column of numbers that is no flag, id, date or count"),
        (["a", "store_id"], "a", "the last column of numbers that is no flag, id, date or count"),
        (["salesman", "downloads"], "downloads", "the last column of numbers"),
        (["x"], "x", "the only column of numbers"),
    ],
)
def test_the_target_is_guessed_by_name_with_the_reason(init, names, target, why):
    rng = np.random.default_rng(0)
    printed = init(date=days(), **{name: rng.normal(size=60).round(3) for name in names})
    assert f"target: {target}, {why}; choose with --target" in printed
    assert Experiment.load("s.yaml").data.targets == [target]
    (line,) = [x for x in Path("s.yaml").read_text().splitlines() if x.startswith("  target:")]
    assert line.endswith(f"  # {why}")
    given = init("--force", "--target", target)
    assert "target:" not in given
    assert why not in Path("s.yaml").read_text()


def test_several_targets_can_be_chosen(init):
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=60).round(3) for name in ("a", "b", "a,b")}
    printed = init("--target", "b, a", date=days(), **columns)
    assert "forecasts b, a one row ahead" in printed
    assert Experiment.load("s.yaml").data.targets == ["b", "a"]
    assert run(["check", "s.yaml"]) == 0
    init("--target", "a,b", "--force")
    assert Experiment.load("s.yaml").data.targets == ["a,b"]
    assert "no column 'c' in the file" in init("--target", "a,c", "--force")


def test_long_lists_of_columns_are_shortened(init):
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(304)]
    printed = init(date=days(), **{name: rng.normal(size=60).round(3) for name in names})
    assert "other columns: c0, c1, c2, c3, c4, c5, c6, c7 and 295 more; choose" in printed
    assert "c0, c1, c2, c3, c4, c5, c6, c7 and 296 more." in Path("s.yaml").read_text()
    assert len(printed) < 1000


def test_columns_are_chosen_one_by_one(init):
    rng = np.random.default_rng(0)
    one, two, *noise = rng.normal(size=(8, 300))
    sales = np.r_[0.0, one[:-1]] + 0.5 * np.r_[0.0, two[:-1]] + rng.normal(0, 0.1, 300)
    columns = {f"n{i}": values for i, values in enumerate(noise)}
    printed = init(day=days(300), one=one, **columns, two=two, sales=sales)
    assert Experiment.load("s.yaml").data.features == ["one", "two", "sales"]
    assert "not read, as they do not help a linear forecast: n0, n1, n2, n3, n4, n5" in printed


def test_columns_that_help_together_alone_are_all_read(init):
    rng = np.random.default_rng(0)
    sums, noise = rng.normal(size=(2, 400))
    sales = np.r_[0.0, sums[:-1]] + rng.normal(0, 0.1, 400)
    init(day=days(400), a=8 * noise, b=sums - 8 * noise, sales=sales)
    assert Experiment.load("s.yaml").data.features == ["a", "b", "sales"]


@pytest.mark.parametrize("name", ["speaker", "class", "label", "Klasse", "标签"])
@pytest.mark.parametrize("classes", [["a", "b", "c"], [1, 2, 3]], ids=["texts", "numbers"])
def test_a_column_of_classes_with_an_id_is_what_is_predicted(init, name, classes):
    rows = sequences(lambda i, s: classes[i % 3])
    columns = {"id": rows["who"], name: rows["y"], "x": rows["x"], "value": rows["z"]}
    printed = init(**columns)
    assert f"predicts {name}, the class of a sequence" in printed
    assert f"target: {name}, by its name, a class of each id" in printed
    assert "id: id, by its name, and its rows stand together" in printed
    experiment = Experiment.load("s.yaml")
    assert (experiment.task.kind, experiment.data.id) == ("classify", "id")
    assert experiment.data.features == ["x", "value"]
    assert run(["check", "s.yaml"]) == 0


def test_a_panel_with_a_category_is_still_a_panel_of_sales(init):
    rng = np.random.default_rng(0)
    printed = init(
        store=np.repeat(["a", "b", "c"], 60),
        category=np.repeat(["x", "y", "y"], 60),
        date=days() * 3,
        sales=rng.normal(size=180).round(3),
    )
    assert "forecasts sales one row ahead" in printed
    assert Experiment.load("s.yaml").data.id == "store"


def test_a_column_that_is_called_id_is_suggested_before_a_text(init):
    printed = init(note=["a", "b"] * 30, id=np.repeat([1, 2, 3], 20), x=np.arange(60) % 7)
    assert "say which: --id id" in printed


def test_the_largest_series_does_not_decide_alone(init):
    rng = np.random.default_rng(0)
    store, date = np.repeat(["a", "b", "c"], 60), days() * 3
    units = rng.normal(size=(3, 60))
    init(store=store, date=date, units=(units * [[1], [2], [100]]).ravel())
    experiment = Experiment.load("s.yaml")
    assert (experiment.data.scale_by, experiment.objective.metric) == ("series", "mase")
    assert run(["check", "s.yaml"]) == 0
    init("--force", store=store, date=date, units=units.ravel())
    assert Experiment.load("s.yaml").objective.metric == "rmse"
    units[1] = 5.0  # a series that stands still has no steps to be measured by
    init("--force", store=store, date=date, units=(units * [[1], [2], [100]]).ravel())
    assert Experiment.load("s.yaml").objective.metric == "rmse"
    assert run(["check", "s.yaml"]) == 0


def test_of_a_large_file_the_first_rows_are_looked_at(init, monkeypatch):
    monkeypatch.setattr("tuner.planning.file.sampled", lambda path: sampled(path, most=20_000))
    rng = np.random.default_rng(0)
    values = rng.normal(size=2000).round(3)
    printed = init(date=days(2000), note=['two\nlines, "quoted"'] * 2000, sales=values)
    told = re.search(r"looked at the first ([\d.]+)% of the file, which is large", printed)
    assert told
    assert float(told[1]) == pytest.approx(100 * 20_000 / Path("s.csv").stat().st_size, abs=0.4)
    assert Experiment.load("s.yaml").data.path == str(Path("s.csv").resolve())
    assert Path("s.yaml").read_text().startswith("# The first ")
    assert run(["check", "s.yaml"]) == 0
    refused = init("--force", date=but(days(2000), 3, "?"), sales=values)
    assert refused.startswith("tuner: s.csv: data.time: column 'date' must hold a time in every")


@pytest.mark.parametrize("seconds", [35_000, 400_000])
@pytest.mark.parametrize("features", [1, 30])
@pytest.mark.parametrize("horizon", [1, 24])
def test_a_default_trial_is_planned_to_train_in_a_minute(seconds, features, horizon):
    profile = Profile(int(seconds * 0.65), 1, None, 0.0, False, False, False)
    plan = plan_forecast(
        profile, 86_400, rows=seconds, horizon=horizon, hourly=True, n_features=features
    )
    assert plan.seconds <= 61
    assert max(plan.windows) <= 240
    assert plan.epochs >= 2
    assert plan.warmup < plan.epochs
    if features == 1 and seconds == 35_000:
        assert plan.window.value == "240"  # it is not shortened without need
    if features == 30 and seconds == 400_000:
        assert "takes more than a minute a trial" in plan.window.why


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("decimal", "must be KEY=VALUE, got 'decimal'"),
        ("decimel=,", "no key 'decimel'; did you mean 'decimal'?"),
        ("decimal=x", "--read decimal: "),
        ("encoding=utf-99", "--read encoding: no such encoding, got 'utf-99'"),
        ("timezone=Berlin", "--read timezone: no such time zone, got 'Berlin'"),
    ],
)
def test_what_is_wrong_with_a_declared_key_is_told(option, told, capsys):
    Path("s.csv").write_text(series("year,sales"))
    assert run(["init", "s.csv", "--read", option]) == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert printed.count("\n") == 1


def test_what_init_was_told_of_a_file_is_in_the_experiment(capsys):
    rows = [f'{day},"1,{200 + i}"' for i, day in enumerate(days())]
    Path("s.csv").write_text("\n".join(["date,sales", *rows]))
    assert run(["init", "s.csv"]) == 2
    refused = capsys.readouterr().err
    command = re.search(r"init with (--read '[^']*')", refused)
    assert command
    assert run(["init", "s.csv", *shlex.split(command[1])]) == 0
    assert Experiment.load("s.yaml").data.read.decimal == ","
    assert run(["check", "s.yaml"]) == 0


def test_times_that_cannot_be_read_are_not_left_out_silently(init):
    shown = [f"{day[8:]}~{day[5:7]}~{day[:4]}" for day in days()]
    refused = init(date=shown, sales=NUMBERS)
    assert f"data.time: column 'date' seems to hold times, got '{shown[0]}' in line 2" in refused
    assert "wrote" in init("--read", "date_format=%d~%m~%Y", date=shown, sales=NUMBERS)
    assert "wrote" in init("--force", "--no-time", date=shown, sales=NUMBERS)


def test_columns_filled_after_the_target_become_known_ahead(capsys):
    n, to_come = 120, 5
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "day": pd.date_range("2024-01-01", periods=n),
            "visits": rng.uniform(5, 9, n),
            "price": rng.uniform(1, 2, n),
            "units": rng.uniform(20, 30, n),
        }
    )
    frame.loc[n - to_come :, ["units", "visits"]] = np.nan
    frame.to_csv("plan.csv", index=False)
    assert run(["init", "plan.csv", "--target", "units"]) == 0
    assert "known ahead: price in the 5 rows behind the last units" in capsys.readouterr().out
    experiment = Experiment.load("plan.yaml")
    assert experiment.data.known_future == ["price"]
    assert experiment.task.horizon == to_come
    assert {"units", "price"} <= set(experiment.data.features or [])
    assert run(["check", "plan.yaml"]) == 0
    assert "5 rows without target, which predict reads" in capsys.readouterr().out

    frame.iloc[: n - to_come].to_csv("past.csv", index=False)
    assert run(["init", "past.csv", "--target", "units"]) == 0
    assert "# known_future: [holiday]" in Path("past.yaml").read_text()
    assert Experiment.load("past.yaml").data.known_future is None
    frame.loc[n - to_come :, "price"] = np.nan  # a file that ends with empty rows
    frame.iloc[: n - to_come + 1].to_csv("late.csv", index=False)
    assert run(["init", "late.csv", "--target", "units"]) == 0
    assert Experiment.load("late.yaml").data.known_future is None


@pytest.mark.parametrize("shown", ["<{}", "~{}", "7:{}", "{}/3"])
def test_a_text_target_is_not_replaced_by_another_column(init, shown):
    sales = [shown.format(10 + v) for v in NUMBERS]
    refused = init(date=days(), sales=sales, temp=NUMBERS)
    assert "data.target: column 'sales' may be what is to be forecast" in refused
    assert f"is no number in line 2, got {sales[0]!r}; write numbers there" in refused
    assert "wrote" in init("--target", "temp", date=days(), sales=sales, temp=NUMBERS)


@pytest.mark.parametrize("value", ["-999", "[-999]", '["-999"]'])
def test_one_word_or_a_number_may_stand_for_a_list(init, value):
    sales = but([v + 5 for v in NUMBERS], 4, -999)
    assert "wrote" in init("--read", f"missing_values={value}", date=days(), sales=sales)
    assert Experiment.load("s.yaml").data.read.missing_values == ["-999"]
