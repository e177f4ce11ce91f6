"""Journal against MLflow, field by field, for studies that nobody would think of.

What MLflow must hold is worked out here from the record alone, in its own words, and read back
from the store's database without MLflow. On the way there the copy is made live, interrupted at
any write and begun again, several times.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import math
import sqlite3
import urllib.parse
import uuid
from pathlib import Path

import pytest
from helpers.examples import ALL
from helpers.mlflow_runs import Spy
from helpers.records import study_record, trial_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.experiment import Experiment
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.journal.records import Status
from tuner.journal.storage import Role
from tuner.tracking import SyncState, open_store, sync_study
from tuner.tracking.layout import Attempt

# A failing example is printed in full, however long its texts are.
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")

CREATED = "2023-11-14T22:00:00+00:00"
T = dt.datetime.fromisoformat(CREATED).timestamp()
OF_BUDGET = {"budget.trials", "budget.timeout", "budget.trial_timeout", "budget.retries"}
MAY_CHANGE = OF_BUDGET | {"finalists.top", "finalists.repeats"}

# What a study may be

numbers = st.floats() | st.sampled_from(
    [math.inf, -math.inf, math.nan, 1e308, -1e308, 1.7976931348623157e308, 5e-324, 0.0]
)
lengths = [0, 1, 249, 250, 251, 5999, 6000, 6001, 7999, 8000, 8001, 20_000]
anything = st.text(st.characters(), max_size=12)  # halves of surrogate pairs and NUL too
long_texts = st.builds(
    lambda unit, n: (unit * n)[:n], st.sampled_from(["a", "ü", "🙂", "\0", "\ud800", "a/b: "]),
    st.sampled_from(lengths),
)  # fmt: skip
long_texts = anything | long_texts
budgets = st.fixed_dictionaries(
    {}, optional={key.removeprefix("budget."): st.integers(1, 9) for key in sorted(OF_BUDGET)}
)
paths = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    | st.integers(0xDC80, 0xDCFF).map(chr),  # a byte that is no UTF-8
    max_size=300,
).filter(lambda path: Path(path).absolute().name)
odd_names = st.sampled_from(
    ["..", ".", "", "a/b", "a_b", "a:b", "a b", " ", "../x", "é", "a\n", "x" * 250, "x" * 251]
)
params = st.dictionaries(
    odd_names | anything,
    long_texts | numbers | st.integers() | st.booleans() | st.none() | st.lists(st.integers()),
    max_size=6,
) | st.integers(90, 250).map(lambda n: {f"p{i}": i for i in range(n)})


@st.composite
def histories(draw, max_epochs=6):
    """Epochs of one trial, some of them the last of a fold."""
    n = draw(st.sampled_from([0, *range(1, max_epochs + 1)]))
    times = sorted(draw(st.lists(st.floats(0, 1e5), min_size=n, max_size=n)))
    folds = draw(st.booleans())
    return tuple(
        Epoch(
            e,
            draw(numbers),
            draw(numbers),
            draw(numbers),
            round(T + times[e], 3),
            fold=e // 2 if folds else 0,
            fold_score=draw(numbers) if folds and e % 2 else None,
        )
        for e in range(n)
    )


@st.composite
def outcomes(draw):
    """How a trial may end: in any state, or lost to the machine without a time."""
    complete = OutcomeState.COMPLETE  # often, so that scores are compared
    state = draw(st.sampled_from([complete, *OutcomeState]))
    if state is OutcomeState.FAILED and draw(st.booleans()):
        return Outcome(state, reason=draw(long_texts))
    history = draw(histories())
    if draw(st.integers(0, 19)) == 7:  # a long one: more points than one request takes
        history = tuple(
            Epoch(e, 1.0 / (e + 1), math.nan, float(e), round(T + e / 7, 3)) for e in range(400)
        )
    return Outcome(
        state=state,
        objective=draw(numbers) if state is OutcomeState.COMPLETE else None,
        history=history,
        reason=draw(long_texts) if state is OutcomeState.FAILED else None,
        seconds=draw(st.floats(0, 1e4)),
        finished_at=(history[-1].time if history else T) + draw(st.floats(0, 10)),
    )


@st.composite
def trials(draw, role, number, earlier=()):
    """One trial with an outcome; of a search, perhaps the repeat of an earlier one."""
    place = {}
    if role is Role.TRIAL:
        if draw(st.booleans()):
            place = {"generation": number // 4, "individual": number % 4}
        originals = [t for t in earlier if t.repeat_of is None]
        if originals and draw(st.integers(0, 3)) == 0:
            original = draw(st.sampled_from(originals))
            return dataclasses.replace(
                original, number=number, repeat_of=original.number, seed=number, **place
            )
    elif role is Role.FINALIST:
        place = {"configuration": draw(st.integers(0, 9)), "repeat": number}
    else:
        place = {"repeat": number}
    outcome = draw(outcomes())
    asked_at = dt.datetime.fromtimestamp(T + 5, dt.UTC) if draw(st.booleans()) else None
    seed = draw(st.integers(0, 2**32 - 1))
    return trial_record(
        number, outcome, role=role, params=draw(params), seed=seed, asked_at=asked_at, **place
    )


@st.composite
def studies(draw):
    """A whole study whose every trial has ended."""
    found = []
    for number in range(draw(st.sampled_from([0, 1, 2, 3, 4]))):
        found.append(draw(trials(Role.TRIAL, number, found)))
    finalists = [draw(trials(Role.FINALIST, number)) for number in range(draw(st.integers(0, 2)))]
    if draw(st.booleans()):
        finalists.append(draw(trials(Role.BASELINE, len(finalists))))
    experiment = Experiment.model_validate(
        {
            "name": f"property-{draw(st.sampled_from(['one', 'two']))}",
            "data": {"path": "air.csv", "target": "passengers"},
            "search_space": {
                "hidden_size": {"type": "int", "low": 8, "high": 99},
                "batch_size": {"type": "categorical", "choices": [8, 16]},
            },
            "strategy": draw(st.sampled_from([{"name": "woa"}, {"name": "tpe"}])),
            "objective": {"metric": draw(st.sampled_from(["rmse", "r2"]))},
            "budget": {"trials": 4, "epochs": 9, **draw(budgets)},
        }
    )
    identity = uuid.uuid4().hex
    return study_record(
        experiment,
        found,
        id=identity,
        name=draw(long_texts.filter(bool)),
        data={"sha256": identity * 2, "rows": 144, "path": draw(paths)},
        baselines={"last_value": 1.0},
        versions={"torch": "2.13.0", "scikit-learn": "1.8"},
        created=CREATED,
        finalists=tuple(finalists),
        ended=draw(st.sampled_from(["done", "interrupted"])),
    )


files = st.dictionaries(
    st.sampled_from(["experiment.yaml", "best.yaml", "pictures/a.png", "pictures/b.png"]),
    st.text() | st.binary() | st.just(ValueError("cannot be made")),
    max_size=3,
)


@dataclasses.dataclass(frozen=True)
class Step:
    """One copy on the way: how far the study had come, and what befell it."""

    n_ended: int  # trials, of search and finalists in this order
    n_epochs: int  # that the next two trials have come to; 0 where none trains
    lost: bool  # whether these are of an attempt that the machine takes away afterwards
    knows: bool  # whether it is the process that made the copy before
    dies_at: int | None  # the write at which it is interrupted
    after: bool  # or just before it
    files: dict[str, str | bytes | Exception]
    budget: dict[str, int]  # what the study had then that it may have changed since


steps = st.builds(
    Step,
    n_ended=st.sampled_from(range(6)),
    n_epochs=st.sampled_from(range(7)),
    lost=st.booleans(),
    knows=st.booleans(),
    dies_at=st.none() | st.integers(0, 25),
    after=st.booleans(),
    files=files,
    budget=budgets,
)
ways = st.lists(steps, max_size=5).map(lambda found: sorted(found, key=lambda s: s.n_ended))


def at(whole, step):
    """The study when only so many trials had ended, and what trained then."""
    every = [*whole.trials, *whole.finalists]
    ended = every[: step.n_ended]
    open_trials = [
        dataclasses.replace(t, outcome=None, status=Status.RUNNING) for t in every[step.n_ended :]
    ]
    live = {}
    for trial in every[step.n_ended : step.n_ended + 2]:
        if step.n_epochs and trial.repeat_of is None and trial.outcome.history:
            history = trial.outcome.history[: step.n_epochs]
            if step.lost:
                history = tuple(dataclasses.replace(e, time=e.time - 1e5) for e in history)
            live[trial.key] = Attempt(began_of(trial) - 1e5 * step.lost, history)
    now = (*ended, *open_trials)
    n = len(whole.trials)
    raw = whole.experiment.to_dict()
    raw["budget"] = {"trials": 4, "epochs": 9, **step.budget}
    experiment = Experiment.model_validate(raw)
    seen = dataclasses.replace(whole, trials=now[:n], finalists=now[n:], experiment=experiment)
    return seen, live


def began_of(trial):
    """When a live copy says that a trial began: the journal knows it less exactly."""
    return T - 7.5 - trial.number


# What MLflow must hold of it


def stored(value, limit):
    text = "".join("?" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def keyed(values, limit):
    """Names of letters, digits and ` _-.` alone, each once; nothing for None."""
    found = {}
    for name, value in values.items():
        if value is None:
            continue
        key = "".join(c if c.isalnum() or c in "_-. " else "_" for c in name)
        key = "_" + key[1:] if key.startswith(".") else key
        key = key[:250] or "_"
        again = 2
        while key in found:
            key = key[:242].removesuffix(f" {again - 1}") + f" {again}"
            again += 1
        found[key] = stored(value, limit)
    return found


def ms(seconds):
    return max(1, round(seconds * 1000))


def value_of(number):
    return None if math.isinf(number) or math.isnan(number) else number  # None is not a number


def end_of(trial):
    if trial.outcome.finished_at:
        return trial.outcome.finished_at
    return trial.asked_at.timestamp() if trial.asked_at else T


def expected_trial(record, trial, parent_id):
    outcome, metric = trial.outcome, record.experiment.objective.metric
    points = {}
    for e in outcome.history:
        for key, number in (("train_loss", e.train_loss), ("val_loss", e.val_loss), (metric, e.metric)):  # fmt: skip # noqa: E501
            points.setdefault(key, []).append((e.epoch, ms(e.time), value_of(number)))
        if e.fold_score is not None:
            points.setdefault("fold_score", []).append((e.fold, ms(e.time), value_of(e.fold_score)))
    if outcome.objective is not None:
        points["objective"] = [(0, ms(end_of(trial)), value_of(outcome.objective))]
        points["training_seconds"] = [(0, ms(end_of(trial)), value_of(outcome.seconds))]
    if trial.role is Role.FINALIST:
        name = f"finalist {trial.configuration} repeat {trial.repeat}"
    elif trial.role is Role.BASELINE:
        name = f"default repeat {trial.repeat}"
    else:
        name = f"trial {trial.number}"
        name += f" = {trial.repeat_of}" if trial.repeat_of is not None else ""
    name = stored(f"{name} of {record.name}", 250)
    tags = {
        "mlflow.runName": name,
        "mlflow.parentRunId": parent_id,
        "study_id": record.id,
        "study": record.name,
        "role": trial.role.value,
        "trial": trial.number,
        "state": outcome.state.value,
        "strategy": record.experiment.strategy.name,
        "seed": trial.seed,
        "generation": trial.generation,
        "individual": trial.individual,
        "repeat_of": trial.repeat_of,
        "configuration": trial.configuration,
        "repeat": trial.repeat,
        "failure_reason": outcome.reason,
        "attempt": ms(outcome.history[0].time) if outcome.history else None,
    }
    configuration = record.experiment.configuration(dict(trial.params))
    return {
        "status": {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}[outcome.state],
        "name": name,
        "start": {ms(end_of(trial) - outcome.seconds), ms(began_of(trial))},
        "end": ms(end_of(trial)),
        "tags": keyed(tags, 8000),
        "params": keyed(
            {
                **configuration,
                **trial.params,
                "trial": trial.number,
                "study": record.name,
                "strategy": record.experiment.strategy.name,
            },
            6000,
        ),
        "points": {key: sorted(found) for key, found in points.items()},
    }


def expected_study(record, kept):
    better = max if record.experiment.objective.direction == "maximize" else min
    best, latest, points = None, 0.0, []
    for trial in record.trials:
        latest = max(latest, end_of(trial))
        objective = trial.outcome.objective
        if objective is not None and math.isfinite(objective):
            best = objective if best is None else better(best, objective)
        if best is not None:
            points.append((trial.number, ms(latest), best))
    experiment = record.experiment.to_dict()
    flat = {}

    def flatten(prefix, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                flatten(f"{prefix}.{key}", inner)
        else:
            flat[prefix] = value

    of_interest = "strategy budget pruner objective finalists task seed asynchronous"
    for key in of_interest.split():
        flatten(key, experiment[key])
    for name, domain in experiment["search_space"].items():
        flat[f"search_space.{name}"] = json.dumps(domain)
    tags = {
        **{key: flat.pop(key) for key in MAY_CHANGE & flat.keys()},
        "mlflow.runName": stored(record.name, 250),
        "study_id": record.id,
        "study": record.name,
        "role": "study",
        "state": record.ended,
        "strategy": record.experiment.strategy.name,
        "seed": record.experiment.seed,
        "data_sha256": record.id * 2,
        "data_rows": 144,
        "data_path": record.data["path"],
        "version_torch": "2.13.0",
        "version_scikit-learn": "1.8",
    }
    ends = [end_of(t) for t in (*record.trials, *record.finalists)]
    path = Path(record.data["path"]).absolute()
    return {
        "status": {"done": "FINISHED", "interrupted": "KILLED"}[record.ended],
        "name": stored(record.name, 250),
        "start": {ms(T)},
        "end": ms(max([T, *ends])),
        "tags": keyed(tags, 8000),
        "params": keyed(flat, 6000),
        "points": {
            "baseline_last_value": [(0, ms(T), 1.0)],
            **({"best_objective": points} if points else {}),
        },
        "datasets": [
            (stored(path.name, 10**9)[:500], (record.id * 2)[:36], {"uri": path.as_uri()}, 144)
        ],
        "files": {k: v.encode() if isinstance(v, str) else v for k, v in kept.items()},
    }


# What it holds


class Store:
    """The store's database, read without MLflow."""

    def __init__(self, path):
        self.database = sqlite3.connect(path)

    def runs(self, study_id):
        """Return what there is of a study, by the ids of its runs; deleted ones are not there."""
        wanted = (
            "select r.run_uuid, r.name, r.status, r.start_time, r.end_time, r.artifact_uri, e.name "
            "from runs r join tags t using (run_uuid) join experiments e using (experiment_id) "
            "where t.key = 'study_id' and t.value = ? and r.lifecycle_stage = 'active'"
        )
        return {row[0]: self._run(*row) for row in self.database.execute(wanted, [study_id])}

    def _run(self, run_id, name, status, start, end, artifacts, experiment):
        def pairs(table):
            rows = self.database.execute(
                f"select key, value from {table} where run_uuid = ?", [run_id]
            ).fetchall()
            assert len(dict(rows)) == len(rows)
            return dict(rows)

        points, columns = {}, "key, step, timestamp, value, is_nan"
        for key, step, time_ms, value, is_nan in self.database.execute(
            f"select {columns} from metrics where run_uuid = ?", [run_id]
        ):
            points.setdefault(key, []).append((step, time_ms, None if is_nan else value))
        points = {key: sorted(found) for key, found in points.items()}
        latest = {
            key: (step, time_ms, None if is_nan else value)
            for key, step, time_ms, value, is_nan in self.database.execute(
                f"select {columns} from latest_metrics where run_uuid = ?", [run_id]
            )
        }
        assert latest == {key: found[-1] for key, found in points.items()}  # what tables show
        datasets = [
            (name, digest, json.loads(source), json.loads(profile)["num_rows"])
            for name, digest, source, profile in self.database.execute(
                "select name, digest, dataset_source, dataset_profile from datasets "
                "join inputs on source_id = dataset_uuid where destination_id = ?",
                [run_id],
            )
        ]
        folder = Path(urllib.parse.unquote(urllib.parse.urlsplit(artifacts).path))
        return {
            "experiment": experiment,
            "name": name,
            "status": status,
            "start": start,
            "end": end,
            "tags": pairs("tags"),
            "params": pairs("params"),
            "points": points,
            "datasets": datasets,
            "files": {
                str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
            },
        }


def compare(found, wanted):
    """Check every field of a run."""
    assert found["start"] in wanted["start"]
    for field, value in wanted.items():
        if field not in ("start", "tags", "params"):
            assert found[field] == value, field
    bookkeeping = ("outcome_digest", "files_of")
    for field in ("tags", "params"):
        seen = {
            key: value
            for key, value in found[field].items()
            if not key.startswith("artifact ") and key not in bookkeeping
        }
        assert seen == wanted[field], field


def compare_live(runs, live):
    """Check that those runs are open whose trials train, with what these have come to."""
    curves = {
        (run["tags"]["role"], int(run["tags"]["trial"])): run["points"]["train_loss"]
        for run in runs.values()
        if run["status"] == "RUNNING" and run["tags"]["role"] != "study"
    }
    live = {(key.role.value, key.number): attempt for key, attempt in live.items()}
    assert curves.keys() == live.keys()
    for key, attempt in live.items():
        begun = [(e.epoch, ms(e.time), value_of(e.train_loss)) for e in attempt.epochs]
        assert curves[key][: len(begun)] == begun  # an earlier copy may have come further


# The copy


def copy_and_compare(store, client, record, way, kept, drawn):
    state, seen_files = SyncState(), {}
    for step in way:
        seen, live = at(record, step)
        state = state if step.knows else SyncState()
        spy = Spy(client, step.dies_at, step.after)
        with contextlib.suppress(ConnectionError):
            sync_study(spy, seen, state, running=True, artifacts=step.files, live=live)
            compare_live(store.runs(record.id), live)
        seen_files |= step.files
    artifacts = (lambda: kept) if drawn else kept
    lacking = {name for name, file in kept.items() if isinstance(file, Exception)}
    count = sync_study(client, record, SyncState(), running=False, artifacts=artifacts)
    assert set(", ".join(count.lacking).split(" (")[0].split(", ")) - {""} == lacking

    runs = store.runs(record.id)
    (parent_id,) = [id_ for id_, run in runs.items() if run["tags"]["role"] == "study"]
    parent = runs.pop(parent_id)
    assert parent["experiment"] == record.experiment.name
    # A file that an earlier copy kept, and this one does not have, stays.
    stayed = {k: parent["files"][k] for k in parent["files"].keys() & seen_files.keys()}
    made = {name: file for name, file in kept.items() if name not in lacking}
    compare(parent, expected_study(record, stayed | made))

    every = [*record.trials, *record.finalists]
    assert len(runs) == len(every)
    for trial in every:
        (run,) = [
            run
            for run in runs.values()
            if (run["tags"]["role"], run["tags"]["trial"]) == (trial.role, str(trial.number))
        ]
        assert run["experiment"] == record.experiment.name
        compare(run, expected_trial(record, trial, parent_id) | {"files": {}, "datasets": []})

    spy = Spy(client)
    count = sync_study(spy, record, SyncState(), running=False, artifacts=artifacts)
    assert (spy.writes, count.unchanged) == ([], len(every))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """One store for all examples: studies of one name and one experiment meet in it."""
    folder = tmp_path_factory.mktemp("property")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Store(folder / "mlflow.db"), open_store(), folder


everything = {"record": studies(), "way": ways, "kept": files, "drawn": st.booleans()}
suppressed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.timeout(1800)
@settings(max_examples=500 if ALL else 5, suppress_health_check=suppressed)
@given(**everything)
def test_mlflow_holds_what_the_journal_says_field_by_field(stores, monkeypatch, **drawn):
    store, client, folder = stores
    monkeypatch.chdir(folder)
    copy_and_compare(store, client, **drawn)
