"""Who is next: properties of the fair share, on a clock that the tests move."""

import heapq
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.service.fair_share import FairShare


@dataclass
class Machine:
    """Workers that do jobs of known lengths, by the order of a FairShare."""

    n_workers: int
    limits: dict = field(default_factory=dict)
    weights: dict = field(default_factory=dict)

    def __post_init__(self):
        self.now = 0.0
        self.share = FairShare(
            lambda: self.now,
            owner_limit=self.limits.get,
            owner_weight=lambda owner: self.weights.get(owner, 1.0),
        )
        self.running = []  # heap of (end, serial, job)
        self.begun = []  # (time, name)
        self.received = {}  # worker-seconds by name
        self.serial = itertools.count()

    def queue(self, study, name, *seconds):
        for length in seconds:
            self.share.submit(study, (next(self.serial), name, length))

    def submit(self, study, name, *seconds):
        self.queue(study, name, *seconds)
        self.fill()

    def fill(self):
        while len(self.running) < self.n_workers and (job := self.share.take()) is not None:
            self.begun.append((self.now, job[1]))
            heapq.heappush(self.running, (self.now + job[2], job[0], job))

    def step(self):
        """Do the next job to its end, begin another, and return its name."""
        end, _, job = heapq.heappop(self.running)
        self.now = max(self.now, end)
        self.received[job[1]] = self.received.get(job[1], 0.0) + job[2]
        self.share.end(job)
        self.fill()
        return job[1]

    def run(self, until=float("inf")):
        """Do jobs until a time, or until there are none, and return their names."""
        done = []
        while self.running and self.running[0][0] <= until:
            done.append(self.step())
        self.now = max(self.now, min(until, 1e9))
        return done

    def partial(self, name):
        """Worker-seconds of a name, with those of its jobs that run."""
        of_running = sum(
            self.now - (end - job[2]) for end, _, job in self.running if job[1] == name
        )
        return self.received.get(name, 0.0) + of_running


lengths = st.floats(0.1, 10)


@given(st.lists(st.lists(lengths, min_size=30, max_size=30), min_size=2, max_size=5))
def test_owners_differ_by_one_job_on_one_worker(jobs):
    machine = Machine(1)
    for name, of_owner in enumerate(jobs):
        machine.queue(machine.share.join(f"owner {name}"), name, *of_owner)
    machine.fill()
    n_done = dict.fromkeys(range(len(jobs)), 0)
    while max(n_done.values()) < 30:  # all of them want more
        got = [machine.received.get(n, 0.0) for n in n_done]
        assert max(got) - min(got) <= 10 + 1e-6
        n_done[machine.step()] += 1


@given(st.integers(1, 6), st.integers(2, 4), st.floats(0.1, 100))
def test_owners_of_equal_jobs_differ_by_one_job(n_workers, n_owners, length):
    machine = Machine(n_workers)
    for name in range(n_owners):
        machine.queue(machine.share.join(f"owner {name}"), name, *[length] * 50)
    machine.fill()
    for _ in range(40):
        machine.step()
        got = [machine.partial(name) for name in range(n_owners)]
        assert max(got) - min(got) <= length + 1e-6


@given(st.integers(1, 4), st.data())
def test_shares_do_not_drift_apart(n_workers, data):
    machine = Machine(n_workers)
    for name in range(3):
        of_owner = data.draw(st.lists(lengths, min_size=100, max_size=100))
        machine.queue(machine.share.join(f"owner {name}"), name, *of_owner)
    machine.fill()
    for _ in range(99):
        machine.step()
        got = [machine.partial(name) for name in range(3)]
        assert max(got) - min(got) <= 10 * n_workers + 1e-6


def test_an_owner_with_twice_the_weight_gets_twice_the_share():
    machine = Machine(1, weights={"big": 2.0})
    for owner in ("big", "small"):
        machine.submit(machine.share.join(owner), owner, *[1.0] * 100)
    machine.run(until=60)
    assert machine.received["big"] == pytest.approx(40, abs=1)
    assert machine.received["small"] == pytest.approx(20, abs=1)


def test_long_jobs_count_as_much_as_many_short_ones():
    machine = Machine(1)
    machine.submit(machine.share.join("a"), "long", *[10.0] * 20)
    machine.submit(machine.share.join("b"), "short", *[1.0] * 200)
    machine.run(until=200)
    assert machine.received["long"] == pytest.approx(100, abs=10)


def test_many_studies_of_an_owner_have_one_owners_share():
    machine = Machine(2)
    for _ in range(10):
        machine.submit(machine.share.join("many"), "many", *[1.0] * 50)
    machine.submit(machine.share.join("one"), "one", *[1.0] * 100)
    machine.run(until=50)
    assert machine.received["one"] == pytest.approx(50, abs=2)


def test_a_study_of_a_thousand_does_not_starve_one_of_ten():
    machine = Machine(2)
    machine.submit(machine.share.join("me"), "thousand", *[1.0] * 1000)
    machine.run(until=100)
    machine.submit(machine.share.join("me"), "ten", *[1.0] * 10)
    machine.run(until=112)
    assert machine.received["ten"] == 10


@given(st.lists(st.tuples(st.integers(0, 3), lengths), min_size=1, max_size=40), st.integers(1, 4))
def test_every_job_runs_once(jobs, n_workers):
    machine = Machine(n_workers)
    studies = [machine.share.join(f"owner {n % 2}", max_workers=n or None) for n in range(4)]
    for number, (study, length) in enumerate(jobs):
        machine.submit(studies[study], number, length)
    assert sorted(machine.run()) == list(range(len(jobs)))
    assert len(machine.share) == 0
    assert [machine.share.counts(study) for study in studies] == [(0, 0)] * 4


@given(st.data())
def test_limits_of_studies_and_owners_are_kept(data):
    limit = data.draw(st.integers(1, 3))
    most = data.draw(st.integers(1, 3))
    machine = Machine(6, limits={"limited": limit})
    studies = {name: machine.share.join("limited", max_workers=most) for name in "ab"}
    studies["c"] = machine.share.join("free")
    for name, study in studies.items():
        machine.submit(study, name, *data.draw(st.lists(lengths, min_size=10, max_size=20)))
    while machine.running:
        counts = {name: machine.share.counts(study) for name, study in studies.items()}
        assert counts["a"][0] <= most
        assert counts["b"][0] <= most
        assert counts["a"][0] + counts["b"][0] <= limit
        has_room = counts["a"][0] + counts["b"][0] < limit
        for name in "ab":  # nothing idles beyond the limits
            if counts[name][1] and has_room and counts[name][0] < most:
                assert len(machine.running) == 6
        machine.step()


def test_a_higher_priority_is_first_in_its_owner_alone():
    machine = Machine(1)
    machine.submit(machine.share.join("me"), "low", *[1.0] * 5)
    machine.submit(machine.share.join("me", priority=3), "high", *[1.0] * 5)
    machine.submit(machine.share.join("you"), "other", *[1.0] * 20)
    order = machine.run()
    mine = [name for name in order if name != "other"]
    assert mine == ["low", *["high"] * 5, *["low"] * 4]  # the first ran already
    assert 4 <= order[:10].count("other") <= 6


def test_who_comes_new_has_no_credit():
    machine = Machine(1)
    machine.submit(machine.share.join("old"), "old", *[1.0] * 200)
    machine.run(until=100)
    machine.submit(machine.share.join("new"), "new", *[1.0] * 200)
    machine.run(until=120)
    assert machine.received["new"] == pytest.approx(10, abs=1)


def test_who_was_idle_has_no_credit():
    machine = Machine(1)
    studies = {name: machine.share.join(name) for name in ("idle", "busy")}
    machine.submit(studies["idle"], "idle", 1.0)
    machine.submit(studies["busy"], "busy", *[1.0] * 200)
    machine.run(until=100)
    machine.submit(studies["idle"], "idle", *[1.0] * 200)
    machine.run(until=120)
    assert machine.received["idle"] == pytest.approx(11, abs=1)


def test_workers_that_nobody_wanted_are_free():
    machine = Machine(4)
    alone = machine.share.join("alone", max_workers=3)
    machine.submit(alone, "alone", *[1.0] * 1000)
    machine.run(until=100)  # 300 worker-seconds
    machine.submit(machine.share.join("new"), "new", *[1.0] * 1000)
    machine.run(until=120)
    assert machine.received["alone"] == pytest.approx(340, abs=3)
    assert machine.received["new"] == pytest.approx(40, abs=3)


def test_who_is_limited_saves_no_credit():
    machine = Machine(10)
    machine.submit(machine.share.join("limited", max_workers=1), "limited", *[1.0] * 500)
    machine.submit(machine.share.join("busy"), "busy", *[1.0] * 5000)
    machine.run(until=100)
    machine.submit(machine.share.join("limited"), "more", *[1.0] * 5000)
    machine.submit(machine.share.join("new"), "new", *[1.0] * 5000)
    machine.run(until=130)
    of_limited = machine.received["limited"] + machine.received["more"] - 100
    for received in (of_limited, machine.received["new"], machine.received["busy"] - 900):
        assert received == pytest.approx(100, abs=10)


def test_a_pause_between_jobs_forgives_no_debt():
    """One asks for its next job when one has ended, as a sequential search does."""
    machine = Machine(1)
    long = machine.share.join("long")
    machine.submit(long, "long", 10.0)
    machine.submit(machine.share.join("short"), "short", *[1.0] * 200)
    while machine.now < 200:
        if machine.step() == "long":
            machine.now += 0.005
            machine.submit(long, "long", 10.0)
    assert machine.received["long"] == pytest.approx(100, abs=10)


def test_a_debt_passes_with_time():
    machine = Machine(1)
    debtor, other = machine.share.join("debtor"), machine.share.join("other")
    machine.submit(debtor, "debtor", 100.0)
    machine.submit(other, "other", 1.0)
    machine.run(until=500)  # for 400 s nobody wants a worker
    for name, study in (("debtor", debtor), ("other", other)):
        machine.queue(study, name, *[1.0] * 50)
    machine.fill()
    machine.run(until=520)
    assert machine.received["debtor"] - 100 == pytest.approx(10, abs=1)


def test_many_workers_that_are_free_at_once_are_divided():
    machine = Machine(100)
    for name in "ab":
        machine.queue(machine.share.join(name), name, *[5.0] * 200)
    machine.fill()
    assert [name for _, name in machine.begun].count("a") == 50


def test_an_owner_who_took_all_workers_gives_half_of_them():
    machine = Machine(100)
    for name in "ab":
        machine.submit(machine.share.join(name), name, *[5.0] * 400)
    machine.run(until=39.9)
    assert 90 <= [name for _, name in machine.begun[-200:]].count("a") <= 110


def test_withdrawn_jobs_do_not_begin():
    machine = Machine(1)
    studies = {name: machine.share.join(name) for name in "ab"}
    for name, study in studies.items():
        machine.submit(study, name, 1.0, 1.0)
    assert [job[1] for job in machine.share.withdraw(studies["a"])] == ["a"]
    assert machine.run() == ["a", "b", "b"]


def test_a_study_that_leaves_is_charged_until_its_jobs_end():
    machine = Machine(2)
    first, second = machine.share.join("me"), machine.share.join("me")
    machine.submit(first, "first", 4.0, 4.0, 4.0)
    machine.submit(second, "second", *[1.0] * 10)
    machine.run(until=3)
    assert len(machine.share.leave(first)) >= 1
    assert machine.share.leave(first) == []
    machine.run()
    assert machine.received["second"] == 10
    assert len(machine.share) == 0


@given(st.lists(st.tuples(st.integers(0, 2), lengths), min_size=5, max_size=60))
def test_the_same_calls_give_the_same_order(jobs):
    def order():
        machine = Machine(2)
        studies = [machine.share.join(f"owner {n % 2}") for n in range(3)]
        for number, (study, length) in enumerate(jobs):
            machine.submit(studies[study], number, length)
        return machine.run()

    assert order() == order()


def test_fewer_than_one_worker_for_a_study_is_refused():
    with pytest.raises(ValueError, match="max_workers must be at least 1, got 0"):
        FairShare().join("me", max_workers=0)


def ends_of(machine):
    """Do all jobs, and return when each name's last one ended."""
    ended = {}
    while machine.running:
        name = machine.step()
        ended[name] = machine.now
    return ended


def test_equal_studies_that_wait_together_end_together():
    machine = Machine(4)
    for n in range(200):
        machine.queue(machine.share.join(f"owner {n % 10}"), n, *[1.0] * 10)
    machine.fill()
    ended = ends_of(machine)
    assert max(ended.values()) == 200 * 10 / 4  # no worker was ever idle
    assert max(ended.values()) / min(ended.values()) <= 1.2


def test_no_worker_waits_for_studies_that_are_still_to_come():
    """So who comes first ends first; those that then wait together end together."""
    machine, ended = Machine(4), {}
    for n in range(200):  # they come twice as fast as they could be done
        while machine.running and machine.running[0][0] <= n * 1.25:
            name = machine.step()
            ended[name] = machine.now
        machine.now = n * 1.25
        machine.submit(machine.share.join(f"owner {n % 10}"), n, *[1.0] * 10)
    ended |= ends_of(machine)
    times = sorted(ended.values())
    assert times[-1] <= 200 * 10 / 4 + 10
    assert times[0] < 20
    assert times[-1] / times[len(times) // 2] <= 1.2
