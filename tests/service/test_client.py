"""`tuner.Client` on a whole service: data, experiments, studies and their results."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from helpers.running_service import running_service
from helpers.simulated_study import SHORT, SPACE, waves_experiment
from helpers.thread_pool import ThreadPool

from tuner import Client, Experiment
from tuner.cli.app import run
from tuner.client import RefusedError
from tuner.errors import InputError
from tuner.planning.check import Check, check_experiment
from tuner.service.access import Access, TokenFile

SOON_S = 60
T = np.arange(90)
FRAME = pd.DataFrame({"y": 10 + 3 * np.sin(T / 2) + T % 5})
VALUES = waves_experiment(None, **SHORT)
del VALUES["data"]["path"]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch, baselines_fitted_once, no_mlflow_settings):
    monkeypatch.delenv("TUNER_SERVER", raising=False)
    monkeypatch.delenv("TUNER_TOKEN", raising=False)


@pytest.fixture
def running(settings):
    settings = dataclasses.replace(settings, workers=2)
    with running_service(settings, lambda n: ThreadPool(n)) as running:
        yield running


@pytest.fixture
def client(running):
    with Client(running.url) as client:
        yield client


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A data file in the current folder."""
    monkeypatch.chdir(tmp_path)
    FRAME.to_csv("waves.csv", index=False)
    return tmp_path / "waves.csv"


def submit(client, data, **options):
    return client.submit(VALUES, data=data, tracking=False, **options)


def test_a_file_is_uploaded_once(client, file, monkeypatch):
    first = client.upload(file)
    monkeypatch.setattr("requests.Session.request", _without("PUT"))
    assert client.upload(file) == first == client.dataset(first.id)
    assert (first.name, first.rows, first.bytes) == ("waves.csv", 90, file.stat().st_size)
    assert list(client.datasets()) == [first]


def _without(method):
    import requests

    send = requests.Session.request

    def request(self, given, *args, **keys):
        assert given != method
        return send(self, given, *args, **keys)

    return request


def test_a_data_frame_is_searched_and_its_results_are_read(client, file):
    study = submit(client, FRAME)
    assert study.is_new
    assert study.wait(SOON_S) is study
    assert (study.name, study.state) == ("waves-random-0", "done")
    trials = study.trials
    assert list(trials.status) == ["complete"] * 6
    summary, facts = study.summary(), client.study(study.name).facts()
    assert facts["best"]["params"] == summary["best"]["params"]
    assert study.best.params == summary["best"]["params"]
    assert summary["all_trials"][0]["params"] == {name: trials[name][0] for name in SPACE}
    assert "waves-random-0" in study.report().html
    exported = Experiment.load(study.export(file.parent / "best.json"))
    assert exported.recorded.study == study.name
    events = list(study.events())
    assert [event["event"] for event in events][-2:] == ["result", "ended"]
    middle = events[len(events) // 2]["event_id"]
    assert list(study.events(middle)) == events[len(events) // 2 + 1 :]
    assert repr(study.load()).startswith("Study('waves-random-0': 6 trials trained")


def test_the_same_submission_is_the_same_study(client, file):
    first = submit(client, file)
    again = submit(client, client.upload(file))
    assert (first.is_new, again.is_new, again.name) == (True, False, first.name)
    with pytest.raises(RefusedError) as refused:
        client.submit(VALUES | {"task": {"window": 7, "season": 5}}, data=file, tracking=False)
    assert refused.value.status == 409
    assert "task.window=6, got 7" in str(refused.value)
    assert [study["name"] for study in client.studies(q="WAVES")] == [first.name]


def test_a_study_is_extended_cancelled_resumed_and_deleted(client, file):
    study = submit(client, file, name="mine", priority=3, max_workers=1)
    study.wait(SOON_S)
    assert study.extend(trials=9)["trials"] == 9
    assert len(study.wait(SOON_S).trials) == 9
    for refused in (study.cancel, study.resume):
        with pytest.raises(RefusedError) as error:
            refused()
        assert error.value.status == 409
    assert study.facts()["priority"] == 3
    dataset = client.upload(file)
    with pytest.raises(RefusedError, match="mine"):
        client.delete_dataset(dataset.id)
    study.delete()
    client.delete_dataset(dataset.id)
    assert list(client.studies()) == []
    with pytest.raises(RefusedError) as error:
        study.facts()
    assert error.value.status == 404


def test_a_submission_changes_what_a_search_may(client, file):
    study = submit(client, file, strategy="tpe", trials=3, seed=4)
    assert (study.name, study.facts()["trials"]) == ("waves-tpe-4", 3)
    with pytest.raises(
        InputError, match="^submit: unknown argument 'trails'; did you mean 'trials'"
    ):
        client.submit(VALUES, data=file, trails=2)
    with pytest.raises(InputError) as refused:
        client.submit(VALUES, data=file, zzz=2)
    assert "trials, seed, priority" in str(refused.value)
    assert "start_from" in str(refused.value)
    with pytest.raises(InputError, match="budget.trials: must be at least 1"):
        client.submit(VALUES, data=file, trials=0)


def test_a_wrong_column_is_one_of_the_data_frame(client):
    for call in (client.submit, client.check):
        with pytest.raises(RefusedError) as refused:
            call(VALUES, data=FRAME.rename(columns={"y": "x"}))
        assert str(refused.value).startswith("the data frame: data.target: no column 'y'")


def test_an_exported_data_frame_is_to_be_saved(client, file, capsys, monkeypatch):
    monkeypatch.setenv("TUNER_SERVER", client.server)
    study = submit(client, FRAME).wait(SOON_S)
    assert run(["export", study.name, "-o", "best.yaml"]) == 0
    said = "save its data, which was no file, as FILE; next: tuner train best.yaml --data FILE"
    assert said in capsys.readouterr().out
    assert run(["train", "best.yaml"]) == 2
    remedy = "is an upload to a service; save the data as a file, and write its path"
    assert f": data.path: {remedy}" in capsys.readouterr().err


def test_a_check_and_a_proposal_are_those_of_the_commands(client, file):
    from tuner.data.prepared import check_data

    answer = client.check(VALUES, data=file)
    experiment = Experiment.from_dict(VALUES | {"data": VALUES["data"] | {"path": str(file)}})
    expected = check_experiment(experiment, check_data(experiment).facts)
    found = Check.from_json(answer["check"])
    assert dataclasses.replace(found, fixed=expected.fixed) == expected
    yaml, notes = client.init(file, target="y", horizon=3)
    assert "horizon: 3" in yaml
    assert all(isinstance(note, str) for note in notes)
    assert list(client.studies()) == []


def test_tokens_separate_owners_and_readers_change_nothing(settings, tokens, file, monkeypatch):
    path, given = tokens
    access = Access(TokenFile(path))
    settings = dataclasses.replace(settings, workers=1, tokens=path)
    with running_service(settings, lambda n: ThreadPool(n), access=access) as running:
        ana = Client(running.url, given["ana", "write"])
        ben = Client(running.url, given["ben", "write"])
        reader = Client(running.url, given["ana", "read"])
        study = submit(ana, file).wait(SOON_S)
        assert [s["name"] for s in reader.studies()] == [study.name]
        assert list(ben.studies()) == list(ben.datasets()) == []
        assert (ana.me()["owner"], reader.me()["role"]) == ("ana", "read")
        for client, status in ((ben, 404), (reader, 403), (Client(running.url), 401)):
            with pytest.raises(RefusedError) as refused:
                client.study(study.name).cancel()
            assert refused.value.status == status
        monkeypatch.setenv("TUNER_TOKEN", given["ana", "read"])
        assert json.dumps(Client(running.url).study(study.name).best.params)


@pytest.mark.slow
def test_predictions_of_the_service_are_those_of_its_model(settings, tmp_path):
    frame = FRAME.assign(day=pd.date_range("2024-01-01", periods=90))
    values = VALUES | {"data": VALUES["data"] | {"time": "day"}}
    with running_service(dataclasses.replace(settings, workers=1)) as running:
        client = Client(running.url)
        study = client.submit(values, data=frame, tracking=False).wait(10 * SOON_S)
        model = study.model(tmp_path / "model")
        for all_windows in (False, True):
            found = study.predict(frame, all_windows)
            pd.testing.assert_frame_equal(found, model.predict(frame, all_windows))
        other = frame.assign(day=frame["day"].astype(str), remark="none")
        pd.testing.assert_frame_equal(study.predict(other), model.predict(other))
        assert study.load().model.columns == model.columns
