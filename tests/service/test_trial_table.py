"""The rows of a study's trials: in memory while it runs, in a file afterwards."""

import dataclasses
import time

import pytest
from helpers.made_study import study, trial
from hypothesis import given
from hypothesis import strategies as st

from tuner.coordination.coordinator import Asked, SearchStart
from tuner.jobs import Outcome, OutcomeState
from tuner.journal.storage import Role, TrialKey
from tuner.results.summary import trials_to_json
from tuner.service.trial_table import TrialTable, TrialTables

STATES = {
    "complete": OutcomeState.COMPLETE,
    "pruned": OutcomeState.PRUNED,
    "failed": OutcomeState.FAILED,
}


def ask(table, number, repeat_of=None):
    params = {"hidden_size": number if repeat_of is None else repeat_of}
    table.asked(Asked(TrialKey(Role.TRIAL, number), repeat_of, params, seed=100 + number))


def finish(table, number, value=None, state="complete"):
    reason = "no memory" if state == "failed" else None
    outcome = Outcome(STATES[state], objective=value, reason=reason, seconds=2.0)
    table.finished(TrialKey(Role.TRIAL, number), outcome)


def numbers(page):
    return [row["number"] for row in page["items"]]


@pytest.fixture
def table(tmp_path):
    return TrialTable(tmp_path / "a.jsonl", sign=1)


def test_trials_can_be_had_by_number_and_by_score(table):
    for number in range(5):
        ask(table, number)
    for number, value in ((3, 0.1), (0, 0.5), (1, 0.2)):
        finish(table, number, value)
    finish(table, 2, state="failed")
    assert numbers(table.page("number", None, None, 10)) == [0, 1, 2, 3, 4]
    assert numbers(table.page("-number", None, None, 10)) == [4, 3, 2, 1, 0]
    assert numbers(table.page("score", None, None, 10)) == [3, 1, 0, 2, 4]
    assert numbers(table.page("number", "running", None, 10)) == [4]
    assert table.scores() == [0.5, 0.2, None, 0.1, None]


@given(st.integers(0, 30), st.integers(1, 7), st.sampled_from(["number", "-number", "score"]))
def test_pages_hold_each_trial_once(tmp_path_factory, n, limit, order):
    table = TrialTable(tmp_path_factory.mktemp("t") / "a.jsonl", sign=-1)
    for number in range(n):
        ask(table, number)
        finish(table, number, float(number * 7 % 5))
    found, cursor = [], None
    while True:
        page = table.page(order, None, cursor, limit)
        found += numbers(page)
        assert page["total"] == n
        if page["next"] is None:
            break
        cursor = int(page["next"])
    assert found == numbers(table.page(order, None, None, 1000))
    assert sorted(found) == list(range(n))


def test_a_duplicate_has_the_outcome_of_its_original(table):
    ask(table, 0)
    ask(table, 1, repeat_of=0)
    finish(table, 0, 0.25)
    ask(table, 2, repeat_of=0)
    rows = table.page("number", None, None, 10)["items"]
    assert [row["value"] for row in rows] == [0.25] * 3
    assert [row["repeat_of"] for row in rows] == [None, 0, 0]
    assert [row["seed"] for row in rows] == [100, 101, 102]


def test_rows_are_those_of_the_summary(tmp_path, folder):
    table, record = TrialTable(tmp_path / "a.jsonl", sign=1), study([0.5, "no memory", 0.25, None])
    table.on_start(SearchStart(record, lambda: record, "", 1, "local"))
    assert table.page("number", None, None, 10)["items"] == trials_to_json(record)
    assert TrialTable(tmp_path / "a.jsonl", sign=1).page("number", None, None, 10)[
        "items"
    ] == trials_to_json(record)


def test_trials_are_there_after_a_kill(tmp_path, table):
    for number in range(3):
        ask(table, number)
    finish(table, 2, 0.5)
    finish(table, 0, 0.25)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"number": 1, "sta')
    again = TrialTable(tmp_path / "a.jsonl", sign=1)
    assert again.page("number", None, None, 10) == table.page("number", None, None, 10)
    assert numbers(again.page("number", "running", None, 10)) == [1]
    assert again.progress()[0] == 2


def test_a_trial_killed_amid_its_parameters_gets_all_of_them(table):
    table.begin([trial(0, 0.5), dataclasses.replace(trial(1, None), params={})])
    ask(table, 1)
    finish(table, 1, 0.25)
    ask(table, 0)  # of an earlier run
    rows = table.page("number", None, None, 10)["items"]
    assert [row["params"] for row in rows] == [{"hidden_size": 0}, {"hidden_size": 1}]
    assert [row["value"] for row in rows] == [0.5, 0.25]


def test_a_duplicate_of_before_a_kill_has_an_outcome_after(table):
    table.begin([trial(0, None), dataclasses.replace(trial(1, None), repeat_of=0)])
    ask(table, 0)
    ask(table, 1, repeat_of=0)
    finish(table, 0, 0.25)
    assert table.scores() == [0.25, 0.25]


def test_trials_of_finalists_are_no_rows(table):
    record = trial(0, 0.5, configuration=3)
    key = TrialKey(Role.FINALIST, record.number)
    table.asked(Asked(key, None, {}))
    table.finished(key, record.outcome)
    assert len(table) == 0


def test_a_running_table_is_the_one_that_is_read(tmp_path):
    tables = TrialTables(tmp_path)
    with tables.running("ana", "a", sign=1) as table:
        for other in range(20):
            tables.of("ana", f"other{other}", sign=1)
        ask(table, 0)
        assert tables.of("ana", "a", sign=1) is table
    tables.remove("ana", "a")
    assert len(tables.of("ana", "a", sign=1)) == 0


def test_a_table_runs_until_its_last_opener_has_ended(tmp_path):
    tables = TrialTables(tmp_path)
    first, second = (tables.running("ana", "a", sign=1) for _ in range(2))
    first.__enter__()
    table = second.__enter__()
    first.__exit__(None, None, None)
    for other in range(20):
        tables.of("ana", f"other{other}", sign=1)
    assert tables.of("ana", "a", sign=1) is table
    second.__exit__(None, None, None)
    assert tables._running == {}


@pytest.mark.slow
def test_a_hundred_thousand_trials_are_paged_quickly(tmp_path):
    table = TrialTable(tmp_path / "a.jsonl", sign=1)
    for number in range(100_000):
        ask(table, number)
        finish(table, number, number * 7919 % 100_003 / 1e5)
    begun = time.perf_counter()
    again = TrialTable(tmp_path / "a.jsonl", sign=1)
    read = time.perf_counter()
    again.page("score", None, 50_000, 1000)
    ranked = time.perf_counter()
    for at in range(0, 100_000, 10_000):
        again.page("score", "complete", at, 1000)
    paged = time.perf_counter()
    # A page costs little beside reading the table once.
    assert (paged - ranked) / 10 < read - begun
