"""Texts that are said of texts: taught, decoded, exported, and the same everywhere."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from tuner.data.prepared import prepare
from tuner.experiment import Experiment
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import ExportJob, OutcomeState, PredictJob, TrainJob
from tuner.training import Model, predict, train
from tuner.training.model import translate
from tuner.training.onnx_export import export
from tuner.training.samples import open_samples

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Words of other lengths than what is said of them: each letter twice, in capitals."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    words = {"".join(rng.choice(list("abc"), rng.integers(1, 6))) for _ in range(600)}
    frame = pd.DataFrame({"a": sorted(words)})
    frame["b"] = [f"{w[-1].upper()}{len(w)}" for w in frame["a"]]
    frame.to_csv(folder / "pairs.csv", index=False)
    data = {"path": str(folder / "pairs.csv"), "text": "a", "target": "b"}
    raw = {"name": "t", "data": data, "task": {"kind": "translate"}}
    return prepare(Experiment.model_validate(raw), folder / "arrays")


def trained(prepared, epochs, **values):
    parameters = {"hidden_size": 24, "learning_rate": 0.02, "batch_size": 16} | values
    job = TrainJob(
        "j", parameters, 0, epochs, epochs, "exact_match", prepared.folds, keep_weights=True
    )
    outcome = train(job, lambda epoch: True)
    assert outcome.state is OutcomeState.COMPLETE, outcome.reason
    return outcome, parameters


@pytest.mark.parametrize("beam", [1, 3])
def test_a_text_is_said_of_a_text_and_scored_by_exact_match(prepared, beam):
    outcome, parameters = trained(prepared, 40, beam=beam)
    (ref,) = prepared.folds
    said = predict(PredictJob("p", parameters, outcome.weights, ref)).predictions
    truth = ref.truth_of(ref.evaluate_samples())
    assert (said == truth).all(axis=1).mean() == outcome.objective
    assert outcome.objective > 0.8  # the most frequent target is right in a tenth


@pytest.mark.parametrize("batch_size", [1, 7, 400])
def test_the_loss_averages_over_all_tokens(prepared, batch_size):
    # A step so small that no weight changes: every loss is that of the first weights.
    options = {"learning_rate": 1e-30, "batch_size": batch_size, "unknown_rate": 0.0}
    outcome, parameters = trained(prepared, 1, **options)
    (ref,) = prepared.folds
    model = Model(Hyperparameters(**parameters), ref.shape).eval()
    model.load_weights(outcome.weights)
    samples = open_samples(ref, CPU)
    begin, end = ref.shape.classes - 2, ref.shape.classes - 1
    for part, told in (
        (ref.train_samples(), outcome.history[0].train_loss),
        (ref.evaluate_samples(), outcome.history[0].val_loss),
    ):
        losses = []
        for sample in part:
            x, lengths = samples.inputs(samples.index(np.array([sample])))
            row = [n for n in ref.load("truth")[sample].tolist() if n]
            logits = model(x, lengths, torch.tensor([[begin, *row]]))[0]
            wanted = torch.tensor([*row, end])
            known = wanted != 1  # what no training target holds cannot be learned
            losses += functional.cross_entropy(
                logits[known], wanted[known], reduction="none"
            ).tolist()
        assert told == pytest.approx(np.mean(losses), rel=1e-4)


def test_batches_of_pairs_count_the_tokens_that_are_known(prepared):
    data = prepared.folds[0]
    pairs = open_samples(data, CPU)
    for batch in pairs.batches(pairs.index(data.train_samples()), 16):
        assert batch.losses == int((batch.targets != -1).sum())


def test_what_is_said_does_not_depend_on_the_texts_beside_it(prepared):
    (ref,) = prepared.folds
    torch.manual_seed(0)
    model = Model(Hyperparameters(hidden_size=8, bidirectional=True), ref.shape)
    samples, which = open_samples(ref, CPU), ref.evaluate_samples()
    together = translate([model], samples, which, 2)
    alone = [translate([model], samples, which[i : i + 1], 2)[0] for i in range(10)]
    assert together[:10].tolist() == np.array(alone).tolist()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "peephole"])
@pytest.mark.parametrize("n_models", [1, 2])
def test_onnx_says_what_torch_does(prepared, cell, n_models):
    (ref,) = prepared.folds
    values = {"cell": cell, "hidden_size": [6, 5], "bidirectional": True, "embedding_size": 3}
    weights = []
    for seed in range(n_models):
        torch.manual_seed(seed)
        weights.append(Model(Hyperparameters(**values), ref.shape).weights())
    job = ExportJob("e", values, weights[0], ref.shape, 7, others=tuple(weights[1:]))
    assert export(job).exported.difference < 1e-5  # raises where it differs
