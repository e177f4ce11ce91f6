from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.training.windows import Windows, unfold

CPU = torch.device("cpu")


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
    ref = make_ref(targets, inputs, window=window, horizon=horizon)
    windows = Windows(ref, CPU)
    starts = data.draw(st.lists(st.integers(window, 24 - horizon), min_size=1, max_size=9))
    index = windows.index(np.array(starts))
    past, future = windows.before(index).numpy(), windows.after(index).numpy()
    assert windows.shape == {"features": n_features, "horizon": horizon, "targets": n_targets}
    for i, t in enumerate(starts):
        assert np.array_equal(past[i], inputs[t - window : t].astype(np.float32))
        assert np.array_equal(future[i], targets[t : t + horizon].astype(np.float32))


def test_windows_on_the_cpu_are_read_from_the_mapped_file_itself(sine, monkeypatch):
    inputs = sine.inputs()
    monkeypatch.setattr(type(sine), "inputs", lambda self: inputs)
    windows = Windows(sine, CPU)
    assert windows.past.untyped_storage().data_ptr() == inputs.ctypes.data


def test_a_window_that_begins_before_the_first_row_is_refused_not_wrapped_around(sine):
    windows = Windows(sine, CPU)
    with pytest.raises((IndexError, RuntimeError)):
        windows.before(windows.index(np.array([sine.window - 1])))


def test_a_window_whose_horizon_ends_after_the_last_row_is_refused(sine):
    windows = Windows(sine, CPU)
    with pytest.raises((IndexError, RuntimeError)):
        windows.after(windows.index(np.array([120])))
