"""The experiments, search spaces and data sets that come with the repository."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tuner.experiment import Experiment, Hyperparameters

ROOT = Path(__file__).parents[1]
DATA = ROOT / "experiments/data"
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
TABLES = sorted(p for p in DATA.iterdir() if p.suffix in (".csv", ".parquet"))
MADE = ["dates.csv", "digits.parquet", "names.csv", "waves.csv"]
GIVEN_BY_THE_USER = ["ETTh1.csv"]


def name_of(path):
    return path.name


def read(path):
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def with_space(space, folder):
    file = folder / "experiment.yaml"
    file.write_text(f"name: test\ndata: {{path: a.csv, target: y}}\nsearch_space: {space}\n")
    return Experiment.load(file)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with the files that make.py writes."""
    folder = tmp_path_factory.mktemp("made")
    subprocess.run([sys.executable, DATA / "make.py", "--out", folder], check=True)
    return folder


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_an_experiment_loads_and_is_named_after_its_file(path):
    experiment = Experiment.load(path)
    assert experiment.name == path.stem
    assert experiment.start(), "the search starts somewhere"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_the_columns_of_an_experiment_are_in_its_data(path):
    data = Experiment.load(path).data
    if Path(data.path).name in GIVEN_BY_THE_USER:
        pytest.skip("the user brings the file")
    named = [*data.targets, *(data.features or []), data.time, data.id, data.text]
    assert {c for c in named if c} <= set(read(Path(data.path)).columns)


@pytest.mark.parametrize("path", SPACES, ids=name_of)
def test_a_space_loads_and_gives_a_configuration(path, tmp_path):
    experiment = with_space(path, tmp_path)
    ends = {name: domain.bounds()[0] for name, domain in experiment.search_space.items()}
    assert Hyperparameters(**experiment.configuration(ends))
    assert path.read_text().startswith("# ")


def test_the_test_set_of_air_passengers_is_its_last_22_months():
    file = ROOT / "experiments/air_passengers.yaml"
    experiment = Experiment.load(file)
    assert (experiment.task.window, experiment.task.horizon) == (25, 1)
    command = [sys.executable, "-m", "tuner", "check", str(file)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.search(r"test +22 rows +1959-03-01 to 1960-12-01", shown)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("lstm", "hidden_size num_layers dropout batch_size"),
        ("stacked", "hidden_size_1 hidden_size_2 dropout batch_size"),
        ("forecast", "normalize hidden_size dropout learning_rate batch_size"),
    ],
)
def test_a_space_holds_the_usual_parameters(name, parameters, tmp_path):
    experiment = with_space(ROOT / f"search_spaces/{name}.yaml", tmp_path)
    assert set(experiment.search_space) == set(parameters.split())
    if name == "stacked":
        widths = {"hidden_size_1": 16, "hidden_size_2": 8}
        assert Hyperparameters(**experiment.configuration(widths)).widths == [16, 8]


def test_the_panel_has_every_month_of_every_sector():
    jobs = read(DATA / "us_jobs.csv")
    months = pd.date_range("2006-01", "2015-12", freq="MS").strftime("%Y-%m")
    table = jobs.pivot_table("jobs", "month", "sector")
    assert list(table.index) == list(months)
    assert table.shape == (120, 15)
    assert table.notna().all().all()
    assert table.iloc[0].max() / table.iloc[0].min() == pytest.approx(40, rel=0.05)
    assert Experiment.load(ROOT / "experiments/us_jobs.yaml").data.scale_by == "series"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_a_pruner_can_act_within_the_budget_of_an_experiment(path):
    experiment = Experiment.load(path)
    assert experiment.pruner.n_startup_trials < experiment.budget.trials
    assert experiment.pruner.n_warmup_steps < experiment.budget.epochs


@pytest.mark.parametrize("name", MADE)
def test_the_script_makes_the_same_data(name, made):
    ours, anew = DATA / name, made / name
    if ours.suffix == ".csv":
        assert anew.read_bytes() == ours.read_bytes()
    else:  # the bytes depend on the library's version
        pd.testing.assert_frame_equal(read(anew), read(ours))


def test_the_script_makes_what_is_listed_here(made):
    assert sorted(p.name for p in made.iterdir()) == MADE


def test_every_digit_has_eight_rows_and_one_label():
    images = read(DATA / "digits.parquet").groupby("image", sort=False)
    assert set(images.size()) == {8}
    assert set(images["digit"].nunique()) == {1}
    assert len(images) == 1797


def test_a_name_stands_once():
    names = read(DATA / "names.csv")
    assert names["name"].is_unique
    assert set(names["language"].value_counts()) == {400}


def test_waves_have_different_lengths():
    lengths = read(DATA / "waves.csv").groupby("sequence").size()
    assert len(lengths) == 200
    assert lengths.min() >= 40
    assert lengths.max() <= 80
    assert lengths.nunique() > 20


@pytest.mark.parametrize("path", TABLES, ids=name_of)
def test_a_data_file_is_small_and_described(path):
    assert path.stat().st_size < 300_000
    assert f"`{path.name}`" in (DATA / "README.md").read_text()
