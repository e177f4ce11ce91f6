"""Events over connections that break, and models from a server that is not to be trusted."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from helpers.scripted_server import Answer, problem, serving

from tuner import Client, InputError, RunError
from tuner.prediction import load_model

STREAM = "text/event-stream"
STUDY = Answer(200, {"state": "done"})
MODEL = Path(__file__).parents[1] / "fixtures/before/models/forecast"


def lines(*numbers):
    names = {9: "ended"}
    return "".join(
        f"id: {n}\nevent: e\ndata: {json.dumps({'event': names.get(n, 'note'), 'n': n})}\n\n"
        for n in numbers
    ).encode()


def events(server, after=None):
    return [event["n"] for event in Client(server.url).study("s").events(after)]


def test_a_stream_that_breaks_goes_on_after_the_last_event(monkeypatch):
    monkeypatch.setattr("tuner.client.events._PAUSE_S", 0.01)
    half = lines(3).partition(b"data")[0] + b'data: {"event": "note"'
    streams = [
        Answer(200, b": hello\n\n" + lines(1, 2) + half, kind=STREAM, cut=True),
        Answer(None),
        problem(503, "starting"),
        Answer(200, lines(3), kind=STREAM),  # then the service stops
        Answer(200, b"", kind=STREAM),
        Answer(200, lines(4, 9), kind=STREAM),
    ]

    def answers(asked):
        running = Answer(200, {"state": "running"})
        return running if asked.path.endswith("/s") else streams.pop(0)

    with serving(answers) as server:
        assert events(server) == [1, 2, 3, 4, 9]
    asked = [a.headers.get("last-event-id") for a in server.asked if a.path.endswith("/events")]
    assert asked == [None, "2", "2", "2", "3", "3"]


def test_a_stream_of_a_study_that_has_ended_is_not_opened_again():
    def answers(asked):
        if asked.path.endswith("/s"):
            return Answer(200, {"state": "done"})
        return Answer(200, b"", kind=STREAM)

    with serving(answers) as server:
        assert events(server, after="9") == []
    assert [asked.path for asked in server.asked][1:] == ["/v1/studies/s/events", "/v1/studies/s"]


def test_a_stream_closed_at_once_is_opened_less_and_less_often(monkeypatch):
    pauses = []
    monkeypatch.setattr("tuner.client.events.time.sleep", pauses.append)
    monkeypatch.setattr("tuner.client.events.spread", lambda pause: pause)
    empty, cut = Answer(200, b"", kind=STREAM), Answer(200, b": hello\n\n", kind=STREAM, cut=True)
    streams = [empty, cut, empty, cut, cut, cut, cut, Answer(200, lines(1), kind=STREAM), cut]

    def answers(asked):
        if asked.path.endswith("/s"):
            return Answer(200, {"state": "running"})
        return streams.pop(0) if streams else Answer(200, lines(9), kind=STREAM)

    with serving(answers) as server:
        assert events(server) == [1, 9]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 0.5, 1.0]


def test_earlier_ends_of_a_resumed_study_do_not_end_its_stream():
    text = lines(1, 9).replace(b"id: 9", b"id: 5") + lines(6, 9)
    with serving([STUDY, Answer(200, text, kind=STREAM)]) as server:
        assert events(server) == [1, 9, 6, 9]


def tar_of(*members):
    """A tar of files, or of members that are made by hand."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, made in members:
            info = tarfile.TarInfo(name)
            if isinstance(made, bytes):
                info.size = len(made)
                tar.addfile(info, io.BytesIO(made))
            else:
                info.type, info.linkname = made
                tar.addfile(info)
    return content.getvalue()


HOSTILE = {
    "link": tar_of(("a", (tarfile.SYMTYPE, "/etc/passwd"))),
    "hard link": tar_of(("a", (tarfile.LNKTYPE, "../../secret"))),
    "device": tar_of(("a", (tarfile.CHRTYPE, ""))),
    "pipe": tar_of(("a", (tarfile.FIFOTYPE, ""))),
    "out of the folder": tar_of(("../a", b"x")),
    "deep out of the folder": tar_of(("b/../../a", b"x")),
    "many": tar_of(*((f"f{i}", b"") for i in range(1100))),
    "no model": tar_of(("pipeline.json", b"{}")),
    "cut": tar_of(("pipeline.json", b"{" * 5000))[:3000],
    "no tar": b"<h1>hello</h1>",
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused_and_writes_nothing(name, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pipeline.json").write_text("the earlier one")
    sent = Answer(200, HOSTILE[name], kind="application/x-tar")
    with serving([STUDY, sent]) as server, pytest.raises((InputError, RunError)) as refused:
        Client(server.url).study("s").model(tmp_path / "model")
    assert "\n" not in str(refused.value)
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == [
        "model",
        "model/pipeline.json",
    ]
    assert (tmp_path / "model" / "pipeline.json").read_text() == "the earlier one"


def test_a_model_replaces_an_earlier_one_and_no_other_folder(tmp_path):
    names = [path.name for path in MODEL.iterdir()]
    sent = Answer(200, tar_of(*((name, (MODEL / name).read_bytes()) for name in names)))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pipeline.json").write_text("the earlier one")
    (tmp_path / "model" / "attention.csv").write_text("of the earlier one")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with serving([STUDY, sent]) as server:
        study = Client(server.url).study("s")
        for folder in (tmp_path / "model", tmp_path / "new" / "model"):
            assert study.model(folder).columns == load_model(MODEL).columns
            assert sorted(path.name for path in folder.iterdir()) == sorted(names)
        with pytest.raises(InputError, match="is not empty and holds no model"):
            study.model(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
