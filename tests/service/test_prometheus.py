"""Figures for Prometheus."""

import re

from helpers.thread_pool import ThreadPool
from starlette.testclient import TestClient

from tuner.service.access import Access
from tuner.service.app import make_app
from tuner.service.guard import Answered, Condition
from tuner.service.metrics import BUCKETS, Metrics, gauge
from tuner.service.service import Service


def answered(route="/v1/me", status=200, seconds=0.02):
    return Answered("GET", "/v1/x", route, status, seconds, "ana", None)


def read(text):
    """The samples of a text by name and labels; checks each line."""
    samples = {}
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|histogram))", line)
            continue
        name, value = re.fullmatch(
            r'([a-z_]+(?:\{(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)+\})?) (\S+)', line
        ).groups()
        assert name not in samples
        samples[name] = float(value)
    return samples


def test_answers_are_counted_by_route_and_status():
    metrics = Metrics()
    for status in (200, 200, 404):
        metrics(answered(status=status))
    samples = read(metrics.text())
    name = 'tuner_http_requests_total{method="GET",route="/v1/me",status="%d"}'
    assert (samples[name % 200], samples[name % 404]) == (2, 1)
    assert "ana" not in metrics.text()


def test_methods_and_paths_that_clients_invent_are_one(client):
    for i in range(20):
        client.request(f"FETCH{i}", "/v1/me")
        client.request("GET", f"/v1/studies{i}")
        client.request(f"FETCH{i}", f"/nothing{i}")
    samples = read(client.get("/metrics").text)
    counted = {name: n for name, n in samples.items() if name.startswith("tuner_http_requests_t")}
    name = 'tuner_http_requests_total{method="%s",route="%s",status="%d"}'
    assert counted == {
        name % ("other", "/v1/me", 405): 20,
        name % ("GET", "", 404): 20,
        name % ("other", "", 404): 20,
    }


def test_durations_are_a_histogram_that_adds_up():
    metrics = Metrics()
    for seconds in (0.001, 0.02, 0.02, 3.0, 1000.0):
        metrics(answered(seconds=seconds))
    samples = read(metrics.text())
    name = "tuner_http_request_duration_seconds"

    def bucket(bound):
        return samples[f'{name}_bucket{{route="/v1/me",le="{bound}"}}']

    assert [bucket(b) for b in ("0.001", "0.025", "2.5", "5", "60", "+Inf")] == [1, 3, 3, 4, 4, 5]
    assert samples[f'{name}_count{{route="/v1/me"}}'] == 5
    assert abs(samples[f'{name}_sum{{route="/v1/me"}}'] - 1003.041) < 1e-6
    assert len([n for n in samples if "_bucket" in n]) == len(BUCKETS) + 1


def test_sources_are_asked_when_the_metrics_are_read():
    metrics, busy = Metrics(), [1]
    metrics.add_source(lambda: [gauge("tuner_workers_busy", "Workers that train.", busy[0])])
    metrics.add_source(lambda: [gauge("tuner_studies", "Studies.", {'a"b\\\n': 2}, "state")])
    assert read(metrics.text())["tuner_workers_busy"] == 1
    busy[0] = 3
    samples = read(metrics.text())
    assert samples["tuner_workers_busy"] == 3
    assert samples[r'tuner_studies{state="a\"b\\\n"}'] == 2


def test_figures_of_the_service_are_shown(settings):
    service = Service(settings, ThreadPool)
    condition = Condition()
    client = TestClient(
        make_app(service, Access(), settings, condition=condition), base_url="http://127.0.0.1"
    )
    assert service.start()
    try:
        samples = read(client.get("/metrics").text)
        condition.not_ready = "standing by"
        waiting = read(client.get("/metrics").text)
    finally:
        service.stop()
    assert samples["tuner_ready"] == 1
    assert samples["tuner_http_requests_open"] == 1  # this one
    assert samples["tuner_event_streams"] == samples["tuner_workers_busy"] == 0
    assert samples["tuner_workers"] >= 1
    assert samples['tuner_studies{kind="search",state="queued"}'] == 0
    assert waiting["tuner_ready"] == 0
    assert "tuner_workers" not in waiting


def test_asks_tells_and_trials_are_counted(settings):
    space = {"x": {"type": "float", "low": 0, "high": 1}}
    study = {"name": "a", "space": space, "direction": "minimize", "trials": 9}
    service = Service(settings, ThreadPool)
    client = TestClient(make_app(service, Access(), settings), base_url="http://127.0.0.1")
    assert service.start()
    try:
        assert client.post("/v1/external-studies", json=study).status_code == 201
        url = "/v1/external-studies/a"
        trials = client.post(f"{url}/ask", json={"client": "a", "n": 4}).json()["trials"]
        for trial, told in zip(
            trials, ({"value": 1.0}, {"value": 2.0}, {"failed": "x"}), strict=False
        ):
            body = {"lease": trial["lease"], **told}
            tell = f"{url}/trials/{trial['number']}/tell"
            assert client.post(tell, json=body).status_code == 200
        wrong = {"lease": "x", "value": 1.0}
        assert client.post(f"{url}/trials/3/tell", json=wrong).status_code == 409
        samples = read(client.get("/metrics").text)
    finally:
        service.stop()
    assert (samples["tuner_asks_total"], samples["tuner_tells_total"]) == (4, 3)
    states = {
        s: samples[f'tuner_trials_total{{state="{s}"}}'] for s in ("complete", "failed", "pruned")
    }
    assert states == {"complete": 2, "failed": 1, "pruned": 0}


def test_the_route_of_the_metrics_counts_itself(client):
    client.get("/v1/me")
    client.get("/nothing")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = read(answer.text)
    assert samples['tuner_http_requests_total{method="GET",route="/v1/me",status="200"}'] == 1
    assert samples['tuner_http_requests_total{method="GET",route="",status="404"}'] == 1
