"""Every operation of the OpenAPI description, tried by schemathesis with all of its checks."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from helpers.ports import free_port
from helpers.served_data import EXPERIMENT, ROWS, SHA256

pytestmark = [pytest.mark.slow, pytest.mark.real_processes]

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
REFUSED = ["400", "401", "403", "404", "405", "409", "410", "413", "415", "422", "429", "503"]
CONFIGURATION = f"""
hooks = "hooks"

[parameters]
"path.name" = "search"

# A study that runs. Its trial 0 is told, the others of the first generation are out: asks wait.
[[operations]]
include-path-regex = "^/v1/external-studies/"
[operations.parameters]
"path.name" = "outside"
"path.number" = 1

# 410, 413, 415 and 503 refuse too.
[checks.negative_data_rejection]
expected-statuses = {json.dumps(REFUSED)}

# An experiment is a document with a schema of its own, which refuses most that OpenAPI allows.
[checks.positive_data_acceptance]
expected-statuses = {json.dumps(["2xx", *REFUSED])}
"""

HOOKS = """
import schemathesis

@schemathesis.hook
def before_call(context, case, **kwargs):
    \"\"\"Have asks wait, but not for a minute; a wait that is refused stays.\"\"\"
    body = case.body if isinstance(case.body, dict) else {}
    wait_s = body.get("wait_s")
    if isinstance(wait_s, int | float) and 0 < wait_s <= 60:
        body["wait_s"] = 0.01
"""
OUTSIDE = {
    "name": "outside",
    "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
    "direction": "minimize",
    "strategy": {"name": "pso", "population": 4},
    "lease_s": 3600.0,
}


@pytest.fixture
def served(tmp_path):
    """URL and token of a service with data, a search that is done, and a study that runs."""
    tuner = [sys.executable, "-m", "tuner"]
    tokens, port = str(tmp_path / "tokens.yaml"), free_port()
    token = subprocess.check_output([*tuner, "token", "ana", "--tokens", tokens], text=True).strip()
    options = ["--port", str(port), "--tokens", tokens, "--workers", "1"]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(
        [*tuner, "serve", *options], cwd=tmp_path, stdout=subprocess.PIPE, stderr=log
    )
    process.stdout.readline()
    url = f"http://127.0.0.1:{port}"
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        session.put(f"{url}/v1/datasets/{SHA256}?name=y.csv", data=ROWS).raise_for_status()
        body = {"experiment": EXPERIMENT, "name": "search", "tracking": False}
        session.post(f"{url}/v1/studies", json=body).raise_for_status()
        deadline = time.monotonic() + 120
        while session.get(f"{url}/v1/studies/search").json()["state"] != "done":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        external = f"{url}/v1/external-studies"
        session.post(external, json=OUTSIDE).raise_for_status()
        asked = session.post(f"{external}/outside/ask", json={"client": "a", "n": 4})
        told = {"lease": asked.json()["trials"][0]["lease"], "value": 1.0}
        session.post(f"{external}/outside/trials/0/tell", json=told).raise_for_status()
    yield url, token
    process.terminate()
    process.communicate(timeout=30)
    log.close()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_schemathesis_finds_nothing(served, tmp_path):
    url, token = served
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    (tmp_path / "hooks.py").write_text(HOOKS)
    command = [
        *(SCHEMATHESIS, "run", f"{url}/openapi.json", "-H", f"Authorization: Bearer {token}"),
        *("--checks", "all", "--max-examples", "20", "--continue-on-failure", "--seed", "1"),
        *("--request-timeout", "30"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-20_000:]
    assert " generated" in done.stdout
    headers = {"Authorization": f"Bearer {token}"}
    study = requests.get(f"{url}/v1/studies/outside", headers=headers, timeout=30).json()
    assert (study["state"], study["trained"]) == ("running", 1)
