import numpy as np
import pytest
import torch
from helpers.prepared import write_series

from tuner.data import SequencesRef, Shape
from tuner.jobs import TrainJob


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Train on one thread, as workers do: two that wait for one processor are far slower."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def make_ref(tmp_path_factory):
    """Write a series as prepared data: three quarters to train on, the rest to score."""

    def make(targets, inputs=None, **fields):
        targets = np.asarray(targets, np.float32)
        inputs = None if inputs is None else np.asarray(inputs, np.float32)
        own = {
            "train_end": len(targets) * 3 // 4, "longest_window": 8, "offset": 100.0, "scale": 10.0,
            "target_columns": tuple(range(targets.shape[1])) if inputs is None else (),
        }  # fmt: skip
        return write_series(tmp_path_factory.mktemp("series"), targets, inputs, **own | fields)

    return make


@pytest.fixture(scope="session")
def make_sequences(tmp_path_factory):
    """Write sequences, of numbers (steps, features) or tokens (steps,), as prepared data.

    The truth is of a task's kind: (targets,) values, a class, or the classes of all steps.
    """

    def make(
        task,
        sequences,
        truth,
        *,
        classes=0,
        vocabulary=0,
        quantiles=(),
        offset=100.0,
        scale=10.0,
        evaluate=None,
    ):
        folder = tmp_path_factory.mktemp("sequences")
        n = len(sequences)
        ends = np.cumsum([len(s) for s in sequences])
        lengths = {len(s) for s in sequences}
        scored = np.arange(n * 3 // 4, n) if evaluate is None else np.asarray(evaluate)
        arrays = {
            "bounds": np.stack([ends - [len(s) for s in sequences], ends], axis=1),
            "train": np.setdiff1d(np.arange(n), scored),
            "evaluate": scored,
        }
        rows = np.concatenate(sequences)
        if vocabulary:
            arrays["tokens"] = rows.astype(np.int64)
        else:
            arrays["inputs"] = rows.astype(np.float32)
        if task == "label":
            arrays["truth"] = np.concatenate(truth).astype(np.int64)
        elif classes:
            arrays["truth"] = np.asarray(truth, np.int64)
        else:
            truth = np.concatenate(truth) if task == "regress_steps" else truth
            arrays["targets"] = np.asarray(truth, np.float32)
            arrays["truth"] = np.asarray(truth, np.float64) * scale + offset
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        n_targets = 1 if classes else arrays["targets"].shape[1]
        return SequencesRef(
            folder=str(folder),
            shape=Shape(
                task,
                0 if vocabulary else rows.shape[1],
                vocabulary=vocabulary,
                targets=n_targets,
                quantiles=quantiles,
                classes=classes,
                window=lengths.pop() if len(lengths) == 1 else 0,
            ),
            mean_errors=() if classes else (1.0,) * n_targets,
            offset=() if classes else (offset,) * n_targets,
            scale=() if classes else (scale,) * n_targets,
        )

    return make


@pytest.fixture(scope="session")
def sine(make_ref):
    return make_ref(np.sin(np.arange(120) * 0.5)[:, None])


@pytest.fixture(scope="session")
def noise(make_ref):
    """Nothing can be learned of it, so that the best epoch is an early one."""
    return make_ref(np.random.default_rng(0).normal(size=(80, 1)))


def of_lengths(seed, n, features=2):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(length, features)) for length in rng.integers(1, 9, size=n)]


@pytest.fixture(scope="session")
def sums(make_sequences):
    """Sequences of numbers and their mean over the steps."""
    sequences = of_lengths(1, 80)
    return make_sequences("regress", sequences, [s.mean(axis=0) for s in sequences])


@pytest.fixture(scope="session")
def signs(make_sequences):
    """Sequences of numbers, and whether the first one is positive; 2 where it is large."""
    sequences = of_lengths(2, 120)
    truth = [int(s[0, 0] > 0) + int(s[0, 0] > 1) for s in sequences]
    return make_sequences("classify", sequences, truth, classes=3)


@pytest.fixture(scope="session")
def steps(make_sequences):
    """Sequences of numbers, and of every step whether it is positive."""
    sequences = of_lengths(3, 80)
    return make_sequences("label", sequences, [s[:, 0] > 0 for s in sequences], classes=2)


@pytest.fixture(scope="session")
def running_sums(make_sequences):
    """Sequences of numbers, and of every step the sum of two columns up to it, and a difference."""
    sequences = of_lengths(5, 120)
    truth = [np.stack([s.sum(axis=1).cumsum() / 3, s[:, 0] - s[:, 1]], axis=1) for s in sequences]
    return make_sequences("regress_steps", sequences, truth)


@pytest.fixture(scope="session")
def words(make_sequences):
    """Sequences of tokens, and whether token 2 is among them."""
    rng = np.random.default_rng(4)
    sequences = [rng.integers(1, 6, size=length) for length in rng.integers(1, 9, size=120)]
    truth = [int(2 in s) for s in sequences]
    return make_sequences("classify", sequences, truth, classes=2, vocabulary=6)


@pytest.fixture(scope="session")
def make_job():
    def make(
        *folds,
        seed=1,
        epochs=3,
        patience=1000,
        metric="rmse",
        keep_weights=False,
        device="auto",
        mixed_precision=False,
        **hyperparameters,
    ):
        return TrainJob(
            key="job",
            hyperparameters={"hidden_size": 8, "learning_rate": 0.01} | hyperparameters,
            seed=seed,
            epochs=epochs,
            patience=patience,
            metric=metric,
            folds=folds,
            device=device,
            mixed_precision=mixed_precision,
            keep_weights=keep_weights,
        )

    return make


@pytest.fixture(scope="session")
def go_on():
    return lambda epoch: True
