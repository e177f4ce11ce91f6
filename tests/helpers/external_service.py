"""A service with external studies alone, for tests of their routes."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

from starlette.testclient import TestClient

from tuner.service.access import Access
from tuner.service.app import make_app
from tuner.service.events import EventLogs
from tuner.service.external import ExternalStudies
from tuner.service.records import hold_records
from tuner.service.settings import Settings
from tuner.service.studies import Studies
from tuner.service.trial_table import TrialTables

X = {"x": {"type": "float", "low": 0.0, "high": 1.0}}


@contextlib.contextmanager
def running_external(root, *, access=None, settings=None, url=None, **options):
    """Yield a client of a service, which is stopped at the end as a service is."""
    settings = settings or Settings(root=root)
    with hold_records(root, url, print) as records:
        studies, events = Studies(records), EventLogs(root / "events")
        tables = TrialTables(root / "trials")
        external = ExternalStudies(studies, records, events, tables, settings, **options)
        service = SimpleNamespace(external=external, studies=studies, events=events, tables=tables)
        app = make_app(service, access or Access(), settings)
        with TestClient(app, base_url="http://127.0.0.1:8080") as client:
            yield Client(client, service)
            external.stop()
        events.close()


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
        import json

        return [json.loads(line) for line in self.service.events.of(owner, name).lines()]
