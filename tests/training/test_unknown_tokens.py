"""Tokens that the training part does not hold: what a model has learned of them."""

import numpy as np
import pytest
import torch

from tuner.data.prepared import prepare
from tuner.data.vocabulary import UNKNOWN
from tuner.errors import DataError
from tuner.experiment import Experiment
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import OutcomeState, PredictJob, TrainJob
from tuner.training import Model, predict, train
from tuner.training.device import seeded
from tuner.training.trainer import Fit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def words(make_sequences):
    """Sequences of known tokens alone, as those of a training part are: 2 or more."""
    rng = np.random.default_rng(0)
    sequences = [rng.integers(2, 9, size=rng.integers(2, 7)) for _ in range(60)]
    return make_sequences(
        "classify", sequences, [int(4 in s) for s in sequences], classes=2, vocabulary=9
    )


def first_weights(job):
    """The embedding that the job begins with."""
    with seeded(job.seed, CPU):
        model = Model(Hyperparameters(**job.hyperparameters), job.folds[0].shape)
    return model.weights()["embedding.weight"].copy()


def trained(job, go_on):
    outcome = train(job, go_on)
    assert outcome.state is OutcomeState.COMPLETE, outcome.reason
    return outcome


def test_the_unknown_row_is_trained_unless_the_rate_is_zero(words, make_job, go_on):
    for rate in (0.0, 0.05):
        job = make_job(words, epochs=2, keep_weights=True, metric="accuracy", unknown_rate=rate)
        before = first_weights(job)
        after = trained(job, go_on).weights["embedding.weight"]
        assert (after[2:] != before[2:]).any()
        assert (after[UNKNOWN] != before[UNKNOWN]).any() == (rate > 0)
        assert (after[0] == 0).all()  # padding


def test_tokens_are_unknown_at_the_rate_and_padding_never(words, make_job):
    job = make_job(words, metric="accuracy", unknown_rate=0.3)
    with seeded(0, CPU) as generators:
        fit = Fit(job, Hyperparameters(**job.hyperparameters), words, CPU, generators)
    x = torch.randint(2, 9, (400, 50))
    x[:, 40:] = 0
    found = fit._with_unknown(x)
    assert (found[:, 40:] == 0).all()
    assert (found == UNKNOWN)[:, :40].float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(found[found != UNKNOWN], x[found != UNKNOWN])
    assert not torch.equal(fit._with_unknown(x), found)  # drawn anew


def test_unknown_tokens_follow_the_seed_and_no_other_draw(words, make_job, go_on):
    def losses(seed, rate):
        job = make_job(words, epochs=3, metric="accuracy", unknown_rate=rate, seed=seed)
        return [e.train_loss for e in trained(job, go_on).history]

    assert losses(1, 0.2) == losses(1, 0.2)
    assert losses(1, 0.2) != losses(2, 0.2)
    # So rarely that no token is drawn: all the rest is as if nothing could be.
    assert losses(1, 1e-12) == losses(1, 0.0)


def texts(rng, n):
    """Texts whose class a known word says, or, where there is none, that a word is strange."""
    rows = []
    for i in range(n):
        kind = ["north", "south", "odd"][i % 3]
        fill = [f"w{rng.integers(4)}" for _ in range(2)]
        strange = f"{'x' * int(rng.integers(1, 4))}{i}"  # of no other text
        said = {"north": ["up", strange], "south": ["down", strange], "odd": [strange] * 2}[kind]
        rows.append(f"{' '.join(rng.permutation([*fill, *said]))},{kind}\n")
    return "text,kind\n" + "".join(rows)


def test_a_model_knows_how_to_treat_unknown_words(tmp_path, go_on):
    (tmp_path / "texts.csv").write_text(texts(np.random.default_rng(3), 450))
    data = {"path": str(tmp_path / "texts.csv"), "text": "text", "level": "word"}
    experiment = Experiment.model_validate(
        {
            "name": "t",
            "data": {**data, "target": "kind", "min_count": 2},
            "task": {"kind": "classify"},
        }
    )
    prepared = prepare(experiment, tmp_path / "arrays")
    (ref,) = prepared.folds
    tokens, bounds = ref.load("tokens"), ref.load("bounds")[ref.evaluate_samples()]
    assert all((tokens[first:end] == UNKNOWN).any() for first, end in bounds)
    parameters = {"hidden_size": 16, "learning_rate": 0.01, "pooling": "max"}
    job = TrainJob("j", parameters, 0, 40, 40, "accuracy", prepared.folds, keep_weights=True)
    outcome = trained(job, go_on)
    said = predict(PredictJob("p", parameters, outcome.weights, ref)).predictions.argmax(axis=1)
    right = said == ref.truth_of(ref.evaluate_samples())
    assert right.mean() > 0.9  # a third by chance
    assert prepared.facts.notes[-1][0] == "unknown"
    assert "validation" in prepared.facts.notes[-1][1]


def test_a_vocabulary_without_frequent_tokens_is_refused(tmp_path):
    (tmp_path / "texts.csv").write_text("text,y\n" + "".join(f"t{i},{i % 2}\n" for i in range(20)))
    data = {"path": str(tmp_path / "texts.csv"), "text": "text", "level": "word", "target": "y"}
    raw = {"name": "t", "data": data | {"min_count": 2}, "task": {"kind": "classify"}}
    with pytest.raises(DataError, match="data.min_count: every token .* fewer than 2 times"):
        prepare(Experiment.model_validate(raw), tmp_path / "arrays")
