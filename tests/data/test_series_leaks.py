"""Nothing of a later part reaches an earlier one, whatever the shapes, policies and features."""

import numpy as np
import pytest
from helpers.examples import examples
from helpers.series_cases import ROWS, cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

slowly = settings(max_examples=examples(60), suppress_health_check=[*HealthCheck])
seeds = st.integers(0, 2**32 - 1)


def later_rows(case, ends):
    """Which rows of the file belong to rows of their series from `ends` (series,) on."""
    series, row = case.coordinates()
    return np.asarray(row >= ends[series])


def assert_same_rows(before, after, ends):
    """The first `ends` rows of each series are the same."""
    rows = np.concatenate([np.arange(a, a + n) for a, n in zip(before.starts, ends, strict=True)])
    for name in ROWS:
        np.testing.assert_array_equal(before.load(name)[rows], after.load(name)[rows], name)


@slowly
@given(case=cases(), seed=seeds)
def test_changing_test_values_changes_nothing_that_is_written(case, seed):
    before = case.prepare()
    begins = before.test.load("evaluate")[:, 0] - before.test.starts
    after = case.changed(later_rows(case, begins), seed).prepare()
    assert after.written == before.written
    n_arrays = 8 + 2 * before.test.own_scales
    assert len(before.written) == n_arrays * len(before.folds)
    assert [a.said for a in after.folds] == [b.said for b in before.folds]
    assert after.prepared.pipeline == before.prepared.pipeline


@slowly
@given(case=cases(), seed=seeds)
def test_the_test_part_is_in_no_array_that_is_written(case, seed):
    held = case.prepare()
    begins = held.test.load("evaluate")[:, 0] - held.test.starts
    for fold in held.folds:
        assert (fold.load("reach")[:, 1] - fold.starts <= begins).all()
        assert {len(fold.load(name)) for name in ROWS} == {fold.load("reach")[-1, 1]}


@slowly
@given(case=cases(), seed=seeds, data=st.data())
def test_what_is_trained_on_is_the_same_whatever_comes_after_it(case, seed, data):
    before = case.prepare()
    k = data.draw(st.integers(0, len(before.folds) - 1))
    fold = before.folds[k]
    ends = fold.load("train")[:, 1] - fold.starts
    other = case.changed(later_rows(case, ends), seed).prepare()
    for one, same in (
        (fold, other.folds[k]),
        *[(before.test, other.test)] * (k + 1 == len(before.folds)),
    ):
        assert one.said == same.said  # the scalers, and what errors are divided by
        assert_same_rows(one, same, ends)
        np.testing.assert_array_equal(one.train_samples(), same.train_samples())
        np.testing.assert_array_equal(one.load("reach")[:, 0], same.load("reach")[:, 0])


@slowly
@given(case=cases(), seed=seeds, data=st.data())
def test_no_row_follows_from_later_ones(case, seed, data):
    before = case.prepare()
    fold = before.test
    ends, all_ends = (fold.load(name)[:, 1] - fold.starts for name in ("train", "reach"))
    share = data.draw(st.floats(0, 1))
    ends = (ends + share * (all_ends - ends)).astype(int)
    other = case.changed(later_rows(case, ends), seed).prepare().test
    assert other.said == fold.said
    assert_same_rows(fold, other, ends)


@slowly
@given(
    case=cases(scale="none", fits_transform=False), seed=seeds,
    at=st.one_of(st.integers(1, 3), st.integers(1, 80)),
)  # fmt: skip
def test_no_row_follows_from_later_ones_within_the_training_part(case, seed, at):
    before = case.prepare().test
    ends = np.minimum(at, before.load("train")[:, 1] - before.starts)
    other = case.changed(later_rows(case, ends), seed).prepare().test
    assert_same_rows(before, other, ends)


@slowly
@given(case=cases())
def test_a_target_row_belongs_to_one_part_only(case):
    held = case.prepare()

    def targets(ref, samples):
        return ref.places((samples[:, None] + np.arange(ref.shape.horizon)).ravel())

    scored = set()
    for ref in (*held.folds, held.test):
        longest = ref.with_window(ref.longest_window)
        trained, evaluated = (
            targets(ref, s) for s in (longest.train_samples(), ref.evaluate_samples())
        )
        assert trained
        assert evaluated
        assert not trained & evaluated
        assert not evaluated & scored
        if "time" in case.keys:  # common times: no series is trained on what another is scored on
            start = [
                case.frame["t"][case.coordinates()[0] == s].min() for s in range(len(ref.starts))
            ]
            floor = [t.floor(case.step) for t in start]
            latest = max(floor[s] + row * case.step for s, row in trained)
            assert latest < min(floor[s] + row * case.step for s, row in evaluated)
        scored |= evaluated


@slowly
@given(case=cases())
def test_windows_stay_within_series_and_real_targets(case):
    held = case.prepare()
    series, row = case.coordinates()
    names = [case.keys["target"]] if isinstance(case.keys["target"], str) else case.keys["target"]
    whole = case.frame[names].notna()
    given = whole.groupby([series, row]).any().all(axis=1)  # of a step, one value is enough
    known = {place for place, is_known in given.items() if is_known}
    for ref in (*held.folds, held.test):
        for window in (1, ref.window, ref.longest_window):
            of = ref.with_window(window)
            for samples in (of.train_samples(), of.evaluate_samples()):
                read = samples[:, None] + np.arange(-window, ref.shape.horizon)
                first = ref.starts[ref.load("reach")[:, 1].searchsorted(samples, side="right")]
                end = ref.load("reach")[:, 1][
                    ref.load("reach")[:, 1].searchsorted(samples, side="right")
                ]
                assert (read[:, 0] >= first).all()
                assert (read[:, -1] < end).all()
                assert np.isfinite(ref.load("inputs")[read]).all()
                assert np.isfinite(ref.load("targets")[read]).all()
                assert ref.places(read[:, window:].ravel()) <= known


@slowly
@given(case=cases(least_series=2, scale="none", fits_transform=False), seed=seeds, data=st.data())
def test_no_series_follows_from_another(case, seed, data):
    before = case.prepare()
    changed = data.draw(st.integers(0, len(before.test.starts) - 1))
    other = case.changed(case.coordinates()[0] == changed, seed).prepare()
    for one, same in zip([*before.folds, before.test], [*other.folds, other.test], strict=True):
        for i, (start, (_, end)) in enumerate(zip(one.starts, one.load("reach"), strict=True)):
            if i != changed:
                for name in ROWS:
                    a, b = one.load(name)[start:end], same.load(name)[start:end]
                    np.testing.assert_array_equal(a, b, name)


@slowly
@given(
    case=cases(least_series=2, id="s", scale_by="series", fits_transform=False), seed=seeds,
    data=st.data(),
)  # fmt: skip
def test_a_scaled_series_does_not_depend_on_another(case, seed, data):
    before = case.prepare().test
    changed = data.draw(st.integers(0, len(before.starts) - 1))
    after = case.changed(case.coordinates()[0] == changed, seed).prepare().test
    for i, (start, (_, end)) in enumerate(zip(before.starts, before.load("reach"), strict=True)):
        trained = before.load("inputs")[slice(*before.load("train")[i])]
        if i == changed or len(trained) < 2 or not np.ptp(trained, axis=0).all():
            continue  # a column that does not change is scaled as in all series
        for name in ROWS:
            np.testing.assert_array_equal(
                before.load(name)[start:end], after.load(name)[start:end], name
            )
        for name in ("offsets", "scales"):
            np.testing.assert_array_equal(before.load(name)[i], after.load(name)[i])


@slowly
@given(case=cases(scale="standard", scale_by="all"))
def test_every_fold_is_scaled_by_its_own_training_rows(case):
    held = case.prepare()
    for ref in (*held.folds, held.test):
        for name in ("inputs", "targets"):
            trained = ref.scaled(name)
            np.testing.assert_allclose(trained.mean(axis=0), 0, atol=1e-4)
            spread = trained.std(axis=0)
            assert all(s == pytest.approx(1, abs=1e-4) or s < 1e-4 for s in spread)
    last, test = held.folds[-1], held.test
    assert last.said == test.said  # the test is opened on the last's
    places = last.places(last.rows("train"))
    assert test.places(test.rows("train")) == places
