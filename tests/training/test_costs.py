"""What a trial costs beside its score: seconds, weights, and how long a prediction takes."""

import pytest

from tuner.jobs import Outcome
from tuner.training.trainer import train


def test_a_complete_training_reports_size_and_latency(sine, make_job, go_on):
    small, large = (train(make_job(sine, epochs=1, hidden_size=n), go_on) for n in (2, 256))
    # An LSTM of torch: four gates, each with two biases; then a head.
    assert small.n_weights == 4 * (2 * 1 + 2 * 2 + 2 * 2) + 2 + 1
    assert large.n_weights == 4 * 256 * (1 + 256 + 2) + 256 + 1
    assert 0 < small.latency_ms < large.latency_ms < 1000
    again = Outcome.from_json(small.to_json())
    assert (again.n_weights, again.latency_ms) == (small.n_weights, small.latency_ms)
    assert again.cost("weights") == small.n_weights
    assert again.cost("seconds") == small.seconds
    assert again.cost("latency") == small.latency_ms


def test_a_training_that_did_not_end_has_no_costs_that_could_win(sine, make_job):
    pruned = train(make_job(sine, epochs=3), lambda epoch: False)
    assert (pruned.n_weights, pruned.latency_ms) == (None, None)
    assert pruned.cost("weights") == float("inf")


def test_measuring_changes_nothing_that_is_learned(sine, make_job, go_on, monkeypatch):
    job = make_job(sine, epochs=2, dropout=0.5, keep_weights=True)
    measured = train(job, go_on)
    monkeypatch.setattr("tuner.training.trainer.latency_ms", lambda fit: 1.0)
    other = train(job, go_on)
    assert measured.objective == other.objective
    for name, array in measured.weights.items():
        assert (array == other.weights[name]).all()


@pytest.mark.parametrize("key", ["n_weights", "latency_ms"])
def test_a_journal_of_before_has_trials_without_costs(sine, make_job, go_on, key):
    record = train(make_job(sine, epochs=1), go_on).to_json()
    del record[key]
    assert getattr(Outcome.from_json(record), key) is None


def test_what_is_counted_is_what_is_kept(sine, make_job, go_on):
    outcome = train(make_job(sine, epochs=1, keep_weights=True, num_layers=2), go_on)
    assert outcome.n_weights == sum(array.size for array in outcome.weights.values())
