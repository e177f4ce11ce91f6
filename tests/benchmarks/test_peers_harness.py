"""Searches beside those of other tools: who is measured, on what, and what is said of it."""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

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


@pytest.mark.parametrize("name", ["small", "large"])
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
    assert found.failed == ("over the time limit" if limit_s == 3 else None)
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
    assert results.ratios(lines, "ours_tpe", "tutorial") == pytest.approx([5, 4, 6])
    said = shown(results, lines)
    assert "| `ours_tpe`, trials a second over `tutorial` | 5.00 (4.00 to 6.00) | 4.5 |" in said


def test_a_missed_target_is_bold_and_a_failure_is_told(results):
    lines = [line("tutorial", 0, 10), line("ours_tpe", 0, 5, peak_mb=1001.0)]
    lines += [{**line("ours_pso", 0, 9), "failed": "over the time limit"}]
    said = shown(results, lines)
    assert "| **2.00** | 4.5 |" in said
    assert "| `ours_tpe`, peak MB over `tutorial` | **501** | 500 |" in said
    assert "Run 0 of ours_pso failed: over the time limit." in said
    assert "| `ours_pso` |" not in said


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
    row = "| `ours_tpe` | 2.0 | 6.0 | 75 % | 1.0 | 0.75 | 0.50 | 0.33 |"
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


def test_a_line_cut_short_is_measured_again(results, tmp_path):
    file = tmp_path / "results.jsonl"
    results.append(file, line("tutorial", 0, 10))
    file.write_text(file.read_text() + '{"job": "small", "pe')
    results.append(file, line("tutorial", 1, 10))
    found = results.read(file, quick=False)
    assert [each["run"] for each in found] == [0, 1]
    assert results.find(found, "small", "tutorial", 1) is not None
    assert results.find(found, "small", "ours_tpe", 1) is None
    assert results.read(file, quick=True) == []
