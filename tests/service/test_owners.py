"""Every route of the description, called by somebody else, without a token, and to change."""

import hashlib
import time

import pytest
from helpers.simulated_study import SPACE, START
from helpers.thread_pool import ThreadPool
from starlette.testclient import TestClient

from tuner.service.access import Access, TokenFile, new_token
from tuner.service.app import make_app
from tuner.service.service import Service
from tuner.service.settings import Settings

NAME, FILE, COLUMN = "study-of-ana", "file-of-ana.csv", "column_of_ana"
EXPERIMENT, CLIENT = "experiment-of-ana", "client-of-ana"
HIDDEN = (FILE, COLUMN, EXPERIMENT, CLIENT)
"""What ana has, and nobody else names."""

PUBLIC = {("GET", path) for path in ("/health", "/ready")}
"""Operations that need no token."""

COMMON = PUBLIC | {("GET", "/metrics"), ("GET", "/v1/me")}
"""Operations that show nothing of an owner."""

WITHOUT_CHANGE = {
    ("POST", path)
    for path in ("/v1/experiments:init", "/v1/experiments:check", "/v1/studies/{name}/predict")
}
"""Operations of another method than GET that a token may use which only reads."""


def content(column):
    return f"{column}\n" + "".join(f"{10 + i % 7}\n" for i in range(90))


def experiment(dataset, name, column):
    return {
        "name": name,
        "data": {
            "path": f"dataset:{dataset}",
            "target": column,
            "split": {"validation": 15, "test": 12},
        },
        "task": {"window": 6},
        "search_space": dict(SPACE),
        "hyperparameters": dict(START),
        "strategy": {"name": "random"},
        "budget": {"trials": 3, "epochs": 2},
        "finalists": {"top": 0},
    }


class Owned:
    """A service with a study, an external study and a dataset of ana, and a client of it."""

    def __init__(self, folder):
        tokens = folder / "tokens.yaml"
        self.headers = {
            (owner, role): {"Authorization": f"Bearer {new_token(tokens, owner, role)}"}
            for owner, role in (("ana", "write"), ("ana", "read"), ("ben", "write"))
        }
        settings = Settings(root=folder / "root", tokens=tokens)
        settings.root.mkdir()
        self.service = Service(settings, ThreadPool)
        assert self.service.start()
        app = make_app(self.service, Access(TokenFile(tokens)), settings)
        self.client = TestClient(app, base_url="http://127.0.0.1:8080")
        self.dataset = hashlib.sha256(content(COLUMN).encode()).hexdigest()
        self.fill()
        self.schema = self.client.get("/openapi.json").json()
        self.values = {"name": NAME, "dataset": self.dataset, "sha256": self.dataset}

    def fill(self):
        self.send("PUT", f"/v1/datasets/{self.dataset}?name={FILE}", content=content(COLUMN))
        raw = experiment(self.dataset, EXPERIMENT, COLUMN)
        self.send("POST", "/v1/studies", json={"experiment": raw, "name": NAME, "tracking": False})
        deadline = time.monotonic() + 60
        while self.send("GET", f"/v1/studies/{NAME}").json()["state"] != "done":
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def send(self, method, path, who=("ana", "write"), **request):
        headers = {} if who is None else self.headers[who]
        answer = self.client.request(method, path, headers=headers, **request)
        assert who != ("ana", "write") or answer.status_code < 300, answer.text
        return answer

    def operations(self):
        """Return method, template, path and body of every operation, those that read first."""
        return sorted(self._operations(), key=lambda operation: operation[0] != "GET")

    def _operations(self):
        for template, methods in self.schema["paths"].items():
            for method, operation in methods.items():
                path = template
                for parameter in operation.get("parameters", []):
                    if parameter["in"] == "path":
                        name = parameter["name"]
                        path = path.replace(f"{{{name}}}", str(self.values.get(name, 0)))
                yield method.upper(), template, path, self.body(method.upper(), template)

    def body(self, method, template):
        """Return a body that is valid, where one is needed."""
        bodies = {
            "/v1/studies": {"experiment": experiment(self.dataset, "x", COLUMN)},
            "/v1/studies/{name}/extend": {"trials": 9},
            "/v1/studies/{name}/predict": {"rows": [{"y": 1.0}]},
            "/v1/experiments:init": {"dataset": self.dataset},
            "/v1/experiments:check": {"experiment": experiment(self.dataset, "x", COLUMN)},
            "/v1/external-studies": {
                "name": "x",
                "space": {"a": {"type": "float", "low": 0, "high": 1}},
                "strategy": {"name": "random"},
                "direction": "minimize",
            },
            "/v1/external-studies/{name}/ask": {"client": "c"},
            "/v1/external-studies/{name}/trials/{number}/report": {
                "lease": "x",
                "step": 0,
                "values": [1.0],
            },
            "/v1/external-studies/{name}/trials/{number}/tell": {"lease": "x", "value": 1.0},
            "/v1/external-studies/{name}/trials/{number}/release": {"lease": "x"},
        }
        if method in ("PUT", "POST") and template.startswith("/v1/datasets"):
            return {"content": "y\n1\n2\n"}
        return {"json": bodies[template]} if method == "POST" and template in bodies else {}


@pytest.fixture(scope="module")
def owned(tmp_path_factory):
    owned = Owned(tmp_path_factory.mktemp("owned"))
    yield owned
    owned.service.stop()


def test_nothing_of_an_owner_is_visible_to_another(owned):
    seen = []
    for method, template, path, body in owned.operations():
        answer = owned.send(method, path, ("ben", "write"), **body)
        where = f"{method} {template}: {answer.status_code} {answer.text[:300]}"
        assert not [text for text in HIDDEN if text in answer.text], where
        assert answer.status_code < 500, where
        if (method, template) in COMMON or template.startswith(("/v1/workers", "/page")):
            continue
        seen.append(template)
        if answer.status_code == 200 and method == "GET" and "{" not in template:
            listed = answer.json()
            assert not listed.get("items", listed.get("studies")), where
        elif method in ("PUT", "POST") and template in ("/v1/datasets", "/v1/external-studies"):
            assert answer.status_code in (200, 201), where  # they are ben's own
        elif method == "PUT":
            assert answer.status_code == 422, where  # his file has another hash
        else:
            assert answer.status_code == 404, where
    assert len(seen) > 20
    state = owned.send("GET", f"/v1/studies/{NAME}").json()["state"]
    assert state == "done"
    assert owned.send("GET", f"/v1/datasets/{owned.dataset}").json()["name"] == FILE


def test_every_operation_needs_a_token_but_a_few(owned):
    for method, template, path, body in owned.operations():
        expected = 200 if (method, template) in PUBLIC else 401
        answer = owned.send(method, path, None, **body)
        assert answer.status_code == expected, f"{method} {template}"
        if expected == 401:
            assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_token_that_reads_changes_nothing(owned):
    for method, template, path, body in owned.operations():
        if method == "GET" or template.startswith("/v1/workers"):
            continue
        status = owned.send(method, path, ("ana", "read"), **body).status_code
        where = f"{method} {template}: {status}"
        assert (status != 403) if (method, template) in WITHOUT_CHANGE else (status == 403), where
