"""Bodies: too large, too slow, no strict JSON; and none that is read too early."""

import asyncio
import re
import selectors
import threading
import time

import pytest
import yaml
from helpers.asgi import Exchange
from helpers.guarded import BASE, Recorder, guarded_app
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from tuner.service import bodies
from tuner.service.access import Access, TokenFile
from tuner.service.app import make_app
from tuner.service.bodies import BODY_S, PART_BYTES, Body
from tuner.service.problems import Problem
from tuner.service.settings import Limits, Settings
from tuner.service.strict_json import check_json


@pytest.fixture
def echo():
    return TestClient(guarded_app(), base_url=BASE)


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
    monkeypatch.setattr(bodies, "BODY_S", 0.05)

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
        (b"{" + b",".join(b'"%d": 1' % i for i in range(2501)) + b"}", "more than 2500 keys"),
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


def unread(app, method, path):
    """The status of a request whose body never arrives; nothing of it may be asked for."""

    async def run():
        headers = {"content-length": "10", "content-type": "application/json"}
        exchange = Exchange(method, path, headers, parts=[])
        exchange.on_receive = lambda: pytest.fail("the body is read")
        await exchange.run(app)
        return exchange

    exchange = asyncio.run(run())
    if exchange.status == 401:
        assert exchange.headers["www-authenticate"].startswith("Bearer")
    return exchange.status


@pytest.mark.parametrize("path", ["/v1/studies", "/v1/x", "/page/check", "/metrics", "/x", "/v1"])
def test_a_request_without_a_token_is_refused_unread(path, tokens, settings):
    app = make_app(None, Access(TokenFile(tokens[0])), settings)
    assert unread(app, "POST", path) == 401


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/openapi.json", "/static/x"])
@pytest.mark.parametrize("needs_token", [True, False])
def test_what_needs_no_token_needs_no_body(path, needs_token, tokens, settings):
    app = make_app(None, Access(TokenFile(tokens[0]) if needs_token else None), settings)
    assert unread(app, "POST", path) == 405


@pytest.mark.parametrize("path", ["/v1/datasets/x", "/v1/workers/x/blobs/x"])
def test_an_upload_is_passed_on_in_parts_whatever_its_type(path):
    app = guarded_app(access=Access(None, Limits(body_bytes=10)))
    arrived = []

    async def run():
        headers = {"content-type": "application/json", "transfer-encoding": "chunked"}
        exchange = Exchange("PUT", path, headers, parts=[(b"{" * 100, True), (b"", True)])
        exchange.on_receive = lambda: arrived.append(len(app.state.parts))
        task = asyncio.create_task(exchange.run(app))
        while len(arrived) < 3:
            await asyncio.sleep(0)
        exchange.leave()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert arrived[:2] == [0, 1]  # the route has a part before the next one is asked for


def test_an_upload_obeys_the_limit_of_its_owner(tokens, as_):
    path, _ = tokens
    raw = yaml.safe_load(path.read_text())
    for token in raw["tokens"]:
        token["limits"] = {"upload_bytes": {"ana": 2000, "ben": 500}[token["owner"]]}
    path.write_text(yaml.safe_dump(raw))
    limits = Limits(upload_bytes=1000)
    app = guarded_app(Settings(limits=limits), Access(TokenFile(path, limits)))
    client = TestClient(app, base_url=BASE)

    def upload(owner, n_bytes):
        content = b"x" * n_bytes
        return client.put("/v1/datasets/x", content=content, headers=as_(owner)).status_code

    assert [upload("ana", n) for n in (2000, 2001)] == [200, 413]
    assert [upload("ben", n) for n in (500, 501)] == [200, 413]


def test_a_large_body_is_checked_outside_of_the_loop(monkeypatch):
    answered = threading.Event()

    def check(body):
        assert answered.wait(5), "nothing else is answered meanwhile"

    monkeypatch.setattr(bodies, "check_json", check)
    app = guarded_app()

    async def run():
        headers = {"content-type": "application/json", "content-length": "100002"}
        large = Exchange("POST", "/v1/echo", headers, parts=[(b'"' + b"x" * 100_000 + b'"', False)])
        task = asyncio.create_task(large.run(app))
        await asyncio.sleep(0)
        other = Exchange("GET", "/v1/echo")
        await other.run(app)
        answered.set()
        await task
        return large.status, other.status

    assert asyncio.run(run()) == (200, 200)


class Skipping(selectors.DefaultSelector):
    """Lets the time of a loop pass without waiting."""

    now = 0.0

    def select(self, timeout=None):
        self.now += timeout or 0
        return super().select(0)


def seconds_to_read(body, parts, *, own_s=0.0):
    """Read a body, of whose parts each comes some seconds after it is asked for.

    Args:
        body: makes the body from what receives its parts.
        parts: (seconds, bytes) of each.
        own_s: seconds between two parts that the service takes.
    """
    selector = Skipping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now
    waiting = iter(parts)

    async def receive():
        if (part := next(waiting, None)) is None:
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.sleep(part[0])
        return {"type": "http.request", "body": b" " * part[1], "more_body": True}

    async def read():
        found = body(receive)
        await found.check()
        while (await found.receive())["more_body"]:
            await asyncio.sleep(own_s)
        return selector.now

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(read())


def body_of(kind, *, is_upload=False):
    headers = Headers({"content-type": kind, "transfer-encoding": "chunked"})
    return lambda receive: Body(receive, headers, Limits(), is_upload=is_upload)


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
@pytest.mark.parametrize("is_upload", [False, True])
@pytest.mark.parametrize(
    "parts", [[(1, 1)] * 100_000, [(31, PART_BYTES)], [(5, PART_BYTES // 9)] * 9]
)
def test_a_body_that_trickles_is_given_up(kind, is_upload, parts):
    with pytest.raises((Problem, HTTPException)) as refused:
        seconds_to_read(body_of(kind, is_upload=is_upload), parts)
    found = refused.value
    assert (found.status if isinstance(found, Problem) else found.status_code) == 408
    assert refused.value.headers == {"Connection": "close"}


def test_an_upload_may_take_long_if_it_goes_on():
    upload = body_of("text/csv", is_upload=True)
    parts = [(0.9 * BODY_S, PART_BYTES)] * 100
    assert seconds_to_read(upload, parts) == pytest.approx(90 * BODY_S)


def test_time_that_the_service_takes_is_not_the_clients():
    upload = body_of("text/csv", is_upload=True)
    assert seconds_to_read(upload, [(0.1, 10)] * 20, own_s=BODY_S) > 20 * BODY_S
