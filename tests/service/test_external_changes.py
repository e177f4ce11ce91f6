"""Changes of external studies while requests come: each request sees the study before or after."""

import contextlib
import threading

import pytest
from helpers.external_service import Client, running_external
from helpers.gates import Gate
from helpers.threads import in_thread, wait_until

from tuner.coordination.ask_tell import AskTell
from tuner.errors import JournalAway
from tuner.journal.storage import write_journal
from tuner.service.external import _Request
from tuner.service.settings import Settings
from tuner.service.studies import State

PSO = {"name": "pso", "population": 2}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def client(root):
    with running_external(root) as client:
        yield client


@pytest.fixture
def gated(monkeypatch):
    """A function that has calls of a method wait in a gate, which is opened at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda owner, name: stack.enter_context(Gate(monkeypatch, owner, name))


def study_of(client: Client):
    return client.service.studies.get("local", "s")


def held(client: Client):
    """Whether a request is kept until a change is over."""
    open_study = client.service.external._open.get(study_of(client))
    return open_study is not None and not open_study.has_thread and open_study.requests.qsize()


def post(client: Client, action, **body):
    return client.http.post(f"/v1/studies/s/{action}", json=body or None)


@pytest.mark.parametrize("method", ["respecify", "change"])
def test_an_ask_while_a_study_is_extended_sees_the_budget(method, client, gated):
    client.create(trials=2)
    client.trials(n=2)
    gate = gated(client.service.studies, method)
    extended = in_thread(lambda: post(client, "extend", trials=3))
    gate.reached()
    asked = in_thread(client.ask)
    wait_until(lambda: held(client))
    gate.open()
    assert extended().status_code == 202
    assert [trial["number"] for trial in asked().json()["trials"]] == [2]


def test_an_ask_that_waits_gets_a_trial_of_the_new_budget(client):
    client.create(trials=2)
    client.trials(n=2)
    asked = in_thread(lambda: client.ask(wait_s=20))
    wait_until(lambda: client.service.external._open[study_of(client)]._waiting)
    assert post(client, "extend", trials=3).status_code == 202
    assert [trial["number"] for trial in asked().json()["trials"]] == [2]


def test_a_request_while_a_study_is_cancelled_sees_that(client, gated):
    client.create()
    [trial] = client.trials()
    gate = gated(client.service.studies, "change")
    cancelled = in_thread(lambda: post(client, "cancel"))
    gate.reached()
    asked, reported = in_thread(client.ask), in_thread(lambda: client.report(trial, 0, [1.0]))
    wait_until(lambda: held(client) == 2)
    gate.open()
    assert cancelled().status_code == 202
    for answer in (asked(), reported()):
        assert answer.status_code == 409
        assert "is cancelled" in answer.json()["detail"]
    assert client.tell(trial, 1.0).status_code == 200


def test_of_the_end_and_a_cancel_at_once_one_happens(client, gated):
    client.create(trials=1)
    [trial] = client.trials()
    gate = gated(client.service.studies, "change")
    told = in_thread(lambda: client.tell(trial, 1.0))
    gate.reached()  # the study is about to be done
    cancelled = in_thread(lambda: post(client, "cancel"))
    wait_until(lambda: not client.service.external._open[study_of(client)].has_thread)
    gate.open()
    assert told().status_code == 200
    assert cancelled().status_code == 409
    assert study_of(client).state is State.DONE
    assert [event["event"] for event in client.events()].count("ended") == 1


def test_a_cancelled_study_is_not_done_by_a_last_result(client):
    client.create(trials=1)
    [trial] = client.trials()
    post(client, "cancel")
    assert client.tell(trial, 1.0).status_code == 200
    assert study_of(client).state is State.CANCELLED
    assert post(client, "resume").json()["state"] == "running"
    assert client.ask().status_code == 410


def test_budgets_that_are_raised_at_once_are_never_lowered(client, gated):
    client.create(trials=1)
    gate = gated(client.service.studies, "respecify")
    first = in_thread(lambda: post(client, "extend", trials=5))
    gate.reached()
    second = in_thread(lambda: post(client, "extend", trials=3))
    gate.open()
    assert first().status_code == 202
    assert second().status_code in (202, 422)
    assert study_of(client).spec["trials"] == study_of(client).facts.trials == 5


@pytest.mark.parametrize("method", ["respecify", "change"])
@pytest.mark.parametrize("restarts", [False, True])
def test_an_extension_that_is_cut_off_is_sent_again(root, monkeypatch, method, restarts):
    def refuse(*args, **keys):
        raise JournalAway("it is away", remedy="try again")

    with running_external(root) as client:
        client.create(trials=1)
        client.tell(client.trials()[0], 1.0)
        with monkeypatch.context() as away:
            away.setattr(client.service.studies, method, refuse)
            assert post(client, "extend", trials=5).status_code == 503
        if not restarts:
            goes_on_with_a_longer_budget(client)
    if restarts:
        with running_external(root) as client:
            goes_on_with_a_longer_budget(client)


def goes_on_with_a_longer_budget(client):
    assert client.ask().status_code == 410
    assert client.http.get("/v1/studies/s").json()["exhausted"] is None
    assert post(client, "extend", trials=3).status_code == 202
    assert [trial["number"] for trial in client.trials(n=5)] == [1, 2]


def test_a_request_while_a_study_is_deleted_leaves_nothing(client, root, gated):
    client.create()
    [trial] = client.trials()
    post(client, "cancel")
    gate = gated(client.service.results, "forget")
    deleted = in_thread(lambda: client.http.delete("/v1/studies/s"))
    gate.reached()
    assert client.tell(trial, 1.0).status_code == 404
    others = [in_thread(lambda: post(client, "cancel")), in_thread(lambda: post(client, "resume"))]
    others.append(in_thread(lambda: post(client, "extend", trials=60)))
    gate.open()
    assert deleted().status_code == 204
    assert [answer().status_code for answer in others] == [404, 404, 404]
    assert not list(root.rglob("s.journal"))
    assert client.tell(trial, 1.0).status_code == 404


def test_a_request_while_an_idle_study_closes_is_answered(root, monkeypatch):
    with running_external(root, idle_s=0.05) as client:
        closing, go_on = threading.Event(), threading.Event()
        running = client.service.tables.running

        @contextlib.contextmanager
        def slow(*args, **keys):
            with running(*args, **keys) as table:
                yield table
            closing.set()
            assert go_on.wait(20)

        monkeypatch.setattr(client.service.tables, "running", slow)
        client.create()
        [trial] = client.trials()
        assert closing.wait(20)  # its journal is closed, its thread has not ended
        told = in_thread(lambda: client.tell(trial, 1.0))
        wait_until(lambda: not client.service.external._open[study_of(client)].requests.empty())
        assert client.service.external.n_open == 1
        go_on.set()
        assert told().status_code == 200


def test_a_study_without_a_thread_for_it_opens_later(client, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    client.create()
    with monkeypatch.context() as scarce:
        scarce.setattr("tuner.service.external._OpenStudy.start", refuse)
        refused = client.ask()
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert "no thread left" in refused.json()["detail"]
    assert client.service.external.n_open == 0
    assert len(client.trials()) == 1


def test_a_kept_request_is_answered_without_a_thread(client, monkeypatch, gated):
    def refuse(study):
        raise ValueError(study)

    client.create()
    gate = gated(client.service.studies, "change")
    cancelled = in_thread(lambda: post(client, "cancel"))
    gate.reached()
    asked = in_thread(client.ask)
    wait_until(lambda: held(client))
    monkeypatch.setattr(client.service.external, "_started", refuse)
    gate.open()
    assert cancelled().status_code == 202
    assert asked().status_code == 500


@pytest.mark.parametrize("journal", ["file", "database"])
def test_a_study_that_does_not_close_is_not_opened_twice(root, monkeypatch, gated, journal):
    monkeypatch.setattr("tuner.service.external._CLOSE_S", 0.1)
    url = f"sqlite:///{root}.db" if journal == "database" else None
    opened, begin = [], AskTell.__init__

    def noted(self, *args, **keys):
        opened.append(threading.current_thread())
        begin(self, *args, **keys)

    monkeypatch.setattr(AskTell, "__init__", noted)
    with running_external(root, settings=Settings(root=root, journal=url)) as client:
        client.create()
        client.trials()
        gate = gated(AskTell, "report")  # stands for a journal that takes nothing
        first = in_thread(lambda: client.report({"number": 0, "lease": "x"}, 0, [1.0]))
        gate.reached()
        assert post(client, "cancel").status_code == 503
        assert post(client, "cancel").status_code == 503  # also once it is to close
        asked = in_thread(client.ask)
        [thread] = opened
        before = client.service.external._open[study_of(client)]
        assert before._thread is thread
        wait_until(lambda: before.requests.qsize() == 3)  # two closes, and the ask
        gate.open()
        assert first().status_code == 409
        assert [trial["number"] for trial in asked().json()["trials"]] == [1]
        assert len(opened) == 2
        assert not thread.is_alive()
        monkeypatch.setattr("tuner.service.external._CLOSE_S", 20)
        assert post(client, "cancel").status_code == 202


def test_requests_kept_for_a_change_go_to_the_one_that_stays(client, monkeypatch, gated):
    client.create()
    client.trials()
    external, study = client.service.external, study_of(client)
    before = external._open[study]
    journal, gate = gated(AskTell, "report"), gated(before, "close")
    reported = in_thread(lambda: client.report({"number": 0, "lease": "x"}, 0, [1.0]))
    journal.reached()
    cancelled = in_thread(lambda: post(client, "cancel"))
    gate.reached()
    asked = in_thread(client.ask)
    wait_until(lambda: held(client))
    monkeypatch.setattr(before._thread, "join", lambda timeout_s: None)  # the time is over
    gate.open()
    assert cancelled().status_code == 503
    assert external._open[study] is before
    journal.open()
    assert reported().status_code == 409
    assert asked().status_code == 200


def test_a_journal_in_use_names_nobody(root):
    with running_external(root) as client:
        client.create()
        place = client.service.records.place_of("local", "s")
        with write_journal(place.location, None, print):
            refused = client.ask()
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        detail = refused.json()["detail"]
        assert detail == "another process uses the journal of the study; try again later"
        assert client.ask().status_code == 200


def test_a_lease_of_a_retry_stays_when_the_first_ask_left(client):
    """Both asks are answered in one group, and the client has left the first one."""
    client.create()
    external, study = client.service.external, study_of(client)
    first = _Request(lambda open_study: open_study.ask("a", key="k"), undo=AskTell.abandon)
    again = _Request(lambda open_study: open_study.ask("a", key="k"), undo=AskTell.abandon)
    asked = first.do

    def left(open_study):
        leases = asked(open_study)
        external._submit(again, study)
        first.answer.cancel()
        return leases

    first.do = left
    external._submit(first, study)
    [lease] = again.answer.result(20)
    assert client.trials(client="b")[0]["number"] == 1
    assert client.tell({"number": lease.number, "lease": lease.id}, 1.0).status_code == 200


def test_a_stopped_service_refuses_what_waits(root):
    with running_external(root) as client:
        client.create(strategy=PSO)
        client.trials(n=2)
        asked = in_thread(lambda: client.ask(wait_s=20))
        wait_until(lambda: client.service.external._open[study_of(client)]._waiting)
        client.service.external.stop()
        assert asked().status_code == 503
        assert client.ask().json()["detail"] == "the service stops"
        assert client.service.external.n_open == 0
