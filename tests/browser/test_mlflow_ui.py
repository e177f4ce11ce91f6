"""What a person sees who opens the links that `tuner ui` and `tuner show` print."""

import os
import pty
import re
import subprocess
import sys

import pytest
from helpers.mlflow_pages import AXES, AXIS_LABELS, DRAWN, LINES
from selenium.webdriver.common.by import By

from tuner.journal.records import read_study
from tuner.journal.storage import journal_location, read_journal
from tuner.tracking.ui import studies_view, study_view

pytestmark = pytest.mark.slow

SEARCHED = {"hidden_size", "dropout", "learning_rate", "batch_size"}  # and normalize


@pytest.fixture(scope="module")
def record(study):
    location = str(study.folder / journal_location(study.name, None))
    return read_study(read_journal(location), study.name, location)


def in_rows(browser, css):
    """Return what elements of the list of runs say, from its top to its bottom."""
    script = f"""
        return [...document.querySelectorAll('.ag-row {css}')].map(
            e => [Number(e.closest('.ag-row').getAttribute('row-index')), e.innerText.trim()]);
    """
    return [text for _, text in sorted(map(tuple, browser.run(script)))]


def names(browser):
    return in_rows(browser, 'a[href*="/runs/"]')


def column(browser, key):
    return in_rows(browser, f'[col-id="{key}"]')


def test_the_experiments_page_lists_a_study_and_its_trials(browser, study, record):
    browser.open(study.studies)
    browser.see("air_passengers", "Model training", study.name, "matching runs")
    browser.wait(lambda: names(browser) == [study.name])  # closed until someone opens it
    browser.press(".ag-row [col-id='attributes.`Run Name`'] button")
    browser.wait(lambda: len(names(browser)) > min(len(record.trials) + len(record.finalists), 10))
    first, *children = names(browser)
    assert first == study.name
    retrained = [name for name in children if re.match(r"\w+( \d+)? repeat \d+ of ", name)]
    trials = [name for name in children if re.match(r"trial \d+( = \d+)? of ", name)]
    assert len(retrained) + len(trials) == len(children), children
    assert retrained
    assert {int(name.split()[1]) for name in trials} <= {t.number for t in record.trials}
    assert len(trials) >= min(len(record.trials), 4)
    browser.picture("mlflow-ui")


def test_trials_are_listed_best_first_with_searched_values(browser, study):
    browser.open(study.trials)
    browser.see("Trials, best first", f"{len(study.trained)} matching runs")
    browser.wait(lambda: column(browser, "metrics.`objective`"))
    values = [float(text) for text in column(browser, "metrics.`objective`") if text != "-"]
    assert values == sorted(values)
    best = study.best
    assert values[0] == pytest.approx(best["value"])
    for name in SEARCHED:
        assert float(column(browser, f"params.`{name}`")[0]) == pytest.approx(best["params"][name])
    browser.picture("mlflow-trials")


def test_a_study_given_by_name_opens_at_charts_of_all_its_trials(browser, study):
    browser.open(study.charts)
    browser.see("Parallel Coordinates", "val_loss", "train_loss", "rmse", study.name)
    browser.see(f"{len(study.trained)} matching runs")
    browser.wait(lambda: len(browser.run(LINES)) >= 2)
    browser.wait(lambda: names(browser)[:1] == [f"trial {study.best['number']} of {study.name}"])
    for name in (*SEARCHED, "objective"):
        browser.wait(
            lambda name=name: any(name in axis for axis in browser.run(AXIS_LABELS)),
            lambda name=name: f"{name} in {browser.run(AXIS_LABELS)}",
        )
    browser.picture("mlflow-charts")


def test_plain_links_open_the_same_lists_each_time(browser, study, record):
    found = re.search(r"/experiments/(\w+)/runs/(\w+)", study.links["study"])
    experiment_id, parent_run_id = found.groups()
    browser.open(study.trials)
    browser.see("Sort: objective")
    browser.open(studies_view(record).link(study.base_url, experiment_id))
    browser.see("Sort: Created", "matching runs")
    browser.wait(lambda: names(browser) == [study.name])
    browser.open(study_view(record, parent_run_id).link(study.base_url, experiment_id))
    browser.see("Sort: objective", f"{len(study.trained)} matching runs", "val_loss")
    browser.wait(lambda: names(browser)[:1] == [f"trial {study.best['number']} of {study.name}"])


def linked_trial(study):
    """Return the best trial that there is a link to; before it may stand the untuned default."""
    return next(link for link in study.links["best"] if link["trial"] is not None)


def test_a_trial_page_shows_scores_and_leads_back(browser, study):
    best = linked_trial(study)
    (trial,) = [t for t in study.facts["all_trials"] if t["number"] == best["trial"]]
    browser.open(best["link"])
    text = browser.see("Parameters (", "Parent run", "Finished", study.name)
    assert "Model training" in text
    shown = dict(re.findall(r"^(\w+)\n([^\n]+)$", text, re.M))
    assert float(shown["objective"]) == pytest.approx(trial["value"])
    assert shown["normalize"] == trial["params"]["normalize"]
    for name in SEARCHED:
        assert float(shown[name]) == pytest.approx(trial["params"][name])
    assert "state: complete" in text.replace("\n", " ").replace(" :", ":")
    browser.picture("mlflow-trial")
    browser.press("a", study.name)
    browser.see("Child runs", "best_objective")


def test_a_trials_curves_have_a_point_for_each_epoch(browser, study, record):
    best = linked_trial(study)
    browser.open(best["link"])
    browser.press("[role=tab]", "Model metrics")
    history = record.trials[best["trial"]].outcome.history
    for name, values in {
        "val_loss": [e.val_loss for e in history],
        "train_loss": [e.train_loss for e in history],
        "rmse": [e.metric for e in history],
    }.items():
        curve = browser.wait(lambda name=name: browser.run(LINES).get(name))
        assert curve["x"] == [e.epoch for e in history]
        assert curve["y"] == pytest.approx(values)
        browser.wait(lambda name=name: browser.run(LINES).get(name, {}).get("drawn"))
    browser.picture("mlflow-curves")


def choose(browser, label, *options):
    """Take options that are not chosen from a list below a label, and leave out those that are."""
    path = f"//*[text()='{label}']/following::*[contains(@class, 'select-selector')][1]"
    browser.press(path, by=By.XPATH)
    for option in options:  # a long list shows those near what is typed
        browser.driver.switch_to.active_element.send_keys(option)
        browser.press(f".du-bois-light-select-item-option[title='{option}']")
    browser.press("[role=tab]", "Parallel Coordinates Plot")  # closes the list


def test_comparing_all_trials_draws_their_parallel_coordinates(browser, study):
    browser.open(study.trials)
    browser.see(f"{len(study.trained)} matching runs")
    browser.press(".ag-header .ag-header-select-all .ag-checkbox-input-wrapper")
    browser.press("button", "Compare")
    browser.see(f"Comparing {len(study.trained)} Runs", "Parallel Coordinates Plot")
    browser.wait(lambda: browser.run(AXES))
    # Three of them, and a metric, are there at first.
    choose(browser, "Parameters:", "learning_rate")
    choose(browser, "Metrics:", "train_loss", "objective")
    wanted = {*SEARCHED, "objective"}
    axes = browser.wait(
        lambda: axes if (axes := browser.run(AXES) or {}).keys() == wanted else None
    )
    trials = study.trained
    objectives = axes.pop("objective")
    assert len(objectives) == len(trials)
    assert min(objectives) == pytest.approx(study.best["value"])
    for name, values in axes.items():
        assert sorted(values) == pytest.approx(sorted(t["params"][name] for t in trials))
    browser.picture("mlflow-compare")


def test_the_report_opens_among_a_studys_artifacts(browser, study):
    browser.open(study.links["study"])
    browser.press("[role=tab]", "Artifacts")
    browser.press("[aria-label='report.html']")
    with browser.inside("iframe"):
        browser.see(study.name, "Scores", "Reproduce", f"{study.facts['test']['mean']:.4g}")
        browser.wait(
            lambda: (drawn := browser.run(DRAWN)) and all(drawn),
            lambda: f"every picture, but {browser.run(DRAWN)}",
        )
    browser.open(study.links["report"])
    with browser.inside("iframe"):
        browser.see(study.name, "Scores", "Reproduce")
    browser.picture("mlflow-report")


def test_a_running_ui_is_opened_and_no_second_one_started(study, tmp_path):
    opened, opener = tmp_path / "opened", tmp_path / "opener"
    opener.write_text(f'#!/bin/sh\necho "$1" > "{opened}"\n')
    opener.chmod(0o755)
    terminal, inside = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "ui", study.name],
        cwd=study.folder,
        env={**os.environ, "BROWSER": f"{opener} %s", "COLUMNS": "80", "TERM": "xterm"},
        stdout=inside,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(inside)
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(terminal, 100_000).decode())
    os.close(terminal)
    assert done.returncode == 0, done.stderr
    for link in (study.charts, study.trials, study.studies):
        assert f"{link}  (" in said
    assert "served already, by process" in said
    assert "Ctrl-C" not in said
    assert opened.read_text().strip() == study.charts
