"""Which trainings are done together, and which are not."""

import dataclasses
import itertools

import pytest

from tuner.batching import (
    DECIDING,
    MOST_BYTES,
    MOST_BYTES_GPU,
    MOST_MEMBERS,
    WIDEST,
    _of_model,
    bytes_of,
    groups_of,
    why_single,
)
from tuner.data import SequencesRef, SeriesRef, Shape
from tuner.experiment import Experiment
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import TrainJob

DATA = SeriesRef("somewhere", Shape("forecast", 1, target_columns=(0,)), window=12)


def make_job(key="0", data=DATA, **hyperparameters):
    return TrainJob(key, hyperparameters, 0, epochs=5, patience=5, metric="rmse", folds=(data,))


def with_shape(**fields):
    return dataclasses.replace(DATA, shape=dataclasses.replace(DATA.shape, **fields))


def keys(groups):
    return [[job.key for job in group] for group in groups]


CLASSES = SequencesRef("somewhere", Shape("classify", 1, classes=2))
SINGLE = {
    "the cell gru": make_job(cell="gru"),
    "bidirectional": make_job(bidirectional=True),
    "without bias": make_job(bias=False),
    "proj_size": make_job(proj_size=2),
    "pooling attention": make_job(pooling="attention"),
    "decoder recursive": make_job(decoder="recursive"),
    "convolutions": make_job(conv_channels=4),
    "optimizer sgd": make_job(optimizer="sgd"),
    "loss from user code": make_job(loss="mean(abs(truth - forecast))"),
    "only forecasts": make_job(data=CLASSES),
    "categories": make_job(data=with_shape(categories=((0, 3),))),
    "known ahead": make_job(data=with_shape(known_columns=(0,))),
    "several folds": dataclasses.replace(make_job(), folds=(DATA, DATA)),
    "no validation": dataclasses.replace(make_job(), validates=False),
    "trial_timeout": dataclasses.replace(make_job(), timeout_s=9.0),
    "mixed precision": dataclasses.replace(make_job(), mixed_precision=True),
}


@pytest.mark.parametrize("part", SINGLE)
def test_what_is_not_batched_says_so_and_trains_singly(part):
    job = SINGLE[part]
    assert part in why_single(job)
    other = dataclasses.replace(job, key="1")
    assert keys(groups_of([job, other], gpu=True, always=True)) == [["0"], ["1"]]


def test_what_decides_is_what_the_rules_read():
    read = set()

    class Watched(Hyperparameters):
        def __getattribute__(self, name):
            if name in Hyperparameters.model_fields:
                read.add(name)
            return super().__getattribute__(name)

    parameters = Watched()
    read.clear()
    _of_model(parameters)
    assert read == set(DECIDING)


@pytest.mark.parametrize(
    "file", ["experiments/air_passengers.yaml", "experiments/sunspots.yaml"]
)  # with forecast.yaml
def test_examples_of_forecasts_are_batched(file):
    experiment = Experiment.load(file)
    for kind in ("none", "last", "mean", "standard"):
        assert why_single(make_job(**experiment.configuration({"normalize": kind}))) is None
    for layers in (1, 3):  # as of lstm_grid.yaml
        assert why_single(make_job(num_layers=layers, hidden_size=64)) is None


def test_members_have_one_size_of_batches_and_the_same_layers():
    varied = itertools.product((8, 16), (1, 2), ("mse", "mae"), ("last", "mean"), (1, 3))
    names = ("batch_size", "num_layers", "loss", "pooling", "segment")
    jobs = [
        make_job(str(at), **dict(zip(names, values, strict=True)))
        for at, values in enumerate(list(varied) * 2)
    ]
    groups = groups_of(jobs, gpu=False, always=True)
    assert keys(groups) == [[str(k), str(k + 32)] for k in range(32)]


def test_members_read_the_same_data():
    others = (dataclasses.replace(DATA, folder="elsewhere"), with_shape(trend=3))
    jobs = [make_job(str(at), data) for at, data in enumerate((DATA, *others, DATA))]
    jobs += [make_job("4", window=9), make_job("5", window=12)]
    assert keys(groups_of(jobs, gpu=False)) == [["0", "3", "5"], ["1"], ["2"], ["4"]]


def test_members_may_differ_in_all_else():
    varied = {
        "hidden_size": [4, 32], "dropout": [0.0, 0.5], "learning_rate": [1e-3, 1e-2],
        "normalize": ["none", "standard"], "linear_path": [False, True], "schedule": ["cosine"],
        "weight_decay": [0.1], "optimizer": ["adamw"], "gradient_clip": [9.0],
        "weight_averaging": [2.0],
    }  # fmt: skip
    each = [{name: value} for name, values in varied.items() for value in values]
    for own in each:
        jobs = [make_job("0"), make_job("1", **own)]
        assert keys(groups_of(jobs, gpu=False, always=True)) == [["0", "1"]], own


def test_groups_are_of_even_sizes_and_similar_widths():
    widths = [4, 30, 5, 29, 6, 28, 7, 27, 8, 26, 9, 25]
    jobs = [make_job(str(w), hidden_size=w) for w in widths]
    groups = groups_of(jobs, gpu=False)
    assert [sorted(map(int, group)) for group in keys(groups)] == [
        [4, 5, 6, 7], [27, 28, 29, 30], [8, 9, 25, 26]
    ]  # fmt: skip


def test_a_generation_of_ten_keeps_two_workers_busy():
    jobs = [make_job(str(at)) for at in range(10)]
    assert [len(group) for group in groups_of(jobs, gpu=False)] == [5, 5]


def test_groups_have_so_many_members_at_most():
    jobs = [make_job(str(at)) for at in range(40)]
    assert max(len(group) for group in groups_of(jobs, gpu=False)) <= MOST_MEMBERS
    assert [len(group) for group in groups_of(jobs, gpu=True)] == [40]


def test_wide_models_are_grouped_only_on_demand_or_on_a_gpu():
    jobs = [make_job(str(at), hidden_size=WIDEST + 1) for at in range(3)]
    assert keys(groups_of(jobs, gpu=False)) == [["0"], ["1"], ["2"]]
    assert keys(groups_of(jobs, gpu=True)) == [["0", "1", "2"]]
    assert keys(groups_of(jobs, gpu=False, always=True)) == [["0", "1", "2"]]


LARGE = {
    "windows": {"window": 2048},
    "units": {"hidden_size": 512},
    "layers": {"hidden_size": [80] * 8},
    "batches": {"batch_size": 2048},
}


@pytest.mark.parametrize("what", LARGE)
def test_groups_take_no_more_than_their_share_of_memory(what):
    data = with_shape(features=7)
    jobs = [make_job(str(at), data, **{"batch_size": 64} | LARGE[what]) for at in range(5)]
    for gpu, most in ((False, MOST_BYTES), (True, MOST_BYTES_GPU)):
        jobs = jobs if not gpu else [dataclasses.replace(job, key=f"{job.key} {k}")
                                     for job in jobs for k in range(25)]  # fmt: skip
        assert bytes_of(jobs) > most
        groups = groups_of(jobs, gpu=gpu, always=True)
        assert len(groups) > 1
        assert sorted(itertools.chain(*keys(groups))) == sorted(job.key for job in jobs)
        assert all(len(group) == 1 or bytes_of(group) <= most for group in groups)
        fewer = -(-len(jobs) // (len(groups) - 1))
        assert bytes_of(jobs[:fewer]) > most or fewer == len(jobs)


def test_memory_is_that_of_the_widest_in_each_layer():
    jobs = [make_job("0", hidden_size=[4, 30]), make_job("1", hidden_size=[20, 5])]
    widest = make_job("2", hidden_size=[20, 30])
    assert bytes_of(jobs) == bytes_of([widest, widest]) == 2 * bytes_of([widest])


def test_groups_that_memory_makes_too_small_train_singly():
    wide = {"hidden_size": WIDEST, "batch_size": 64}
    jobs = [make_job(str(at), window=700, **wide) for at in range(4)]
    assert 3 * bytes_of(jobs[:1]) > MOST_BYTES > 2 * bytes_of(jobs[:1])
    assert keys(groups_of(jobs, gpu=False)) == [["0"], ["1"], ["2"], ["3"]]
    assert keys(groups_of(jobs, gpu=False, always=True)) == [["0", "1"], ["2", "3"]]


def test_one_that_is_too_large_leaves_the_others_together():
    wide = make_job("wide", hidden_size=WIDEST, batch_size=512, window=168)
    jobs = [make_job(str(at), hidden_size=4, batch_size=512, window=168) for at in range(4)]
    assert bytes_of([wide]) * 2 > MOST_BYTES > bytes_of(jobs)
    assert keys(groups_of([wide, *jobs], gpu=False)) == [["wide"], ["0", "1", "2", "3"]]


def test_two_are_no_group_on_a_cpu_but_on_demand():
    jobs = [make_job(str(at)) for at in range(2)]
    assert keys(groups_of(jobs, gpu=False)) == [["0"], ["1"]]
    assert keys(groups_of(jobs, gpu=True)) == [["0", "1"]]
    assert keys(groups_of(jobs, gpu=False, always=True)) == [["0", "1"]]


def test_groups_follow_from_configurations_not_from_keys():
    jobs = [make_job(str(at), hidden_size=4 + at % 7, batch_size=8 + at % 2) for at in range(30)]
    places = {job.key: at for at, job in enumerate(jobs)}
    renamed = [dataclasses.replace(job, key=f"x{99 - at}") for at, job in enumerate(jobs)]
    other = {job.key: at for at, job in enumerate(renamed)}
    ours = [[places[key] for key in group] for group in keys(groups_of(jobs, gpu=False))]
    assert ours == [[other[key] for key in g] for g in keys(groups_of(renamed, gpu=False))]
    assert sorted(itertools.chain(*ours)) == list(range(30))
