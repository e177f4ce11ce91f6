"""A service that is killed under load: no result is lost, no trial is trained as another."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest
import requests
from helpers.external_studies import MEDIAN, STEPS, curve, fails, make_spec, run_plainly
from helpers.external_studies import told as told_of
from helpers.ports import free_port

from tuner.journal.external import read_external
from tuner.journal.storage import read_journal

pytestmark = [pytest.mark.slow, pytest.mark.real_processes]

SPEC = make_spec("pso", size=8, trials=160, pruner=MEDIAN)
N_CLIENTS, N_KILLS = 10, 20


class Server:
    """`tuner serve`, killed and started again on the same port."""

    def __init__(self, root):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._root = root
        self.answers_after_s = []

    def start(self):
        command = [sys.executable, "-m", "tuner", "serve", "--root", str(self._root)]
        command += ["--port", str(self.port), "--workers", "0"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        begun = time.monotonic()
        while True:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{self.url}/ready", timeout=5).status_code == 200:
                    break
            assert self._process.poll() is None
            assert time.monotonic() - begun < 60
            time.sleep(0.05)
        self.answers_after_s.append(time.monotonic() - begun)

    def kill(self):
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Client(threading.Thread):
    """Trains until the budget is used; sends a request again until it is answered."""

    def __init__(self, server, name):
        super().__init__(daemon=True)
        self.server, self.name = server, name
        self.told, self.n_again, self.error = {}, 0, None

    def run(self):
        try:
            with requests.Session() as self.session:
                while self._train_one():
                    pass
        except BaseException as error:
            self.error = error

    def _train_one(self):
        key = {"Idempotency-Key": uuid.uuid4().hex}
        answer = self._post("ask", {"client": self.name, "wait_s": 1}, key)
        if answer.status_code == 410:
            return False
        if answer.status_code == 204:
            return True
        [trial] = answer.json()["trials"]
        number, lease = trial["number"], {"lease": trial["lease"]}
        values, prune = curve(trial["params"], trial["seed"]), False
        for step in range(1 if fails(trial["seed"]) else STEPS):
            body = {**lease, "step": step, "values": [values[step]]}
            report = self._post(f"trials/{number}/report", body)
            assert report.status_code == 200, report.text
            if prune := report.json()["prune"]:
                break
        if prune:
            body = {"pruned": True}
        else:
            body = {"failed": "it failed"} if fails(trial["seed"]) else {"value": values[-1]}
        told = self._post(f"trials/{number}/tell", {**lease, **body})
        assert told.status_code == 200, told.text
        self.told[number] = told.json()
        return True

    def _post(self, path, body, headers=None):
        url = f"{self.server.url}/v1/external-studies/s/{path}"
        while True:
            try:
                answer = self.session.post(url, json=body, headers=headers, timeout=60)
                if answer.status_code < 500:
                    return answer
            except requests.RequestException:
                pass
            self.n_again += 1
            time.sleep(0.02)


def test_a_service_killed_under_load_loses_nothing(tmp_path):
    server = Server(tmp_path / "root")
    server.start()
    created = requests.post(f"{server.url}/v1/external-studies", json=SPEC.to_dict(), timeout=30)
    assert created.status_code == 201, created.text
    clients = [Client(server, f"client {i}") for i in range(N_CLIENTS)]
    try:
        for client in clients:
            client.start()
        for kill in range(1, N_KILLS + 1):
            due = kill * SPEC.trials // (N_KILLS + 2)
            while sum(len(client.told) for client in clients) < due:
                assert all(client.error is None for client in clients)
                time.sleep(0.002)
            server.kill()
            server.start()
        for client in clients:
            client.join(60)
            assert client.error is None
            assert not client.is_alive()
        study = requests.get(f"{server.url}/v1/studies/s", timeout=30).json()
    finally:
        server.kill()
    expected = run_plainly(SPEC, tmp_path / "plain.journal")
    path = str(tmp_path / "root" / "studies" / "local" / "s.journal")
    record = read_external(read_journal(path), "s", path)
    acknowledged = [(n, told) for client in clients for n, told in client.told.items()]
    assert len({n for n, _ in acknowledged}) == len(acknowledged), "a trial is told once"
    for number, told in acknowledged:
        assert record.trials[number].value == told["value"]
        assert record.trials[number].status.value == told["state"]
    assert told_of(record.trials) == expected, "as a search that nobody disturbed"
    assert not any(t.lost for t in record.trials), "every lease came back"
    assert study["state"] == "done"
    assert study["best"]["trial"] == record.best.number
    assert sum(client.n_again for client in clients) > 0
