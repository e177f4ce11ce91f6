"""`tuner export` and `tuner train` on what a real search left behind."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from tuner.cli.app import app
from tuner.cli.models import print_reproduced
from tuner.data.prepared import prepare
from tuner.experiment import Experiment, Recorded
from tuner.jobs import Outcome, OutcomeState
from tuner.journal import records
from tuner.journal.records import Status
from tuner.prediction import load_model
from tuner.progress.display import number
from tuner.results import retraining as reproduce
from tuner.results.retraining import Training
from tuner.studies import read

STUDY = "air-random-0"


@pytest.fixture
def here(here, monkeypatch):
    """The study's data is the copy's."""
    moved = {"path": str(here / "air.csv")}
    change_record(monkeypatch, lambda r: dataclasses.replace(r, data=dict(r.data) | moved))
    return here


def change_record(monkeypatch, change):
    """Let `tuner export` find another record than the journal's."""
    before = records.read_study
    monkeypatch.setattr(records, "read_study", lambda *args: change(before(*args)))


@pytest.fixture
def tuner(here, run_command):
    """Runs a command; returns its status and what it printed on stdout and stderr."""
    return run_command


@pytest.fixture
def untrained(monkeypatch):
    """Nothing may be trained."""

    def train(*args):
        raise AssertionError("something was trained")

    monkeypatch.setattr(reproduce, "run_jobs", train)


def recorded_of(file):
    recorded = Experiment.load(file).recorded
    assert recorded is not None
    return recorded


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# Export


def test_an_export_with_a_model_confirms_its_score(here, tuner):
    status, out, err = tuner("export", STUDY, "-o", "best.yaml", "--model", "my model")
    score = recorded_of("best.yaml").score
    wrote = "wrote best.yaml; next: tuner train best.yaml"
    assert (status, err) == (0, "")
    epochs = recorded_of("best.yaml").refit_epochs
    model = "wrote my model: trained again on training and validation set together, 122 rows, for "
    unit = "epoch" if epochs == 1 else "epochs"
    assert out.splitlines() == [wrote, f"reproduced: {number(score)}", f"{model}{epochs} {unit}"]
    assert (here / "my model/weights.safetensors").exists()
    assert (here / "my model/pipeline.json").exists()
    written = Experiment.load(here / "my model/experiment.yaml")
    assert written.hyperparameters == Experiment.load("best.yaml").hyperparameters


def test_a_score_of_a_group_comes_out_again_to_a_thousandth(here, tuner, monkeypatch):
    tuner("export", STUDY, "-o", "best.json")
    whole = json.loads((here / "best.json").read_text())
    whole["recorded"]["batched"] = True
    (here / "best.json").write_text(json.dumps(whole))
    recorded = whole["recorded"]

    def train(factor):
        outcome = Outcome(
            OutcomeState.COMPLETE, objective=recorded["score"] * factor, device=recorded["device"]
        )
        monkeypatch.setattr(reproduce, "run_jobs", lambda *args: [outcome])
        return tuner("train", "best.json")

    for factor in (1.0, 1.0009, 0.9991):
        status, out, _ = train(factor)
        assert (status, out[:11]) == (0, "reproduced:")
    status, out, _ = train(1.0011)
    assert status == 1
    assert out.endswith(
        ": data, versions and device are the same, but it was trained in a group, which rounds "
        "otherwise: at a large learning rate, the scores part\n"
    )


def test_a_score_that_does_not_come_out_again_leaves_no_model(here, tuner, monkeypatch):
    recorded = json.loads(tuner("export", STUDY, "--format", "json")[1])["recorded"]
    score = math.nextafter(recorded["score"], 0)  # it differs in the last digit
    outcome = Outcome(OutcomeState.COMPLETE, objective=score, device=recorded["device"])
    monkeypatch.setattr(reproduce, "run_jobs", lambda *args: [outcome])
    status, out, err = tuner("export", STUDY, "-o", "best.yaml", "--model", "model")
    wrote, what, then = out.splitlines()
    assert (status, err) == (1, "")
    assert wrote.startswith("wrote best.yaml")
    why = "data, versions and device are the same: was the file edited?"
    assert what == f"not reproduced: {recorded['score']}, got {score}: {why}"
    assert then == "no model is written; `tuner train best.yaml -o DIR` does it"
    assert not (here / "model").exists()


EXPORT = ["export", STUDY]
TRAIN = ["train", "best.yaml"]


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("command", "arguments", "text"),
    [
        (EXPORT, ["--all-data"], "--all-data: is for the trained model; add --model DIR"),
        (EXPORT, ["--model", "air.csv"], "--model: must be a folder, got the file"),
        (EXPORT, ["--model", "studies"], "--model: studies is not empty and holds no model"),
        (EXPORT, ["--model", "m", "--format", "xml"], "--format: unknown format 'xml'"),
        (EXPORT, ["--model", "m", "-o", "air.yaml"], "-o: air.yaml exists and is no export of"),
        (EXPORT, ["-o", "air.csv", "--force"], f"-o: air.csv is the data file of {STUDY}; write"),
        (EXPORT, ["-o", f"studies/../studies/{STUDY}.journal", "--force"],
         f"is the journal of {STUDY}; write elsewhere"),
        (EXPORT, ["-o", "no/best.yaml", "--force"], "-o: must be a file in an existing folder"),
        (EXPORT, ["-o", "studies"], "-o: studies is a folder"),
        (EXPORT, ["-o", "best.toml"], "-o: must end in .yaml or .yml or .json, got best.toml; r"),
        (EXPORT, ["-o", "x.yaml", "--data", ""], "--data: must be a path, got ''; write --data s"),
        (EXPORT, ["--ensemble"], "--ensemble: is for the trained model; add --model DIR"),
        (TRAIN, ["--strict", "--all-data"], "--strict: is for reproducing a score, and --al"),
        (["train", "air.yaml"], ["--strict"], "--strict: air.yaml records no data to compare with"),
        (["train", "air.yaml"], ["--all-data"], "--all-data: needs recorded.epochs, as no score"),
        (TRAIN, ["--all-data"], "--all-data: is for the trained model; add -o DIR"),
        (TRAIN, ["--set", "seed=3"], "--set: seed: this file trains on its own seed; set"),
        (TRAIN, ["--set", "recorded.epochs=0"], "recorded.epochs: must be at least 1, got 0"),
        (TRAIN, ["--data", "nope.csv"], "nope.csv: data.path: no such file"),
        (TRAIN, ["--data", "."], "data.path: is a folder; give the CSV file in it"),
        (TRAIN, ["-o", "studies"], "-o: studies is not empty and holds no model"),
        (TRAIN, ["-o", "gone"], "-o: must be a folder, got the file"),
        (TRAIN, ["--ensemble"], "--ensemble: is for the trained model; add -o DIR"),
        (["train", "air.yaml"], ["--ensemble", "-o", "m"], "--ensemble: needs two or more recor"),
        (TRAIN, ["--set", "recorded.seeds=[3]", "--ensemble", "-o", "m"],
         "--ensemble: needs two or more recorded.seeds, got 1; give a file that"),
    ],
)  # fmt: skip
def test_impossible_wishes_are_refused_first(here, tuner, refused, command, arguments, text):
    tuner(*EXPORT, "-o", "best.yaml")
    (here / "gone").symlink_to(here / "nowhere")
    assert text in refused(*command, *arguments)


@pytest.mark.usefixtures("untrained")
def test_no_model_is_trained_on_data_that_has_changed(here, tuner):
    text = (here / "air.csv").read_text()
    (here / "air.csv").write_text(text + "1961-01-01,450\n")
    before = names(here)
    status, out, err = tuner("export", STUDY, "-o", "best.yaml", "--model", "model")
    assert (status, out) == (2, "")
    assert f"is not the data that {STUDY} was searched on: 144 rows then, 145 now" in err
    assert names(here) == before
    assert tuner("export", STUDY, "-o", "best.yaml")[0] == 0  # nothing is trained for that


def test_a_study_without_a_complete_trial_is_one_line(here, tuner, monkeypatch):
    def failing(record):
        trials = [
            dataclasses.replace(
                t, status=Status.FAILED, outcome=Outcome(OutcomeState.FAILED, reason=f"bad {i}")
            )
            for i, t in enumerate(record.trials)
        ]
        return dataclasses.replace(record, trials=tuple(trials), finalists=())

    change_record(monkeypatch, failing)
    status, out, err = tuner("export", STUDY, "-o", "best.yaml")
    assert (status, out) == (1, "")
    assert err == f"tuner: study {STUDY!r} has no complete trial; the last failure: bad 3\n"
    assert not (here / "best.yaml").exists()


def test_an_interrupted_study_gives_its_best_and_what_is_missing(tuner, monkeypatch):
    _, finished, _ = tuner("export", STUDY)
    change_record(monkeypatch, lambda r: dataclasses.replace(r, ended="interrupted"))
    begun = f"tuner: warning: {STUDY} is interrupted: this is the best of the trials so far, "
    status, out, err = tuner("export", STUDY)
    assert (status, out) == (0, finished)
    assert err == f"{begun}and its finalists are not all retrained\n"
    change_record(monkeypatch, lambda r: dataclasses.replace(r, finalists=(), test=None))
    status, out, err = tuner("export", STUDY, "-o", "best.yaml")
    assert (status, err) == (0, f"{begun}and its finalists are missing\n")
    record = read(STUDY, None)
    assert record.best is not None
    assert recorded_of("best.yaml").score == record.best.value
    without = record.experiment.model_copy(
        update={"finalists": record.experiment.finalists.model_copy(update={"top": 0})}
    )
    change_record(monkeypatch, lambda r: dataclasses.replace(r, experiment=without))
    assert tuner("export", STUDY)[2] == f"{begun.removesuffix(', ')}\n"


# Train


@pytest.mark.slow
def test_data_elsewhere_is_as_good_where_it_is_the_same(here, tuner):
    tuner("export", STUDY, "-o", "best.json")
    (here / "other place").mkdir()
    (here / "air.csv").rename(here / "other place/ä.csv")
    assert tuner("train", "best.json")[0] == 2
    status, out, err = tuner("train", "best.json", "--data", "other place/ä.csv", "--strict")
    assert (status, out, err) == (0, f"reproduced: {number(recorded_of('best.json').score)}\n", "")


def test_other_data_is_warned_about_or_refused_when_strict(here, tuner, monkeypatch, capsys):
    tuner("export", STUDY, "-o", "best.yaml")
    (here / "new.csv").write_text((here / "air.csv").read_text().replace("112", "212", 1))
    what = f"is not the data that {STUDY} was searched on: other values in its 144 rows"

    device = recorded_of("best.yaml").device or ""
    said_before = []

    def train(*args):
        said_before.append(capsys.readouterr().err)
        return [Outcome(OutcomeState.COMPLETE, objective=1.5, device=device)]

    monkeypatch.setattr(reproduce, "run_jobs", train)
    status, out, err = tuner("train", "best.yaml", "--data", "new.csv")
    assert said_before == [f"tuner: warning: new.csv: {what}\n"]
    assert (status, err) == (1, "")
    why = "the data has changed (other values in its 144 rows)"
    assert out == f"not reproduced: {recorded_of('best.yaml').score}, got 1.5: {why}\n"

    status, out, err = tuner("train", "best.yaml", "--data", "new.csv", "--strict", "-o", "model")
    assert (status, out) == (2, "")
    assert err.startswith(f"tuner: new.csv: data.path: {what} (sha256 ")
    assert len(said_before) == 1
    assert not (here / "model").exists()


def test_a_report_is_written_over_a_report_and_over_nothing_else(here, tuner):
    (here / "mine.html").write_text("<p>mine</p>")
    for output, text in {
        "mine.html": "-o: mine.html exists and is no report of air-random-0; write else",
        "report.pdf": "-o: must end in .html or .htm, got report.pdf; rename it",
        "no/report.html": "-o: must be a file in an existing folder, got no/report.html",
        "studies": "-o: studies is a folder; give the name of a file in it",
    }.items():
        status, out, err = tuner("report", STUDY, "-o", output)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert text in err
    assert (here / "mine.html").read_text() == "<p>mine</p>"
    for force in (["--force"], []):
        written = tuner("report", STUDY, "-o", "mine.html", *force)
        assert written == (0, "wrote mine.html\n", "")


def test_all_data_is_trained_on_for_the_epochs_that_are_recorded(tuner):
    tuner("export", STUDY, "-o", "best.yaml")
    text = Path("best.yaml").read_text()
    epochs = recorded_of("best.yaml").refit_epochs
    changed = text.replace(f"  refit_epochs: {epochs}\n", "  refit_epochs: 5\n")
    assert changed != text
    Path("best.yaml").write_text(changed)
    status, out, err = tuner("train", "best.yaml", "--all-data", "-o", "model")
    assert (status, err) == (0, "")
    assert out == (
        "wrote model\n"
        "trained on training and validation set together, 122 rows, for 5 epochs; "
        "there is no validation score\n"
    )


def test_all_data_gives_the_very_model_that_was_refitted(here, tuner):
    tuner("export", STUDY, "-o", "best.yaml")
    epochs = recorded_of("best.yaml").refit_epochs
    assert epochs is not None
    first = tuner("train", "best.yaml", "-o", "refitted")
    second = tuner("train", "best.yaml", "--all-data", "-o", "all")
    assert (first[0], second[0]) == (0, 0)
    assert f"reproduced: {number(recorded_of('best.yaml').score)}" in first[1]
    kept = [
        (here / folder / name).read_bytes()
        for name in ("weights.safetensors", "model.onnx")
        for folder in ("refitted", "all")
    ]
    assert kept[0] == kept[1]
    assert kept[2] == kept[3]
    pipelines = [
        json.loads((here / folder / "pipeline.json").read_text()) for folder in ("refitted", "all")
    ]
    assert pipelines[0]["outputs"] == pipelines[1]["outputs"]
    assert [p["trained_on"] for p in pipelines] == ["training and validation"] * 2
    assert pipelines[0]["validation"] == {"rmse": recorded_of("best.yaml").score}
    assert pipelines[1]["validation"] is None


@pytest.mark.slow
def test_an_ensemble_reproduces_scores_and_predicts_the_mean(here, tuner):
    status, out, err = tuner("export", STUDY, "-o", "best.yaml", "--model", "all", "--ensemble")
    recorded = recorded_of("best.yaml")
    assert (status, err) == (0, "")
    said = out.splitlines()
    assert said[1] == f"reproduced: {', '.join(map(number, recorded.scores))}"
    assert said[2].startswith(
        f"wrote all: an ensemble of {len(recorded.seeds)} models, trained again on training and"
    )
    found = []
    for i, (seed, score) in enumerate(zip(recorded.seeds, recorded.scores, strict=True)):
        one = ["--set", f"recorded.seed={seed}", "--set", f"recorded.score={score!r}"]
        assert tuner("train", "best.yaml", *one, "--all-data", "-o", f"m{i}")[0] == 0
        found.append(load_model(here / f"m{i}").predict(here / "air.csv", all_windows=True))
    together = load_model(here / "all").predict(here / "air.csv", all_windows=True)
    target = Experiment.load("best.yaml").data.targets[0]
    # The target is the logarithm's: the mean of the scaled outputs is a geometric one.
    values = np.stack([each[target] for each in found])
    np.testing.assert_allclose(together[target], np.exp(np.log(values).mean(axis=0)), rtol=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What came of a training whose score is recorded, and nothing has changed since."""
    folder = tmp_path_factory.mktemp("trained")
    rows = "".join(f"{5 + i % 7}\n" for i in range(60))
    (folder / "y.csv").write_text(f"y\n{rows}")
    raw = {
        "name": "y",
        "data": {"path": str(folder / "y.csv"), "target": "y"},
        "budget": {"epochs": 2},
    }
    experiment = Experiment.model_validate(raw)
    outcome = Outcome(OutcomeState.COMPLETE, objective=1.25, device="a loom")
    training = Training(experiment, prepare(experiment, folder / "arrays"), outcome)
    recorded = Recorded(
        study="s",
        seed=0,
        score=1.25,
        metric="rmse",
        data_sha256=training.data.facts.sha256,
        rows=60,
        device="a loom",
        versions=reproduce.library_versions(),
        command="tuner train best.yaml",
    )
    return with_record(training, recorded)


def with_record(training, recorded):
    experiment = training.experiment.model_copy(update={"recorded": recorded})
    return dataclasses.replace(training, experiment=experiment)


def said(training, capsys, *changed):
    capsys.readouterr()
    assert print_reproduced(training, list(changed)) is (training.reproduced is True)
    (line,) = capsys.readouterr().out.splitlines()
    return line


NOW = reproduce.library_versions()
DIFFERENCES = {
    "nothing": ({}, "data, versions and device are the same: was the file edited?"),
    "a device that was not recorded": (
        {"device": None},
        "data and versions are the same: was the file edited?",
    ),
    "values": ({"data_sha256": "ab"}, "the data has changed (other values in its 60 rows)"),
    "rows": ({"data_sha256": "ab", "rows": 48}, "the data has changed (48 rows then, 60 now)"),
    "a version": ({"versions": NOW | {"torch": "1.0"}}, f"torch is {NOW['torch']}, was 1.0"),
    "a library that is gone": ({"versions": NOW | {"x": "1"}}, "x is missing, was 1"),
    "of the search alone": (
        {"versions": NOW | {"optuna": "1", "pyswarms": "2"}},
        "data, versions and device are the same: was the file edited?",
    ),
    "several": (
        {"versions": NOW | {"python": "3.1"}, "data_sha256": "ab", "device": "an abacus"},
        "the data has changed (other values in its 60 rows); "
        f"python is {NOW['python']}, was 3.1; the device is a loom, was an abacus",
    ),
}


@pytest.mark.parametrize("what", DIFFERENCES)
def test_a_score_that_did_not_come_out_is_told_with_what_differs(trained, capsys, what):
    changes, why = DIFFERENCES[what]
    recorded = trained.experiment.recorded
    assert recorded is not None
    score = recorded.score
    off = recorded.model_copy(update={"score": math.nextafter(score, 0), **changes})
    line = said(with_record(trained, off), capsys)
    assert line == f"not reproduced: {off.score}, got {score}: {why}"
    # Whatever differs, a score that came out did.
    same = with_record(trained, off.model_copy(update={"score": score}))
    assert said(same, capsys) == f"reproduced: {number(score)}"


def test_options_that_changed_the_experiment_are_named_first(trained, capsys):
    recorded = trained.experiment.recorded
    assert recorded is not None
    off = with_record(trained, recorded.model_copy(update={"score": 0.5, "device": "an abacus"}))
    line = said(off, capsys, "--set training.device=cpu", "--set budget.epochs=9")
    assert ": --set training.device=cpu; --set budget.epochs=9; the device is " in line


# Every command


TAKEN = {
    "check": (),
    "run": ("--no-tracking", "--no-test", "--workers", "1", "--set", "finalists.top=0"),
    "train": (),
}
REFUSED = {"compare": "search_space: there is nothing to search, every hyperparameter is fixed"}


def test_every_command_accepts_an_exported_experiment(tuner):
    commands = get_command(app).commands
    takes = {
        name
        for name, command in commands.items()
        if any(p.param_type_name == "argument" and p.name == "experiment" for p in command.params)
    }
    assert takes == TAKEN.keys() | (REFUSED.keys() & commands.keys())
    tuner("export", STUDY, "-o", "best.json")
    for name in takes:
        status, out, err = tuner(name, "best.json", *TAKEN.get(name, ()))
        if name in REFUSED:
            assert (status, out) == (2, "")
            assert REFUSED[name] in err
        else:
            assert (status, err) == (0, ""), name
        if name == "run":
            assert out.startswith("there is no search space: the one configuration is trained on s")
            assert "[1/1] trial 0 complete" in out


def test_what_another_study_came_to_is_replaced_with_force_alone(here, tuner):
    assert tuner("run", "air.yaml", "--study", "second", "--no-tracking", "--trials", "1")[0] == 0
    assert tuner("export", STUDY, "-o", "best.yaml")[0] == 0
    before = (here / "best.yaml").read_bytes()
    status, _, err = tuner("export", "second", "-o", "best.yaml")
    exists = "-o: best.yaml exists and is no export of second; write elsewhere, or add --force"
    assert (status, err) == (2, f"tuner: {exists}\n")
    assert (here / "best.yaml").read_bytes() == before
    assert tuner("export", "second", "-o", "best.yaml", "--force")[0] == 0
