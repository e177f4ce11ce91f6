"""Leases of external studies go on by the clock, whether the study is open, closed or restarted."""

import pytest
from helpers.external_service import running_external
from helpers.external_studies import Clock
from helpers.threads import wait_until

from tuner.coordination.ask_tell import AskTell

PSO = {"name": "pso", "population": 2}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def clock(monkeypatch):
    """The time of all leases."""
    clock = Clock()

    class Timed(AskTell):
        def __init__(self, *args, **keys):
            super().__init__(*args, **keys, clock=clock)

    monkeypatch.setattr("tuner.service.external.AskTell", Timed)
    monkeypatch.setattr("tuner.service.external.time.time", clock)
    return clock


def is_closed(client):
    return client.service.external.n_open == 0


def test_a_lease_expires_while_the_study_is_closed(root, clock):
    with running_external(root, idle_s=0.05) as client:
        client.create(strategy=PSO, lease_s=20.0)
        lost = client.trials(n=2)[0]
        wait_until(lambda: is_closed(client))
        clock.now += 19
        assert client.ask().status_code == 204, "it is good until then"
        wait_until(lambda: is_closed(client))
        clock.now += 2
        [again] = client.trials(client="b")
        assert (again["number"], again["params"], again["attempt"]) == (0, lost["params"], 2)
        assert client.tell(lost, 1.0).status_code == 409


def test_a_renewal_is_known_after_the_study_was_closed(root, clock):
    with running_external(root, idle_s=0.05) as client:
        client.create(strategy=PSO, lease_s=20.0)
        kept, lost = client.trials(n=2)
        clock.now += 15
        client.report(kept, 0, [])
        wait_until(lambda: is_closed(client))
        clock.now += 15
        assert [t["number"] for t in client.trials(n=2)] == [lost["number"]]
        assert client.tell(kept, 1.0).status_code == 200


def test_after_a_restart_a_lease_lasts_once_more(root, clock):
    with running_external(root) as client:
        client.create(strategy=PSO, lease_s=20.0)
        lost = client.trials(n=2)[0]
    clock.now += 1000
    with running_external(root, idle_s=0.05) as client:
        clock.now += 19  # since the start, whenever the first request comes
        assert client.ask().status_code == 204
        wait_until(lambda: is_closed(client))
        clock.now += 2
        assert client.trials()[0]["number"] == lost["number"]


def test_trials_that_clients_have_are_listed_while_it_is_closed(root):
    with running_external(root, idle_s=0.05) as client:
        client.create()
        client.tell(client.trials(n=3)[0], 1.0)
        wait_until(lambda: is_closed(client))
        for other in range(20):  # the rows in memory are those of other studies
            client.service.tables.of("local", f"other-{other}", sign=1)
        before = client.http.get("/v1/studies/s/trials").json()
        assert [row["status"] for row in before["items"]] == ["complete", "running", "running"]
    with running_external(root) as client:
        assert client.http.get("/v1/studies/s/trials").json() == before
        assert client.service.external.n_open == 0
