"""A client and servers that restart, refuse, are busy, or are something else."""

import random
import threading
import time

import pytest
from helpers.ports import free_port
from helpers.scripted_server import Answer, problem, serving

from tuner import Client, InputError, RunError
from tuner.client import RefusedError
from tuner.client.connection import InsecureServerWarning, spread

DONE = Answer(200, {"name": "s", "state": "done"})
TOKEN = "tuner_secret-0123456789"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    monkeypatch.delenv("TUNER_SERVER", raising=False)
    monkeypatch.delenv("TUNER_TOKEN", raising=False)


def state(server):
    return Client(server.url).study("s").state


def test_a_request_is_repeated_while_the_service_is_busy():
    busy = [problem(503, "starting", Retry_After="1"), problem(429, "too many"), Answer(None)]
    with serving([*busy, DONE]) as server:
        begun = time.monotonic()
        assert state(server) == "done"
        assert time.monotonic() - begun >= 1  # as the service asked for
    assert len(server.asked) == 5  # once more for the state


def test_a_repeated_post_has_the_same_idempotency_key():
    with serving([DONE, Answer(None), problem(503, "x"), DONE]) as server:
        study = Client(server.url).study("s")
        study.cancel()
        study.cancel()
    first, again, third, other = [asked.headers["idempotency-key"] for asked in server.asked[1:]]
    assert first == again == third != other


def test_a_service_that_goes_away_is_waited_for():
    port = free_port()
    closed = Answer(200, DONE.body, {"Connection": "close"})
    with serving([closed], port) as server:
        study = Client(server.url).study("s")
        assert study.state == "done"
    found = []
    asking = threading.Thread(target=lambda: found.append(study.state))
    asking.start()
    time.sleep(0.5)
    assert asking.is_alive()
    with serving([DONE], port):
        asking.join(30)
    assert found == ["done"]


def test_a_server_that_never_answered_is_given_up_soon():
    url = f"http://127.0.0.1:{free_port()}"
    begun = time.monotonic()
    with pytest.raises(RunError) as refused:
        Client(url).study("s").facts()
    assert time.monotonic() - begun < 8
    assert str(refused.value) == (
        f"{url}: the service does not answer (connection refused); start it with `tuner serve`, "
        f"or check --server and TUNER_SERVER"
    )


def test_a_refusal_is_the_line_of_the_service():
    line = "budget.trials: must be at least 1, got 0; write `trials: 40`, say"
    with serving([problem(422, line)]) as server, pytest.raises(RefusedError) as refused:
        Client(server.url).study("s").facts()
    assert (str(refused.value), refused.value.status, refused.value.exit_status) == (line, 422, 2)
    with serving([problem(500, "the disk is full")]) as server, pytest.raises(RunError) as failed:
        Client(server.url).study("s").facts()
    assert str(failed.value) == f"{server.url}: the disk is full"


def test_every_broken_key_of_a_refusal_is_known():
    refusal = problem(422, "a.b: is required (and 1 more)")
    got = {"key": "c", "rule": "must be a number", "got": "'x'", "remedy": "write 1"}
    refusal.body["errors"] = [{"key": "a.b", "rule": "is required"}, got]
    with serving([refusal]) as server, pytest.raises(RefusedError) as refused:
        Client(server.url).study("s").facts()
    assert str(refused.value) == "a.b: is required (and 1 more)"
    assert refused.value.lines == ["a.b: is required", "c: must be a number, got 'x'; write 1"]
    refusal.body["errors"] = "none"
    with serving([refusal]) as server, pytest.raises(RefusedError) as refused:
        Client(server.url).study("s").facts()
    assert refused.value.lines == ["a.b: is required (and 1 more)"]


@pytest.mark.parametrize(
    ("answer", "kind", "line"),
    [
        (Answer(404, b"<h1>nginx</h1>", kind="text/html"), RefusedError, "answers 404 Not Found"),
        (Answer(502, b"<h1>nginx</h1>", kind="text/html"), RunError, "answers 502 Bad Gateway"),
        (Answer(200, b"<h1>hello</h1>", kind="text/html"), RunError, "no service of tuner; check"),
        (Answer(404, {"detail": ["a", "list"]}), RefusedError, "answers 404 Not Found"),
    ],
)
def test_what_is_no_service_is_named_in_one_line(answer, kind, line, monkeypatch):
    monkeypatch.setattr("urllib3.util.Retry.sleep", lambda *_: None)
    with serving([answer]) as server, pytest.raises(kind) as refused:
        Client(server.url).study("s").facts()
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_redirect_is_not_followed_with_the_token():
    with serving([DONE]) as other:
        moved = Answer(307, headers={"Location": f"{other.url}/v1/studies/s"})
        with serving([moved]) as server, pytest.raises(RunError, match="redirects to http"):
            Client(server.url, TOKEN).study("s").facts()
    assert other.asked == []
    assert server.asked[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_the_token_is_never_printed(tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TUNER_TOKEN", TOKEN)
    with serving([problem(401, "a token is needed")]) as server:
        client = Client(server.url)
        with pytest.raises(RefusedError) as refused:
            client.me()
    assert str(refused.value) == f"{server.url}: a token is needed; set TUNER_TOKEN"
    assert server.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in repr(client) + repr(refused.value)
    for token in ("two words", "line\n", "é"):
        with pytest.raises(InputError) as bad:
            Client(server.url, token)
        assert token not in str(bad.value)


def test_without_a_token_nothing_of_a_netrc_is_sent(tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving([DONE]) as server:
        assert state(server) == "done"
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize(
    "url",
    ["", "ftp://host", "http://", "http://host:port", "http://host/?a=b", "a b", "localhost:x"],
)
def test_what_is_no_url_of_a_service_is_refused(url, monkeypatch):
    monkeypatch.setenv("TUNER_SERVER", url or "x")
    with pytest.raises(InputError, match=r"server: must be the URL of a service, got .*; write"):
        Client(url)


@pytest.mark.parametrize(
    ("given", "server"),
    [
        ("localhost:8080", "http://localhost:8080"),
        (" 127.0.0.1:8080/ ", "http://127.0.0.1:8080"),
        ("[::1]:8080/v1", "http://[::1]:8080"),
        ("http://gpu.lan:8080/v1", "http://gpu.lan:8080"),
        ("https://gpu.lan/tuner/v1/", "https://gpu.lan/tuner"),
        ("https://v1", "https://v1"),
    ],
)
def test_what_people_write_for_a_url_is_understood(given, server):
    assert Client(given).server == server


def test_a_host_without_a_scheme_is_refused_with_both():
    with pytest.raises(InputError) as refused:
        Client("gpu.lan:8080")
    assert str(refused.value) == (
        "server: must be the URL of a service, got 'gpu.lan:8080'; write https://gpu.lan:8080, "
        "or http://gpu.lan:8080 where nobody listens"
    )


def test_a_token_that_the_service_ignores_is_noted_once(caplog):
    answer = Answer(200, DONE.body, {"Tuner-Token": "ignored"})
    with serving([answer]) as server:
        study = Client(server.url, TOKEN).study("s")
        assert study.state == "done"
    assert caplog.messages == [
        f"{server.url}: the service needs no token; the one given is ignored"
    ]


def test_a_service_away_is_noted_once_and_so_is_its_return(monkeypatch):
    monkeypatch.setattr("urllib3.util.Retry.sleep", lambda *_: None)
    away, lines = [Answer(None)] * 3 + [problem(502, "x")], []
    closed = [Answer(None), DONE]  # an idle connection that the service has closed is no news
    with serving([DONE, *away, DONE, *closed, *away, DONE]) as server:
        study = Client(server.url, note=lines.append).study("s")
        for _ in range(3):
            assert study.state == "done"
    gone = f"{server.url}: the service does not answer; trying again"
    assert lines == [gone, f"{server.url}: the service is back"] * 2


def test_pauses_leave_the_random_numbers_of_the_program_alone():
    random.seed(3)
    before = random.getstate()
    assert 1.0 <= spread(2.0) <= 2.0
    assert random.getstate() == before


def test_a_password_in_the_url_is_refused_and_not_printed():
    with pytest.raises(InputError, match="give the token as TUNER_TOKEN") as refused:
        Client("https://me:secret@host")
    assert "secret" not in str(refused.value)
    with pytest.raises(InputError) as refused:
        Client("ftp://me:secret@host")
    assert "secret" not in str(refused.value)


def test_a_token_over_plain_http_is_warned_about_but_on_loopback():
    with pytest.warns(InsecureServerWarning, match="the token travels unencrypted to gpu.lan"):
        Client("http://gpu.lan:8080", TOKEN)
    for url in ("https://gpu.lan", "http://127.0.0.9:1", "http://[::1]:8080", "http://localhost"):
        Client(url, TOKEN)
    Client("http://gpu.lan:8080")  # there is no token


def test_a_service_below_a_path_is_asked_there():
    with serving([DONE]) as server:
        assert Client(f"{server.url}/tuner/").study("a b/c").state == "done"
    assert server.asked[0].path == "/tuner/v1/studies/a%20b%2Fc"


def test_what_a_client_has_says_what_it_is():
    best = {"trial": 3, "score": 0.12345678, "params": {"x": 1}}
    facts = {"kind": "search", "name": "s", "state": "running", "metric": "rmse", "best": best}
    facts |= {"trials": 1000, "trained": 7}
    with serving([Answer(200, facts), Answer(200, facts | {"kind": "external"})]) as server:
        client = Client(server.url)
        assert repr(client) == f"Client('{server.url}', without a token)"
        words = "running, 7 of 1,000 trials, best rmse 0.123457 in trial 3"
        assert repr(client.study("s")) == f"RemoteStudy('s' at {server.url}: {words})"
        assert repr(client.study("s")) == f"ExternalStudy('s' at {server.url}: {words})"


def test_a_list_is_read_page_by_page():
    pages = [{"items": [{"name": "a"}], "next": "c&1"}, {"items": [{"name": "b"}], "next": None}]
    with serving([Answer(200, page) for page in pages]) as server:
        assert [s["name"] for s in Client(server.url).studies(state="done")] == ["a", "b"]
    paths = [asked.path for asked in server.asked]
    assert paths == [
        "/v1/studies?state=done&limit=1000",
        "/v1/studies?state=done&limit=1000&cursor=c%261",
    ]
