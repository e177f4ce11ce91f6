"""A real search, its real UI and a real browser: one of each for all of these tests.

With `TUNER_PICTURES=docs/images` the search is that of the README, and the tests write the pictures
of the documentation: `make pictures`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.mlflow_pages import open_browser
from helpers.postgresql import skip_without

ROOT = Path(__file__).parents[2]
PICTURES = os.environ.get("TUNER_PICTURES")
N_TRIALS, N_RETRAININGS = 5, 2
QUICK = (
    "--strategy=random",
    f"--trials={N_TRIALS}",
    "--workers=1",
    "--set=budget.epochs=4",
    "--set=pruner={name: none}",
    f"--set=finalists={{top: 1, repeats: {N_RETRAININGS}}}",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Keep what the browser showed when a test failed."""
    report = yield
    browser = getattr(item, "funcargs", {}).get("browser")
    if report.failed and report.when == "call" and browser is not None:
        folder = Path(tempfile.gettempdir()) / "lstm-tuner-browser-tests"
        report.sections.append(("Browser", browser.keep(folder / item.name)))
    return report


@dataclass(frozen=True)
class Study:
    """A finished search, and the UI that shows it."""

    folder: Path
    name: str
    facts: dict[str, Any]  # what `tuner show --json` says while the UI runs
    charts: str  # the links of `tuner ui STUDY`, as they were printed
    trials: str
    studies: str

    @property
    def base_url(self):
        return self.charts.partition("/#/")[0]

    @property
    def trained(self):
        """The trials that do not repeat an earlier one."""
        return [t for t in self.facts["all_trials"] if t["repeat_of"] is None]

    @property
    def best(self):
        """The trial with the best score of the search."""
        complete = [t for t in self.trained if t["status"] == "complete"]
        return min(complete, key=lambda t: (t["value"], t["number"]))

    @property
    def links(self):
        return self.facts["links"]


def tuner(folder, *arguments):
    command = [sys.executable, "-m", "tuner", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def ui(folder, *arguments):
    """Run `tuner ui` and yield the links that it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", "tuner", "ui", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(3 if arguments else 2)]
            yield [line.partition("  (")[0] for line in lines]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def surroundings():
    """The programs that are needed, and no settings of MLflow's."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            skip_without("chromium", f"needs {program}")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("MLFLOW_"):
                patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, surroundings):
    folder = tmp_path_factory.mktemp("search")
    if PICTURES:  # one of them shows a path
        folder = Path(tempfile.gettempdir()) / "forecasts"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    name = "air_passengers-woa-0"
    options = () if PICTURES else QUICK
    tuner(folder, "run", str(ROOT / "experiments/air_passengers.yaml"), f"--study={name}", *options)
    return folder, name


@pytest.fixture(scope="module")
def study(finished):
    folder, name = finished
    with ui(folder, name) as links:
        # Links that are not found within two seconds are left out: it is asked until they are.
        deadline = time.monotonic() + 60
        while not (shown := json.loads(tuner(folder, "show", name, "--json")))["links"]:
            assert time.monotonic() < deadline
        yield Study(folder, name, shown, *links)


@pytest.fixture(scope="module")
def the_browser(tmp_path_factory, surroundings):
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(the_browser, study):
    """The browser of a person who sees MLflow for the first time."""
    the_browser.forget(study.base_url)
    return the_browser
