"""One file of a study that cannot be made costs no other."""

import pickle
import subprocess
import sys

import pytest
from helpers.result_records import make_study, values_test

from tuner.report import page
from tuner.report.page import PLOTS, final_artifacts
from tuner.results import export as texts

BAD = ValueError("no such colour")


def fails(*_):
    raise BAD


@pytest.fixture(scope="module")
def usual():
    record = make_study(test=values_test())
    return record, final_artifacts(record)


def test_every_picture_is_under_the_name_of_its_maker(usual):
    record, files = usual
    drawn = {name: make(record) for name, make in PLOTS.items()}
    assert {p.name: p.name for p in drawn.values() if p} == {n: n for n, p in drawn.items() if p}
    assert {f"pictures/{name}.png" for name, p in drawn.items() if p and p.png} < set(files)


def test_a_failed_picture_is_reported_and_costs_no_other(usual, monkeypatch):
    record, whole = usual
    monkeypatch.setitem(PLOTS, "parallel_coordinates", fails)
    files = final_artifacts(record)
    assert files.keys() == whole.keys()
    assert files["pictures/parallel_coordinates.png"] is BAD
    changed = {name for name in files if files[name] != whole[name]}
    assert changed == {"pictures/parallel_coordinates.png", "report.html"}
    assert "It could not be drawn: no such colour" in files["report.html"]


@pytest.mark.parametrize(
    ("module", "function", "lost"),
    [
        (page, "report", {"report.html"}),
        (texts, "summarize", {"result.json"}),
        (texts, "exported", {"best.yaml"}),
    ],
)
def test_a_text_that_cannot_be_written_costs_no_other(usual, monkeypatch, module, function, lost):
    record, whole = usual
    monkeypatch.setattr(module, function, fails)
    files = final_artifacts(record)
    assert {name for name, file in files.items() if file is BAD} == lost
    assert {n: f for n, f in files.items() if n not in lost} == {
        n: f for n, f in whole.items() if n not in lost
    }


def test_what_the_files_need_is_imported_before(usual, tmp_path):
    record, _ = usual
    (tmp_path / "record.pickle").write_bytes(pickle.dumps(record))
    code = (
        "import pickle, sys\n"
        "from tuner.report.page import final_artifacts, import_for_files\n"
        "record = pickle.load(open('record.pickle', 'rb'))\n"
        "import_for_files()\n"
        "before = {name.partition('.')[0] for name in sys.modules}\n"
        "final_artifacts(record)\n"
        "print(*{name.partition('.')[0] for name in sys.modules} - before)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True)
    assert not done.stdout.strip()
