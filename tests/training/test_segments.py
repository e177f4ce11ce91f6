"""Segments and decomposition of the window."""

import numpy as np
import pytest
import torch
from helpers.examples import examples
from helpers.models import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import ExportJob, OutcomeState, PredictJob
from tuner.training import Model, predict, run_job, train
from tuner.training.device import TrainingError
from tuner.training.layers import Convolution, Decomposition, Segments, real_steps

WINDOWS = Shape("forecast", 2, horizon=5, targets=2, window=10, target_columns=(0, 1))
SEQUENCES = {
    "regress": Shape("regress", 2, targets=2),
    "classify": Shape("classify", 2, classes=3),
    "label": Shape("label", 2, classes=3),
    "tokens": Shape("classify", 0, vocabulary=7, classes=2),
}
CELLS = st.sampled_from(["lstm", "gru", "rnn", "peephole"])
POOLINGS = st.sampled_from(["last", "mean", "max", "attention"])


# The equations


@pytest.mark.parametrize("steps", [1, 7, 8, 9])
def test_a_segment_is_linear_with_relu_and_pads_the_oldest_row(steps):
    segments = Segments(4, 2, 6, in_front=True)
    x = torch.randn(3, steps, 2)
    filled = torch.cat([x[:, :1]] * (-steps % 4) + [x], dim=1)
    expected = [
        (segments.linear.weight @ row.reshape(-1) + segments.linear.bias).relu()
        for batch in filled
        for row in batch.split(4)
    ]
    torch.testing.assert_close(segments(x), torch.stack(expected).view(3, -1, 6))


def test_behind_a_sequence_stand_zeros():
    segments = Segments(4, 2, 6, in_front=False)
    x = torch.randn(3, 6, 2)
    filled = torch.cat((x, torch.zeros(3, 2, 2)), dim=1)
    torch.testing.assert_close(segments(x), segments(filled))
    assert segments.count(torch.tensor([1, 4, 5, 6])).tolist() == [1, 1, 2, 2]


def test_the_horizon_is_decoded_in_pieces_as_in_segrnn():
    model = drawn(WINDOWS, cell="gru", segment=2, decoder="segments")
    x = torch.randn(4, 10, 2)
    read = functional.relu(model.segments.linear(x.view(4, 5, 4)))
    _, last = model.recurrent.stacks[0](read)  # (1, batch, units)
    head = model.head
    assert head.begin.shape == (3, 5)  # 5 rows in pieces of 2
    pieces = []
    for embedding in head.begin:  # one step of the cell each, all from the encoder's state
        step, _ = head.layer(embedding.expand(4, 1, 5), last)
        pieces.append(head.head(step[:, 0]).view(4, 2, 2))
    torch.testing.assert_close(model(x), torch.cat(pieces, dim=1)[:, :5])


@settings(max_examples=examples(20))
@given(
    inputs=st.integers(1, 4),
    channels=st.integers(1, 5),
    kernel=st.integers(1, 6),
    steps=st.integers(1, 9),
)
def test_the_convolution_is_torchs_of_the_same_length(inputs, channels, kernel, steps):
    ours, x = Convolution(inputs, channels, kernel), torch.randn(3, steps, inputs)
    weight = ours.linear.weight.view(channels, inputs, kernel)
    before = (kernel - 1) // 2
    padded = functional.pad(x.transpose(1, 2), (before, kernel - 1 - before))
    expected = functional.conv1d(padded, weight, ours.linear.bias).relu().transpose(1, 2)
    assert expected.shape == (3, steps, channels)
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-6)


# Models


@settings(max_examples=examples(30))
@given(
    cell=CELLS,
    pooling=POOLINGS,
    both=st.booleans(),
    segment=st.integers(1, 10),
    window=st.integers(10, 13),
    decoder=st.sampled_from(["direct", "recursive", "segments"]),
    channels=st.integers(0, 3),
    quantiles=st.sampled_from([(), (0.1, 0.5)]),
    widths=st.sampled_from([[5, 5], [6, 3]]),
)
def test_every_model_of_windows_learns_with_all_of_its_weights(
    cell, pooling, both, segment, window, decoder, channels, quantiles, widths
):
    shape = Shape(**vars(WINDOWS) | {"window": window, "quantiles": quantiles})
    model = drawn(
        shape, cell=cell, pooling=pooling, bidirectional=both, segment=segment, decoder=decoder,
        conv_channels=channels, hidden_size=widths,
    )  # fmt: skip
    with torch.no_grad():  # of so few units all might be below 0
        for part in (model.convolution, model.segments):
            if part is not None:
                part.linear.bias.add_(1)
    said = model(torch.randn(4, window, 2))
    assert said.shape == (4, 5, 2, *[len(quantiles)] * bool(quantiles))
    (said * torch.randn_like(said)).sum().backward()
    # The head's rows behind the horizon and its first state that attention replaces aside.
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
    assert all(p.grad.abs().sum() > 0 for n, p in model.named_parameters() if "linear" in n)


@settings(max_examples=examples(40))
@given(
    task=st.sampled_from(sorted(SEQUENCES)),
    cell=CELLS,
    pooling=POOLINGS,
    both=st.booleans(),
    segment=st.integers(1, 5),
    channels=st.integers(0, 3),
    kernel=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_what_pads_never_changes_what_is_said(
    task, cell, pooling, both, segment, channels, kernel, seed
):
    shape = SEQUENCES[task]
    model = drawn(
        shape, cell=cell, pooling=pooling, bidirectional=both, conv_channels=channels,
        conv_kernel=kernel, segment=segment if task in ("regress", "classify") else 1,
    )  # fmt: skip
    torch.manual_seed(seed)
    lengths = torch.randint(1, 10, (4,))
    steps = int(lengths.max()) + 3
    x = torch.randn(4, steps, 2)
    other = 9 * torch.randn(4, steps, 2)
    if shape.vocabulary:
        x, other = torch.randint(0, 7, (4, steps)), torch.randint(0, 7, (4, steps))
    real = real_steps(lengths, steps, x.device)
    other = torch.where(real.view(*real.shape, *[1] * (x.ndim - 2)), x, other)
    said = [model(x, lengths), model(other, lengths)]
    alone = torch.cat([model(x[i : i + 1, :n]).flatten(0, -2) for i, n in enumerate(lengths)])
    if task == "label":
        said = [output[real] for output in said]
    assert torch.equal(*said)
    torch.testing.assert_close(said[0].flatten(0, -2), alone, rtol=1e-4, atol=1e-5)
    if model.attends:
        weights = model.attention(x, lengths)
        assert torch.equal(weights, model.attention(other, lengths))
        assert not weights[~real].any()
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))


def test_the_steps_of_a_segment_share_its_weight():
    segments = Segments(4, 2, 6, in_front=True)
    weights = torch.tensor([[0.2, 0.8]])
    share = [0.1, 0.1, 0.2, 0.2, 0.2, 0.2]  # the first one holds two rows and their repetitions
    torch.testing.assert_close(segments.spread(weights, 6, None), torch.tensor([share]))
    segments = Segments(4, 2, 6, in_front=False)
    found = segments.spread(weights.repeat(2, 1), 6, torch.tensor([6, 5]))
    expected = [[0.05] * 4 + [0.4] * 2, [0.05] * 4 + [0.8, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_segment_predictions_report_the_weight_of_rows(make_ref, make_job, go_on):
    ref = make_ref(np.sin(np.arange(120) * 0.5)[:, None])
    job = make_job(ref, keep_weights=True, pooling="attention", segment=3)
    weights = train(job, go_on).weights
    found = predict(PredictJob("p", job.hyperparameters, weights, ref)).attention
    assert found.shape == (len(ref.evaluate_samples()), 8)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found[:, 2], found[:, 4])  # of 1 + 1, 3 and 3 rows
    assert (found[:, 0] == found[:, 1]).all()


@pytest.mark.parametrize("options", [{"segment": 3}, {"conv_channels": 4}], ids=str)
def test_sequences_are_classified_with_them(signs, make_job, go_on, options):
    job = make_job(signs, epochs=30, metric="accuracy", hidden_size=16, **options)
    assert train(job, go_on).objective > 0.7


def test_a_model_reads_no_more_numbers_at_once_than_it_says():
    model = drawn(WINDOWS, segment=4, conv_channels=40)
    assert (model.widest, model.recurrent.widest) == (40, 5)
    assert drawn(WINDOWS, segment=4, hidden_size=50).widest == 50
    assert isinstance(model.last_layer, nn.Linear)


TREND = Shape("forecast", 4, horizon=3, targets=2, window=10, target_columns=(2, 0), trend=4)
MODES = Shape("forecast", 4, horizon=3, targets=2, window=10, target_columns=(2, 0), modes=2)


def windows(shape, size=5):
    torch.manual_seed(0)
    return torch.randn(size, shape.window, shape.inputs, dtype=torch.float64)


@given(length=st.integers(2, 10))
def test_the_trend_is_a_moving_mean_with_repeated_ends(length):
    shape = Shape("forecast", 4, targets=2, window=10, target_columns=(2, 0), trend=length)
    x = windows(shape)
    parts = Decomposition(shape)(x).numpy()
    own, trend = x.numpy()[:, :, [2, 0]], parts[:, :, -2:]
    behind = (length - 1) // 2
    for t in range(10):
        rows = np.clip(np.arange(t - (length - 1 - behind), t + behind + 1), 0, 9)
        np.testing.assert_allclose(trend[:, t], own[:, rows].mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(parts[:, :, :2] + trend, own, atol=1e-12)
    np.testing.assert_array_equal(parts[:, :, 2:4], x.numpy()[:, :, [1, 3]])


def test_modes_and_what_they_leave_add_up_to_each_target():
    x = windows(MODES)
    parts = Decomposition(MODES)(x).numpy()
    assert parts.shape == x.shape
    left, modes = parts[:, :, :2], parts[:, :, 4:].reshape(5, 10, 2, 2)
    np.testing.assert_allclose(left + modes.sum(axis=3), x.numpy()[:, :, [2, 0]], atol=1e-12)
    np.testing.assert_array_equal(parts[:, :, 2:], x.numpy()[:, :, [1, 3, 4, 5, 6, 7]])


@pytest.mark.parametrize("kind", ["last", "mean", "standard"])
@pytest.mark.parametrize("shape", [TREND, MODES], ids=["trend", "modes"])
def test_a_level_that_is_taken_off_moves_no_forecast_of_parts(shape, kind):
    torch.manual_seed(1)
    options = {"hidden_size": 5, "normalize": kind, "linear_path": True}
    model = Model(Hyperparameters(**options), shape).double().eval()
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5)
    x = windows(shape)
    lifted = x.clone()
    lifted[:, :, 2] += 100.0  # the first target
    moved = (model(lifted) - model(x)).detach()
    expected = torch.zeros_like(moved)
    expected[:, :, 0] = 100.0
    torch.testing.assert_close(moved, expected)


@pytest.mark.parametrize("shape", [TREND, MODES], ids=["trend", "modes"])
@pytest.mark.parametrize("normalize", ["none", "standard"])
def test_the_exported_model_splits_as_torch_does(shape, normalize):
    torch.manual_seed(2)
    values = {"hidden_size": 6, "normalize": normalize, "linear_path": True, "conv_channels": 3}
    weights = Model(Hyperparameters(**values), shape).weights()
    outcome = run_job(ExportJob("model", values, weights, shape, shape.window), lambda epoch: True)
    assert outcome.state is OutcomeState.COMPLETE, outcome.reason
    assert outcome.exported.difference < 1e-5


def test_a_target_that_is_not_read_cannot_be_split():
    shape = Shape("forecast", 1, window=5, target_columns=(-1,), trend=3)
    with pytest.raises(TrainingError, match="decompose: needs every target among the features"):
        Model(Hyperparameters(), shape)


def test_modes_are_divided_by_the_spread_of_their_target():
    torch.manual_seed(1)
    values = {"hidden_size": 5, "normalize": "standard"}
    model = Model(Hyperparameters(**values), MODES).double().eval()
    x = windows(MODES)
    larger = x.clone()
    larger[:, :, [0, 2, 4, 5, 6, 7]] *= 50.0  # both targets, and the modes of each
    torch.testing.assert_close(model(larger), 50 * model(x), rtol=1e-3, atol=1e-2)
