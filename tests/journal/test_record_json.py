"""A study as JSON is read as its journal is."""

import dataclasses
import gzip
import json
import math
from pathlib import Path

import pytest
from helpers.made_study import trial
from helpers.real_searches import make_folder
from helpers.records import study_record

from tuner.errors import StudyError
from tuner.experiment import Experiment
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.journal.record_json import record_from_text, record_to_text
from tuner.journal.records import StudyState, read_study
from tuner.journal.storage import read_journal
from tuner.report import page
from tuner.results.export import exported
from tuner.results.summary import summarize, trials_to_json
from tuner.service.models import as_client_wrote

STUDIES = sorted((Path(__file__).parents[1] / "fixtures/before/studies").iterdir())


@pytest.fixture
def unpacked(tmp_path):
    def read(packed):
        journal = tmp_path / packed.name.removesuffix(".gz")
        journal.write_bytes(gzip.decompress(packed.read_bytes()))
        return read_study(read_journal(str(journal)), journal.stem, str(journal))

    return read


def again(record, state=StudyState.DONE):
    return record_from_text(record_to_text(record, state))


@pytest.mark.parametrize("packed", STUDIES, ids=lambda path: path.name.partition(".")[0])
def test_a_study_is_read_from_json_as_from_its_journal(packed, unpacked, tmp_path):
    record = unpacked(packed)
    found, state = again(record, StudyState.INTERRUPTED)
    assert state is StudyState.INTERRUPTED
    assert found == record
    assert found.experiment.to_dict() == record.experiment.to_dict()
    for view in (
        lambda of: summarize(of).to_json(),
        trials_to_json,
        lambda of: exported(of, tmp_path, "best.yaml"),
    ):
        assert json.dumps(view(found)) == json.dumps(view(record))


def test_the_report_of_a_study_from_json_is_the_same(unpacked):
    record = unpacked(next(path for path in STUDIES if path.name.startswith("forecast-")))
    assert page.report(again(record)[0], ()) == page.report(record, ())


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(make_folder(tmp_path))
    return study_record(Experiment.load("air.yaml"), [trial(0, 1.0), trial(1, None)], created="now")


def test_numbers_that_json_lacks_survive(made):
    numbers = (math.nan, math.inf, -math.inf)
    epochs = tuple(Epoch(i, x, x, x, 1.0) for i, x in enumerate(numbers))
    outcome = Outcome(OutcomeState.FAILED, history=epochs, reason="not finite")
    failed = dataclasses.replace(made.trials[0], outcome=outcome)
    text = record_to_text(dataclasses.replace(made, trials=(failed,)), StudyState.DONE)
    assert not {"NaN", "Infinity"} & set(text.replace(",", " ").replace("]", " ").split())
    (found,) = record_from_text(text)[0].trials
    assert [repr(epoch.metric) for epoch in found.outcome.history] == ["nan", "inf", "-inf"]


def test_paths_of_the_server_are_replaced_by_those_of_the_client(made):
    where = made.experiment.data.path
    record = dataclasses.replace(made, data={"path": where, "test_file": "/srv/b.csv", "rows": 1})
    seen = as_client_wrote(record, record.name, {where: "/home/a.csv", "/srv/b.csv": "/b"})
    text = record_to_text(seen, StudyState.RUNNING)
    assert where not in text
    found, state = record_from_text(text)
    assert state is StudyState.RUNNING
    assert found.data == {"path": "/home/a.csv", "test_file": "/b", "rows": 1}
    assert found.experiment.data.path == "/home/a.csv"


def test_a_record_of_another_version_is_refused_in_one_line(made):
    newer = record_to_text(dataclasses.replace(made, format=99), StudyState.DONE)
    for text in (newer, "[]", "{", '{"state": "done", "record": {}}'):
        with pytest.raises(StudyError, match=r"another version of tuner .*; install the version"):
            record_from_text(text)
