"""`tuner show`, `export` and `studies` of an external study, and the documentation's clients."""

import json
import re
from pathlib import Path

import pytest
import yaml
from helpers.running_service import running_service
from helpers.thread_pool import ThreadPool

from tuner import Client, InputError

ROOT = Path(__file__).parents[2]
SPACE = {
    "x": {"type": "float", "low": 0.0, "high": 1.0},
    "[n]": {"type": "int", "low": 1, "high": 9},
}


@pytest.fixture
def service(settings, tmp_path, monkeypatch, no_mlflow_settings):
    """A service that commands use, as TUNER_SERVER names it."""
    monkeypatch.delenv("TUNER_TOKEN", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with running_service(settings, lambda n: ThreadPool(n)) as running:
        monkeypatch.setenv("TUNER_SERVER", running.url)
        yield running


@pytest.fixture
def study(service):
    """A study of six trials, four of which were told: the second one is the best."""
    study = Client().external("e1", SPACE, {"name": "random", "batch": 6}, trials=6, metric="loss")
    for value in (0.5, 0.25, 0.75):
        study.ask().tell(value)
    study.ask().fail("no memory")
    return study


def test_show_prints_state_and_the_best_trials(study, tuner):
    status, out, err = tuner("show", "e1")
    assert (status, err) == (0, "")
    assert "e1 is external, running: 4 of 6 trials told" in out
    assert "Best configuration so far (trial 1)" in out
    assert f"[n]={study.best.params['[n]']}" in out
    rows = re.findall(r"^ +(\d) +(0\.\d+) ", out, re.M)
    assert rows == [("1", "0.25"), ("0", "0.5"), ("2", "0.75")]


def test_show_of_a_study_without_trials_or_more_space(service, tuner):
    study = Client().external("few", {"n": {"type": "int", "low": 1, "high": 2}}, trials=5)
    status, out, _ = tuner("show", "few")
    assert (status, out.strip()) == (0, "few is external, running: 0 of 5 trials told")
    study.optimize(lambda trial: float(trial.params["n"]))
    _, out, _ = tuner("show", "few")
    assert "few is external, done: 2 of 5 trials told" in out
    assert "the space has only 2 configurations, and all were tried" in out
    assert "so far" not in out


def test_show_as_json_has_facts_and_all_trials(study, tuner):
    status, out, _ = tuner("show", "e1", "--json")
    shown = json.loads(out)
    assert (status, shown["kind"], shown["trained"]) == (0, "external", 4)
    assert [row["status"] for row in shown["all_trials"]] == ["complete"] * 3 + ["failed"]


def test_export_writes_the_best_trial(study, tuner):
    best = study.facts()["best"]
    status, out, _ = tuner("export", "e1")
    assert (status, yaml.safe_load(out)) == (0, best)
    assert tuner("export", "e1", "--format", "json")[1].startswith("{")
    assert tuner("export", "e1", "-o", "best.json")[0] == 0
    assert json.loads(Path("best.json").read_text()) == best
    status, _, err = tuner("export", "e1", "-o", "best.json")
    assert (status, "--force" in err) == (2, True)
    assert tuner("export", "e1", "-o", "best.json", "--force")[0] == 0


@pytest.mark.parametrize("option", [("--model", "m"), ("--data", "d.csv"), ("--trial", "1")])
def test_export_has_no_model_to_write(option, study, tuner):
    status, _, err = tuner("export", "e1", *option)
    assert (status, f"{option[0]}: study 'e1' is external" in err) == (2, True)


def test_a_list_of_studies_marks_the_external_ones(study, tuner):
    assert re.search(r"e1 +\(external\) +random", tuner("studies")[1])
    [row] = json.loads(tuner("studies", "--json")[1])
    assert row["kind"] == "external"


def test_predict_of_an_external_study_is_no_use_waiting_for(study, tuner):
    Path("rows.csv").write_text("x\n1\n")
    status, _, err = tuner("predict", "e1", "rows.csv")
    assert "is external: its models train elsewhere" in err
    assert status == InputError.exit_status, "not 3: waiting does not help"


@pytest.mark.parametrize("page", ["client.md", "external-studies.md"])
def test_the_python_of_the_documentation_runs(page, service, monkeypatch, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.M | re.S)
    run_blocks = [block for block in blocks if ".external(" in block]
    assert run_blocks
    for block in run_blocks:
        exec(compile(block, page, "exec"), {})
    assert capsys.readouterr().out
