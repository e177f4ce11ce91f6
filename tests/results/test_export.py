"""The exported file: what it holds, where it points, and that it is read as it was written."""

import dataclasses
import json
import math
import shlex
from pathlib import Path

import pytest
from helpers.examples import examples
from helpers.result_records import (
    COMPLETE,
    FAILED,
    PRUNED,
    make_experiment,
    make_study,
    values_test,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.coordination.finalists import find_winner
from tuner.errors import RunError
from tuner.experiment import Experiment, Hyperparameters
from tuner.experiment.yaml_files import read_mapping
from tuner.journal.records import TestScore
from tuner.results.export import exported, render, train_command

HERE = Path("/somewhere")


def test_an_export_fixes_every_hyperparameter():
    experiment = make_experiment(
        asynchronous=True, budget={"trials": 40, "epochs": 6, "timeout": "1h", "trial_timeout": 60}
    )
    record = make_study(experiment=experiment, finalists=3)
    found = exported(record, HERE, "best.yaml")
    left_to_a_default = {"window"}  # that of task
    assert set(found["hyperparameters"]) == set(Hyperparameters.model_fields) - left_to_a_default
    winner = find_winner(record)
    assert found["hyperparameters"].items() >= dict(winner.trial.params).items()
    assert found.keys() == {
        *("name", "data", "task", "hyperparameters", "budget", "objective", "training"),
        *("resources", "seed", "recorded"),
    }
    assert found["budget"] == {"epochs": 6, "patience": 15}


def test_it_records_seeds_scores_data_device_and_versions():
    record = make_study(finalists=3)
    winner = find_winner(record)
    repeats = [
        dataclasses.replace(r, outcome=dataclasses.replace(r.outcome, device=f"machine {r.number}"))
        for r in record.finalists
    ]
    record = dataclasses.replace(
        record,
        finalists=tuple(repeats),
        test=TestScore.from_json(values_test(configuration=winner.trial.number)),
    )
    recorded = exported(record, HERE, "best.yaml")["recorded"]
    seeds = [repeat.seed for repeat in winner.repeats]
    assert recorded == {
        "study": "made-pso-0",
        "seed": seeds[0],
        "score": winner.scores[0],
        "metric": "rmse",
        "epochs": 6,
        "search": winner.trial.value,
        "seeds": seeds,
        "scores": winner.scores,
        "mean": winner.mean,
        "std": winner.std,
        "test": 0.5,
        "data_sha256": "ab" * 32,
        "rows": 200,
        "device": f"machine {winner.repeats[0].number}",
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
        "command": "tuner train best.yaml",
    }
    other = TestScore.from_json(values_test(configuration=winner.trial.number + 1))
    of_another = exported(dataclasses.replace(record, test=other), HERE, "best.yaml")
    assert "test" not in of_another["recorded"]


def test_without_finalists_the_trial_itself_is_promised():
    record = make_study()
    recorded = exported(record, HERE, "best.yaml")["recorded"]
    assert record.best is not None
    assert (recorded["seed"], recorded["score"]) == (record.best.seed, record.best.value)
    assert not recorded.keys() & {"search", "seeds", "scores", "mean", "std", "test", "device"}


@pytest.mark.parametrize("n_folds", [1, 3])
@pytest.mark.parametrize("best", [0, 2, 5])
def test_epochs_are_counted_to_the_best_of_the_last_fold(n_folds, best):
    split = {"validation": {"folds": n_folds, "size": 0.1}}
    experiment = make_experiment(data={"path": "/d.csv", "target": "y", "split": split})
    record = make_study(1, experiment=experiment)
    (trial,) = record.trials
    assert trial.outcome is not None
    outcome = dataclasses.replace(trial.outcome, best_epoch=(n_folds - 1) * 6 + best)
    record = dataclasses.replace(record, trials=(dataclasses.replace(trial, outcome=outcome),))
    assert exported(record, HERE, "best.yaml")["recorded"]["epochs"] == best + 1


def test_a_searched_window_scores_all_trials_on_the_same_rows():
    space = {"window": {"type": "int", "low": 4, "high": 30}}
    record = make_study(experiment=make_experiment(search_space=space), objective=lambda p: 1.0)
    found = exported(record, HERE, "best.yaml")
    assert found["task"]["window"] == 30
    assert found["hyperparameters"]["window"] == find_winner(record).trial.params["window"]


@pytest.mark.parametrize("state", [FAILED, PRUNED])
def test_a_study_without_a_complete_trial_is_refused(state):
    record = make_study(4, state=lambda n: FAILED if n == 1 else state)
    with pytest.raises(RunError) as error:
        exported(record, HERE, "best.yaml")
    assert str(error.value).startswith("study 'made-pso-0' has no complete trial")
    assert str(error.value).endswith("; the last failure: it diverged: val_loss is nan")


def test_a_study_that_has_not_ended_gives_the_best_so_far():
    running = make_study(9, state=lambda n: COMPLETE if n < 5 else None, ended=None)
    whole = make_study(5, state=lambda n: COMPLETE)
    assert exported(running, HERE, "a.yaml") == exported(whole, HERE, "a.yaml")


def a_study_on(path):
    return make_study(
        1,
        experiment=make_experiment(data={"path": str(path), "target": "y"}),
        data={"sha256": "ab" * 32, "rows": 2, "path": str(path.resolve())},
    )


def write(record, file, **options):
    """Write the export; return where it says the data is, once read."""
    text = render(exported(record, file.parent, file.name, **options), file.suffix == ".json")
    file.write_text(text, encoding="utf-8")
    return Experiment.load(file).data.path


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
@pytest.mark.parametrize(
    ("data", "folder"),
    [
        ("a.csv", "."),
        ("deep/down/a.csv", "."),
        ("a.csv", "deep/down"),
        ("with spaces/ä 新 #1: 'b'.csv", "yes and\tno/null"),
        ("one/1e3", "other/- x"),
        ("~", "~"),
    ],
)
def test_the_data_is_found_from_wherever_the_file_is(tmp_path, monkeypatch, data, folder, suffix):
    path, folder = tmp_path / data, tmp_path / "exports" / folder
    for needed in (path.parent, folder):
        needed.mkdir(parents=True, exist_ok=True)
    path.write_text("y\n1\n")
    assert write(a_study_on(path), folder / f"best{suffix}") == str(path)
    monkeypatch.chdir(folder)
    assert write(a_study_on(path), Path(f"best{suffix}")) == str(path)
    written = read_mapping(folder / f"best{suffix}", "export")["data"]["path"]
    assert not Path(written).is_absolute()


def test_folders_that_are_links_do_not_lead_astray(tmp_path):
    (tmp_path / "very/deep/folder").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "very/deep/folder")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.csv").write_text("y\n1\n")
    (tmp_path / "current").symlink_to(tmp_path / "data")
    record = a_study_on(tmp_path / "current/a.csv")
    for folder in ("link", "very/deep/folder"):
        assert write(record, tmp_path / folder / "best.yaml") == str(tmp_path / "data/a.csv")
    by_link, itself = tmp_path / "link/best.yaml", tmp_path / "very/deep/folder/best.yaml"
    write(record, by_link)
    assert Experiment.load(itself) == Experiment.load(by_link)


def test_a_path_that_is_given_is_written_as_it_is(tmp_path):
    (tmp_path / "out").mkdir()
    record = a_study_on(tmp_path / "a.csv")
    file = tmp_path / "out" / "best.yaml"
    assert write(record, file, data_path="data/b.csv") == str(tmp_path / "out/data/b.csv")
    assert write(record, file, data_path="/mnt/b.csv") == "/mnt/b.csv"
    assert read_mapping(file, "export")["data"]["path"] == "/mnt/b.csv"


@pytest.mark.parametrize(
    "path", ["best.yaml", "a b.yaml", "-best.yaml", "it's.yaml", "$HOME.yaml", "out/best.yaml"]
)
def test_the_command_can_be_typed(path):
    program, command, argument = shlex.split(train_command(path, own_code=False))
    assert (program, command) == ("tuner", "train")
    assert Path(argument) == Path(path)
    assert not argument.startswith("-")


texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.sampled_from(
        [
            *("yes", "No", "true", "null", "~", "1e-05", "1_000", "0x1F", "0o17", "017", ".5"),
            *(".inf", "1960-01-01", "12:30:45", "2001-12-14t21:59:43.10-05:00", "=", "<<", "-"),
            *("- a", "a: b", " x", "x ", "#x", "[a]", "{", "@", "`", "%", "!t", "&a", "*a", "|"),
            *(">", "?", "---", "...", "'", '"', "\x85", "\u2028", "\ufeff", "\x00", "\n", "\t"),
            *("\\", "\N{PILE OF POO}", "e\u0301", "\x7f", "\x9f", "\ufffe"),
        ]
    ),
)
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e-05, 1e22, 1e16, 123456789012345680.0, 5e-324, 0.1 + 0.2, -0.0, 1.0]),
)
rates = st.one_of(
    st.floats(1e-300, 10), st.sampled_from([1e-05, 1e-5 + 1e-20, 0.1 + 0.2, 5e-324, 3.0])
)
sizes = st.integers(1, 8192)
configurations = st.fixed_dictionaries(
    {"learning_rate": rates, "dropout": st.floats(0, 0.99), "bidirectional": st.booleans()},
    optional={
        "hidden_size": st.one_of(sizes, st.lists(sizes, min_size=1, max_size=4)),
        "optimizer": st.sampled_from(["adam", "sgd"]),
        "window": st.integers(1, 100_000),
    },
)
records = st.fixed_dictionaries(
    {
        "study": texts,
        "seed": st.integers(0, 2**32 - 1),
        "score": numbers,
        "metric": st.just("rmse"),
        "data_sha256": st.from_regex("[0-9a-f]{64}", fullmatch=True) | st.just("1" * 64)
        | st.just(f"{10**62}e1"),
        "rows": st.integers(1, 10**18),
        "versions": st.dictionaries(texts, texts, max_size=3),
        "command": texts,
    },
    optional={
        "seeds": st.lists(st.integers(0, 2**32 - 1), max_size=3),
        "scores": st.lists(numbers, max_size=3),
        "epochs": st.integers(1, 1_000_000),
        "device": texts,
        "mean": numbers,
    },
)  # fmt: skip


@settings(max_examples=examples(80))
@given(target=texts, feature=texts, hyperparameters=configurations, recorded=records)
def test_yaml_and_json_are_read_alike_and_as_they_were_written(
    tmp_path_factory, target, feature, hyperparameters, recorded
):
    raw = {
        "name": "x",
        "data": {"path": "a.csv", "target": target, "features": [feature]},
        "hyperparameters": hyperparameters,
        "recorded": recorded,
    }
    folder = tmp_path_factory.getbasetemp()
    loaded = []
    for file in (folder / "export.yaml", folder / "export.json"):
        file.write_text(render(raw, file.suffix == ".json"), encoding="utf-8")
        read = read_mapping(file, "export")
        assert read == raw
        assert repr(read) == repr(raw)  # 1 is not 1.0, and -0.0 not 0.0
        loaded.append(Experiment.load(file))
    assert json.loads((folder / "export.json").read_text(encoding="utf-8")) == raw
    assert loaded[0] == loaded[1]
    # What was read is written again as it was, and so on for ever.
    once, file = loaded[0].to_dict(), folder / "again.yaml"
    for as_json in (False, True):
        text = render(once, as_json)
        file.write_text(text, encoding="utf-8")
        again = Experiment.load(file)
        assert again == loaded[0]
        assert render(again.to_dict(), as_json) == text
    assert math.copysign(1, again.recorded.score) == math.copysign(1, recorded["score"])


def test_an_export_of_an_export_is_the_same(tmp_path):
    record = a_study_on(tmp_path / "a.csv")
    first = exported(record, tmp_path, "best.yaml")
    write(record, tmp_path / "best.yaml")
    again = make_study(
        1, experiment=Experiment.load(tmp_path / "best.yaml"), data=record.data, name="fixed"
    )
    second = exported(again, tmp_path, "best.yaml")
    assert second.pop("recorded")["study"] == "fixed"
    assert second == {key: value for key, value in first.items() if key != "recorded"}


@pytest.mark.parametrize(
    ("data", "rate"), [({"categories": ["shop"]}, 0.0), ({}, Hyperparameters().unknown_rate)]
)
def test_an_older_export_trains_without_unknown_tokens(data, rate, tmp_path):
    data = {"path": "/nowhere/made.csv", "target": "y"} | data
    old = exported(make_study(experiment=make_experiment(data=data)), HERE, "best.yaml")
    assert old["hyperparameters"].pop("unknown_rate") > 0
    path = tmp_path / "best.yaml"
    path.write_text(render(old, as_json=False))
    assert Experiment.load(path).hyperparameters.unknown_rate == rate
    del old["recorded"]  # an experiment that begins now
    path.write_text(render(old, as_json=False))
    assert Experiment.load(path).hyperparameters.unknown_rate > 0
