"""`tuner compare`: searches side by side, in recorded training and, once, in real training."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.files import files_of
from helpers.made_study import study
from simulated import Landscape, SimulatedExecutor

from tuner.cli.app import run
from tuner.cli.compare import ComparisonReporter, Planned
from tuner.executors import choice as choosing
from tuner.journal.records import read_study
from tuner.journal.storage import read_journal

ROOT = Path(__file__).parents[2]
GRID = f"""\
name: air
data: {{path: air.csv, time: month, target: passengers, transform: log}}
task: {{window: 12, horizon: 1}}
search_space: {ROOT}/search_spaces/lstm_grid.yaml
strategy: {{name: pso, population: 4}}
budget: {{trials: 6, epochs: 100}}
pruner: {{name: none}}
finalists: {{top: 2, repeats: 2}}
"""
TUNER = [sys.executable, "-m", "tuner"]

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def landscape():
    return Landscape.load(ROOT / "benchmarks/landscapes/air_passengers.parquet")


class Recorded:
    """Executors of recorded training, and what has been asked of them."""

    def __init__(self, landscape):
        self.landscape = landscape
        self.n_made = self.n_closed = 0
        self.n_jobs = 0
        self.stops_after = None  # as many jobs, as a second Ctrl-C would

    def choose(self, name, resources, note=None):
        return choosing.ExecutorChoice(self.make, 2, "two cores")

    def make(self, n_workers):
        watched = self
        watched.n_made += 1

        class Watched(SimulatedExecutor):
            def submit(self, job):
                watched.n_jobs += 1
                if watched.n_jobs == watched.stops_after:
                    raise KeyboardInterrupt
                super().submit(job)

            def close(self):
                watched.n_closed += 1
                super().close()

        return Watched(self.landscape, n_workers)


@pytest.fixture
def recorded(folder, landscape, monkeypatch):
    """In the current folder grid.yaml, whose trials are recorded."""
    (folder / "grid.yaml").write_text(GRID)
    recorded = Recorded(landscape)
    monkeypatch.setattr("tuner.cli.compare.choose_executor", recorded.choose)
    monkeypatch.setattr("tuner.orchestrator.choose_executor", recorded.choose)
    return recorded


@pytest.fixture
def compare(recorded, capsys):
    """Compares without MLflow, and returns what was printed."""

    def call(*arguments, status=0):
        capsys.readouterr()
        found = run(["compare", "grid.yaml", "--no-tracking", *arguments])
        printed = capsys.readouterr()
        assert found == status, printed.err
        assert (printed.err == "") is (status == 0)
        return printed.out + printed.err

    return call


@pytest.fixture
def refused(refused, recorded):
    """Compares what must be refused before a job is made; returns the line that says why."""

    def call(*arguments, file="grid.yaml", **expected):
        n_jobs = recorded.n_jobs
        line = refused("compare", file, "--no-tracking", *arguments, **expected)
        assert recorded.n_jobs == n_jobs
        return line

    return call


def read(name, journal=None):
    location = journal or f"studies/{name}.journal"
    return read_study(read_journal(location), name, location)


def events(printed):
    return [json.loads(line) for line in printed.splitlines()]


def told(record):
    return [(t.number, dict(t.params), t.value, t.repeat_of, t.seed) for t in record.trials]


def test_a_comparison_runs_every_strategy_on_every_seed(compare, recorded):
    printed = compare("--strategies", "tpe,pso", "--seeds", "5")
    names = [f"air-{strategy}-{seed}" for seed in range(5) for strategy in ("tpe", "pso")]
    assert sorted(p.stem for p in Path("studies").glob("*.journal")) == sorted(names)
    begun = "comparing tpe, pso on air: seeds 0 to 4, 6 trials each, 10 searches\n"
    assert printed.startswith(begun)
    ended = [line for line in printed.splitlines() if " of 10: " in line]
    assert [line.split()[3] for line in ended] == names  # seed by seed
    best = read("air-tpe-0").best
    assert best is not None
    assert ended[0].startswith(f"1 of 10: air-tpe-0  rmse {best.value:.4g} (trial {best.number})")
    assert re.search(r"  about \d+:\d\d left$", ended[0])
    assert "left" not in ended[-1]
    assert "median rmse" in printed
    assert "93 % interval" in printed
    assert " cannot be told apart with 5 seeds (Mann-Whitney with Holm's correction)." in printed
    assert "wrote air-comparison/comparison.html, and curves.png, scores.csv, curves.csv" in printed
    assert (recorded.n_made, recorded.n_closed) == (1, 1)  # one set of workers for all
    with Path("air-comparison/scores.csv").open(newline="") as file:
        scores = {row["study"]: float(row["rmse"]) for row in csv.DictReader(file)}
    for name in names:
        record = read(name)
        assert record.best is not None
        assert scores[name] == record.best.value
        assert len(record.trained) == 6


def test_the_test_part_stays_closed_and_nothing_is_trained_again(compare, monkeypatch):
    def opened(*arguments, **options):
        raise AssertionError("evaluated on the test set")

    monkeypatch.setattr("tuner.data.prepared.open_test_part", opened)
    compare("--strategies", "tpe,woa", "--seeds", "2")
    for name in ("air-tpe-0", "air-woa-0", "air-tpe-1", "air-woa-1"):
        record = read(name)
        assert (record.test, record.finalists, record.ended) == (None, (), "done")


def test_its_searches_are_those_of_run_and_run_goes_on_with_them(compare, tmp_path, monkeypatch):
    compare("--strategies", "tpe,pso", "--seeds", "2")
    ours = {name: told(read(name)) for name in ("air-tpe-1", "air-pso-1")}
    only = ("--no-tracking", "--no-test", "--set", "finalists.top=0", "--set", "seed=1")
    (tmp_path / "elsewhere").mkdir()
    here = ("--journal", str(tmp_path / "elsewhere/run.journal"))
    assert run(["run", "grid.yaml", *only, *here]) == 0
    assert run(["run", "grid.yaml", *only, *here, "--strategy", "tpe"]) == 0
    theirs = {name: told(read(name, here[1])) for name in ours}
    assert theirs == ours
    # The other way round: what `run` has searched is not searched again.
    Path("studies").rename("before")
    shutil.copytree("before", "studies", ignore=shutil.ignore_patterns("air-tpe-*"))
    assert run(["run", "grid.yaml", "--no-tracking", "--no-test", "--strategy", "tpe"]) == 0
    searched = Path("studies/air-tpe-0.journal").read_bytes()
    printed = compare("--strategies", "tpe,pso", "--seeds", "2")
    assert "4 searches, 3 of them made before" in printed
    assert Path("studies/air-tpe-0.journal").read_bytes() == searched
    assert told(read("air-tpe-1")) == ours["air-tpe-1"]


def test_a_repeated_comparison_trains_nothing(compare, recorded):
    arguments = ("--strategies", "random,woa", "--seeds", "2")
    before = compare(*arguments)
    files, n_jobs = files_of(Path.cwd()), recorded.n_jobs
    again = compare(*arguments)
    assert "4 searches, 4 of them made before" in again
    assert recorded.n_jobs == n_jobs
    assert files_of(Path.cwd()) == files
    result = again.splitlines()[2:]  # after what is compared, and that the seeds are few
    assert before.splitlines()[-len(result) :] == result
    fewer = events(compare("--strategies", "woa,random", "--seeds", "1", "--json"))
    assert [e["event"] for e in fewer] == ["note", "result", "result", "comparison", "ended"]


def test_an_interrupted_comparison_resumes_to_the_same_end(compare, recorded):
    arguments = ("--strategies", "tpe,pso,random", "--seeds", "2", "--json")

    def facts(printed):
        (found,) = (e for e in events(printed) if e["event"] == "comparison")
        for row in found["strategies"]:
            del row["seconds"]
            for search in row["searches"]:
                del search["seconds"]
        return {key: value for key, value in found.items() if key != "time"}

    calm = facts(compare(*arguments))
    shutil.rmtree("studies")
    for n in (3, 17, 6):  # in the first, the third and the fourth search
        recorded.n_jobs, recorded.stops_after = 0, n
        printed = compare(*arguments, status=130)
        assert "stopped at once; what was finished is kept, and the same command" in printed
    recorded.stops_after = None
    assert facts(compare(*arguments)) == calm


def test_comparison_events_are_those_of_every_search(compare):
    found = events(compare("--strategies", "tpe,pso", "--seeds", "2", "--json"))
    begun = [e for e in found if e["event"] == "begun"]
    assert [e["study"] for e in begun] == ["air-tpe-0", "air-pso-0", "air-tpe-1", "air-pso-1"]
    assert [e["study"] for e in found if e["event"] == "result"] == [e["study"] for e in begun]
    assert sum(e["event"] == "finished" for e in found) >= 4 * 6
    assert [e["event"] for e in found[-2:]] == ["comparison", "ended"]
    comparison = found[-2]
    scores = {
        search["study"]: search["score"]
        for row in comparison["strategies"]
        for search in row["searches"]
    }
    best = {e["study"]: e["best"]["search_score"] for e in found if e["event"] == "result"}
    assert scores == best
    assert comparison["verdict"].startswith("too few seeds")
    assert comparison["trials"] == 6
    assert comparison["folder"] == "air-comparison"
    assert found[-1]["exit_status"] == 0


def test_the_files_strategy_keeps_its_settings_in_compare(compare):
    compare("--strategies", "woa,pso", "--seeds", "1", "--set", "seed=7")
    assert read("air-pso-7").experiment.strategy.population == 4  # type: ignore[union-attr]
    assert read("air-woa-7").experiment.strategy.population == 2  # type: ignore[union-attr]
    compare("--strategies", "woa,qpso", "--seeds", "1", "--set", "strategy.population=3")
    assert read("air-woa-0").experiment.strategy.population == 3  # type: ignore[union-attr]


def test_all_studies_may_be_in_one_journal(compare, refused):
    for journal, n_trials in (("all.journal", 4), ("sqlite:///all.db", 1)):
        arguments = ("--strategies", "tpe,random", "--seeds", "1", "--trials", str(n_trials))
        arguments += ("--journal", journal)
        compare(*arguments)
        assert len(read("air-random-0", journal).trained) == n_trials
        assert "2 of them made before" in compare(*arguments)
        other = refused(*arguments, "--set", "budget.epochs=9")
        assert "study 'air-tpe-0' was begun with budget.epochs=100, got 9" in other
    assert not Path("studies").exists()


@pytest.mark.slow
def test_trials_are_copied_to_mlflow_as_those_of_run_are(recorded, capsys):
    arguments = ("--strategies", "tpe,random", "--seeds", "1", "--trials", "3")
    assert run(["compare", "grid.yaml", *arguments]) == 0
    assert capsys.readouterr().err == ""
    from tuner.tracking import open_store

    client = open_store()
    (experiment,) = (e for e in client.search_experiments() if e.name == "air")
    runs = client.search_runs([experiment.experiment_id])
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert {r.info.run_name for r in runs} >= {"air-tpe-0", "air-random-0"}
    assert len(runs) == 2 + 2 * 3


def test_where_every_trial_fails_it_says_so(compare, recorded):
    recorded.landscape = Landscape(["hidden_size"], [])
    printed = compare("--strategies", "tpe,random", "--seeds", "1", status=1)
    assert "every trial so far has failed: hidden_size=" in printed
    assert printed.endswith("no trial of any search is complete; `tuner show air-tpe-0` says why\n")
    assert not Path("air-comparison").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--strategies", "tpe,wao"], "--strategies: unknown strategy 'wao'; did you mean 'woa'?"),
        (["--strategies", "tpe,pso,tpe"], "--strategies: must name each once, got 'tpe' twice"),
        (["--strategies", "tpe,"], "--strategies: must name at least two, got 'tpe,'"),
        (["--strategies", ""], "--strategies: must name at least two, got ''; write --strat"),
        (["--seeds", "0"], "--seeds: must be at least 1, got 0; write --seeds 5"),
        (["--seeds", "few"], "--seeds: must be a whole number, got 'few'; write --seeds 5"),
        (["--set", "seed=4294967294"], "--seeds: the last one must be at most 4294967295, got 42"),
        (["--workers", "0"], "--workers: must be at least 1, got 0"),
        (["--trials", "0"], "--trials: budget.trials: must be at least 1"),
        (["--set", "budget.trials=null", "--set", "budget.timeout=9"],
         "budget.trials: must be a number where strategies are compared, got null; add --trials"),
        (["--set", "budget.timeout=10m"], "budget.timeout: must be null where strategies are comp"),
        (["--set", "budget.stagnation=3"], "got 3; add --set budget.stagnation=null"),
        (["--set", "search_space={}"], "grid.yaml: search_space: there is nothing to search"),
        (["--set", "strategy.name=woa"], "--set: strategy: is given by --strategies"),
        (["--set", "strategy.population=4"], "--set: strategy.population: "),
        (["--strategies", "tpe,brute", "--set", "search_space={dropout: {type: float, low: 0, "
          "high: 0.5}}"], "--strategies: strategy.name: brute tries every configuration"),
        (["--journal", "nowhere/all.journal"], "--journal: no folder nowhere"),
        (["--journal", "air.csv"], "air.csv: is not a journal"),
        (["-o", "air.csv"], "-o: must be a folder in an existing one, got air.csv"),
        (["-o", "no/where"], "-o: must be a folder in an existing one, got no/where"),
        (["-o", "mine"], "-o: mine holds comparison.html or curves.png or scores.csv or curves.cs"),
        (["--set", "data.target=passenger"], "did you mean 'passengers'?"),
    ],
)  # fmt: skip
def test_an_impossible_comparison_is_refused_before_it_begins(refused, arguments, text):
    Path("mine").mkdir()
    Path("mine/scores.csv").write_text("mine")
    assert text in refused(*arguments)


def test_a_file_that_is_no_experiment_is_refused(refused):
    assert "air.csv: is a data file, not an experiment" in refused(file="air.csv")
    assert "no.yaml: no such experiment file" in refused(file="no.yaml")


def test_another_searchs_study_stops_all_before_the_first(compare, refused, recorded):
    compare("--strategies", "tpe,woa", "--seeds", "2", "--trials", "5")
    for name in ("air-tpe-0", "air-woa-0", "air-tpe-1"):
        Path(f"studies/{name}.journal").unlink()
    # air-woa-1, the last of all, is left.
    both = ("--strategies", "tpe,woa", "--seeds", "2")
    other = refused(*both, "--set", "budget.patience=5")
    assert other.startswith(
        "studies/air-woa-1.journal: study 'air-woa-1' was begun with budget.patience=15, got 5;"
    )
    assert other.endswith("put it back, or give another --journal")
    paced = refused(*both, "--trials", "60")
    assert paced.endswith(
        "study 'air-woa-1' was begun with budget.trials=5: woa is scheduled by it, "
        "got 60; give --trials 5, or another --journal"
    )
    text = Path("air.csv").read_text()
    Path("air.csv").write_text(text.replace("112", "113", 1))
    assert "was begun on other data" in refused(*both)
    Path("air.csv").write_text(text)
    # Strategies without a schedule, and generations that are as many, go on.
    compare(*both)
    assert len(read("air-woa-1").trained) == len(read("air-tpe-1").trained) == 6


def test_a_study_being_searched_stops_all_before_the_first(compare, refused):
    from tuner.journal.storage import write_journal

    both = ("--strategies", "tpe,pso", "--seeds", "1")
    compare(*both)
    Path("studies/air-tpe-0.journal").unlink()
    with write_journal("studies/air-pso-0.journal", "air-pso-0"):
        assert "another search is writing to it" in refused(*both, "--trials", "9", status=3)
        assert "2 searches, 1 of them made before" in compare(*both)  # it is only read


def test_a_warning_is_given_once(compare):
    printed = compare("--strategies", "tpe,random", "--seeds", "2", "--workers", "9")
    assert printed.count("--workers 9: ") == 1


@pytest.mark.parametrize(
    ("names", "n_seeds", "fewest"),
    [("tpe,random", 4, 5), ("tpe,random,pso,woa", 2, 5), ("tpe,random,pso,woa,qmc", 5, 6)],
)
def test_the_seeds_a_verdict_needs_are_reported_first(compare, recorded, names, n_seeds, fewest):
    recorded.stops_after = 1
    printed = compare("--strategies", names, "--seeds", str(n_seeds), status=130)
    n = len(names.split(","))
    said = (
        f"too few seeds to tell {n} strategies apart, whatever they score: {n_seeds}, but "
        f"{fewest} are needed; add --seeds {fewest}"
    )
    assert printed.splitlines()[1] == said
    recorded.stops_after = recorded.n_jobs + 1
    enough = compare("--strategies", names, "--seeds", str(fewest), status=130)
    assert "too few seeds" not in enough


def test_where_the_whole_space_is_trained_that_is_said(compare):
    space = "{num_layers: {type: int, low: 1, high: 2}}"
    fixed = "hyperparameters={hidden_size: 16, dropout: 0.0, batch_size: 16, learning_rate: 0.005}"
    arguments = ("--strategies", "tpe,random", "--seeds", "1", "--set", f"search_space={space}")
    printed = compare(*arguments, "--set", fixed)
    assert "the search space has 2 configurations, and every strategy trains them all" in printed
    assert len(read("air-tpe-0").trained) == 2


def test_the_page_has_no_password(recorded, capsys, monkeypatch):
    written = []
    monkeypatch.setattr(
        "tuner.cli.compare.write", lambda found, folder, command: written.append(command)
    )
    arguments = ("--strategies", "tpe,random", "--seeds", "1", "--trials", "1", "--no-tracking")
    assert run(["compare", "grid.yaml", *arguments]) == 0
    monkeypatch.setattr(
        "tuner.cli.compare.journal_location", lambda study, journal: f"studies/{study}.journal"
    )
    there = "postgresql+psycopg://me:secret@there/db"
    assert run(["compare", "grid.yaml", *arguments, "--journal", there]) == 0
    assert "--journal postgresql+psycopg://there/db" in written[1]
    assert "secret" not in written[1]


def test_a_folder_of_ones_own_files_is_written_to_with_force(compare):
    Path("mine").mkdir()
    Path("mine/scores.csv").write_text("mine")
    compare("--strategies", "tpe,random", "--seeds", "1", "-o", "mine", "--force")
    assert Path("mine/scores.csv").read_text().startswith("strategy,seed,study,rmse,seconds\n")
    compare("--strategies", "tpe,random", "--seeds", "1", "-o", "mine")


@pytest.mark.parametrize(
    ("own", "option"), [("{name: pso}", " --strategy random"), ("{name: random, batch: 4}", "")]
)
def test_the_next_command_ends_the_best_strategys_search(compare, own, option):
    Path("grid.yaml").write_text(GRID.replace("{name: pso, population: 4}", own))
    printed = compare("--strategies", "pso,random", "--seeds", "1", "--trials", "9")
    rows = [line.split()[0] for line in printed.splitlines() if line.split()[1:2] != []]
    assert [name for name in rows if name in ("pso", "random")] == ["random", "pso"]
    (line,) = (line for line in printed.splitlines() if line.startswith("  tuner run"))
    command = f"tuner run grid.yaml{option} --trials 9"
    assert line == f"  {command}   (its finalists and the test set)"
    page = Path("air-comparison/comparison.html").read_text()
    assert "tuner compare grid.yaml --strategies pso,random --seeds 1 --trials 9" in page


def test_the_eta_follows_from_the_trials_of_this_run(folder, capsys):
    record = study([3.0, 2.0])
    searches = [Planned(record.experiment, f"s{i}", "", done=i == 0) for i in range(4)]
    lines = ComparisonReporter(lambda: False)
    lines.start([record.experiment], searches)
    lines.skipped(searches[0])
    for one, seconds in zip(searches[1:], (60.0, 120.0, 30.0), strict=True):
        lines.searched(one, record, seconds)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "1 of 3: s1  rmse 2 (trial 1)  1:00  about 2:00 left",
        "2 of 3: s2  rmse 2 (trial 1)  2:00  about 1:30 left",
        "3 of 3: s3  rmse 2 (trial 1)  0:30",
    ]
