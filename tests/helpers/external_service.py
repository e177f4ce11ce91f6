"""A service with external studies alone, for tests of their routes."""

from __future__ import annotations

import contextlib
import json

from starlette.testclient import TestClient

from helpers.thread_pool import ThreadPool
from tuner.service.access import Access
from tuner.service.app import make_app
from tuner.service.service import Service
from tuner.service.settings import Settings

X = {"x": {"type": "float", "low": 0.0, "high": 1.0}}


@contextlib.contextmanager
def running_external(root, *, access=None, settings=None, idle_s=None):
    """Yield a client of a service, which is stopped at the end as a service is."""
    settings = settings or Settings(root=root)
    service = Service(settings, ThreadPool)
    assert service.start()
    if idle_s is not None:
        service.external.idle_s = idle_s
    app = make_app(service, access or Access(), settings)
    try:
        with TestClient(app, base_url="http://127.0.0.1:8080") as client:
            yield Client(client, service)
    finally:
        service.stop()


class Client:
    """Calls the routes of external studies."""

    def __init__(self, http, service, headers=None):
        self.http, self.service, self.headers = http, service, headers or {}

    def post(self, path, **body):
        return self.http.post(f"/v1/external-studies{path}", json=body, headers=self.headers)

    def create(self, name="s", **keys):
        strategy = {"name": "random", "batch": 100}
        given = {"space": X, "direction": "minimize", "strategy": strategy, "trials": 50}
        return self.post("", name=name, **given | keys)

    def ask(self, name="s", n=1, *, client="a", key=None, wait_s=0):
        headers = self.headers | ({"Idempotency-Key": key} if key else {})
        path = f"/v1/external-studies/{name}/ask"
        body = {"n": n, "client": client, "wait_s": wait_s}
        return self.http.post(path, json=body, headers=headers)

    def trials(self, *args, **keys):
        answer = self.ask(*args, **keys)
        assert answer.status_code == 200, answer.text
        return answer.json()["trials"]

    def tell(self, trial, value=None, name="s", **keys):
        body = {"lease": trial["lease"], **keys} | ({} if value is None else {"value": value})
        return self.post(f"/{name}/trials/{trial['number']}/tell", **body)

    def report(self, trial, step, values, name="s"):
        body = {"lease": trial["lease"], "step": step, "values": values}
        return self.post(f"/{name}/trials/{trial['number']}/report", **body)

    def release(self, trial, name="s"):
        return self.post(f"/{name}/trials/{trial['number']}/release", lease=trial["lease"])

    def events(self, name="s", owner="local"):
        return [json.loads(line) for line in self.service.events.of(owner, name).lines()]
