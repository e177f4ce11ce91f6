"""`tuner run --json`: a stream of events that any program can read."""

import contextlib
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.made_study import study
from helpers.simulated_progress import epoch

from tuner.cli.app import run
from tuner.coordination.coordinator import Asked, Observers, SearchStart
from tuner.errors import InputError, Interrupted, RunError
from tuner.experiment import Experiment
from tuner.jobs import Outcome, OutcomeState
from tuner.journal.storage import Role, TrialKey
from tuner.orchestrator import Notes
from tuner.progress.reporters import JsonReporter, reported_end, to_json

DONE = {"state": "done", "reason": None, "exit_status": 0}
TUNER = [sys.executable, "-m", "tuner"]
KEYS = {
    "begun": "study id journal experiment strategy seed metric direction trials trained epochs "
    "workers executor asynchronous",
    "asked": "role trial params repeat_of",
    "dispatched": "role trial cost",
    "epoch": "role trial epoch value train_loss val_loss fold",
    "finished": "role trial state value reason epochs seconds weights latency_ms earlier",
    "lost": "role trial reason",
    "note": "text",
    "ended": "state reason exit_status",
}


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def read(text):
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def search(folder, *options):
    command = [*TUNER, "run", "air.yaml", "--json", "--workers", "1", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return read(done.stdout)


def of(events, name, role="trial"):
    return [e for e in events if e["event"] == name and e.get("role", role) == role]


def test_a_search_is_a_stream_of_events_from_begun_to_result(folder):
    events = search(folder, "--trials", "3", "--no-tracking")
    assert events[0]["event"] == "begun"
    ended = events.pop()
    assert ended == {"event": "ended", "time": ended["time"], **DONE}
    assert events[-1]["event"] == "result"
    asked = {e["trial"]: e["params"] for e in of(events, "asked")}
    for event in (e for e in events if e.get("role") == "finalist"):
        number = event.pop("configuration")
        retrained = of(events, "asked", "finalist")[event["trial"]]["params"]
        assert asked[number] == retrained
    for event in (e for e in events if e.get("role") in ("finalist", "baseline")):
        assert event.pop("repeat") in (0, 1)
    assert events[0] | {"id": "", "time": 0} == {
        **{"event": "begun", "time": 0, "study": "air-random-0", "id": ""},
        **{"journal": "studies/air-random-0.journal", "experiment": "air", "strategy": "random"},
        **{"seed": 0, "metric": "rmse", "direction": "minimize", "trials": 3, "trained": 0},
        **{"epochs": 3, "workers": 1, "executor": "local", "asynchronous": False},
    }
    for event in events[:-1]:
        assert list(event) == ["event", "time", *KEYS[event["event"]].split()]
    times = [event["time"] for event in events]
    assert times == sorted(times)
    for role, count in (("trial", 3), ("finalist", 4)):
        assert [e["trial"] for e in of(events, "asked", role)] == list(range(count))
        assert len(of(events, "epoch", role)) == 3 * count
        assert len(of(events, "finished", role)) == count
        order = [e["trial"] for e in of(events, "dispatched", role)]
        assert sorted(order) == list(range(count))
        for trial in range(count):
            of_trial = [e["event"] for e in events if e.get("trial") == trial and e["role"] == role]
            assert of_trial == ["asked", "dispatched", "epoch", "epoch", "epoch", "finished"]
    defaults = of(events, "asked", "baseline")
    assert [e["trial"] for e in defaults] == [4, 5]  # after the finalists, in their study
    assert all(e["params"] == {"hidden_size": 32, "learning_rate": 0.001} for e in defaults)
    assert [e["epoch"] for e in of(events, "epoch")] == [1, 2, 3] * 3
    assert not any(e["earlier"] for e in of(events, "finished"))

    shown = subprocess.run(
        [*TUNER, "show", "air-random-0", "--json"], cwd=folder, capture_output=True, check=True
    )
    expected = json.loads(shown.stdout)
    for trial, finished in zip(
        expected.pop("all_trials"),
        sorted(of(events, "finished"), key=lambda e: e["trial"]),
        strict=True,
    ):
        assert (finished["value"], finished["state"]) == (trial["value"], trial["status"])
        assert finished["epochs"] == trial["epochs"] == 3
    del expected["state"], expected["links"]
    result = {k: v for k, v in events[-1].items() if k not in ("event", "time")}
    assert result == expected


@pytest.mark.slow
def test_a_resumed_search_first_tells_what_was_finished_before(folder):
    search(folder, "--trials", "2", "--no-tracking")
    events = search(folder, "--trials", "3", "--no-tracking")
    assert (events[0]["trials"], events[0]["trained"]) == (3, 2)
    finished = of(events, "finished")
    assert [(e["trial"], e["earlier"]) for e in finished] == [(0, True), (1, True), (2, False)]
    assert [e["trial"] for e in of(events, "dispatched")] == [2]
    assert all(e["time"] > finished[0]["time"] - 1 for e in events)


def test_every_event_is_written_at_once():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(io.BufferedWriter(raw, 1 << 20), encoding="utf-8")  # type: ignore[arg-type]
    JsonReporter(stream).note("now")
    assert read(raw.getvalue().decode())[0]["text"] == "now"


def start():
    return SearchStart(study([]), lambda: study([]), "studies/air.journal", 4, "local")


def test_bad_input_is_a_line_on_stderr_and_nothing_on_stdout(folder, capsys):
    assert run(["run", "air.yaml", "--json", "--trials", "0"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("tuner: ")
    assert printed.err.count("\n") == 1


def test_a_warning_is_a_note_among_the_events(folder):
    stream = io.StringIO()
    reporter = JsonReporter(stream)
    notes = Notes(reporter.note, lambda record: ["--workers 64: more than fit"])
    Observers([reporter, notes]).on_start(start())
    begun, note = read(stream.getvalue())
    assert (begun["event"], begun["workers"]) == ("begun", 4)
    assert note["text"] == "--workers 64: more than fit"


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (None, DONE),
        (
            Interrupted("stopped; the same command resumes"),
            {"state": "interrupted", "reason": "stopped; the same command resumes"}
            | {"exit_status": 130},
        ),
        (RunError("no complete\ntrial"), {"reason": "no complete trial", "exit_status": 1}),
        (ValueError(), {"state": "failed", "reason": "ValueError", "exit_status": 1}),
    ],
)
def test_the_last_event_says_how_a_search_ended_and_why(folder, error, ended):
    stream = io.StringIO()
    events = JsonReporter(stream)
    expected = pytest.raises(type(error)) if error else contextlib.nullcontext()
    with expected, reported_end(events):
        events.on_start(start())
        if error:
            raise error
    assert read(stream.getvalue())[-1].items() >= {"event": "ended", **ended}.items()


def test_a_search_that_is_refused_has_not_begun_and_does_not_end():
    stream = io.StringIO()
    with pytest.raises(InputError), reported_end(JsonReporter(stream)):
        raise InputError("another search writes to it")
    assert stream.getvalue() == ""


def test_events_of_a_finalist_name_the_trial_that_it_retrains():
    stream = io.StringIO()
    events = JsonReporter(stream)
    events.asked(Asked(TrialKey(Role.TRIAL, 0), None, {"x": 1, "y": 0.1}))
    for number, retrained in enumerate([2, 0]):
        key = TrialKey(Role.FINALIST, number, retrained, 1)
        events.asked(Asked(key, None, {"x": 1, "y": 0.1}))
        events.dispatched(key, 1.0)
        events.epoch(key, epoch(0))
        events.lost(key, "it died")
        events.finished(key, Outcome(OutcomeState.COMPLETE, 1.0))
    of_trials, of_finalists = (
        [e for e in read(stream.getvalue()) if e["role"] == role] for role in ("trial", "finalist")
    )
    assert not any({"configuration", "repeat"} & e.keys() for e in of_trials)
    assert [e["repeat"] for e in of_finalists] == [1] * 10
    assert [e["configuration"] for e in of_finalists] == [2] * 5 + [0] * 5


def test_ctrl_c_leaves_whole_lines_and_no_result(folder):
    import signal

    command = [*TUNER, "run", "air.yaml", "--json", "--workers", "1", "--no-tracking"]
    process = subprocess.Popen(
        [*command, "--set", "budget.epochs=200", "--set", "budget.patience=1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    for line in process.stdout:
        first += line
        if '"epoch"' in line:
            break
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=180)
    assert (process.returncode, err.count("\n")) == (130, 1)
    events = read(first + rest)
    assert "result" not in [e["event"] for e in events]
    assert events[-1] | {"time": 0} == {
        **{"event": "ended", "time": 0, "state": "interrupted", "exit_status": 130},
        "reason": err.removeprefix("tuner: ").strip(),
    }
    assert any(e["event"] == "note" and "stopping when" in e["text"] for e in events)
    assert of(events, "finished"), "the trial in progress came to its end"


def test_what_is_no_number_in_json_is_null(folder):
    stream = io.StringIO()
    events = JsonReporter(stream)
    events.asked(
        Asked(
            TrialKey(Role.TRIAL, 0), None, {"x": math.inf, "of": ["\u2028", -math.inf, (math.nan,)]}
        )
    )
    events.dispatched(TrialKey(Role.TRIAL, 0), math.inf)
    events.epoch(TrialKey(Role.TRIAL, 0), epoch(0, math.nan))
    events.finished(
        TrialKey(Role.TRIAL, 0), Outcome(OutcomeState.FAILED, reason="a\nb\x00\u2028 \ud800")
    )
    events.lost(TrialKey(Role.TRIAL, 1), "it\r\ndied")
    asked, dispatched, ended, failed, lost = read(stream.getvalue())
    assert asked["params"] == {"x": None, "of": ["\u2028", None, [None]]}
    assert dispatched["cost"] is None
    assert ended["value"] is None
    assert failed["reason"] == "a\nb\x00\u2028 \ud800"
    assert lost["reason"] == "it\r\ndied"


def test_to_json_leaves_all_else_as_it_is():
    value = {"a": [1, 1.5, True, None, "NaN", {"b": -0.0}], "3": (2,)}
    assert json.loads(to_json(value)) == {"a": [1, 1.5, True, None, "NaN", {"b": -0.0}], "3": [2]}
    assert to_json(value) == '{"a":[1,1.5,true,null,"NaN",{"b":-0.0}],"3":[2]}'
    assert to_json({"a": math.nan}, indent=2) == '{\n  "a": null\n}'


def test_notes_of_another_thread_do_not_cut_a_line_in_two():
    import threading

    class Slow(io.StringIO):
        def write(self, text):
            for character in text:
                super().write(character)
            return len(text)

    stream = Slow()
    events = JsonReporter(stream)
    threads = [
        threading.Thread(target=lambda: [events.note("x" * 50) for _ in range(200)])
        for _ in range(4)
    ]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len(read(stream.getvalue())) == 800


def test_an_outcome_is_reported_once_as_this_runs():
    stream = io.StringIO()
    events = JsonReporter(stream)
    for number in range(500):
        events.dispatched(TrialKey(Role.TRIAL, number), 1.0)
        events.finished(TrialKey(Role.TRIAL, number), Outcome(OutcomeState.COMPLETE, 1.0))
    assert not any(e["earlier"] for e in of(read(stream.getvalue()), "finished"))


def test_all_documented_keys_are_written_and_no_others(folder):
    Experiment.load("air.yaml")
    page = (Path(__file__).parents[2] / "docs/commands.md").read_text()
    rows = {
        line.split("|")[1].strip(" `"): line for line in page.splitlines() if line.startswith("| `")
    }
    for event, keys in KEYS.items():
        for key in keys.split():
            assert f"`{key}`" in rows[event] or key in ("role", "trial"), (event, key)
    assert "result" in rows
    assert "`configuration`" in page
    assert "`repeat`" in page
