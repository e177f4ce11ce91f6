import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.training.samples import Sequences, Windows, open_samples, split, unfold

CPU = torch.device("cpu")


# Windows


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 4), st.data())
def test_an_unfolded_window_equals_a_slice_and_shares_its_memory(n_rows, n_columns, data):
    length = data.draw(st.integers(1, n_rows))
    rows = torch.arange(n_rows * n_columns, dtype=torch.float32).view(n_rows, n_columns)
    windows = unfold(rows, length)
    assert windows.shape == (n_rows - length + 1, length, n_columns)
    assert windows.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr()
    for i, window in enumerate(windows):
        assert torch.equal(window, rows[i : i + length])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.data())
def test_a_batch_holds_the_rows_before_and_after_its_starts(
    make_ref, window, horizon, n_features, n_targets, data
):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(24, n_features)), rng.normal(size=(24, n_targets))
    windows = Windows(make_ref(targets, inputs, window=window, horizon=horizon), CPU)
    starts = data.draw(st.lists(st.integers(window, 24 - horizon), min_size=1, max_size=9))
    index = windows.index(np.array(starts))
    (past, lengths), future = windows.inputs(index), windows.targets(index)
    assert windows.longest == window
    assert lengths is None
    for i, t in enumerate(starts):
        assert np.array_equal(past[i], inputs[t - window : t].astype(np.float32))
        assert np.array_equal(future[i], targets[t : t + horizon].astype(np.float32))


def test_windows_on_the_cpu_are_read_from_the_mapped_file_itself(sine, monkeypatch):
    arrays = {name: sine.load(name) for name in ("inputs", "targets")}
    monkeypatch.setattr(type(sine), "load", lambda self, name: arrays[name])
    windows = Windows(sine, CPU)
    assert windows._read.untyped_storage().data_ptr() == arrays["inputs"].ctypes.data
    assert windows._future.untyped_storage().data_ptr() == arrays["targets"].ctypes.data


def test_an_index_takes_four_bytes_or_eight_where_needed(sine):
    windows = Windows(sine, CPU)
    assert windows.index(np.array([9, 2**31 - 1])).dtype == torch.int32
    assert windows.index(np.array([9, 2**31])).tolist() == [9, 2**31]
    assert len(windows.index(np.empty(0, np.int64))) == 0


def test_a_window_before_the_first_row_is_refused(sine):
    windows = Windows(sine, CPU)
    with pytest.raises((IndexError, RuntimeError)):
        windows.inputs(windows.index(np.array([sine.window - 1])))


def test_a_window_whose_horizon_passes_the_end_is_refused(sine):
    windows = Windows(sine, CPU)
    with pytest.raises((IndexError, RuntimeError)):
        windows.targets(windows.index(np.array([120])))


@given(st.integers(0, 30), st.integers(1, 40))
def test_an_index_is_split_as_torch_splits_it(n, size):
    index = torch.arange(n)
    parts = [part.tolist() for part in split(index, size)]
    assert parts == [part.tolist() for part in torch.split(index, size) if len(part)]


# Sequences


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.data())
def test_a_batch_is_padded_to_its_longest_sequence_only(make_sequences, lengths, data):
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(n, 2)).astype(np.float32) for n in lengths]
    samples = Sequences(
        make_sequences("regress", sequences, rng.normal(size=(len(lengths), 1))), CPU
    )
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=9))
    x, real = samples.inputs(samples.index(np.array(chosen)))
    longest = max(lengths[k] for k in chosen)
    assert samples.longest == max(lengths)
    assert x.shape == (len(chosen), longest, 2)
    if real is None:
        assert {lengths[k] for k in chosen} == {longest}
    else:
        assert len(set(real.tolist())) > 1
        assert real.tolist() == [lengths[k] for k in chosen]
    for i, k in enumerate(chosen):
        assert np.array_equal(x[i, : lengths[k]], sequences[k])
        assert not x[i, lengths[k] :].any()


def test_tokens_are_padded_with_the_token_that_pads(words):
    samples = Sequences(words, CPU)
    tokens, bounds = words.load("tokens"), words.load("bounds")
    x, lengths = samples.inputs(samples.index(np.arange(20)))
    assert x.dtype == torch.int64
    for row, length, (first, end) in zip(x, lengths, bounds[:20], strict=True):
        assert row[:length].tolist() == tokens[first:end].tolist()
        assert not row[length:].any()


def test_targets_are_values_classes_or_the_classes_of_all_steps(sums, signs, steps):
    chosen = np.array([5, 0, 7])
    values, classes, labels = (
        samples.targets(samples.index(chosen))
        for samples in (open_samples(ref, CPU) for ref in (sums, signs, steps))
    )
    assert values.dtype == torch.float32
    assert np.array_equal(values[:, 0], sums.load("targets")[chosen])
    assert classes.tolist() == signs.load("truth")[chosen].tolist()
    for row, (first, end) in zip(labels, steps.load("bounds")[chosen], strict=True):
        assert row[: end - first].tolist() == steps.load("truth")[first:end].tolist()
        assert (row[end - first :] == -1).all()
    assert labels[labels >= 0].tolist() == steps.truth_of(chosen).tolist()


def test_sequences_on_the_cpu_are_read_from_the_mapped_file(signs, monkeypatch):
    inputs, load = signs.load("inputs"), type(signs).load
    monkeypatch.setattr(
        type(signs), "load", lambda self, name: inputs if name == "inputs" else load(self, name)
    )
    assert Sequences(signs, CPU)._rows.untyped_storage().data_ptr() == inputs.ctypes.data
