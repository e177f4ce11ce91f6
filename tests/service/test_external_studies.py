"""External studies over HTTP: statuses, waits, cancellation, restarts, owners."""

import errno
import threading
import time

import pytest
from helpers.external_service import Client, X, running_external
from helpers.threads import in_thread, wait_until

from tuner.coordination.ask_tell import AskTell
from tuner.service.access import Access, TokenFile
from tuner.service.settings import Limits, Settings
from tuner.service.studies import State

PSO = {"name": "pso", "population": 2}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def client(root):
    with running_external(root) as client:
        yield client


def test_a_study_is_created_once(client):
    first = client.create()
    assert (first.status_code, first.json()) == (
        201,
        {"name": "s", "state": "running", "trials": 50},
    )
    assert client.create().status_code == 200
    other = client.create(seed=1)
    assert other.status_code == 409
    assert other.json()["detail"] == (
        "study 's' was created with seed=0, got 1; put it back, or give another name"
    )


def test_without_a_budget_it_is_the_owners_limit(root):
    settings = Settings(root=root, limits=Limits(trials=7))
    with running_external(root, settings=settings, access=Access(None, Limits(trials=7))) as client:
        assert client.create(trials=None).json()["trials"] == 7
        refused = client.create("t", trials=8)
        assert (refused.status_code, refused.json()["key"]) == (422, "trials")


@pytest.mark.parametrize("limit", [5, 9])
def test_a_study_is_the_same_under_another_limit(limit, root):
    for trials in (7, limit):
        with running_external(root, access=Access(None, Limits(trials=trials))) as client:
            for budget in (None, 7):
                answer = client.create(trials=budget)
                assert (answer.status_code < 300, answer.json()["trials"]) == (True, 7)
            assert client.create(trials=6).status_code == 409


def test_open_studies_are_limited(root):
    with running_external(root, access=Access(None, Limits(studies_queued=2))) as client:
        assert [client.create(name).status_code for name in "abcb"] == [201, 201, 429, 200]


def test_an_ended_external_study_needs_room_to_go_on(root):
    with running_external(root, access=Access(None, Limits(studies_queued=1))) as client:
        client.create("a")
        assert client.http.post("/v1/studies/a/cancel").status_code == 202
        client.create("b")
        for action, body in (("resume", None), ("extend", {"trials": 60})):
            refused = client.http.post(f"/v1/studies/a/{action}", json=body)
            assert (refused.status_code, "Retry-After" in refused.headers) == (429, True)
        assert client.http.post("/v1/studies/b/extend", json={"trials": 60}).status_code == 202


def test_a_trial_is_asked_reported_and_told(client):
    client.create(pruner={"name": "median", "n_startup_trials": 2, "n_warmup_steps": 0})
    first, second = client.trials(n=2)
    assert first["number"] == 0
    assert set(first["params"]) == {"x"}
    assert 59 < first["expires_s"] <= 60
    assert (first["attempt"], len(first["lease"])) == (1, 32)
    assert client.report(first, 0, [1.0, 0.5]).json()["prune"] is False
    assert client.report(first, 0, []).status_code == 200
    told = client.tell(first, 0.5)
    assert told.json() == {"number": 0, "state": "complete", "value": 0.5, "reason": None}
    assert client.tell(first, 0.5).status_code == 200
    assert client.tell(first, 0.6).status_code == 409
    assert client.tell(second, failed="no memory").json()["reason"] == "no memory"
    assert client.tell(client.trials()[0], pruned=True).json()["state"] == "pruned"


def test_numbers_that_are_not_finite_are_texts(client):
    client.create()
    first, second = client.trials(n=2)
    assert client.report(first, 0, ["NaN", 1.0]).status_code == 200
    told = client.tell(first, "NaN").json()
    assert (told["state"], told["reason"]) == ("failed", "the value is nan")
    assert client.tell(second, "-Infinity").json()["reason"] == "the value is -inf"


BAD_BODIES = [
    ("/s/ask", {}, "client: is required"),
    ("/s/ask", {"client": ""}, "client: must not be empty"),
    ("/s/ask", {"client": "a\n"}, "client: must hold no control characters"),
    ("/s/ask", {"client": "a", "n": 0}, "n: must be at least 1, got 0"),
    ("/s/ask", {"client": "a", "n": 101}, "n: must be at most 100, got 101"),
    ("/s/ask", {"client": "a", "wait_s": 61}, "wait_s: must be at most 60, got 61"),
    ("/s/ask", {"client": "a", "wait": 1}, "wait: unknown key 'wait'; did you mean 'wait_s'?"),
    ("/s/trials/0/tell", {"lease": "x"}, "a trial ends with one of value, failed and pruned"),
    ("/s/trials/0/tell", {"lease": "x", "value": 1, "pruned": True}, "one of value, failed"),
    ("/s/trials/0/tell", {"lease": "x", "value": "1"}, "must be"),
    ("/s/trials/0/tell", {"lease": "x", "pruned": False}, "must be True"),
    ("/s/trials/0/report", {"lease": "x", "values": [None]}, "must be"),
    ("/s/trials/0/report", {"lease": "x", "step": -1, "values": []}, "step: must be at least 0"),
    ("/s/trials/x/tell", {"lease": "x", "value": 1}, "number: must be a whole number"),
    ("", {"name": "t", "direction": "minimize"}, "space: is required"),
    ("", {"name": "t", "direction": "up", "space": X}, "unknown direction 'up'"),
    ("", {"name": "t", "direction": "minimize", "space": {"x": 1}}, "space.x: must be a block"),
    ("", {"name": "t", "direction": "minimize", "space": X, "trials": 10**6}, "at most 100000"),
]


def test_all_that_is_wrong_with_a_new_study_is_listed(client):
    space = {"x": {"type": "flat", "low": 0, "high": 1}, "y": {"type": "int", "lo": 0, "high": 1}}
    answer = client.post("", name="t", space=space, trails=3, strategy={"name": "pos"})
    assert answer.status_code == 422
    broken = {each["key"]: each.get("remedy") for each in answer.json()["errors"]}
    assert broken["trails"] == "did you mean 'trials'?"
    assert broken["space.y.lo"] == "did you mean 'low'?"
    assert broken["strategy.name"] == "did you mean 'pso'?"
    assert broken["space.x.type"].startswith("did you mean 'float'?")
    assert set(broken) == {
        *("trails", "space.y.lo", "space.y.low", "space.x.type", "strategy.name", "direction")
    }


@pytest.mark.parametrize(("path", "body", "text"), BAD_BODIES)
def test_a_wrong_body_is_refused_in_one_line(path, body, text, client):
    client.create()
    answer = client.post(path, **body)
    assert answer.status_code == 422, answer.text
    assert text in answer.json()["detail"]


def test_what_does_not_exist_is_not_found(client):
    assert client.ask("s").status_code == 404
    client.create()
    gone = client.post("/s/trials/3/tell", lease="x", value=1.0)
    assert (gone.status_code, gone.json()["detail"]) == (404, "study 's' has no trial 3")


def test_nothing_to_ask_is_204_and_the_end_is_410(client):
    client.create(strategy=PSO, trials=4)
    first, second = client.trials(n=5)
    nothing = client.ask()
    assert (nothing.status_code, nothing.headers["Retry-After"]) == (204, "1")
    client.tell(first, 1.0)
    client.tell(second, 1.0)
    for trial in client.trials(n=5):
        client.tell(trial, 2.0)
    gone = client.ask()
    assert gone.status_code == 410
    assert gone.json()["detail"] == "study 's' is done: its budget is used"
    study = client.service.studies.get("local", "s")
    assert study.state is State.DONE
    assert study.progress.trained == 4
    assert study.progress.best == {"trial": 0, "score": 1.0, "params": first["params"]}
    assert client.tell(first, 1.0).status_code == 200, "still the same"


def test_the_same_key_gets_the_same_trials(client):
    client.create()
    first = client.trials(n=2, key="k")
    again = client.trials(n=2, key="k")
    assert [t["lease"] for t in again] == [t["lease"] for t in first]
    assert client.trials(n=1, key="other")[0]["number"] == 2


def test_a_client_waits_until_a_trial_can_be_asked(client):
    client.create(strategy=PSO, trials=4)
    first, second = client.trials(n=2)
    answers = [in_thread(lambda i=i: client.ask(client=f"w{i}", wait_s=20)) for i in range(2)]
    client.tell(first, 1.0)
    client.tell(second, 1.0)
    given = {answer().json()["trials"][0]["number"] for answer in answers}
    assert given == {2, 3}


def test_a_wait_ends_in_vain_and_at_the_end_of_the_study(client):
    client.create(strategy=PSO, trials=2)
    trials = client.trials(n=2)
    begun = time.monotonic()
    assert client.ask(wait_s=0.3).status_code == 204
    assert 0.25 < time.monotonic() - begun < 5
    waiting = in_thread(lambda: client.ask(wait_s=20))
    for trial in trials:
        client.tell(trial, 1.0)
    assert waiting().status_code == 410


def test_a_wait_ends_when_a_lease_expires(client):
    client.create(strategy=PSO, trials=2, lease_s=1.0)
    client.trials(n=2)
    [again] = client.trials(n=1, client="b", wait_s=20)
    assert (again["number"], again["attempt"]) == (0, 2)


def test_a_client_that_leaves_while_it_waits_gets_nothing(client):
    from tuner.service.external import _Request

    client.create(strategy=PSO, trials=4)
    first, second = client.trials(n=2)
    external = client.service.external
    study = client.service.studies.get("local", "s")
    gone = _Request(lambda open_study: open_study.ask("gone"), until=time.monotonic() + 60)
    external._submit(gone, study)
    gone.answer.cancel()
    client.tell(first, 1.0)
    client.tell(second, 1.0)
    assert {t["number"] for t in client.trials(n=5)} == {2, 3}


def test_an_answer_that_nobody_takes_is_given_back(client):
    from tuner.service.external import _Request

    client.create()
    external, study = client.service.external, client.service.studies.get("local", "s")
    request = _Request(lambda open_study: open_study.ask("gone"), undo=AskTell.abandon)

    def cancelled_meanwhile(open_study):
        leases = open_study.ask("gone")
        request.answer.cancel()
        return leases

    request.do = cancelled_meanwhile
    external._submit(request, study)
    wait_until(lambda: client.trials(client="b")[0]["attempt"] == 2)


def test_a_released_trial_is_given_out_again(client):
    client.create()
    [trial] = client.trials()
    assert client.release(trial).status_code == 204
    assert client.release(trial).status_code == 204
    [again] = client.trials(client="b")
    assert (again["number"], again["attempt"]) == (0, 2)
    assert client.release(trial).status_code == 409
    assert client.tell(trial, 1.0).status_code == 409


def test_a_cancelled_study_gives_nothing_until_it_is_resumed(client):
    client.create(strategy=PSO, trials=6)
    first, second = client.trials(n=2)
    waiting = in_thread(lambda: client.ask(wait_s=20))
    study = client.service.studies.get("local", "s")
    open_study = client.service.external._open[study]
    wait_until(lambda: open_study._waiting)
    for _ in range(2):
        cancelled = client.http.post("/v1/studies/s/cancel")
        assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert waiting().status_code == 409
    for answer in (client.ask(), client.report(first, 0, [1.0])):
        assert answer.status_code == 409
        assert "is cancelled" in answer.json()["detail"]
    assert client.tell(first, 1.0).status_code == 200, "its work is not lost"
    assert [e["event"] for e in client.events()][-1] == "ended"
    assert client.http.post("/v1/studies/s/resume").json()["state"] == "running"
    assert client.tell(second, 1.0).status_code == 200
    assert len(client.trials(n=5)) == 2
    names = [e["event"] for e in client.events()]
    assert names.count("begun") == 2
    assert names.count("finished") == 2


def test_the_first_creation_again_lowers_no_budget(client):
    client.create(trials=4)
    client.http.post("/v1/studies/s/extend", json={"trials": 6})
    for trials in (4, 6):
        again = client.create(trials=trials)
        assert (again.status_code, again.json()["trials"]) == (200, 6)
    assert client.create(trials=5).status_code == 409


def test_a_done_study_is_extended(client):
    client.create(strategy=PSO, trials=2)
    for trial in client.trials(n=2):
        client.tell(trial, 1.0)
    assert client.ask().status_code == 410
    assert client.http.post("/v1/studies/s/cancel").status_code == 409
    assert client.http.post("/v1/studies/s/resume").status_code == 409
    for body in ({}, {"trials": 1}, {"trials": 10**6}, {"timeout": 3}):
        assert client.http.post("/v1/studies/s/extend", json=body).status_code == 422
    extended = client.http.post("/v1/studies/s/extend", json={"trials": 3})
    assert (extended.status_code, extended.json()["trials"]) == (202, 3)
    [trial] = client.trials(n=5)
    assert trial["number"] == 2
    client.tell(trial, 1.0)
    assert client.ask().status_code == 410


def test_studies_and_their_trials_are_shown_like_searches(client):
    client.create(metric="loss", direction="maximize", trials=3)
    assert client.http.get("/v1/studies/s/best").status_code == 409
    first, second, _ = client.trials(n=3)
    client.report(first, 0, [1.0, 2.0])
    client.tell(first, 2.0)
    client.tell(second, 3.0)
    [study] = client.http.get("/v1/studies").json()["items"]
    assert study == client.http.get("/v1/studies/s").json()
    shown = {key: study[key] for key in ("kind", "state", "metric", "trials", "trained")}
    assert shown == {
        "kind": "external",
        "state": "running",
        "metric": "loss",
        "trials": 3,
        "trained": 2,
    }
    best = {"trial": 1, "score": 3.0, "params": second["params"]}
    assert study["best"] == best
    assert client.http.get("/v1/studies/s/best?format=json").json() == best
    page = client.http.get("/v1/studies/s/trials?order=score&limit=2").json()
    assert [(t["number"], t["status"], t["value"]) for t in page["items"]] == [
        (1, "complete", 3.0),
        (0, "complete", 2.0),
    ]
    assert page["items"][1]["epochs"] == 2
    assert client.http.get("/v1/studies/s/model").status_code == 409
    for path in ("summary", "record", "report"):
        answer = client.http.get(f"/v1/studies/s/{path}")
        assert (answer.status_code, "is external" in answer.json()["detail"]) == (409, True), path
    assert client.http.get("/v1/queue").json()["studies"] == []


def test_a_study_that_has_ended_is_deleted(client):
    client.create()
    [trial] = client.trials()
    assert client.http.delete("/v1/studies/s").status_code == 409
    client.http.post("/v1/studies/s/cancel")
    client.tell(trial, 1.0)
    assert client.http.delete("/v1/studies/s").status_code == 204
    assert client.tell(trial, 1.0).status_code == 404
    assert client.create(seed=9).status_code == 201
    assert client.trials()[0]["number"] == 0


def test_events_are_those_of_a_search_each_once(root):
    with running_external(root) as client:
        client.create(trials=2)
        first, second = client.trials(n=2)
        client.report(first, 0, [3.0, 2.0])
    with running_external(root) as client:
        client.report(first, 2, [1.0])
        client.tell(first, 1.0)
        client.tell(second, 2.0)
        wait_until(lambda: client.events()[-1]["event"] == "ended")
        events = client.events()
        assert [e["event"] for e in events if "role" not in e] == ["begun", "ended"]
        epochs = [(e["trial"], e["epoch"], e["value"]) for e in events if e["event"] == "epoch"]
        assert epochs == [(0, 1, 3.0), (0, 2, 2.0), (0, 3, 1.0)]
        of_trials = [(e["event"], e["trial"]) for e in events if "role" in e]
        for event in ("asked", "dispatched", "finished"):
            assert sorted(t for e, t in of_trials if e == event) == [0, 1]


def test_a_restarted_service_knows_every_lease(root):
    with running_external(root) as client:
        client.create(strategy=PSO, trials=4)
        first, second = client.trials(n=2, key="k")
        client.tell(first, 1.0)
    with running_external(root) as client:
        assert [t["lease"] for t in client.trials(n=2, key="k")] == [
            first["lease"],
            second["lease"],
        ]
        assert client.ask().status_code == 204
        assert client.tell(first, 1.0).status_code == 200
        assert client.tell(second, 1.0).status_code == 200
        assert len(client.trials(n=5)) == 2


def test_a_restarted_service_shows_progress_without_journals(root):
    with running_external(root) as client:
        client.create(direction="maximize", strategy={"name": "random", "batch": 4})
        client.create("cancelled")
        told = [client.tell(trial, 1.0) for trial in client.trials(n=3)][-1].json()
        [best] = client.trials()
        client.tell(best, 2.0)
        client.tell(client.trials()[0], failed="no memory")
        late = client.trials("cancelled", n=2)
        client.tell(late[0], 1.0, name="cancelled")
        client.http.post("/v1/studies/cancelled/cancel")
        client.tell(late[1], 0.5, name="cancelled")
        names = ("s", "cancelled")
        before = [client.http.get(f"/v1/studies/{name}").json() for name in names]
    with running_external(root) as client:
        assert [client.http.get(f"/v1/studies/{name}").json() for name in names] == before
        assert before[0]["trained"] == 5
        assert before[0]["best"] == {"trial": 3, "score": 2.0, "params": best["params"]}
        assert before[1]["trained"] == 2
        assert client.http.get("/v1/studies/s/best?format=json").json() == before[0]["best"]
        assert client.service.external.n_open == 0, "no journal is opened for that"
        client.tell(client.trials()[0], 3.0)
        again = client.http.get("/v1/studies/s").json()
        assert (again["trained"], again["best"]["score"]) == (6, 3.0)
        assert told["number"] == 2


def test_a_study_that_no_client_comes_to_says_so(client):
    client.create(lease_s=100.0)
    client.create("new")
    client.trials()
    study = client.service.studies.get("local", "s")

    def waits(silent_s):
        study.heard = time.time() - silent_s
        return client.http.get("/v1/studies/s").json()["waits"]

    assert waits(99) is None, "a client may still have the trial"
    assert waits(1_000_000).startswith("waits for clients: none has come since 20")
    client.ask()
    listed = client.http.get("/v1/studies").json()["items"]
    assert [each["waits"] for each in listed] == [None, None]
    client.http.post("/v1/studies/s/cancel")
    assert waits(1_000_000) is None


def test_rows_of_failed_trials_have_their_reason(root):
    with running_external(root) as client:
        client.create()
        failed, fine, nan = client.trials(n=3)
        client.tell(failed, failed="no\nmemory")
        client.tell(fine, 1.0)
        client.tell(nan, "NaN")
        assert rows(client) == ["no memory", None, "the value is nan"]
    with running_external(root) as client:
        assert rows(client) == ["no memory", None, "the value is nan"], "of the file"
        client.ask()
        assert rows(client)[:3] == ["no memory", None, "the value is nan"], "of the journal"


def rows(client):
    return [row["reason"] for row in client.http.get("/v1/studies/s/trials").json()["items"]]


def test_a_database_holds_external_studies_too(root, tmp_path):
    settings = Settings(root=root, journal=f"sqlite:///{tmp_path / 'journal.db'}")
    with running_external(root, settings=settings) as client:
        client.create(strategy=PSO, trials=4)
        client.create("t")
        first, second = client.trials(n=2)
        client.tell(first, 1.0)
        [other] = client.trials("t")
    with running_external(root, settings=settings) as client:
        assert client.tell(second, 2.0).status_code == 200
        assert client.tell(other, 2.0, name="t").status_code == 200
        for trial in client.trials(n=5):
            client.tell(trial, 0.5)
        assert client.ask().status_code == 410
        assert client.http.get("/v1/studies/s").json()["best"]["score"] == 0.5


def test_an_idle_study_is_closed_and_opened_again(root):
    with running_external(root, idle_s=0.05) as client:
        client.create()
        [trial] = client.trials()
        wait_until(lambda: client.service.external.n_open == 0)
        assert client.tell(trial, 1.0).status_code == 200


def test_a_full_disk_is_507_and_nothing_is_half_done(client, monkeypatch):
    client.create()
    [trial] = client.trials()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("tuner.journal.storage.os.fsync", full)
        answer = client.tell(trial, 1.0)
        assert answer.status_code == 507
        assert "s.journal: cannot be written: No space left on device" in answer.json()["detail"]
    assert client.tell(trial, 1.0).status_code == 200
    assert client.trials()[0]["number"] == 1


def test_an_error_of_ours_is_answered_and_the_study_goes_on(client, monkeypatch):
    client.create()
    with monkeypatch.context() as patched:
        patched.setattr("tuner.coordination.ask_tell.AskTell.ask", lambda *args: 1 / 0)
        assert client.ask().status_code == 500
    assert client.ask().status_code == 200


def test_nothing_of_one_owner_is_visible_to_another(root, tokens):
    access = Access(TokenFile(tokens[0]))
    with running_external(root, access=access) as client:
        ana, ben, reads = (
            Client(client.http, client.service, {"Authorization": f"Bearer {tokens[1][key]}"})
            for key in (("ana", "write"), ("ben", "write"), ("ana", "read"))
        )
        assert ana.create().status_code == 201
        [trial] = ana.trials()
        for answer in (
            ben.ask(),
            ben.tell(trial, 1.0),
            ben.report(trial, 0, [1.0]),
            ben.release(trial),
        ):
            assert answer.status_code == 404
        assert ben.create(seed=5).status_code == 201, "a namespace each"
        for answer in (reads.ask(), reads.tell(trial, 1.0), reads.create("t")):
            assert answer.status_code == 403
        assert client.ask().status_code == 401


def test_one_wait_for_the_disk_serves_many_clients(client, monkeypatch):
    client.create(strategy={"name": "random", "batch": 200}, trials=200)
    trials = [trial for _ in range(2) for trial in client.trials(n=40)]
    syncs, gate = [], threading.Event()

    def slow(descriptor):
        syncs.append(descriptor)
        gate.wait(10)

    monkeypatch.setattr("tuner.journal.storage.os.fsync", slow)
    monkeypatch.setattr("tuner.service.external._GROUP_S", 10.0)
    answers = [in_thread(lambda t=t: client.tell(t, 1.0)) for t in trials]
    study = client.service.studies.get("local", "s")
    requests = client.service.external._open[study].requests
    wait_until(lambda: syncs)
    wait_until(lambda: requests.qsize() >= len(trials) // 2)
    gate.set()
    assert all(answer().status_code == 200 for answer in answers)
    assert len(syncs) < len(trials) / 8


def test_nobody_sees_a_result_that_is_not_on_the_disk(client, monkeypatch):
    client.create()
    first, second = client.trials(n=2)
    client.tell(first, 0.5)
    table = client.service.tables.of("local", "s", sign=1)
    log, seen = client.service.events.of("local", "s"), []

    def synced(file):
        seen.append((table.scores(), log.lines()[-1]))

    monkeypatch.setattr("tuner.journal.storage.os.fsync", synced)
    client.tell(second, 0.25)
    [(scores, event)] = seen
    assert scores == [0.5, None]
    assert b'"trial":0' in event
    assert table.scores() == [0.5, 0.25]
    assert b'"trial":1' in log.lines()[-1]
