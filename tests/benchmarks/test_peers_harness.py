"""Searches beside those of other tools: who is measured, on what, and what is said of it."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import psutil
import pytest
import torch

from tuner.data.prepared import prepare
from tuner.experiment import Experiment

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "peers"
SMALL = ROOT / "experiments" / "data" / "air_passengers.csv"


@pytest.fixture
def imported(monkeypatch):
    monkeypatch.syspath_prepend(str(PEERS))
    before = {*sys.modules}
    yield importlib.import_module
    for name in {*sys.modules} - before:
        if str(PEERS) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def results(imported):
    return imported("results")


def bench(*arguments):
    command = [sys.executable, str(PEERS / "bench.py"), *arguments]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return ended.stdout, ended.stderr


@pytest.mark.slow
def test_the_tutorial_and_ours_are_measured_once_and_tabled(tmp_path):
    file = tmp_path / "results.jsonl"
    peers = ["--peers", "tutorial", "ours_tpe", "--job", "small", "--quick"]
    measured = [*peers, "--runs", "1", "--results", str(file), "--python", sys.executable]
    _, said = bench("run", *measured)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["peer"] for line in lines] == ["tutorial", "ours_tpe"], said
    for line in lines:
        assert "failed" not in line, line
        assert (line["trials"], line["steps"]) == (4, 4 * 2 * 6)
        assert len(line["curve"]) == 4
        assert 0 < line["curve"][0][0] < line["curve"][-1][0] < line["wall_s"]
        assert line["score"] == min(score for _, score in line["curve"])
        assert line["cpu_s"] > 1
        assert line["peak_mb"] > line["largest_mb"] > 50
    bench("run", *measured)
    assert len(file.read_text().splitlines()) == 2
    table, _ = bench("table", *peers, "--results", str(file), "--write", str(tmp_path))
    assert "| `ours_tpe` | 1 |" in table
    assert "`ours_tpe`, trials a second over `tutorial`" in table
    assert (tmp_path / "peers.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["small", pytest.param("large", marks=pytest.mark.slow)])
def test_peers_have_the_windows_that_we_have(imported, tmp_path, name):
    jobs, ours = imported("jobs"), imported("ours")
    job, source, file = jobs.job_of(name), SMALL, tmp_path / "rows.csv"
    if name == "large":
        source = tmp_path / "source.csv"
        rows = [
            f"2016-07-{1 + k // 24 % 28:02d} {k % 24:02d}:00:00" + f",{k % 7}.5" * 7
            for k in range(jobs.ETTH1_ROWS)
        ]
        source.write_text("\n".join([",".join(["date", *job.columns]), *rows, "cut off"]))
    jobs.write_rows(name, source, file)
    windows = jobs.read_windows(job, file)
    raw = ours.experiment(job, file, "tpe", 0)
    if name == "large":
        del raw["data"]["time"]  # the rows above do not follow each other
    (ref,) = prepare(Experiment.model_validate(raw), tmp_path / "arrays").folds
    n_rows = len(file.read_text().splitlines()) - 1
    assert len(ref.train_samples()) == len(windows.x) == job.train_windows(n_rows)
    truth = ref.truth_of(ref.evaluate_samples()).reshape(windows.val_y.shape)
    theirs = windows.val_y * windows.scale
    level = truth[0, 0] - theirs[0, 0]  # the training rows' mean
    assert theirs + level == pytest.approx(truth, rel=1e-4, abs=1e-4)


def test_a_range_has_its_ends_and_whole_numbers(imported):
    jobs = imported("jobs")
    width = jobs.Range(4, 32, log=True, whole=True)
    assert [width.at(share) for share in (-1, 0, 0.5, 1, 2)] == [4, 4, 11, 32, 32]
    assert jobs.Range(0.001, 0.1, log=True).at(0.5) == pytest.approx(0.01)
    assert jobs.Range(0.0, 0.5).at(0.5) == 0.25


BUSY = "import time; e = time.process_time() + {}\nwhile time.process_time() < e: pass"


def test_time_of_children_that_end_soon_is_counted(imported, tmp_path):
    code = "import subprocess, sys\n"
    code += f"for _ in range(8): subprocess.run([sys.executable, '-c', {BUSY.format(0.1)!r}])"
    found = imported("measuring").measure([sys.executable, "-c", code], tmp_path, {}, 60)
    assert found.failed is None
    assert found.cpu_s > 0.8


def test_time_of_children_nobody_waits_for_is_counted(imported, tmp_path):
    code = "import signal, subprocess, sys, time; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    code += f"child = subprocess.Popen([sys.executable, '-c', {BUSY.format(2)!r}])\n"
    code += "child.wait()"
    found = imported("measuring").measure([sys.executable, "-c", code], tmp_path, {}, 60)
    assert found.failed is None
    assert found.cpu_s > 1.2  # a second look may come late


def test_memory_of_all_processes_is_counted(imported, tmp_path):
    child = "import time; kept = b'1' * 10**8; time.sleep(2)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    found = imported("measuring").measure([sys.executable, "-c", code], tmp_path, {}, 60)
    assert (found.failed, found.processes) == (None, 2)
    assert found.peak_mb > found.largest_mb > 95


def test_other_children_of_the_process_are_spared(imported, tmp_path):
    code = "import subprocess, sys, time\nprint(subprocess.Popen([sys.executable, '-c', "
    code += "'import time; time.sleep(99)']).pid, flush=True); time.sleep(99)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        below = psutil.Process(int(other.stdout.readline()))
        imported("measuring").measure([sys.executable, "-c", ""], tmp_path, {}, 60)
        assert other.poll() is None
        assert below.is_running()
        below.kill()
        other.kill()


@pytest.mark.parametrize("limit_s", [3, 60])
def test_nothing_that_was_measured_goes_on(imported, tmp_path, limit_s):
    file = tmp_path / "pid"
    code = "import subprocess, sys, time\n"
    code += "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])\n"
    code += f"open({str(file)!r}, 'w').write(str(child.pid)); time.sleep({limit_s == 3} * 99)"
    measured = imported("measuring").measure
    found = measured([sys.executable, "-c", code], tmp_path, {}, limit_s)
    assert found.failed == ("over the limit of 3 s" if limit_s == 3 else None)
    assert found.over == (limit_s == 3)
    assert found.wall_s < 60
    assert not psutil.pid_exists(int(file.read_text()))


def test_a_peer_that_fails_says_why(imported, tmp_path):
    code = "import sys; sys.exit('no such package')"
    found = imported("measuring").measure([sys.executable, "-c", code], tmp_path, {}, 60)
    assert found.failed == "exit status 1: no such package"


def line(peer, run, wall_s, job="small", **others):
    found = {"job": job, "quick": False, "peer": peer, "run": run, "load": 1.0, "trials": 40}
    found |= {"wall_s": wall_s, "cpu_s": wall_s, "peak_mb": 500.0, "largest_mb": 300.0}
    return found | {"steps": 12000, "score": 20.0, "curve": [[1.0, 20.0]]} | others


def shown(results, lines, **options):
    given = {"peers": None, "job": ["small", "large", "overhead", "quality"], "write": None}
    return results.tables(lines, argparse.Namespace(**given | options))


def test_ratios_are_of_one_run_and_their_median_counts(results):
    lines = [line("tutorial", run, wall) for run, wall in enumerate([10, 20, 60])]
    lines += [line("ours_tpe", run, wall) for run, wall in enumerate([2, 5, 10, 1])]
    found = results.ratios(lines, "ours_tpe", "tutorial")
    assert [low for low, _ in found] == [high for _, high in found] == pytest.approx([5, 4, 6])
    said = shown(results, lines)
    assert "| `ours_tpe`, trials a second over `tutorial` | 5.00 (4.00 to 6.00) | 4.5 |" in said


def test_a_missed_target_is_bold_and_a_failure_is_told(results):
    lines = [line("tutorial", 0, 10), line("ours_tpe", 0, 5, peak_mb=1001.0)]
    lines += [{**line("ours_pso", 0, 9), "failed": "exit status 1: gone"}]
    said = shown(results, lines)
    assert "| **2.00** | 4.5 |" in said
    assert "| `ours_tpe`, peak MB over `tutorial` | **501** | 500 |" in said
    assert "Run 0 of ours_pso failed: exit status 1: gone." in said
    assert "| `ours_pso` | 0 of 1 | - | - | - | - | - | - | - | - |" in said


def test_a_score_of_the_large_job_is_to_be_no_worse(results):
    lines = [line("tutorial", 0, 10, "large")]
    lines += [line("ours_tpe", 0, 5, "large", score=20.0)]
    lines += [line("ours_segments", 0, 1, "large", score=20.1)]
    said = shown(results, lines)
    assert "| `ours_tpe`, score over `tutorial` | 1.000 | 1 |" in said
    assert "| `ours_segments`, score over `tutorial` | **1.005** | 1 |" in said


def test_the_end_of_a_search_beside_its_training(results):
    parts = {"start": 2.0, "trials": 6.0, "training": 9.0, "median_trial": 0.2}
    lines = [line("ours_tpe", 0, 9, parts=parts), line("floor", 0, 3, training_s=6.0)]
    row = "| `ours_tpe` | 2.0 | 6.0 | 75 % | 1.0 | 0.75 | 0.50 | 0.33 | 1.0 |"
    assert row in shown(results, lines)


def test_a_score_never_reached_counts_as_the_latest(results):
    lines, curves = [], [[[2.0, 30.0], [4.0, 19.0]], [[1.0, 20.0]], [[9.0, 21.0]]]
    for run, curve in enumerate(curves):
        lines.append(line("tutorial", run, 20, "quality"))
        lines.append(line("ours_tpe", run, 10, "quality", curve=curve, score=curve[-1][1]))
    assert results.shares(lines, "ours_tpe") == [0.2, 0.05, None]
    lines += [line("tutorial", 3, 20, "quality")]
    lines += [line("ours_tpe", 3, 10, "quality", failed="exit status 3: no complete trial")]
    assert results.shares(lines, "ours_tpe")[3] is None
    lines.pop()
    said = shown(results, lines)
    assert "| `ours_tpe` | 3 | 10.0 | 40 | 20 | 1 of 3 | 2 of 3 | 0.20 |" in said


def test_a_peer_without_any_score_has_a_row_in_quality(results):
    lines = [line("tutorial", run, 20, "quality") for run in range(2)]
    lines += [line("ours_tpe", 0, 10, "quality", score=None, curve=[])]
    lines += [line("ours_tpe", 1, 10, "quality", failed="exit status 3: no complete trial")]
    lines += [line("tutorial", 2, 20, "quality", score=None, curve=[])]
    lines += [line("tutorial_pruned", 1, 20, "quality", failed="exit status 1: gone", score=None)]
    said = shown(results, lines)
    assert "| `ours_tpe` | 1 of 2 | 10.0 | 40 | - | 0 of 2 | 0 of 2 | **not by half** |" in said
    assert "| `tutorial_pruned` | 0 of 1 | - | - | - | 0 of 1 | 0 of 1 | not by half |" in said
    assert "| `tutorial` | 3 | 20.0 | 40 | 20 | - | 2 of 2 | 0.05 |" in said


def over(peer, run, wall_s, **others):
    found = {**line(peer, run, wall_s, over=True, asked=40, limit_s=wall_s), **others}
    for key in ("trials", "steps", "score", "curve"):
        del found[key]
    return found | {"failed": f"over the limit of {wall_s} s"}


def test_a_run_over_the_limit_took_as_long_or_longer(results):
    lines = [line("tutorial", run, 10) for run in range(3)]
    lines += [line("ours_tpe", 0, 5), over("ours_tpe", 1, 20), over("ours_tpe", 2, 20)]
    said = shown(results, lines)
    row = "| `ours_tpe` | 1 of 3 | ≥ 20.0 | ≤ 2.00 | ≤ 0.50 (≤ 0.50 to 2.00) | ≥ 20.0 |"
    assert row in said
    assert "| **≤ 0.50 (≤ 0.50 to 2.00)** | 4.5 |" in said


def test_a_peer_over_the_limit_is_so_many_times_slower(results):
    lines = [line("ours_tpe", run, 2) for run in range(3)]
    lines += [line("ray_tune", 0, 30), over("ray_tune", 1, 50), over("ray_tune", 2, 50)]
    lines += [over("tutorial", run, 8) for run in range(3)]
    said = shown(results, lines)
    assert (
        "| `ours_tpe`, trials a second over `ray_tune` | ≥ 25.00 (15.00 to ≥ 25.00) | 20 |" in said
    )
    assert "| `ours_tpe`, trials a second over `tutorial` | **≥ 4.00 (≥ 4.00 to ≥ 4.00)** |" in said
    assert "| `ray_tune` | 1 of 3 | ≥ 50.0 | ≤ 0.80 | - | ≥ 50.0 | - |" in said


def test_a_worker_that_idles_is_told(results):
    lines = [line("ours_pso", 0, 9, together=20.0, at_once=1)]
    lines += [line("ours_woa", 0, 9, together=5.0, at_once=4)]
    said = shown(results, lines)
    assert "Of `ours_pso`, 1 of 2 workers idle while a generation trains" in said
    assert "Of `ours_woa`" not in said


def test_a_table_has_measurements_of_one_code(results):
    lines = [line("tutorial", 0, 10, code="a"), line("ours_tpe", 0, 1, code="a")]
    lines += [line("tutorial", 0, 99, code="b", failed="exit status 1: gone", commit="f00")]
    lines += [line("tutorial", 0, 30, code="b", commit="f00")]
    lines += [line("ours_tpe", 0, 10, code="b", commit="f00, changed")]
    said = shown(results, lines)
    assert "Commit f00 and f00, changed" in said
    assert "trials a second over `tutorial` | **3.00** | 4.5 |" in said
    assert "failed" not in said


def trial(number, finished_at, seconds, group=(), generation=None):
    outcome = argparse.Namespace(finished_at=finished_at, seconds=seconds)
    return argparse.Namespace(number=number, outcome=outcome, group=group, generation=generation)


def test_a_group_begins_before_all_that_its_members_took(imported):
    ours = imported("ours")
    pair = [trial(0, 14.0, 2.0, (0, 2), 0), trial(2, 16.0, 4.0, (0, 2), 0)]
    assert ours.first_begin([*pair, trial(1, 12.5, 1.0)]) == 10.0
    assert ours.first_begin([*pair, trial(1, 12.5, 3.0)]) == 9.5
    assert ours.spread(pair) == {"together": 2.0, "at_once": 1}
    assert ours.spread([*pair, trial(1, 9.0, 1.0, (), 0)]) == {"together": 1.5, "at_once": 2}
    assert ours.spread([trial(0, 9.0, 1.0)]) == {"together": 1.0, "at_once": None}


@pytest.mark.parametrize("name", ["small", "large"])
def test_peers_begin_where_ours_does(imported, name):
    jobs, ours = imported("jobs"), imported("ours")
    job = jobs.job_of(name)
    experiment = Experiment.model_validate(ours.experiment(job, SMALL, "pso", 0))
    assert experiment.start() == dict(job.start)
    assert experiment.hyperparameters.gradient_clip == jobs.CLIP
    assert experiment.strategy.population == (20 if name == "small" else 5)
    for parameter, r in job.space.items():
        assert r.at(r.share(job.start[parameter])) == pytest.approx(job.start[parameter])


def test_trainings_in_several_processes_have_own_numbers(imported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import jobs, json, pathlib as p\n"
    code += "print(json.dumps([jobs.next_number(p.Path()) for _ in range(500)]))"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(PEERS)}
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    numbers = [number for each in started for number in json.loads(each.communicate()[0])]
    assert sorted(numbers) == list(range(1000))


def test_gradients_of_the_trainer_and_the_floor_are_clipped(imported, monkeypatch):
    jobs, trainer, floor = imported("jobs"), imported("trainer"), imported("floor")
    job = jobs.job_of("small", quick=True)
    windows = jobs.read_windows(job, SMALL)
    clip, norms = torch.nn.utils.clip_grad_norm_, []

    def watched(parameters, *arguments, **options):
        parameters = list(parameters)
        clip(parameters, *arguments, **options)
        norms.append(torch.stack([p.grad.norm() for p in parameters]).norm().item())

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    wide = {"hidden_size": 32, "dropout": 0.0, "learning_rate": 1.0}  # so that gradients grow
    trainer.train(job, windows, wide, 0, lambda *numbers: None)
    floor.train(job, windows, wide, 0)
    assert len(norms) == 2 * 2 * 6
    assert max(norms) == pytest.approx(jobs.CLIP, rel=1e-3)


def test_a_pruned_trial_of_the_tutorial_has_no_score(imported, tmp_path, monkeypatch, capsys):
    tutorial = imported("tutorial")
    study = optuna.create_study()
    worse = optuna.trial.create_trial(value=3.0, state=optuna.trial.TrialState.COMPLETE)
    pruned = optuna.trial.create_trial(
        state=optuna.trial.TrialState.PRUNED, intermediate_values={0: 1.0}, value=1.0
    )
    study.add_trials([worse, pruned])
    monkeypatch.setattr(tutorial, "search", lambda *given: (study, 1.0))
    monkeypatch.setattr(sys, "argv", ["tutorial.py", "--job", "overhead"])
    tutorial.main()
    found = json.loads(capsys.readouterr().out)
    assert [score for _, score in found["curve"]] == [3.0]
    assert found["trials"] == 2


def test_settings_of_the_caller_do_not_reach_a_peer(imported, monkeypatch):
    for name in ("TUNER_SERVER", "MLFLOW_X", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    monkeypatch.setenv("HOME_OF_PEERS", "kept")
    found = imported("bench").clean_environment()
    assert "HOME_OF_PEERS" in found
    dropped = ("TUNER_", "MLFLOW_", "OMP_", "OPENBLAS_", "MKL_")
    assert not [name for name in found if name.startswith(dropped)]


def test_a_run_without_a_trial_is_a_failed_measurement(imported, tmp_path, monkeypatch):
    bench, measuring = imported("bench"), imported("measuring")
    monkeypatch.setattr(bench, "measure", lambda *given: measuring.Measured(said=""))
    monkeypatch.setattr(bench.ours, "result", imported("ours").result)
    store = tmp_path / "mlflow.db"
    store.touch()
    options = argparse.Namespace(quick=True, python=Path(sys.executable))
    given = ("small", "tutorial", 0, SMALL, store, None, 9.0, options)
    assert bench.one(*given)["failed"].startswith("no result: ")

    def nothing(*given):
        raise bench.ours.NothingFound("no trial ended")

    monkeypatch.setattr(bench.ours, "result", nothing)
    found = bench.one("small", "ours_tpe", *given[2:])
    assert found["failed"] == "no result: no trial ended"


def test_changed_code_is_another_one_and_tables_are_not(imported, tmp_path):
    provenance = imported("provenance")
    files = [tmp_path / "tuner/a.py", tmp_path / "benchmarks/peers/results.py"]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("1")
    before = provenance.code(tmp_path)
    files[1].write_text("2")
    assert provenance.code(tmp_path) == before
    files[0].write_text("2")
    assert provenance.code(tmp_path) != before
    assert provenance.code() == provenance.code()
    assert provenance.commit(tmp_path) == ""
    assert len(provenance.environment(Path(sys.executable))) == 12


STATE = {"code": "a", "environment": "b"}


def test_a_failed_or_old_measurement_is_made_again(results):
    def found(*lines, limit_s=60):
        return results.find(lines, "small", "tutorial", 0, STATE, limit_s) is not None

    measured = line("tutorial", 0, 10, **STATE)
    assert found(measured)
    assert not found({**measured, "code": "c"})
    assert not found({**measured, "environment": "c"})
    assert not found({**measured, "failed": "exit status 1: gone"})
    ended = over("tutorial", 0, 60, **STATE)
    assert found(ended)
    assert not found(ended, limit_s=61)


def test_a_line_cut_short_is_measured_again(results, tmp_path):
    file = tmp_path / "results.jsonl"
    results.append(file, line("tutorial", 0, 10))
    file.write_text(file.read_text() + '{"job": "small", "pe')
    results.append(file, line("tutorial", 1, 10))
    found = results.read(file, quick=False)
    assert [each["run"] for each in found] == [0, 1]
    assert results.find(found, "small", "tutorial", 1, {}) is not None
    assert results.find(found, "small", "ours_tpe", 1, {}) is None
    assert results.read(file, quick=True) == []
