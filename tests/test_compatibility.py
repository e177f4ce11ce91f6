"""What an earlier commit wrote is still read, and its searches come out again.

`tests/fixtures/before/README.md` says which commit that was, and how its files were made. Only the
command line and the public API are used here.
"""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from tuner import load_study
from tuner.cli.app import run

BEFORE = Path(__file__).parent / "fixtures" / "before"
EXPERIMENTS = Path(__file__).parents[1] / "experiments"
STUDIES = sorted(path.name.partition(".")[0] for path in (BEFORE / "studies").iterdir())
EXPORTS = {  # of an exported file: its study, and options of `tuner export`
    "forecast.yaml": ["forecast-tpe-0"],
    "ensemble.yaml": ["forecast-tpe-0"],
    "folds.yaml": ["folds-pso-1"],
    "quantiles.yaml": ["front-nsga2-4", "--trial", "7"],
    "classes.yaml": ["classes-woa-2"],
    "classes.json": ["classes-woa-2"],
    "values.yaml": ["values-random-5"],
    "panel.yaml": ["panel-qmc-5"],
    "texts.yaml": ["texts-grid-6"],
    "labels.yaml": ["labels-cmaes-7"],
    "moves.yaml": ["moves-brute-8"],
    "own.yaml": ["own-gp-9"],
}
DATA = {  # of a model: what it predicts
    "forecast": "months", "ensemble": "months", "folds": "months", "quantiles": "months",
    "classes": "runs", "values": "runs", "panel": "shops", "texts": "words", "labels": "runs",
    "moves": "moves", "own": "months",
}  # fmt: skip
RUN = ["--workers", "1", "--no-tracking"]
PREDICTED = sorted(path.stem for path in (BEFORE / "predicted").iterdir())
ENGINES = [(name, "onnxruntime") for name in PREDICTED]
ENGINES += [(name, "numpy") for name in PREDICTED if name != "own"]  # whose graph numpy cannot run
STRATEGIES = "random,tpe,cmaes,gp,qmc,grid,brute,pso,qpso,woa,nsga2"
COMPARE = ["compare", "experiments/compared.yaml", *RUN, "--seeds", "2"]
COMPARE += ["--strategies", STRATEGIES]
ALONE = ["--set", "training.execution=single"]  # as trials were trained then, to the last digit

# Sentences, which may be worded anew, and what depends on the time of day or the machine's speed.
SENTENCES = {"verdict", "first_and_second", "opened", "from", "links"}
ROUNDING = (
    1e-3  # of scores that are trained again: other versions, and another CPU, round otherwise
)
OF_THE_RUN = {"id", "created", "opened_at", "seconds", "latency_ms", "finished_at"}


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked") / "before"
    shutil.copytree(BEFORE, folder)
    for packed in [*folder.glob("*/*.gz"), *folder.glob("*.gz")]:
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    return folder


@pytest.fixture
def before(unpacked, monkeypatch):
    """The fixtures, as the current folder, to be read."""
    monkeypatch.chdir(unpacked)
    return unpacked


@pytest.fixture
def copied(unpacked, tmp_path, monkeypatch):
    """A copy of them, as the current folder, to be written to."""
    folder = tmp_path / "copied"
    shutil.copytree(unpacked, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def tuner(run_well):
    return run_well


def facts(shown):
    """What `tuner show --json` prints, without its sentences."""
    assert set(shown) >= SENTENCES - {"links"}
    advice = [{key: each[key] for key in ("key", "blocks")} for each in shown["advice"]]
    return {k: v for k, v in shown.items() if k not in SENTENCES} | {"advice": advice}


def repeatable(value):
    """The same without times, and without the sentences on why a baseline is left out."""
    if isinstance(value, dict):
        of_any = {k: v for k, v in value.items() if k not in OF_THE_RUN}
        return {k: sorted(v or ()) if k == "left_out" else repeatable(v) for k, v in of_any.items()}
    return [repeatable(each) for each in value] if isinstance(value, list) else value


def kept(name):
    return json.loads((BEFORE / "shown" / f"{name}.json").read_text(encoding="utf-8"))


def read_yaml(text):
    return YAML(typ="safe").load(text)


def assert_same(found, wanted, rel, where=""):
    """Equal, but for the last digits of floating-point numbers; parameters are equal in all."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for key, each in wanted.items():
            exact = key in ("params", "hyperparameters", "seed")
            assert_same(found[key], each, 0.0 if exact else rel, f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for i, each in enumerate(wanted):
            assert_same(found[i], each, rel, f"{where}[{i}]")
    elif isinstance(wanted, float) and found is not None:
        assert found == pytest.approx(wanted, rel=rel, abs=1e-12 if rel else 0.0), where
    else:
        assert found == wanted, where


def assert_searched_again(tuner, study):
    """A study has the trials, finalists and test scores that it had."""
    found, wanted = facts(json.loads(tuner("show", study, "--json"))), facts(kept(study))
    assert_same(repeatable(found), repeatable(wanted), ROUNDING)


def allowed(name):
    return ["--allow-code"] if name == "own.yaml" else []


# What is read.


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("study", STUDIES)
def test_an_old_journal_shows_what_it_showed(study, tuner):
    assert facts(json.loads(tuner("show", study, "--json"))) == facts(kept(study))
    assert study in tuner("show", study)


@pytest.mark.usefixtures("before")
def test_an_old_sqlite_journal_shows_what_it_showed(tuner):
    journal = ["--journal", "sqlite:///studies.db"]
    shown = json.loads(tuner("show", "classes-qpso-2", "--json", *journal))
    assert facts(shown) == facts(kept("classes-qpso-2"))


@pytest.mark.usefixtures("before")
def test_an_old_interrupted_journal_shows_what_it_showed(tuner):
    journal = ["--journal", "interrupted/trials.journal"]
    shown = json.loads(tuner("show", "killed-woa-0", "--json", *journal))
    assert shown["state"] == "interrupted"
    assert facts(shown) == facts(kept("interrupted"))


@pytest.mark.usefixtures("before")
def test_old_journals_are_listed(tuner):
    listed = {each["study"]: each for each in json.loads(tuner("studies", "--json"))}
    assert sorted(listed) == STUDIES
    for study, each in listed.items():
        wanted = {k: v for k, v in kept(study).items() if k not in ("all_trials", "links")}
        assert facts(each) == facts(wanted)


@pytest.mark.usefixtures("before")
def test_a_test_part_that_was_opened_twice_is_known_to_be(tuner):
    shown = json.loads(tuner("show", "values-random-5", "--json"))
    assert [each["after_trials"] for each in shown["openings"]] == [4, 9]
    assert [each["configuration"] for each in shown["openings"]] == [1, 6]
    assert shown["test"]["unseen"] is False


@pytest.mark.usefixtures("before")
def test_the_library_reads_an_old_journal():
    wanted = kept("forecast-tpe-0")
    study = load_study("forecast-tpe-0")
    summary = study.summary()
    assert summary.keys() >= {"best", "finalists", "test", "baselines", "trials"}
    assert facts(summary) == facts({key: wanted[key] for key in summary})
    assert (study.best.trial, study.best.mean) == (6, wanted["best"]["mean"])
    assert study.best.params == wanted["best"]["params"]
    assert study.test is not None
    assert study.test["scores"] == wanted["test"]["scores"]
    scores = [each["value"] for each in wanted["all_trials"]]
    np.testing.assert_array_equal(study.trials["score"].to_numpy(float), np.array(scores, float))
    assert len(study.finalists) == len(wanted["finalists"])


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("study", ["forecast-tpe-0", "front-nsga2-4"])
def test_an_old_journal_is_reported(study, tmp_path, tuner):
    tuner("report", study, "-o", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert study in page
    assert f"{kept(study)['best']['mean']:.4g}" in page
    assert "<svg" in page or "<img" in page


@pytest.mark.parametrize("name", EXPORTS)
def test_an_old_journal_is_exported_as_it_was(name, before, tmp_path, tuner):
    old = read_yaml((before / "exported" / name).read_text())
    tuner("export", *EXPORTS[name], "--data", old["data"]["path"], "-o", str(tmp_path / name))
    assert read_yaml((tmp_path / name).read_text()) == old


@pytest.mark.usefixtures("copied")
@pytest.mark.parametrize(
    "name", [n if n != "own.yaml" else pytest.param(n, marks=pytest.mark.slow) for n in EXPORTS]
)
def test_an_old_export_is_checked(name, tuner):
    assert tuner("check", f"exported/{name}", *allowed(name))


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_an_old_model_predicts_what_it_predicted(name, engine, before, tmp_path, tuner):
    model, _, every = name.partition("-")
    options = ["--all"] * bool(every) + ["--numpy"] * (engine == "numpy")
    new_file = tmp_path / "new.csv"
    data = f"experiments/{DATA[model]}.csv"
    tuner("predict", f"models/{model}", data, "-o", str(new_file), *options)
    old = pd.read_csv(before / "predicted" / f"{name}.csv", keep_default_na=False)
    new = pd.read_csv(new_file, keep_default_na=False)
    pd.testing.assert_frame_equal(new, old, rtol=1e-5, atol=1e-5)


def test_an_old_comparison_is_written_without_searching(copied, tuner):
    journal = copied / "compared/searches.journal"
    n_trained = journal.read_bytes().count(b'"outcome"')
    tuner(*COMPARE, "--journal", "compared/searches.journal", "-o", "new")
    for name in ("scores.csv", "curves.csv"):
        old, new = (pd.read_csv(copied / folder / name) for folder in ("compared", "new"))
        pd.testing.assert_frame_equal(new, old, check_exact=True)
    assert journal.read_bytes().count(b'"outcome"') == n_trained == 22 * 6


# What is trained.


@pytest.mark.parametrize("killed", ["finalists", pytest.param("trials", marks=pytest.mark.slow)])
def test_an_old_killed_search_ends_like_an_undisturbed_one(killed, copied, tuner):
    journal = copied / "studies/killed-woa-0.journal"
    shutil.copy(copied / "interrupted" / f"{killed}.journal", journal)
    tuner("run", "experiments/killed.yaml", *RUN)
    assert_searched_again(tuner, "killed-woa-0")


@pytest.mark.usefixtures("copied")
@pytest.mark.parametrize(
    "name", ["air_passengers", pytest.param("sunspots", marks=pytest.mark.slow)]
)
def test_a_demo_has_the_trials_and_scores_that_it_had(name, tuner):
    short = {
        "budget.epochs": 3, "finalists.top": 1, "finalists.repeats": 2,
        "pruner.n_startup_trials": 4, "pruner.n_warmup_steps": 1,
    }  # fmt: skip
    changed = [word for key, value in short.items() for word in ("--set", f"{key}={value}")]
    study = ["--study", f"demo-{name}", "--trials", "30"]
    tuner("run", str(EXPERIMENTS / f"{name}.yaml"), *RUN, *ALONE, *study, *changed)
    assert_searched_again(tuner, f"demo-{name}")


@pytest.mark.slow
@pytest.mark.parametrize("study", [s for s in STUDIES if s != "asynchronous"])
def test_an_old_search_comes_out_again(study, copied, tuner):
    (copied / "studies" / f"{study}.journal").unlink()
    name, options = study.partition("-")[0], [*RUN, *ALONE, "--allow-code"]
    if study == "warm":
        name = "forecast"
        options += ["--study", "warm", "--strategy", "random", "--from", "forecast-tpe-0"]
        options += ["--trials", "12"]
    tuner("run", f"experiments/{name}.yaml", *options)
    if name == "values":
        tuner("run", f"experiments/{name}.yaml", *options, "--trials", "9", "--reopen-test")
    assert_searched_again(tuner, study)


@pytest.mark.slow
@pytest.mark.usefixtures("copied")
def test_every_strategy_asks_for_the_trials_that_it_asked_for(tuner):
    tuner(*COMPARE, *ALONE, "--journal", "new.journal", "-o", "new")
    for strategy in STRATEGIES.split(","):
        for seed in range(2):
            show = ["show", f"compared-{strategy}-{seed}", "--json", "--journal"]
            old, new = (
                json.loads(tuner(*show, journal))["all_trials"]
                for journal in ("compared/searches.journal", "new.journal")
            )
            assert_same(repeatable(new), repeatable(old), ROUNDING, f"{strategy} {seed}")


@pytest.mark.slow
@pytest.mark.usefixtures("copied")
@pytest.mark.parametrize("name", EXPORTS)
def test_an_old_export_trains_nearly_to_its_score(name, capsys):
    capsys.readouterr()
    status = run(["train", f"exported/{name}", *allowed(name)])
    printed = capsys.readouterr().out
    if not status:
        assert printed.startswith("reproduced: ")
        return
    kept, _, trained = printed.removeprefix("not reproduced: ").partition(", got ")
    scores, _, why = trained.partition(": ")
    assert float(scores) == pytest.approx(float(kept), rel=ROUNDING)
    assert "tuner is " in why
