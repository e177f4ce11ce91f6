"""Requests from other sites, or too many; headers; what stops; the audit log."""

import asyncio
import json
import re

import pytest
from helpers.asgi import Exchange
from helpers.guarded import BASE, Recorder, guarded_app, settled
from starlette.testclient import TestClient

from tuner.service import audit as audit_module
from tuner.service.access import Access, Owner, TokenFile
from tuner.service.app import make_app
from tuner.service.audit import AuditLog
from tuner.service.guard import Answered, Condition
from tuner.service.problems import METHODS
from tuner.service.settings import Limits, Settings


@pytest.fixture
def echo():
    return TestClient(guarded_app(), base_url=BASE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:8080"])
def test_every_method_refuses_an_unknown_host(echo, method, host):
    answer = echo.request(method, "/v1/echo", headers={"Host": host})
    assert answer.status_code == 421


@pytest.mark.parametrize("host", ["", "a b", "x@localhost", "localhost:x", "localhost/x", "[::1"])
def test_a_host_header_that_is_none_is_refused(echo, host):
    assert echo.get("/v1/echo", headers={"Host": host}).status_code in (400, 421)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:99", "localhost.", "127.0.0.1:1", "[::1]:8080", "10.1.2.3"]
)
def test_names_of_loopback_and_addresses_are_known(echo, host):
    assert echo.get("/v1/echo", headers={"Host": host}).status_code == 200


def test_further_names_of_the_server_can_be_allowed():
    settings = Settings(allow_hosts=("gpu1",), public_url="https://tuner.example.com")
    client = TestClient(guarded_app(settings), base_url=BASE)
    for host in ("gpu1:8080", "tuner.example.com"):
        assert client.get("/v1/echo", headers={"Host": host}).status_code == 200
    public = {"Host": "tuner.example.com", "Origin": "https://tuner.example.com"}
    assert client.post("/v1/echo", headers=public).status_code == 200
    public["Origin"] = "https://evil.example.com"
    assert client.post("/v1/echo", headers=public).status_code == 403


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.example", "null", "http://127.0.0.1:3000", "https://127.0.0.1:8080"),
        *("http://localhost:8080", "file://", "http://127.0.0.1:8080.evil.example", "http://[::1"),
    ],
)
def test_every_method_refuses_the_page_of_another_origin(echo, method, origin):
    answer = echo.request(method, "/v1/echo", headers={"Origin": origin})
    assert answer.status_code == 403


def test_a_page_of_the_server_itself_may_call(echo):
    headers = {"Origin": BASE, "Sec-Fetch-Site": "same-origin"}
    assert echo.post("/v1/echo", headers=headers).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_a_page_of_another_site_may_only_link(echo, site):
    headers = {"Sec-Fetch-Site": site}
    link = {**headers, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    frame = {**link, "Sec-Fetch-Dest": "iframe"}
    assert echo.get("/v1/echo", headers=link).status_code == 200
    for method in METHODS:
        assert echo.request(method, "/v1/echo", headers=headers).status_code == 403
        assert echo.request(method, "/v1/echo", headers=frame).status_code == 403
    assert echo.post("/v1/echo", headers=link).status_code == 403


def test_a_token_that_is_not_needed_is_said_to_be_ignored(client, guarded, as_):
    header = {"Authorization": "Bearer tuner_x"}
    assert client.get("/health", headers=header).headers["tuner-token"] == "ignored"
    assert "tuner-token" not in client.get("/health").headers
    assert "tuner-token" not in guarded.get("/health", headers=as_("ana")).headers


def test_every_answer_has_headers_against_framing_and_sniffing(client):
    for path in ("/health", "/nothing", "/v1/me", "/openapi.json"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "server" not in headers


def test_nothing_allows_another_origin(client):
    answer = client.options("/v1/me", headers={"Access-Control-Request-Method": "GET"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_open_requests_of_an_owner_are_limited(tokens):
    path, given = tokens
    access = Access(TokenFile(path, Limits(requests=2, streams=1)))
    app = guarded_app(access=access)

    def headers(owner):
        return {"authorization": f"Bearer {given[owner, 'write']}"}

    async def run():
        stream = Exchange("GET", "/v1/studies/x/events", headers("ana"))
        waiting = Exchange("POST", "/v1/wait", headers("ana"))
        open_ = [asyncio.create_task(e.run(app)) for e in (stream, waiting)]
        await settled(lambda: len(app.state.entered) == 2)
        statuses = []
        for owner, path in (
            *(("ana", "/v1/echo"), ("ana", "/v1/studies/x/events"), ("ben", "/v1/echo")),
            ("ben", "/v1/echo"),
        ):
            exchange = Exchange("GET", path, headers(owner))
            await exchange.run(app)
            statuses.append((exchange.status, exchange.headers.get("retry-after")))
        for exchange in (stream, waiting):
            exchange.leave()
        open_[1].cancel()
        await asyncio.gather(*open_, return_exceptions=True)
        again = Exchange("GET", "/v1/echo", headers("ana"))
        await again.run(app)
        return statuses, again.status

    statuses, again = asyncio.run(run())
    assert statuses == [(429, "1"), (429, "1"), (200, None), (200, None)]
    assert again == 200


def test_health_is_answered_beside_as_many_requests_as_allowed():
    app = guarded_app(access=Access(None, Limits(requests=1)))

    async def run():
        waiting = Exchange("POST", "/v1/wait")
        open_ = asyncio.create_task(waiting.run(app))
        await settled(lambda: app.state.entered)
        exchanges = [Exchange("GET", path) for path in ("/v1/echo", "/health")]
        for exchange in exchanges:
            await exchange.run(app)
        open_.cancel()
        await asyncio.gather(open_, return_exceptions=True)
        return [exchange.status for exchange in exchanges]

    assert asyncio.run(run()) == [429, 200]


def test_a_stop_ends_streams_and_answers_what_waits():
    condition, recorder = Condition(), Recorder()
    app = guarded_app(condition=condition, observers=(recorder,))

    async def run():
        stream = Exchange("GET", "/v1/studies/x/events")
        waiting = Exchange("POST", "/v1/wait")
        open_ = [asyncio.create_task(e.run(app)) for e in (stream, waiting)]
        await settled(lambda: len(app.state.entered) == 2 and stream.body)
        condition.end_requests(streams_only=True)
        await open_[0]
        assert not open_[1].done()
        late = Exchange("GET", "/v1/echo")
        await late.run(app)
        condition.end_requests()
        await open_[1]
        return stream, waiting, late

    stream, waiting, late = asyncio.run(run())
    assert (stream.status, stream.body, stream.is_complete) == (200, b"data: 1\n\n", True)
    assert app.state.left == [1]
    for refused in (waiting, late):
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["detail"] == "the service stops"


def test_a_service_that_stands_by_says_so_on_every_route(settings):
    condition = Condition("another service has the journal")
    app = make_app(None, Access(), settings, condition=condition)
    client = TestClient(app, base_url=BASE)
    assert client.get("/health").status_code == 200
    assert client.get("/metrics").status_code == 200
    for path in ("/ready", "/v1/me", "/v1/studies"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["detail"] == "another service has the journal"
    condition.not_ready = None
    assert client.get("/ready").status_code == 200


def test_an_unexpected_error_is_answered_with_a_number(caplog):
    answer = TestClient(guarded_app(), base_url=BASE).get("/v1/fails")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["error"] in caplog.text


def test_an_answer_that_breaks_off_does_not_look_complete():
    async def run():
        exchange = Exchange("GET", "/v1/breaks")
        with pytest.raises(ConnectionAbortedError):
            await exchange.run(guarded_app())
        return exchange

    exchange = asyncio.run(run())
    assert (exchange.status, exchange.body, exchange.is_complete) == (200, b"half", False)


def test_the_audit_log_has_changes_and_refusals(tokens, settings, as_, tmp_path):
    log = AuditLog(tmp_path / "audit.log")
    app = guarded_app(access=Access(TokenFile(tokens[0])), observers=(log,))
    client = TestClient(app, base_url=BASE, client=("10.0.0.9", 1234))
    client.post("/v1/echo", json={"password": "in the body"}, headers=as_("ana"))
    client.get("/v1/echo", headers=as_("ana"))
    client.get("/v1/echo?token=x", headers={"Authorization": "Bearer guessed"})
    client.delete("/v1/%0A%22forged", headers=as_("ben"))
    text = (tmp_path / "audit.log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(e["owner"], e["method"], e["path"], e["status"]) for e in lines] == [
        ("ana", "POST", "/v1/echo", 200),
        (None, "GET", "/v1/echo", 401),
        ("ben", "DELETE", '/v1/\n"forged', 404),
    ]
    assert {e["client"] for e in lines} == {"10.0.0.9"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", e["time"]) for e in lines)
    assert "password" not in text
    assert "guessed" not in text
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600


def test_a_rotated_audit_log_is_begun_anew(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(audit_module, "_REOPENED_EVERY_S", 0)
    path = tmp_path / "audit.log"
    log, answered = AuditLog(path), Answered("POST", "/a", "/a", 200, 0.1, "ana", None)
    log(answered)
    path.rename(tmp_path / "audit.log.1")
    log(answered)
    assert len(path.read_text().splitlines()) == 1
    path.unlink()
    path.mkdir()
    log(answered)
    log(answered)
    assert caplog.text.count("the audit log cannot be written") == 1
    path.rmdir()
    log(answered)
    assert len(path.read_text().splitlines()) == 1
    log.close()


def test_an_owner_is_authenticated_once(tokens, monkeypatch, as_):
    access = Access(TokenFile(tokens[0]))
    asked, owner = [], access.owner
    monkeypatch.setattr(access, "owner", lambda header: asked.append(1) or owner(header))
    client = TestClient(make_app(None, access, Settings()), base_url=BASE)
    assert client.get("/v1/me", headers=as_("ana")).json()["owner"] == "ana"
    assert asked == [1]
    assert isinstance(owner(as_("ana")["Authorization"]), Owner)
