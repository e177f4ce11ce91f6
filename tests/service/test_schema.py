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
REFUSED = ["400", "401", "403", "404", "405", "409", "410", "413", "422", "429", "503"]
CONFIGURATION = f"""
[parameters]
"path.name" = "search"

# 413, 410 and 503 refuse too.
[checks.negative_data_rejection]
expected-statuses = {json.dumps(REFUSED)}

# An experiment is a document with a schema of its own, which refuses most that OpenAPI allows.
[checks.positive_data_acceptance]
expected-statuses = {json.dumps(["2xx", *REFUSED])}
"""


@pytest.fixture
def served(tmp_path):
    """URL and token of a service that has data and a search that is done."""
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
    yield url, token
    process.terminate()
    process.communicate(timeout=30)
    log.close()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_schemathesis_finds_nothing(served, tmp_path):
    url, token = served
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    command = [
        *(SCHEMATHESIS, "run", f"{url}/openapi.json", "-H", f"Authorization: Bearer {token}"),
        *("--checks", "all", "--max-examples", "20", "--continue-on-failure", "--seed", "1"),
        *("--request-timeout", "30"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-20_000:]
    assert " generated" in done.stdout
