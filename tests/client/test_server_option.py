"""`--server` and TUNER_SERVER: which commands go where, and what they refuse."""

import json
import threading

import pytest
from helpers.model_folders import make_model
from helpers.ports import free_port
from helpers.scripted_server import Answer, problem, serving

from tuner.cli.app import run
from tuner.cli.remote import server_of, server_option
from tuner.cli.remote_run import _Watch

FACTS = {
    "name": "air-tpe-0", "kind": "search", "state": "queued", "owner": "local", "experiment": "air",
    "strategy": "tpe", "seed": 0, "metric": "rmse", "direction": "minimize", "trials": 40,
    "trained": 0, "best": None, "submitted": "2026-01-02T03:04:05+00:00", "error": None,
    "position": 3,
}  # fmt: skip
BEST = {"trial": 3, "score": 1.25, "params": {"hidden_size": 8}}
NONE = {"items": [], "next": None}
RUNNING = FACTS | {"name": "b", "state": "running", "trained": 7, "best": BEST, "position": None}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    monkeypatch.delenv("TUNER_SERVER", raising=False)
    monkeypatch.delenv("TUNER_TOKEN", raising=False)


@pytest.mark.parametrize(
    ("given", "environment", "server"),
    [
        (None, None, None),
        (None, "", None),
        (None, "local", None),
        (None, "http://a", "http://a"),
        ("http://b", "http://a", "http://b"),
        ("local", "http://a", None),
        ("", "http://a", None),
    ],
)
def test_the_option_wins_over_the_environment(given, environment, server, monkeypatch):
    if environment is not None:
        monkeypatch.setenv("TUNER_SERVER", environment)
    assert server_of(given) == server


def test_commands_to_type_name_a_server_that_was_typed():
    assert server_option(None) == ""
    assert server_option("http://a b") == " --server 'http://a b'"


REFUSED = [
    (["run", "air.yaml", "--journal", "a.journal"], "--journal"),
    (["run", "air.yaml", "--executor", "ray"], "--executor"),
    (["run", "air.yaml", "--executor", "local"], "--executor"),
    (["run", "air.yaml", "--register", "air"], "--register"),
    (["show", "air-tpe-0", "--journal", "a.journal"], "--journal"),
    (["studies", "--journal", "a.journal"], "--journal"),
    (["report", "air-tpe-0", "--journal", "a.journal"], "--journal"),
    (["export", "air-tpe-0", "--journal", "a.journal"], "--journal"),
    (["export", "air-tpe-0", "--model", "m", "--all-data"], "--all-data"),
    (["export", "air-tpe-0", "--model", "m", "--ensemble"], "--ensemble"),
    (["sync", "air-tpe-0", "--journal", "a.journal"], "--journal"),
    (["sync", "air-tpe-0", "--ensemble"], "--ensemble"),
]


@pytest.mark.parametrize(("arguments", "option"), REFUSED, ids=lambda value: str(value))
def test_options_of_this_machine_are_refused(arguments, option, folder, capsys, monkeypatch):
    monkeypatch.setenv("TUNER_SERVER", "http://127.0.0.1:1")
    remedy = "leave it out, or write --server local"
    assert run(arguments) == 2
    line = f"tuner: {option}: makes no sense with TUNER_SERVER=http://127.0.0.1:1; {remedy}\n"
    assert capsys.readouterr().err == line
    assert run([*arguments, "--server", "http://127.0.0.1:2"]) == 2
    assert "makes no sense with --server http://127.0.0.1:2;" in capsys.readouterr().err


COMMANDS = [
    ["run", "air.yaml"],
    ["check", "air.yaml"],
    ["init", "air.csv", "-o", "new.yaml"],
    ["studies"],
    ["show", "air-tpe-0"],
    ["report", "air-tpe-0"],
    ["export", "air-tpe-0"],
    ["sync", "air-tpe-0"],
    ["predict", "air-tpe-0", "air.csv"],
    ["cancel", "air-tpe-0"],
    ["resume", "air-tpe-0"],
    ["delete", "air-tpe-0", "--yes"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda value: value[0])
def test_a_server_that_is_away_is_one_line_and_status_1(arguments, folder, capsys, monkeypatch):
    monkeypatch.setattr("urllib3.util.Retry.sleep", lambda *_: None)
    url = f"http://127.0.0.1:{free_port()}"
    assert run([*arguments, "--server", url]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"tuner: {url}: the service does not answer (connection refused)")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_missing_file_is_refused_as_it_is_here(command, folder, capsys):
    arguments = [command, "air.yaml", "--set", "data.path=nope.csv"]
    assert run(arguments) == 2
    line = capsys.readouterr().err
    with serving([problem(404, "no study")]) as server:
        assert run([*arguments, "--server", server.url]) == 2
    assert capsys.readouterr().err == line
    assert {asked.method for asked in server.asked} <= {"GET"}


@pytest.mark.parametrize("arguments", COMMANDS[3:], ids=lambda value: value[0])
def test_a_study_that_is_not_there_is_one_line(arguments, folder, capsys):
    with serving([problem(404, "no such study: 'air-tpe-0'")]) as server:
        assert run([*arguments, "--server", server.url]) == 2
    assert capsys.readouterr().err == "tuner: no such study: 'air-tpe-0'\n"


def test_each_broken_key_is_a_line(folder, capsys):
    refusal = problem(422, "a: is required (and 29 more)")
    refusal.body["errors"] = [{"key": f"k{i}", "rule": "is required"} for i in range(30)]
    with serving([refusal]) as server:
        assert run(["show", "air-tpe-0", "--server", server.url]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tuner: k0: is required"
    assert lines[19:] == ["tuner: k19: is required", "tuner: and 10 more"]
    settings = ["--set", "budget.trials=0", "--set", "budget.epochs=0"]
    assert run(["check", "air.yaml", *settings]) == 2
    assert [line.split(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "budget.trials",
        "budget.epochs",
    ]


def test_notes_about_the_service_stand_among_the_events(monkeypatch):
    class Study:
        is_new = True

        def events(self):
            watch.note("the service does not answer")
            yield {"event": "note", "time": 1.0, "text": "it goes on", "event_id": "1"}
            watch.note("the service is back")
            yield {"event": "ended", "time": 2.0, "state": "done", "event_id": "2"}

        def facts(self):
            return {"state": "running"}

    class Notes:
        note = staticmethod(lambda text: shown.append(text))

    shown = []
    watch = _Watch(Study(), Notes(), None, threading.Event(), None)
    ended = watch.until_ended(lambda event: shown.append(event.get("text", event["event"])))
    assert ended["state"] == "done"
    assert shown == ["the service does not answer", "it goes on", "the service is back", "ended"]


def test_a_note_about_the_service_is_a_line_of_a_command(capsys, monkeypatch):
    monkeypatch.setenv("TUNER_TOKEN", "unneeded")
    answer = Answer(200, NONE, {"Tuner-Token": "ignored"})
    with serving([answer, Answer(200, {"role": "write"})]) as server:
        assert run(["studies", "--server", server.url]) == 0
    line = f"{server.url}: the service needs no token; the one given is ignored"
    assert capsys.readouterr().err == f"tuner: {line}\n"


def test_a_token_in_the_clear_is_warned_about_in_one_line(capsys, monkeypatch):
    monkeypatch.setenv("TUNER_TOKEN", "secret")
    monkeypatch.setattr("tuner.client.connection._is_loopback", lambda host: False)
    with serving([Answer(200, NONE), Answer(200, {"role": "write"})]) as server:
        assert run(["studies", "--server", server.url]) == 0
    printed = capsys.readouterr()
    warning = "the token travels unencrypted to 127.0.0.1; use https://, or a tunnel"
    assert printed.err == f"tuner: warning: {warning}\n"
    start = f"tuner run EXPERIMENT.yaml --server {server.url}"
    assert printed.out == f"no studies at {server.url}; start one: {start}\n"


def test_who_may_only_read_is_not_told_to_start_a_search(capsys):
    with serving([Answer(200, NONE), Answer(200, {"role": "read"})]) as server:
        assert run(["studies", "--server", server.url]) == 0
    assert capsys.readouterr().out == f"no studies at {server.url}\n"


def test_a_model_folder_predicts_here_though_a_service_is_set(folder, capsys, monkeypatch):
    raw = {"data": {"path": "air.csv", "target": "passengers"}, "task": {"window": 6}}
    make_model(raw, folder)
    monkeypatch.setenv("TUNER_SERVER", "http://127.0.0.1:1")
    assert run(["predict", "model", "air.csv"]) == 0
    here = capsys.readouterr().out
    assert here.startswith("row,step,")
    monkeypatch.delenv("TUNER_SERVER")
    assert run(["predict", "model", "air.csv"]) == 0
    assert capsys.readouterr().out == here


def test_studies_of_a_service_are_listed_like_those_here(capsys):
    with serving([Answer(200, {"items": [RUNNING, FACTS], "next": None})]) as server:
        assert run(["studies", "--server", server.url]) == 0
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert "b air tpe 0 7 of 40 running rmse 1.25 2026-01-02 03:04 UTC" in lines
        assert "air-tpe-0 air tpe 0 0 of 40 queued - 2026-01-02 03:04 UTC" in lines
        assert run(["studies", "--json", "--server", server.url]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["best"] == {"trial": 3, "search_score": 1.25, "params": {"hidden_size": 8}}
    assert rows[1]["study"] == "air-tpe-0"


def test_a_list_says_what_a_study_waits_for(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    why = "waits for clients: none has come since 2026-01-02 03:04 UTC"
    with serving([Answer(200, {"items": [RUNNING | {"waits": why}], "next": None})]) as server:
        assert run(["studies", "--server", server.url]) == 0
        assert "running, waits for clients" in " ".join(capsys.readouterr().out.split())
        assert run(["studies", "--json", "--server", server.url]) == 0
    assert json.loads(capsys.readouterr().out)[0]["waits"] == why


def test_a_queued_study_is_shown_with_its_place(capsys):
    with serving([Answer(200, FACTS)]) as server:
        assert run(["show", "air-tpe-0", "--server", server.url]) == 0
        assert capsys.readouterr().out == "air-tpe-0: queued, number 3 in the queue\n"
        assert run(["show", "air-tpe-0", "--json", "--server", server.url]) == 0
    assert json.loads(capsys.readouterr().out) == FACTS
