"""Trainings in a group against the same ones alone."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tuner.batching import groups_of, why_single
from tuner.jobs import Outcome, OutcomeState
from tuner.training import batched as module
from tuner.training import train, train_group
from tuner.training.batched import Group, Member
from tuner.training.stack import Sizes, stack_weights

TOLERANCE = 1e-5
"""Relative, of every loss and score; differences of 1e-7 a step add up over epochs."""


def every(reports):
    return [True] * len(reports)


def outcomes_of(jobs, report=every):
    """Train jobs alone and in a group, and return both outcomes."""
    jobs = [dataclasses.replace(job, key=str(at)) for at, job in enumerate(jobs)]
    assert [why_single(job) for job in jobs] == [None] * len(jobs)
    (group,) = groups_of(jobs, gpu=False, always=True)
    assert group == tuple(jobs)
    single = [train(job, lambda epoch, job=job: report([(job.key, epoch)])[0]) for job in jobs]
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
    "differences": {},
}


@pytest.mark.parametrize("what", DATA)
def test_members_train_so_on_data_of_every_kind(many_targets, make_job, what):
    fields = dict(DATA[what])
    ref = many_targets
    if "step_weights" in fields:
        ref = dataclasses.replace(ref, **fields)
    else:
        ref = dataclasses.replace(ref, shape=dataclasses.replace(ref.shape, **fields))
    own = [{}, {"hidden_size": 3, "normalize": "standard"}, {"linear_path": True}]
    jobs = [make_job(ref, seed=at, epochs=5, **o) for at, o in enumerate(own)]
    for single, batched in zip(*outcomes_of(jobs), strict=True):
        assert single.state is OutcomeState.COMPLETE
        assert_close(single, batched)


def test_large_data_is_read_batch_by_batch(bumpy, make_job, monkeypatch):
    own = [{"normalize": "last"}, {"hidden_size": 4, "dropout": 0.2}, {"linear_path": True}]
    jobs = [make_job(bumpy, seed=at, **o) for at, o in enumerate(own)]
    kept = train_group(jobs, every)
    monkeypatch.setattr(module, "_KEPT", 0)
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


def test_an_error_fails_the_members_that_have_not_ended(noise, make_job, monkeypatch):
    jobs = [make_job(noise, epochs=epochs) for epochs in (9, 2, 9, 9)]
    evaluate, calls = Group.evaluate, []

    def failing(self):
        calls.append(1)
        if len(calls) > 4:
            raise MemoryError("no memory")
        return evaluate(self)

    monkeypatch.setattr(Group, "evaluate", failing)
    first, second, *others = train_group(jobs, every)
    assert [outcome.reason for outcome in others] == [first.reason] * 2
    assert (first.state, first.reason) == (OutcomeState.FAILED, "MemoryError: no memory")
    assert len(first.history) == 4
    assert second.state is OutcomeState.COMPLETE


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
    assert all(member.prepare(torch.device("cpu")) for member in members)
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
    import time

    jobs = [make_job(noise, epochs=10), make_job(noise, epochs=3)]
    begun = time.perf_counter()
    first, second = train_group(jobs, every)
    took = time.perf_counter() - begun
    assert first.seconds > second.seconds > 0
    assert first.seconds + second.seconds <= took


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
