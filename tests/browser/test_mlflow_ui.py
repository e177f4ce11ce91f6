"""What a person sees who opens the link that `tuner ui` prints, in a real browser."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tuner.tracking import open_store, runs_link

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
N_TRIALS, N_RETRAININGS = 3, 2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="needs chromium"),
]


@dataclass(frozen=True)
class Study:
    """A finished search, as MLflow has it."""

    folder: Path
    name: str
    experiment_id: str
    run_id: str
    trials: dict[str, tuple[str, float]]  # name -> run id, objective


@pytest.fixture(scope="module", autouse=True)
def no_mlflow_settings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("MLFLOW_"):
                patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, no_mlflow_settings: None) -> Study:
    folder = tmp_path_factory.mktemp("search")
    tuner(
        folder,
        "run",
        str(ROOT / "experiments/air_passengers.yaml"),
        "--study=seen",
        "--strategy=random",
        f"--trials={N_TRIALS}",
        "--workers=1",
        "--set=budget.epochs=3",
        "--set=pruner={name: none}",
        f"--set=finalists={{top: 1, repeats: {N_RETRAININGS}}}",
    )
    shown = json.loads(tuner(folder, "show", "seen", "--json"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        client = open_store()
        (experiment,) = client.search_experiments(filter_string="name = 'air_passengers'")
        runs = client.search_runs([experiment.experiment_id])
    by_name = {run.info.run_name: run.info.run_id for run in runs}
    return Study(
        folder,
        "seen",
        experiment.experiment_id,
        by_name["seen"],
        {str(t["number"]): (by_name[str(t["number"])], t["value"]) for t in shown["all_trials"]},
    )


@pytest.fixture(scope="module")
def base_url(study: Study) -> Iterator[str]:
    with ui(study) as link:
        yield link.partition("/#/")[0]


def tuner(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "tuner", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def ui(study: Study, *arguments: str) -> Iterator[str]:
    """Run `tuner ui` and yield the link that it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", "tuner", "ui", *arguments],
        cwd=study.folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            link = process.stdout.readline().strip()
            assert link.startswith("http://127.0.0.1:"), link
            yield link
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def look(link: str, folder: Path) -> str:
    """Open a link in a new browser and return the text of the page once it is still."""
    assert CHROMIUM is not None, "chromium is not installed"
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--no-proxy-server",
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1500,1000",
            "--virtual-time-budget=20000",
            f"--screenshot={folder / 'page.png'}",
            "--dump-dom",
            link,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    visible = re.sub(r"<(style|script)\b.*?</\1>", " ", done.stdout, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", visible)).split())


def test_the_link_shows_a_study_as_one_run_that_holds_its_trials(study, tmp_path):
    with ui(study) as link:
        page = look(link, tmp_path)
    assert "air_passengers" in page
    assert "Model training" in page
    assert study.name in page
    assert f"{1 + N_TRIALS + N_RETRAININGS} matching runs" in page
    assert "finalist" not in page, "the study is closed until someone opens it"


def test_a_studys_page_lists_its_trials_and_draws_their_objective(study, base_url, tmp_path):
    page = look(runs_link(base_url, study.experiment_id, study.run_id), tmp_path)
    assert f"{N_TRIALS} matching runs" in page
    assert "Sort: objective" in page
    listed = page[page.index("Run Name") :]
    for name in study.trials:
        assert re.search(rf"\b{name}\b", listed), name
        assert f"{name} (train_loss)" in page, name
    assert "finalist" not in listed


def test_a_trials_page_tells_its_objective_and_hyperparameters(study, base_url, tmp_path):
    name, (run_id, objective) = next(iter(study.trials.items()))
    link = f"{base_url}/#/experiments/{study.experiment_id}/runs/{run_id}"
    page = look(link, tmp_path)
    assert f"objective {objective:.3f}"[:12] in page
    for parameter in ("hidden_size", "num_layers", "dropout", "batch_size", "learning_rate"):
        assert parameter in page
    assert "complete" in page
    assert study.name in page, "the way back to the study"
    assert re.search(rf"\b{name}\b", page)


def test_a_studys_own_page_tells_its_best_objective_and_its_trials(study, base_url, tmp_path):
    link = f"{base_url}/#/experiments/{study.experiment_id}/runs/{study.run_id}"
    page = look(link, tmp_path)
    best = min(objective for _, objective in study.trials.values())
    assert f"best_objective {best:.3f}"[:17] in page
    children = page[page.index("Child runs") :]
    for name in (*study.trials, "finalist"):
        assert re.search(rf"\b{name}\b", children), name


def test_a_study_given_by_name_opens_at_its_trials(study, tmp_path):
    with ui(study, study.name) as link:
        assert study.run_id in link
        assert f"{N_TRIALS} matching runs" in look(link, tmp_path)


def test_nothing_serves_any_more_when_the_command_has_ended(study):
    with ui(study) as link:
        server = link.partition("#")[0]
        with urllib.request.urlopen(server, timeout=10) as answer:
            assert answer.status == 200
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(server, timeout=2)
