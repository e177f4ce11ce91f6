"""tuner used from a program: a search, its tables, its report, its export."""

import json
import math
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from helpers.waves import EXPERIMENT, tuner, write_series

from tuner import InputError, Interrupted, load_study, search
from tuner.errors import ExperimentError, JournalError
from tuner.experiment import Experiment
from tuner.signals import stopped_by_signals

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("library")
    write_series(made)
    (made / "waves.yaml").write_text(EXPERIMENT)
    return made


@pytest.fixture(scope="module")
def study(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return search("waves.yaml", trials=6, workers=2, tracking=False, progress=False)


def test_the_library_and_the_command_search_alike(study, folder):
    shown = json.loads(tuner(folder, "show", study.name, "--json"))
    assert study.summary() == {k: v for k, v in shown.items() if k in study.summary()}
    again = tuner(folder, "run", "waves.yaml", "--trials", "6", "--no-tracking")
    assert "trial 0 complete" not in again  # it only prints


def test_the_package_lists_its_names_and_imports_lazily():
    program = """
import sys, tuner
slow = {"optuna", "pandas", "pydantic", "requests", "typer", "tuner.api", "tuner.client"}
assert not slow & sys.modules.keys()
assert set(tuner.__all__) < set(dir(tuner))
assert "tuner.api" not in sys.modules
from tuner import *
assert search is sys.modules["tuner.api"].search and tuner.Experiment is Experiment
assert tuner.__all__ == sorted([*tuner.api.__all__, "Client", "LSTMForecaster"])
tuner.sarch
"""
    ran = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True)
    assert ran.stderr.splitlines()[-1].startswith("AttributeError: module 'tuner' has no attri")


def test_the_trials_are_a_table(study):
    trials = study.trials
    assert isinstance(trials, pd.DataFrame)
    assert trials.index.name == "trial"
    assert list(trials.columns[:5]) == ["status", "score", "hidden_size", "dropout", "batch_size"]
    trained = trials[trials.repeat_of.isna()]
    assert len(trained) == 6
    complete = trained[trained.status == "complete"]
    assert complete.score.notna().all()
    assert study.best.search_score == complete.score[study.best.trial]
    assert (trained.epochs > 0).all()
    assert (trained.seconds > 0).all()


def test_the_best_configuration_says_what_speaks_for_it(study):
    best = study.best
    assert set(best.params) == {"hidden_size", "dropout", "batch_size"}
    assert best.params.items() <= best.hyperparameters.items()
    assert best.metric == "rmse"
    assert study.finalists.index[0] == best.trial
    scores = study.finalists.scores[best.trial]
    assert len(scores) == 2
    assert math.isclose(best.mean, sum(scores) / 2)
    assert study.verdict == study.summary()["verdict"]
    assert study.test["configuration"] == best.trial


def test_a_study_shows_itself_in_a_notebook(study):
    assert repr(study).startswith("Study('waves-woa-0': 6 trials trained, best trial ")
    shown = study._repr_html_()
    assert "waves-woa-0" in shown
    assert study.verdict in shown
    report = study.report()
    assert report.html.startswith("<!doctype html>")
    frame = report._repr_html_()
    assert frame.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert frame.count('"') == 4  # the page's own are escaped


def test_an_export_is_read_again_and_trains_to_the_same_score(study, folder, tmp_path):
    path = study.export(tmp_path / "best.yaml")
    assert Experiment.load(path).recorded.score == study.finalists.scores[study.best.trial][0]
    assert "reproduced" in tuner(tmp_path, "train", "best.yaml")
    as_json = study.export(tmp_path / "best.json")
    assert json.loads(as_json.read_text())["recorded"]["study"] == study.name


def test_nothing_but_an_earlier_export_or_report_is_written_over(study, tmp_path):
    (tmp_path / "sales.csv").write_text("y\n1\n")
    (tmp_path / "mine").write_text("a page, or an experiment, of mine")
    for write in (study.export, study.report().save):
        with pytest.raises(InputError, match=r"mine exists and is no .*, or remove it first"):
            write(tmp_path / "mine")
        with pytest.raises(InputError, match=r"path: must end in .*, got .*sales\.csv"):
            write(tmp_path / "sales.csv")
        with pytest.raises(InputError, match="existing folder"):
            write(tmp_path / "nodir" / "file")
        with pytest.raises(InputError, match="is a folder; give the name of a file in it"):
            write(tmp_path)
    assert (tmp_path / "sales.csv").read_text() == "y\n1\n"
    assert (tmp_path / "mine").read_text() == "a page, or an experiment, of mine"
    for _ in range(2):
        study.export(tmp_path / "best.yaml")
        study.report().save(tmp_path / "report.html")


def test_a_study_is_found_again_and_one_that_is_not_is_refused(study, folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = load_study(study.name)
    assert found.summary() == study.summary()
    pd.testing.assert_frame_equal(found.trials, study.trials)
    with pytest.raises(JournalError, match="did you mean 'waves-woa-0'"):
        load_study("waves-wao-0")


def test_the_same_call_resumes_and_may_run_in_a_thread(study, folder, monkeypatch):
    monkeypatch.chdir(folder)
    experiment = Experiment.load("waves.yaml").changed({"budget.trials": 8})
    found = []
    thread = threading.Thread(
        target=lambda: found.append(search(experiment, tracking=False, progress=False))
    )
    thread.start()
    thread.join(100)
    (longer,) = found
    assert longer.trials.repeat_of.isna().sum() == 8
    pd.testing.assert_frame_equal(longer.trials.iloc[: len(study.trials)], study.trials)


def test_progress_is_a_line_for_every_trial(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    search("waves.yaml", "random", trials=2, seed=5, study="shown", tracking=False, open_test=False)
    out = capfd.readouterr().out
    ended = re.findall(r"^\[(\d)/2\] trial (\d) ", out, re.M)
    assert [done for done, _ in ended] == ["1", "2"]
    assert {number for _, number in ended} == {"0", "1"}  # two at a time: either may be first


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"strategy": "pzo"}, "did you mean 'pso'"),
        ({"trials": 0}, "budget.trials"),
        ({"workers": 0}, "^workers: must be at least 1, got 0; write workers=1, or leave it out"),
        ({"executor": "locl"}, "did you mean 'local'"),
        ({"seed": -1}, "seed"),
        ({"study": "a/b"}, "must not hold '/'"),
        ({"study": "tuner.service"}, "tuner.service is the service's own"),
        ({"study": "x.finalists"}, "names that end in .finalists are reserved"),
        ({"journal": ""}, "must name a file"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_created(
    folder, tmp_path, monkeypatch, arguments, text
):
    experiment = Experiment.load(folder / "waves.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=text):
        search(experiment, progress=False, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_search_restores_the_programs_signals():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def stopped_at_once():
        with stopped_by_signals(process_ends=False) as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.is_set()
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        stopped_at_once()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_changed_experiment_is_checked():
    experiment = Experiment.load(ROOT / "experiments/air_passengers.yaml")
    changed = experiment.changed({"budget.epochs": 7, "strategy": {"name": "tpe", "batch": 2}})
    assert changed.budget.epochs == 7
    assert changed.strategy.batch == 2
    assert changed.changed({"budget.epochs": experiment.budget.epochs}).data == experiment.data
    with pytest.raises(ExperimentError, match=r"budget\.epochz"):
        experiment.changed({"budget.epochz": 7})
    with pytest.raises(ExperimentError, match=r"budget\.epochs: must be .* got 'x'"):
        experiment.changed({"budget.epochs": "x"})


@pytest.mark.slow
def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    block, *_ = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/library.md").read_text(), re.M | re.S
    )
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "search_spaces").symlink_to(ROOT / "search_spaces")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    names = {}
    exec(compile(block, "docs/library.md", "exec"), names)
    assert len(names["trials"]) >= 10
    assert Path("report.html").exists()
    assert Experiment.load("best.yaml").recorded is not None
