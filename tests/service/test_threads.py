"""Slow requests of one kind hold up none of another."""

import asyncio
import json
import threading

import pytest
from anyio import CapacityLimiter, to_thread
from helpers.asgi import Exchange
from helpers.guarded import settled
from starlette.routing import Route

from tuner.service import threads
from tuner.service.access import Access
from tuner.service.app import make_app
from tuner.service.problems import Problem
from tuner.service.routes import external, health
from tuner.service.threads import OwnerThreads

MORE = 3  # requests than threads
DATASET = "0" * 64


class Slow:
    """A service, and each of its parts, that does nothing before it is let go."""

    def __init__(self):
        self.go = threading.Event()

    def __getattr__(self, name):
        return self

    def __call__(self, *args, **given):
        assert self.go.wait(10)
        raise Problem(404, "it is gone")


def request(method, path, body=None):
    content = json.dumps(body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(content))}
    exchange = Exchange(method, path.partition("?")[0], headers, parts=[(content, False)])
    exchange.scope["query_string"] = path.partition("?")[2].encode()
    return exchange


KINDS = {
    "a list of the page": ("PAGES", "GET", "/page/view"),
    "the page itself": ("PAGES", "GET", "/"),
    "a study of the page": ("PAGES", "GET", "/page/view?study=x"),
    "a proposal of the page": ("READING", "GET", f"/page/view?new=1&dataset={DATASET}"),
    "a check of the page": ("READING", "POST", "/page/check", {"yaml": ""}),
    "a link of the page": ("LINKS", "GET", "/page/links?study=x"),
    "a proposal": ("READING", "POST", "/v1/experiments:init", {"dataset": DATASET}),
    "a check": ("READING", "POST", "/v1/experiments:check", {"experiment": ""}),
    "a summary": ("RESULTS", "GET", "/v1/studies/x/summary"),
    "a record": ("RESULTS", "GET", "/v1/studies/x/record"),
    "a best configuration": ("RESULTS", "GET", "/v1/studies/x/best"),
    "a new external study": ("CHANGES", "POST", "/v1/external-studies", {"name": "x"}),
    "a deletion": ("CHANGES", "DELETE", "/v1/studies/x"),
    "a cancel": ("CHANGES", "POST", "/v1/studies/x/cancel"),
    "a resume": ("CHANGES", "POST", "/v1/studies/x/resume"),
    "an extension": ("CHANGES", "POST", "/v1/studies/x/extend", {"trials": 9}),
    "a report": ("RESULTS", "GET", "/v1/studies/x/report"),
}


@pytest.mark.parametrize(("kind", "asked"), [(k[0], k[1:]) for k in KINDS.values()], ids=KINDS)
def test_slow_requests_of_a_kind_leave_the_threads_of_others(kind, asked, settings):
    service, limiter = Slow(), getattr(threads, kind)
    if isinstance(limiter, OwnerThreads):
        limiter = limiter._own.setdefault("local", CapacityLimiter(limiter._of_one))
    app = make_app(service, Access(), settings)
    n_threads = int(limiter.total_tokens)

    async def run():
        slow = [request(*asked) for _ in range(n_threads + MORE)]
        tasks = [asyncio.create_task(each.run(app)) for each in slow]
        try:
            await settled(lambda: limiter.statistics().tasks_waiting == MORE)
            others = [Exchange("GET", path) for path in ("/health", "/v1/me", "/static/page.js")]
            for other in others:
                await other.run(app)
            taken = to_thread.current_default_thread_limiter().borrowed_tokens
        finally:
            service.go.set()
        await asyncio.gather(*tasks)
        return taken, [each.status for each in others], {each.status for each in slow}

    taken, others, slow = asyncio.run(run())
    assert taken == 0
    assert set(others) <= {200, 404}
    assert slow <= {200, 404}


@pytest.mark.parametrize("router", [external.router, health.router])
def test_health_asks_and_tells_need_no_thread(router):
    routes = {r.path: r.endpoint for r in router.routes if isinstance(r, Route)}
    routes.pop("/v1/external-studies", None)  # a study is created once
    assert len(routes) >= 4
    for path, route in routes.items():
        assert asyncio.iscoroutinefunction(route), path
        assert not hasattr(route, "__wrapped__"), path
