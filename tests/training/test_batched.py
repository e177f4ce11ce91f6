"""Trainings in a group against the same ones alone."""

import dataclasses
import math
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from tuner.batching import groups_of, why_single
from tuner.data.features import modes_of
from tuner.data.preprocessing import Transform
from tuner.jobs import Outcome, OutcomeState
from tuner.training import batched as module
from tuner.training import group_member, group_windows, run_job, train_group
from tuner.training import trainer as alone_module
from tuner.training.batched import Group
from tuner.training.group_member import Member
from tuner.training.samples import Split
from tuner.training.stack import Sizes, stack_weights

TOLERANCE = 1e-5
"""Relative, of every loss and score; differences of 1e-7 a step add up over epochs."""


def every(reports):
    return [True] * len(reports)


def outcomes_of(jobs, report=every):
    """Train jobs alone and in a group, and return both outcomes."""
    jobs = [dataclasses.replace(job, key=str(at)) for at, job in enumerate(jobs)]
    assert [why_single(job) for job in jobs] == [None] * len(jobs)
    (group,) = groups_of(jobs, gpu=True)  # which has more members
    assert group == tuple(jobs)
    single = [run_job(job, lambda epoch, job=job: report([(job.key, epoch)])[0]) for job in jobs]
    return single, train_group(jobs, report)


def assert_close(single: Outcome, batched: Outcome) -> None:
    assert batched.state is single.state
    assert batched.best_epoch == single.best_epoch
    assert batched.n_weights == single.n_weights
    assert len(batched.history) == len(single.history)
    for ours, alone in zip(batched.history, single.history, strict=True):
        for name in ("train_loss", "val_loss", "metric"):
            expected = pytest.approx(getattr(alone, name), rel=TOLERANCE)
            assert getattr(ours, name) == expected, f"{name} of epoch {ours.epoch}"


@pytest.fixture(scope="session")
def bumpy(make_ref):
    """A series with a level, a season and noise, and another column."""
    rng = np.random.default_rng(3)
    at = np.arange(140)
    y = np.sin(at / 2) + at / 50 + 0.3 * rng.normal(size=140)
    inputs = np.stack([y, rng.normal(size=140)], axis=1)
    return make_ref(y[:, None], inputs, target_columns=(0,), horizon=3)


@pytest.fixture(scope="session")
def many_targets(make_ref):
    rng = np.random.default_rng(4)
    targets = np.cumsum(rng.normal(size=(120, 2)), axis=0) / 5
    return make_ref(targets, horizon=2)


VARIED = {
    "widths": [{"hidden_size": 3}, {"hidden_size": 9}, {"hidden_size": 16}],
    "dropout": [{"dropout": 0.0}, {"dropout": 0.3}, {"dropout": 0.5, "hidden_size": 5}],
    "layers": [
        {"num_layers": 2, "dropout": 0.2},
        {"num_layers": 2, "hidden_size": 5, "dropout": 0.4},
        {"hidden_size": [4, 7], "dropout": 0.3},
        {"hidden_size": [9, 3]},
    ],
    "normalization": [
        {"normalize": kind, "linear_path": path}
        for kind in ("none", "last", "mean", "standard")
        for path in (False, True)
    ],
    "optimizers": [
        {"weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.5},
        {"gradient_clip": 0.05},
        {"learning_rate": 0.05, "weight_averaging": 1.5},
        {"schedule": "cosine"},
        {"schedule": "plateau", "learning_rate": 0.1},
    ],
    "segments": [
        {"segment": 3, "hidden_size": 5},
        {"segment": 3, "hidden_size": 11, "normalize": "standard"},
    ],
    "mean": [{"pooling": "mean", "num_layers": 2}, {"pooling": "mean", "hidden_size": [3, 5]}],
    "mae": [{"loss": "mae"}, {"loss": "mae", "hidden_size": 4, "normalize": "mean"}],
    "huber": [{"loss": "huber"}, {"loss": "huber", "hidden_size": 4}],
}


@pytest.mark.parametrize("varied", VARIED.values(), ids=VARIED)
def test_members_train_as_they_would_alone(bumpy, make_job, varied):
    jobs = [make_job(bumpy, seed=at, epochs=8, **own) for at, own in enumerate(varied)]
    for single, batched in zip(*outcomes_of(jobs), strict=True):
        assert_close(single, batched)


DATA = {
    "two targets": {},
    "quantiles": {"quantiles": (0.1, 0.5, 0.9)},
    "a moving average": {"trend": 4},
    "weights of steps": {"step_weights": (1.0, 3.0)},
    "differences": {"transform": Transform(differences=(1,))},
    "modes": {"modes": 2},
}


@pytest.mark.parametrize("what", DATA)
def test_members_train_so_on_data_of_every_kind(many_targets, make_job, what):
    fields, ref = DATA[what], many_targets
    if fields.keys() <= {"step_weights", "transform"}:
        ref = dataclasses.replace(ref, **fields)
    else:
        ref = dataclasses.replace(ref, shape=dataclasses.replace(ref.shape, **fields))
    if what == "modes":
        windows = np.lib.stride_tricks.sliding_window_view(ref.load("targets"), ref.window, axis=0)
        modes = modes_of(windows.transpose(0, 2, 1), 2)
        assert modes.any()
        np.save(Path(ref.folder) / f"modes_{ref.window}.npy", modes)
    own = [{}, {"hidden_size": 3, "normalize": "standard"}, {"linear_path": True}]
    jobs = [make_job(ref, seed=at, epochs=5, **o) for at, o in enumerate(own)]
    for single, batched in zip(*outcomes_of(jobs), strict=True):
        assert single.state is OutcomeState.COMPLETE
        assert_close(single, batched)


def test_large_data_is_read_batch_by_batch(bumpy, make_job, monkeypatch):
    own = [{"normalize": "last"}, {"hidden_size": 4, "dropout": 0.2}, {"linear_path": True}]
    jobs = [make_job(bumpy, seed=at, **o) for at, o in enumerate(own)]
    kept = train_group(jobs, every)
    monkeypatch.setattr(group_windows, "_KEPT", 0)
    for ours, other in zip(train_group(jobs, every), kept, strict=True):
        assert_close(other, ours)


def test_members_end_early_and_leave_the_others_alone(noise, make_job):
    sizes = (16, 3, 9, 4)
    jobs = [
        make_job(
            noise,
            seed=at,
            epochs=20,
            patience=2 + 3 * at,
            hidden_size=size,
            dropout=0.2,
            weight_averaging=at % 2,
            weight_decay=0.01,
        )
        for at, size in enumerate(sizes)
    ]
    single, batched = outcomes_of(jobs)
    ends = sorted(len(outcome.history) for outcome in single)
    assert ends[0] < ends[1] < ends[2] < ends[3]  # the last two go on alone
    for alone, ours in zip(single, batched, strict=True):
        assert_close(alone, ours)


def test_a_pruned_member_leaves_the_others_alone(bumpy, make_job):
    jobs = [make_job(bumpy, seed=at, epochs=6, hidden_size=4 + at) for at in range(3)]

    def report(reports):
        return [(key, epoch.epoch) != ("1", 2) for key, epoch in reports]

    single, batched = outcomes_of(jobs, report)
    assert [outcome.state.value for outcome in batched] == ["complete", "pruned", "complete"]
    assert len(batched[1].history) == 3
    for alone, ours in zip(single, batched, strict=True):
        assert_close(alone, ours)


def test_a_member_that_diverges_fails_alone(bumpy, make_job):
    jobs = [make_job(bumpy, seed=at, epochs=6) for at in range(3)]
    huge = jobs[1].hyperparameters | {"learning_rate": 10.0, "gradient_clip": 1e30}
    huge |= {"optimizer": "adamw", "weight_decay": 10.0}
    jobs[1] = dataclasses.replace(jobs[1], hyperparameters=huge, epochs=60)
    single, batched = outcomes_of(jobs)
    assert batched[1].state is OutcomeState.FAILED
    assert batched[1].reason == single[1].reason
    for alone, ours in zip(single[::2], batched[::2], strict=True):
        assert_close(alone, ours)


def test_a_member_that_cannot_be_made_fails_alone(make_ref, make_job):
    hidden = make_ref(np.zeros((80, 1)), np.random.default_rng(0).normal(size=(80, 1)),
                      target_columns=(-1,))  # fmt: skip
    jobs = [make_job(hidden), make_job(hidden, normalize="last")]
    single, batched = outcomes_of(jobs)
    assert batched[1].state is OutcomeState.FAILED
    assert batched[1].reason == single[1].reason
    assert_close(single[0], batched[0])


def test_an_own_metric_that_fails_fails_its_member_alone(bumpy, make_job):
    metric = "minimize quantile(abs(truth - forecast), max(abs(forecast - 100)) / 80)"
    jobs = [make_job(bumpy, seed=at, epochs=6, metric=metric) for at in range(3)]
    far = jobs[1].hyperparameters | {"learning_rate": 10.0}
    jobs[1] = dataclasses.replace(jobs[1], hyperparameters=far)
    single, batched = outcomes_of(jobs)
    assert batched[1].state is OutcomeState.FAILED
    assert batched[1].reason == single[1].reason
    assert "Quantiles must be in the range" in batched[1].reason
    for alone, ours in zip(single[::2], batched[::2], strict=True):
        assert ours.state is OutcomeState.COMPLETE
        assert_close(alone, ours)


@pytest.mark.parametrize("what", ["schedule", "weights_of", "latency_ms"])
def test_what_fails_for_one_member_fails_it_alone(bumpy, make_job, monkeypatch, what):
    jobs = [make_job(bumpy, seed=at, keep_weights=True, hidden_size=4 + at) for at in range(3)]

    def failing(*given):
        raise ValueError(what)

    owners = {"schedule": (alone_module, "make_schedule"), "latency_ms": (group_member, what)}
    owner, name = owners.get(what, (module, what))
    owner = Group if what == "weights_of" else owner
    function = getattr(owner, name)

    def one_fails(*given, **options):
        found = {  # whether it is the second member
            "schedule": lambda parameters, *_: parameters.hidden_size == 5,
            "weights_of": lambda _, at: at == 1,
            "latency_ms": lambda fit: fit.parameters.hidden_size == 5,
        }[what](*given)
        if found and what == "schedule":
            return failing
        return failing() if found else function(*given, **options)

    monkeypatch.setattr(owner, name, one_fails)
    first, second, third = train_group(jobs, every)
    assert (second.state, second.reason) == (OutcomeState.FAILED, f"ValueError: {what}")
    assert first.state is third.state is OutcomeState.COMPLETE
    assert len(first.history) == len(third.history) == 3


def fail_at(monkeypatch, call, error):
    """Let the evaluation of groups fail at a call, from 1."""
    evaluate, calls = Group.evaluate, []

    def failing(self):
        calls.append(1)
        if len(calls) == call:
            raise error
        return evaluate(self)

    monkeypatch.setattr(Group, "evaluate", failing)


def test_an_error_fails_the_members_that_have_not_ended(noise, make_job, monkeypatch):
    jobs = [make_job(noise, epochs=epochs) for epochs in (9, 2, 9, 9)]
    fail_at(monkeypatch, 5, ValueError("a reason"))
    first, second, *others = train_group(jobs, every)
    assert [outcome.reason for outcome in others] == [first.reason] * 2
    assert (first.state, first.reason) == (OutcomeState.FAILED, "ValueError: a reason")
    assert len(first.history) == 4
    assert second.state is OutcomeState.COMPLETE


@pytest.mark.parametrize(
    "error",
    [MemoryError("none"), torch.OutOfMemoryError("CUDA out of memory"),
     RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")],
    ids=["python", "cuda", "cpu"],
)  # fmt: skip
def test_members_train_alone_where_memory_is_lacking(noise, make_job, monkeypatch, error):
    jobs = [make_job(noise, seed=at, epochs=n) for at, n in enumerate((6, 2, 6, 6))]
    jobs = [dataclasses.replace(job, key=str(at)) for at, job in enumerate(jobs)]
    single = [run_job(job, lambda epoch: True) for job in jobs]
    fail_at(monkeypatch, 4, error)
    reported = []

    def report(reports):
        reported.extend((key, epoch.epoch) for key, epoch in reports)
        return [(key, epoch.epoch) != ("3", 4) for key, epoch in reports]

    *batched, pruned = train_group(jobs, report)
    for alone, ours in zip(single[:3], batched, strict=True):
        assert_close(alone, ours)
    assert (pruned.state, len(pruned.history)) == (OutcomeState.PRUNED, 5)
    numbers = [list(range(len(outcome.history))) for outcome in (*batched, pruned)]
    assert sorted(reported) == [(str(at), k) for at, own in enumerate(numbers) for k in own]


def test_answers_are_kept_where_memory_is_lacking(noise, make_job, monkeypatch):
    def lacking(fit):
        raise MemoryError

    monkeypatch.setattr(group_member, "latency_ms", lacking)
    jobs = [make_job(noise, seed=at, epochs=n) for at, n in enumerate((2, 9, 9))]
    jobs = [dataclasses.replace(job, key=str(at)) for at, job in enumerate(jobs)]
    reported = []

    def report(reports):
        reported.extend((key, epoch.epoch) for key, epoch in reports)
        return [(key, epoch.epoch) != ("1", 1) for key, epoch in reports]

    first, pruned, third = train_group(jobs, report)  # the first one ends, and has no latency
    assert (pruned.state, len(pruned.history)) == (OutcomeState.PRUNED, 2)
    assert first.state is third.state is OutcomeState.COMPLETE
    assert sorted(reported) == sorted(set(reported))


def test_evaluated_windows_are_bounded_by_what_they_read(bumpy, make_job, monkeypatch):
    jobs = [make_job(bumpy, hidden_size=2, segment=6) for _ in range(3)]
    most, read, together = 300, [], Group._outputs

    def outputs(self, parts, batch, *others):
        if not torch.is_grad_enabled():
            read.append(batch.read.numel())
        return together(self, parts, batch, *others)

    monkeypatch.setattr(module, "_NUMBERS", {"cpu": most})
    monkeypatch.setattr(Group, "_outputs", outputs)
    assert train_group(jobs, every)[0].state is OutcomeState.COMPLETE
    assert most / 2 < max(read) <= most


def test_members_read_their_data_once_and_are_scored_singly(bumpy, make_job, monkeypatch):
    opened, scored = [], []
    truth_of, to_units = type(bumpy).truth_of, type(bumpy).to_units

    def opening(self, samples):
        opened.append(len(samples))
        return truth_of(self, samples)

    def scoring(self, outputs, samples):
        scored.append(len(outputs))
        return to_units(self, outputs, samples)

    monkeypatch.setattr(type(bumpy), "truth_of", opening)
    monkeypatch.setattr(type(bumpy), "to_units", scoring)
    train_group([make_job(bumpy, seed=at, epochs=2) for at in range(4)], every)
    assert len(opened) == 1
    assert scored == opened * 8


def test_a_member_that_has_ended_keeps_no_model(noise, make_job, monkeypatch):
    ended, held = [], []
    latency_ms = group_member.latency_ms

    def ending(fit):
        ended.append(weakref.ref(fit.model))
        return latency_ms(fit)

    def report(reports):
        held.append([ref() is not None for ref in ended])
        return every(reports)

    monkeypatch.setattr(group_member, "latency_ms", ending)
    train_group([make_job(noise, epochs=epochs) for epochs in (5, 2, 3, 4)], report)
    assert held == [[], [], [False], [False] * 2, [False] * 3]


def test_large_predictions_are_made_member_by_member(bumpy, make_job, monkeypatch):
    own = [{"weight_averaging": 1.0}, {"hidden_size": 4, "dropout": 0.2}, {"linear_path": True}]
    jobs = [make_job(bumpy, seed=at, keep_weights=True, **o) for at, o in enumerate(own)]
    together = Group._outputs

    def of_training(*given):
        assert torch.is_grad_enabled()
        return together(*given)

    monkeypatch.setattr(module, "_PREDICTED", {"cpu": 0})
    monkeypatch.setattr(Group, "_outputs", of_training)
    for alone, ours in zip(*outcomes_of(jobs), strict=True):
        assert ours.state is OutcomeState.COMPLETE
        assert_close(alone, ours)


def test_weights_that_are_kept_are_those_of_the_best_epoch(noise, make_job):
    own = [{"hidden_size": 5, "weight_averaging": 1.0}, {"num_layers": 2}]
    own[0]["num_layers"] = 2
    jobs = [make_job(noise, seed=at, epochs=8, keep_weights=True, **o) for at, o in enumerate(own)]
    for alone, ours in zip(*outcomes_of(jobs), strict=True):
        assert alone.best_epoch < 7
        assert ours.weights.keys() == alone.weights.keys()
        for name, weights in alone.weights.items():
            np.testing.assert_allclose(ours.weights[name], weights, atol=1e-5, err_msg=name)


def test_padding_stays_exactly_zero(bumpy, make_job):
    own = [{"hidden_size": 3}, {"hidden_size": 12, "normalize": "last"}]
    jobs = [make_job(bumpy, seed=at, segment=2, num_layers=2, weight_decay=0.1, dropout=0.2, **o)
            for at, o in enumerate(own)]  # fmt: skip
    members = [Member(job) for job in jobs]
    opened = Split(bumpy, torch.device("cpu"))
    for member in members:
        member.prepare(torch.device("cpu"), opened)
    group = Group(members, torch.device("cpu"))
    ours = stack_weights([members[0].fit.model], group.sizes, torch.device("cpu"))[0]
    padding = (ours == 0) & (group.flat[0] == 0)
    n_own = sum(p.numel() for p in members[0].fit.model.parameters())
    assert padding.sum() == group.sizes.total - n_own
    for _ in range(3):
        group.train_epoch()
    for stacked in (group.flat, *group.moments):
        assert not stacked[0][padding].any()
        assert stacked[0][~padding].all()


def test_the_seconds_of_members_add_up_to_the_time_of_all(noise, make_job):
    jobs = [make_job(noise, epochs=epochs) for epochs in (40, 40, 13)]
    train_group(jobs, every)  # what is slow at first is not of a member
    begun = time.perf_counter()
    first, second, third = train_group(jobs, every)
    took = time.perf_counter() - begun
    assert first.seconds > third.seconds > 0
    assert second.seconds > third.seconds
    assert 0.7 * took < first.seconds + second.seconds + third.seconds <= took


def test_a_group_trains_the_same_again(bumpy, make_job):
    jobs = [make_job(bumpy, seed=at, hidden_size=4 + at, dropout=0.3) for at in range(3)]
    numbers = [
        [[(e.train_loss, e.val_loss, e.metric) for e in outcome.history] for outcome in outcomes]
        for outcomes in (train_group(jobs, every), train_group(jobs, every))
    ]
    assert numbers[0] == numbers[1]
    assert all(math.isfinite(loss) for outcome in numbers[0] for loss, _, _ in outcome)


def test_the_widest_sizes_hold_every_layer():
    sizes = [Sizes((3, 9), 1, 2, 0), Sizes((5, 4), 1, 2, 0)]
    assert Sizes.widest(sizes) == Sizes((5, 9), 1, 2, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT TESTED ON A GPU: there is none here")
def test_members_train_on_a_gpu_as_they_would_alone(bumpy, make_job):
    own = [{"hidden_size": 3}, {"hidden_size": 16, "normalize": "last"}, {"weight_averaging": 1.0}]
    jobs = [make_job(bumpy, seed=at, epochs=8, device="cuda", **o) for at, o in enumerate(own)]
    for alone, ours in zip(*outcomes_of(jobs), strict=True):
        for a, b in zip(alone.history, ours.history, strict=True):
            assert b.train_loss == pytest.approx(a.train_loss, rel=1e-3)
            assert b.val_loss == pytest.approx(a.val_loss, rel=1e-3)
