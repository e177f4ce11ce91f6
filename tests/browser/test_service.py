"""A search as a person makes it with the page of a real `tuner serve`."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from helpers.mlflow_pages import HEIGHT, WIDTH
from helpers.ports import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DATA = ROOT / "experiments/data/air_passengers.csv"
PICTURES = os.environ.get("TUNER_PICTURES")
QUICK = {"trials: 30": "trials: 8", "epochs: 40": "epochs: 3", "repeats: 5": "repeats: 2"}
PATIENCE_S = 300


@dataclass(frozen=True)
class Service:
    """A running `tuner serve`."""

    url: str
    process: subprocess.Popen

    def get(self, path):
        return requests.get(f"{self.url}/v1/{path}", timeout=60)

    def post(self, path, **given):
        return requests.post(f"{self.url}/v1/{path}", timeout=60, **given)

    def study(self, name):
        return self.get(f"studies/{name}").json()


@contextlib.contextmanager
def serve(folder, port, killed=False):
    """Run `tuner serve`."""
    command = [sys.executable, "-m", "tuner", "serve", f"--port={port}", "--workers=2"]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{url}/ready", timeout=5).ok:
                    break
            assert process.poll() is None, (folder / "serve.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield Service(url, process)
    finally:
        (process.kill if killed else process.terminate)()
        status = process.wait(timeout=30)
    assert status == (-signal.SIGKILL if killed else 0), (folder / "serve.log").read_text()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("serve"), free_port()) as found:
        yield found


@pytest.fixture
def browser(the_browser):
    the_browser.driver.get_log("browser")
    yield the_browser
    the_browser.driver.get("about:blank")


@contextlib.contextmanager
def look(browser, width, height, scheme):
    """Look at the page on another screen."""
    run = browser.driver.execute_cdp_cmd
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
    run("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    run("Emulation.setEmulatedMedia", {"features": features})
    yield
    run("Emulation.setEmulatedMedia", {"features": []})
    size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
    run("Emulation.setDeviceMetricsOverride", size)


def write_yaml(browser, change):
    """Change the text of the editor, as if it had been typed."""
    browser.find("#yaml")
    text = browser.run("return yaml.value")
    changed = change(text)
    assert changed != text
    browser.driver.execute_script(
        "yaml.value = arguments[0]; yaml.dispatchEvent(new Event('input'))", changed
    )


def quick(text):
    for old, new in () if PICTURES else QUICK.items():
        assert old in text
        text = text.replace(old, new)
    return f"{text}\n"


def until(browser, look, what):
    """Wait for what takes longer than a page: a search."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


def test_a_search_from_a_file_to_the_best_configuration(browser, service):
    browser.open(f"{service.url}/")
    browser.see("There is no study yet")
    browser.press("nav a", "New search")
    browser.find("#file").send_keys(str(DATA))
    browser.press("button", "Upload")
    browser.see(
        "air_passengers.csv", "144 rows", "target: passengers, by its name; choose with Target"
    )
    browser.see("No error")
    browser.picture("service-new")

    write_yaml(browser, lambda text: text.replace("name: tpe", "name: tpa"))
    browser.see("1 error", "strategy.name")
    assert browser.find(".lines .bad").text.startswith("✕")
    browser.press("button", "line 30")
    browser.picture("service-error")
    browser.press("button", "Start")  # it is refused, and the line is chosen
    browser.wait(lambda: browser.run("return document.activeElement.id") == "yaml")
    write_yaml(browser, lambda text: quick(text.replace("name: tpa", "name: tpe")))
    browser.see("No error")
    browser.press("button", "Check")
    browser.press("summary", "What a search would do")
    browser.see("144 rows, frequency MS", "search space")
    browser.find("#study-name").send_keys("passengers")
    browser.press("button", "Start")

    browser.see("passengers", "Submitted")
    browser.wait(lambda: "?study=passengers" in browser.driver.current_url)
    browser.run("window.untouched = true")  # it is gone if the page is loaded again
    until(browser, lambda: "done" in browser.find(".state").text, "the end")
    assert browser.run("return window.untouched")
    found = service.study("passengers")
    text = browser.see("Best configuration", "Model (tar)")
    winner = found["best"]["trial"]
    assert ("the untuned default" if winner is None else f"trial {winner}") in text
    assert f"{found['trained']} of {found['trials']}" in text
    assert f"{found['best']['score']:.4g}" in text
    browser.picture("service-study")
    links = [e.get_attribute("href") for e in browser.driver.find_elements("css selector", "a")]
    for file, start in (
        ("report", b"<!doctype html>"),
        ("model", b""),
        ("best", b"name: air_passengers"),
    ):
        (link,) = [href for href in links if f"/passengers/{file}" in href]
        answer = requests.get(link, timeout=60)
        assert answer.ok
        assert answer.content.startswith(start)
    browser.press("button", "Predict")
    rows = service.post("studies/passengers/predict", json={}).json()["rows"]
    text = browser.see("Download CSV")
    for row in rows:
        for value in row.values():
            shown = value if isinstance(value, str) else f"{value:.6g}"
            assert shown.removesuffix("T00:00:00") in text  # a day has no time
    assert [e["message"] for e in browser.driver.get_log("browser")] == []


def submit(service, name, strategy, trials):
    """Submit a search of the uploaded file."""
    (data,) = service.get("datasets").json()["items"]
    experiment = {
        "name": "air_passengers",
        "data": {
            "path": f"dataset:{data['id']}",
            "time": "month",
            "target": "passengers",
            "transform": "log",
        },
        "task": {"kind": "forecast", "window": 25, "horizon": 1},
        "search_space": {
            "hidden_size": {"type": "int", "low": 4, "high": 32, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.5},
            "learning_rate": {"type": "float", "low": 0.001, "high": 0.05, "log": True},
        },
        "strategy": {"name": strategy},
        "budget": {"trials": trials, "epochs": 12, "patience": 6},
        "objective": {"metric": "rmse"},
        "finalists": {"top": 1, "repeats": 2},
    }
    answer = service.post("studies", json={"experiment": experiment, "name": name})
    assert answer.status_code == 201, answer.text


def upload(service):
    answer = service.post("datasets?name=air_passengers.csv", data=DATA.read_bytes())
    assert answer.ok, answer.text


def test_another_search_is_cancelled_and_resumed(browser, service):
    upload(service)
    for name, strategy, n in (
        ("particles", "pso", 40),
        ("whales", "woa", 60),
        ("random", "random", 80),
    ):
        submit(service, name, strategy, trials=n)
    browser.open(f"{service.url}/")
    browser.see("particles", "whales", "random")
    until(browser, lambda: service.study("random")["trained"] > 15, "trials")
    browser.see("2 of 2 workers busy")
    browser.picture("service-studies")
    with look(browser, width=390, height=700, scheme="dark"):
        browser.picture("service-phone")
    browser.press("table a", "random")
    browser.press("button", "Cancel")
    browser.see("Cancelled. Resume goes on from here.", "cancelled")
    trained = service.study("random")["trained"]
    browser.wait(lambda: browser.find(".state").text.endswith("cancelled"))
    browser.press("button", "Resume")
    browser.wait(lambda: browser.find(".state").text.endswith("running"))
    until(browser, lambda: service.study("random")["trained"] > trained, "another trial")
    browser.press("button", "Cancel")
    browser.wait(lambda: browser.find(".state").text.endswith("cancelled"))
    browser.press("button", "Delete")
    browser.press("dialog .danger", "Delete")
    browser.see("Studies", "whales")
    assert service.get("studies/random").status_code == 404
    for name in ("whales", "particles"):  # they may have ended
        assert service.post(f"studies/{name}/cancel").status_code in (202, 409)


def test_a_page_goes_on_after_the_service_was_killed(browser, tmp_path):
    port = free_port()

    def trained():
        return int(browser.find(".numbers .count").text.split()[0])

    with serve(tmp_path, port, killed=True) as service:
        upload(service)
        submit(service, "long", "random", trials=500)
        browser.open(f"{service.url}/?study=long")
        browser.see("running", "Best configuration")
        browser.run("window.untouched = true")
        before = trained()
    with serve(tmp_path, port):
        until(browser, lambda: trained() > before + 2, "another trial")
    assert browser.run("return window.untouched")
