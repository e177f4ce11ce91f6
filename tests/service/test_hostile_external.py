"""Hostile requests to an external study that runs: each is refused with 4xx within a second."""

import json

import pytest
from helpers.external_service import X, running_external
from helpers.hostile import Clock, check_refused

MEDIAN = {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 0}
NEW = {"name": "t", "direction": "minimize", "space": X, "trials": 4}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a service with a study whose trials are told, leased, given back and out again.

    `leases` has the leases by these words; the trials are 0 to 3.
    """
    with running_external(tmp_path_factory.mktemp("hostile") / "root") as client:
        client.create(pruner=MEDIAN, steps=10, lease_s=86_400.0)
        trials = client.trials(n=4)
        client.tell(trials[0], 1.0)
        client.report(trials[1], 0, [3.0, 2.0, "NaN"])
        client.release(trials[2])
        client.trials(client="b")
        client.release(trials[3])
        words = ("told", "leased", "out again", "given back")
        client.leases = {word: t["lease"] for word, t in zip(words, trials, strict=True)}
        yield client


def nested(depth, key="x"):
    found = 1
    for _ in range(depth):
        found = {key: found}
    return found


def choices(*values):
    return {"space": {"x": {"type": "categorical", "choices": list(values)}}}


def range_of(low, high, **more):
    return {"space": {"x": {"type": "float", "low": low, "high": high, **more}}}


def whole(low, high, **more):
    return {"space": {"x": {"type": "int", "low": low, "high": high, **more}}}


CREATE = {
    "no space": {"space": {}},
    "a space that is a text": {"space": "/etc/passwd"},
    "a space that is a list": {"space": [X]},
    "a parameter that is a number": {"space": {"x": 1}},
    "a parameter without a type": {"space": {"x": {"low": 0.0, "high": 1.0}}},
    "an unknown type": {"space": {"x": {"type": "os:system", "low": 0.0, "high": 1.0}}},
    "an unknown key of a parameter": range_of(0.0, 1.0, url="http://169.254.169.254/"),
    "a range the wrong way": range_of(1.0, 0.0),
    "a range that is too wide": range_of(-1.7e308, 1.7e308),
    "a range of texts": range_of("NaN", "Infinity"),
    "a logarithm of nothing": range_of(0.0, 1.0, log=True),
    "a step of nothing": range_of(0.0, 1.0, step=0.0),
    "huge integers": whole(0, 10**30),
    "integers that floats cannot hold": whole(0, 2**53 + 2),
    "integers that are texts": whole("0", "9"),
    "no choices": choices(),
    "choices that are a number": {"space": {"x": {"type": "categorical", "choices": 1}}},
    "choices that are true": {"space": {"x": {"type": "categorical", "choices": True}}},
    "choices that are null": {"space": {"x": {"type": "categorical", "choices": None}}},
    "a choice that is a list": choices([1], [2]),
    "a choice that is deep": choices(nested(50)),
    "a choice that is a long text": choices("x" * 2000, "y"),
    "a choice with signs of control": choices("a\x1b[2J", "b"),
    "a choice twice": choices(1, 1),
    "many choices": choices(*range(20_000)),
    "many parameters": {"space": {f"p{i}": X["x"] for i in range(3000)}},
    "a parameter without a name": {"space": {"": X["x"]}},
    "a parameter with a long name": {"space": {"x" * 201: X["x"]}},
    "a parameter with signs of control": {"space": {"a\x1b]0;b\x07": X["x"]}},
    "a deep space": {"space": {"x": nested(500)}},
    "a name with signs of control": {"name": "a\x07b"},
    "a name that is a path": {"name": "../../etc/cron.d/x"},
    "a name with a new line": {"name": "a\nb"},
    "a name that turns the text": {"name": "a\u202eb"},
    "a name that is too long": {"name": "x" * 5000},
    "a name that is empty": {"name": ""},
    "a name that is a list": {"name": ["t"]},
    "a metric with signs of control": {"metric": "a\x9b1m"},
    "a long metric": {"metric": "x" * 201},
    "an unknown direction": {"direction": "sideways"},
    "an unknown strategy": {"strategy": {"name": "os:system"}},
    "a strategy that is a text": {"strategy": "tpe"},
    "a huge population": {"strategy": {"name": "pso", "population": 10**9}},
    "a huge batch": {"strategy": {"name": "random", "batch": 10**12}},
    "an unknown option": {"strategy": {"name": "tpe", "path": "/etc/passwd"}},
    "an unknown pruner": {"pruner": {"name": "chainsaw"}},
    "a pruner in a pruner": {"pruner": nested(200, "wrapped")},
    "a pruner without steps": {"pruner": {"name": "hyperband"}},
    "no trials": {"trials": 0},
    "too many trials": {"trials": 10**9},
    "trials that are true": {"trials": True},
    "half a trial": {"trials": 1.5},
    "no lease": {"lease_s": 0.0},
    "a lease without end": {"lease_s": 1e300},
    "a lease that is a text": {"lease_s": "1e9"},
    "a negative seed": {"seed": -1},
    "a huge seed": {"seed": 2**64},
    "negative retries": {"retries": -1},
    "too many retries": {"retries": 10**6},
    "no steps": {"steps": 0},
    "an unknown key": {"owner": "ben"},
    "another study's name": {"name": "s"},
}

ASK = {
    "nobody": {"client": ""},
    "signs of control": {"client": "a\x1b[2J"},
    "a long name": {"client": "x" * 100_000},
    "a name that is a number": {"client": 1},
    "no trial": {"client": "a", "n": 0},
    "a negative number": {"client": "a", "n": -1},
    "a huge number": {"client": "a", "n": 10**9},
    "half a trial": {"client": "a", "n": 0.5},
    "a number that is a text": {"client": "a", "n": "1"},
    "a wait without end": {"client": "a", "wait_s": 1e300},
    "a negative wait": {"client": "a", "wait_s": -1},
    "a wait that is a text": {"client": "a", "wait_s": "1"},
    "a wait that is false": {"client": "a", "wait_s": False},
    "an unknown key": {"client": "a", "owner": "ben"},
    "nothing": {},
}

# What a client sends of a trial: number, lease (a word of `client.leases`, or as it is), the rest.
REPORT = {
    "an unknown lease": (1, "0" * 32, {"values": [1.0]}),
    "another trial's lease": (1, "told", {"values": [1.0]}),
    "a trial that nobody has": (4_000, "leased", {"values": [1.0]}),
    "a negative trial": (-1, "leased", {"values": [1.0]}),
    "a huge trial": (10**30, "leased", {"values": [1.0]}),
    "a trial that is a path": ("..%2f0", "leased", {"values": [1.0]}),
    "a lease that is empty": (1, "", {"values": []}),
    "a long lease": (1, "x" * 100_000, {"values": []}),
    "a lease with signs of control": (1, "\x1b[2J", {"values": []}),
    "after the tell": (0, "told", {"values": [1.0]}),
    "after it was given back": (3, "given back", {"values": []}),
    "after it was given out again": (2, "out again", {"values": []}),
    "a step with another value": (1, "leased", {"step": 1, "values": [9.0]}),
    "nan with another value": (1, "leased", {"step": 2, "values": [1.0]}),
    "the first step with another value": (1, "leased", {"values": [9.0, 2.0, "NaN", 1.0]}),
    "a step too early": (1, "leased", {"step": 4, "values": [1.0]}),
    "a negative step": (1, "leased", {"step": -1, "values": [1.0]}),
    "a huge step": (1, "leased", {"step": 2**31, "values": [1.0]}),
    "half a step": (1, "leased", {"step": 0.5, "values": [1.0]}),
    "more steps than allowed": (1, "leased", {"step": 3, "values": [1.0] * 8}),
    "many values": (1, "leased", {"step": 3, "values": [1.0] * 10_001}),
    "a value that is nothing": (1, "leased", {"step": 3, "values": [None]}),
    "a value that is true": (1, "leased", {"step": 3, "values": [True]}),
    "a value that is a text": (1, "leased", {"step": 3, "values": ["nan"]}),
    "values that are deep": (1, "leased", {"step": 3, "values": [nested(200)]}),
    "values that are a number": (1, "leased", {"step": 3, "values": 1.0}),
}
TELL = {
    "another value": (0, "told", {"value": 1.5}),
    "another end": (0, "told", {"failed": "no memory"}),
    "pruned after its value": (0, "told", {"pruned": True}),
    "nan after its value": (0, "told", {"value": "NaN"}),
    "another trial's lease": (1, "told", {"value": 1.0}),
    "another trial's number": (0, "leased", {"value": 1.0}),
    "an unknown lease": (1, "0" * 32, {"value": 1.0}),
    "after it was given back": (3, "given back", {"value": 1.0}),
    "after it was given out again": (2, "out again", {"value": 1.0}),
    "a trial that nobody has": (4_000, "leased", {"value": 1.0}),
    "a text": (1, "leased", {"value": "1.0"}),
    "true": (1, "leased", {"value": True}),
    "a list": (1, "leased", {"value": [1.0]}),
    "an integer that floats cannot hold": (1, "leased", {"value": 10**400}),
    "nothing": (1, "leased", {}),
    "two ends": (1, "leased", {"value": 1.0, "pruned": True}),
    "not pruned": (1, "leased", {"pruned": False}),
    "a long reason": (1, "leased", {"failed": "x" * 100_000}),
    "a reason that is a list": (1, "leased", {"failed": ["x"]}),
    "an unknown key": (1, "leased", {"value": 1.0, "seed": 1}),
}
RELEASE = {
    "an unknown lease": (1, "0" * 32, {}),
    "another trial's lease": (1, "told", {}),
    "after the tell": (0, "told", {}),
    "after it was given out again": (2, "out again", {}),
    "a trial that nobody has": (4_000, "leased", {}),
    "a value too": (1, "leased", {"value": 1.0}),
}
RAW = {
    "a million levels": b"[" * 200_000,
    "a million values": b'{"lease": ' + b'{"x":' * 40_000,
    "NaN": b'{"lease": "LEASE", "value": NaN}',
    "infinity": b'{"lease": "LEASE", "value": 1e999}',
    "many digits": b'{"lease": "LEASE", "value": ' + b"9" * 100_000 + b"}",
    "a value twice": b'{"lease": "LEASE", "value": 1.0, "value": 2.0}',
    "half a pair": b'{"lease": "\\ud800", "value": 1.0}',
    "U+0000": b'{"lease": "a\\u0000b", "value": 1.0}',
    "no JSON": b"value=1.0",
    "nothing": b"",
}
STUDIES = {
    "a study that is not there": ("POST", "/v1/external-studies/nothing/ask", {"client": "a"}),
    "a name with a zero byte": ("POST", "/v1/external-studies/a%00b/ask", {"client": "a"}),
    "a name with signs of control": ("POST", "/v1/external-studies/a%1b%5b2J/ask", {"client": "a"}),
    "a long name": ("POST", f"/v1/external-studies/{'x' * 5000}/ask", {"client": "a"}),
    "a name upwards": ("POST", "/v1/external-studies/..%2f..%2fs/ask", {"client": "a"}),
    "a record": ("GET", "/v1/studies/s/record", None),
    "a report": ("GET", "/v1/studies/s/report", None),
    "a model": ("GET", "/v1/studies/s/model", None),
    "to delete what runs": ("DELETE", "/v1/studies/s", None),
    "no extension": ("POST", "/v1/studies/s/extend", {}),
    "fewer trials": ("POST", "/v1/studies/s/extend", {"trials": 1}),
    "too many trials": ("POST", "/v1/studies/s/extend", {"trials": 1_000_000}),
    "a limit of time": ("POST", "/v1/studies/s/extend", {"timeout": 5}),
    "rows to predict from": ("POST", "/v1/studies/s/predict", {"rows": [{"x": 1.0}]}),
}


def check(answer, clock, client):
    check_refused(answer, clock, [str(client.service.settings.root)])


def send(client, action, number, lease, body):
    """Send what a table has, quickly refused."""
    body = {"lease": client.leases.get(lease, lease), **body}
    text = json.dumps(body)
    path, headers = f"/s/trials/{number}/{action}", {"Content-Type": "application/json"}
    clock = Clock()
    answer = client.http.post(f"/v1/external-studies{path}", content=text, headers=headers)
    check(answer, clock, client)


@pytest.mark.parametrize("keys", CREATE.values(), ids=CREATE)
def test_a_hostile_study_is_not_created(client, keys):
    clock = Clock()
    check(client.http.post("/v1/external-studies", json=NEW | keys), clock, client)


@pytest.mark.parametrize("body", ASK.values(), ids=ASK)
def test_a_hostile_ask_is_refused(client, body):
    clock = Clock()
    check(client.post("/s/ask", **body), clock, client)


@pytest.mark.parametrize("key", ["", "x" * 201, "x" * 7_000])
def test_a_hostile_idempotency_key_is_refused(client, key):
    clock = Clock()
    headers = {"Idempotency-Key": key}
    path = "/v1/external-studies/s/ask"
    check(client.http.post(path, json={"client": "a"}, headers=headers), clock, client)


@pytest.mark.parametrize(("number", "lease", "body"), REPORT.values(), ids=REPORT)
def test_a_hostile_report_is_refused(client, number, lease, body):
    send(client, "report", number, lease, body)


@pytest.mark.parametrize(("number", "lease", "body"), TELL.values(), ids=TELL)
def test_a_hostile_tell_is_refused(client, number, lease, body):
    send(client, "tell", number, lease, body)


@pytest.mark.parametrize(("number", "lease", "body"), RELEASE.values(), ids=RELEASE)
def test_a_hostile_release_is_refused(client, number, lease, body):
    send(client, "release", number, lease, body)


@pytest.mark.parametrize("content", RAW.values(), ids=RAW)
@pytest.mark.parametrize("path", ["/s/trials/1/tell", "/s/trials/1/report", "/s/ask", ""])
def test_a_hostile_body_of_a_client_is_refused(client, path, content):
    content = content.replace(b"LEASE", client.leases["leased"].encode())
    headers = {"Content-Type": "application/json"}
    clock = Clock()
    answer = client.http.post(f"/v1/external-studies{path}", content=content, headers=headers)
    check(answer, clock, client)


@pytest.mark.parametrize(("method", "path", "body"), STUDIES.values(), ids=STUDIES)
def test_a_hostile_request_of_a_study_is_refused(client, method, path, body):
    clock = Clock()
    check(client.http.request(method, path, json=body), clock, client)


def test_nothing_hostile_has_changed_the_study(client):
    [study] = client.http.get("/v1/studies").json()["items"]
    assert (study["state"], study["trained"], study["best"]["score"]) == ("running", 1, 1.0)
    mine = {"number": 1, "lease": client.leases["leased"]}
    assert client.report(mine, 0, [3.0, 2.0, "NaN", 1.0]).status_code == 200
    assert client.tell(mine, 0.5).status_code == 200
    given = client.trials(n=2)
    assert [(t["number"], t["attempt"]) for t in given] == [(3, 2), (4, 1)]
