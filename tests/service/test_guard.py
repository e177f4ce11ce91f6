"""Requests from other sites, too large, too slow, too many; headers; the audit log."""

import asyncio
import json
import re
import time

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from helpers.asgi import Exchange
from starlette.testclient import TestClient

from tuner.service import audit as audit_module
from tuner.service import guard as guard_module
from tuner.service.access import Access, Owner, TokenFile
from tuner.service.app import make_app
from tuner.service.audit import AuditLog
from tuner.service.guard import Answered, Condition, Guard
from tuner.service.problems import add_handlers
from tuner.service.settings import Limits, Settings
from tuner.service.strict_json import check_json

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
BASE = "http://127.0.0.1:8080"


class Recorder:
    """The answers that a guard reports."""

    def __init__(self):
        self.seen = []

    def __call__(self, answered):
        self.seen.append(answered)


def guarded_app(settings=None, access=None, condition=None, observers=()):
    """An application with a few routes behind a guard."""
    app = FastAPI()
    add_handlers(app)
    app.state.entered, app.state.left = [], []

    @app.api_route("/v1/echo", methods=list(METHODS))
    async def echo(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @app.put("/v1/datasets/x")
    async def upload(request: Request) -> int:
        return sum([len(part) async for part in request.stream()])

    @app.get("/v1/studies/x/events")
    async def events() -> StreamingResponse:
        async def stream():
            app.state.entered.append(1)
            try:
                yield b"data: 1\n\n"
                await asyncio.Event().wait()
            finally:
                app.state.left.append(1)

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.post("/v1/wait")
    async def wait() -> None:
        app.state.entered.append(1)
        await asyncio.Event().wait()

    @app.get("/v1/fails")
    async def fails() -> None:
        raise ZeroDivisionError("a secret")

    @app.get("/v1/breaks")
    async def breaks() -> StreamingResponse:
        async def stream():
            yield b"half"
            raise ZeroDivisionError("a secret")

        return StreamingResponse(stream())

    app.add_middleware(
        Guard,
        access=access or Access(),
        settings=settings or Settings(),
        condition=condition or Condition(),
        observers=observers,
    )
    return app


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


def test_a_body_above_the_limit_is_refused_unread(echo):
    limit = Limits().body_bytes
    assert echo.post("/v1/echo", content=b"x" * limit).json() == {"bytes": limit}
    answer = echo.post("/v1/echo", content=b"x" * (limit + 1))
    assert answer.status_code == 413
    assert answer.json()["detail"] == f"the body has more than {limit} bytes, the limit; send less"


@pytest.mark.parametrize("content_type", ["application/json", "text/csv"])
def test_a_body_without_a_length_is_counted(content_type):
    limit, read = 1000, []

    def parts():
        while len(read) < 1000:
            read.append(1)
            yield b"x" * 100

    client = TestClient(guarded_app(Settings(limits=Limits(body_bytes=limit))), base_url=BASE)
    answer = client.post("/v1/echo", content=parts(), headers={"Content-Type": content_type})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_upload_has_a_limit_of_its_own():
    limits = Limits(body_bytes=10, upload_bytes=1000)
    client = TestClient(guarded_app(Settings(limits=limits)), base_url=BASE)
    assert client.put("/v1/datasets/x", content=b"x" * 1000).json() == 1000
    assert client.put("/v1/datasets/x", content=b"x" * 1001).status_code == 413
    assert client.put("/v1/datasets/x", content=iter([b"x" * 600] * 2)).status_code == 413
    assert client.post("/v1/echo", content=b"x" * 11).status_code == 413


@pytest.mark.parametrize("path", ["/v1/echo", "/v1/datasets/x"])
def test_a_body_that_does_not_arrive_is_given_up(path, monkeypatch):
    monkeypatch.setattr(guard_module, "BODY_S", 0.05)

    async def run():
        method = "PUT" if "datasets" in path else "POST"
        headers = {"content-length": "10", "content-type": "application/json"}
        exchange = Exchange(method, path, headers, parts=[(b"[", True)])
        await exchange.run(guarded_app())
        return exchange

    exchange = asyncio.run(run())
    assert exchange.status == 408
    assert exchange.json()["status"] == 408


def test_a_client_that_leaves_gets_no_answer_and_is_counted():
    recorder = Recorder()

    async def run():
        headers = {"content-length": "10", "content-type": "application/json"}
        exchange = Exchange("POST", "/v1/echo", headers, parts=[(b"[", True)], leaves=True)
        await exchange.run(guarded_app(observers=(recorder,)))
        return exchange

    assert asyncio.run(run()).status is None
    assert [answered.status for answered in recorder.seen] == [499]


NESTED = b"[" * 100 + b"]" * 100


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"{'a': 1}", "is not JSON"),
        (b"[1,]", "is not JSON"),
        (b"[1] 2", "is not JSON"),
        (b"\xff", "must be UTF-8"),
        (b"NaN", "NaN is no JSON"),
        (b'{"a": [-Infinity]}', "-Infinity is no JSON"),
        (b"1e999", "numbers must be finite"),
        (b"-1.5e400", "numbers must be finite"),
        (b"9" * 21, "integers must have at most 20"),
        (b"9" * 100_000, "integers must have at most 20"),
        (b'{"a": 1, "a": 2}', "a key occurs twice"),
        (b'"a\\u0000b"', "U+0000"),
        (b'{"\\u0000": 1}', "U+0000"),
        (b'["\\ud800"]', "half a surrogate pair"),
        (NESTED, "more than 64 levels"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "more than 64 levels"),
        (b'"]]]",' + NESTED, "more than 64 levels"),
        (b"[]" * 65 + b'\\"' * 100_000, "is not JSON"),  # texts without an end
        (b"[]" * 65 + b'"' + b"\\" * 200_001, "is not JSON"),
    ],
)
def test_what_is_no_strict_json_is_refused(body, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_json(body)


@pytest.mark.parametrize(
    "body",
    [
        *(b"1", b'{"a": [1.5, -2e10, true, null, "x"]}', b'"[[\\"[[\\\\"', b"18446744073709551615"),
        b"[" * 64 + b"]" * 64,
        b"[" + b"[]," * 1000 + b"[]]",
        b'{"a": "' + b"[" * 1000 + b'"}',
        b'"\\ud83d\\ude00 \\u00e4"',
    ],
)
def test_strict_json_is_accepted(body):
    check_json(body)


def test_a_million_levels_are_refused_within_a_second():
    settings = Settings(limits=Limits(body_bytes=1 << 21))
    client = TestClient(guarded_app(settings), base_url=BASE)
    for body in (b"[" * 1_000_000, b'{"a":' * 300_000, b'["' * 500_000, b'["\\' * 400_000):
        began = time.monotonic()
        answer = client.post("/v1/echo", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert len(answer.content) < 500
        assert time.monotonic() - began < 1


def test_a_request_without_a_token_is_refused_unread(tokens):
    app = guarded_app(access=Access(TokenFile(tokens[0])))
    read = []

    async def run():
        exchange = Exchange("POST", "/v1/echo", {"content-length": "10"}, parts=[(b"x", True)])
        exchange.on_receive = lambda: read.append(1)
        await exchange.run(app)
        return exchange

    exchange = asyncio.run(run())
    assert exchange.status == 401
    assert exchange.headers["www-authenticate"].startswith("Bearer")
    assert read == []


async def _settled(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


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
        await _settled(lambda: len(app.state.entered) == 2)
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


def test_a_stop_ends_streams_and_answers_what_waits():
    condition, recorder = Condition(), Recorder()
    app = guarded_app(condition=condition, observers=(recorder,))

    async def run():
        stream = Exchange("GET", "/v1/studies/x/events")
        waiting = Exchange("POST", "/v1/wait")
        open_ = [asyncio.create_task(e.run(app)) for e in (stream, waiting)]
        await _settled(lambda: len(app.state.entered) == 2 and stream.body)
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
