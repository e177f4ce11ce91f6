"""Whether two configurations differ beyond the luck of their seeds, and how that is said."""

import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from tuner.metrics import METRICS
from tuner.results.differences import ENOUGH, compare, relative
from tuner.results.verdict import difference_in_words, gap_in_words, percent

NEEDED = "five or more are needed: the same command with --set finalists.repeats=5"

any_score = st.floats(-1e6, 1e6).map(lambda v: round(v, 6))
some_scores = st.lists(any_score, min_size=1, max_size=9)
enough_scores = st.lists(any_score, min_size=ENOUGH, max_size=9)
metrics = st.sampled_from(sorted(METRICS))


def around(mean, spread=0.01, n=5):
    return [mean * (1 + spread * (i - (n - 1) / 2)) for i in range(n)]


@pytest.mark.parametrize(
    ("metric", "a", "b", "says"),
    [
        ("rmse", around(20), around(25), "A beats B by 18 to 22 % (95 % interval)"),
        ("rmse", around(25), around(20), "B beats A by 18 to 22 % (95 % interval)"),
        ("accuracy", around(0.9), around(0.6), "A beats B by 47 to 53 % (95 % interval)"),
        ("accuracy", around(0.6), around(0.9), "B beats A by 47 to 53 % (95 % interval)"),
        ("rmse", around(20, 0.3), around(21, 0.3), "A and B cannot be told apart"),
        ("rmse", [3.0] * 5, [3.0] * 5, "A and B cannot be told apart"),
        ("rmse", [0.1] * 7, [0.1] * 5, "A and B cannot be told apart"),
        ("rmse", [3.0] * 5, [6.0] * 5, "A beats B by 50 % (95 % interval)"),
        ("r2", around(0.8), around(-0.4), "A beats B by 1.18 to 1.21 in r2 (95 % interval)"),
        ("rmse", [0.0] * 5, [0.0] * 5, "A and B cannot be told apart"),
        ("accuracy", [0.9] * 5, [0.0] * 5, "A beats B by 0.9 in accuracy (95 % interval)"),
        ("rmse", [1.0] * 3, [2.0] * 5, f"too few repeats to tell (3; {NEEDED})"),
        ("rmse", [1.0] * 9, [2.0], f"too few repeats to tell (1; {NEEDED})"),
        ("rmse", [1.0] * 5, [math.inf] * 5, "A and B cannot be compared: a score is not finite"),
    ],
)
def test_it_is_said_in_words(metric, a, b, says):
    assert difference_in_words(compare(metric, a, b, [0]), "A", "B") == says


@given(metrics, some_scores, some_scores)
def test_below_five_repeats_no_two_are_said_to_differ(metric, a, b):
    found = compare(metric, a, b, [0])
    fewest = min(len(a), len(b))
    assert found.repeats == fewest
    assert (found.real is None) == (fewest < 2)
    if fewest < ENOUGH:
        assert difference_in_words(found, "A", "B") == (
            f"too few repeats to tell ({fewest}; {NEEDED})"
        )


@pytest.mark.parametrize(
    ("a", "b", "better"),
    [
        ([10.0, 14.0, 12.0], 12.02, False),
        ([10.0, 14.0, 12.0], 17.0, True),
        ([10.0, 14.0, 12.0], [13.0, 15.0, 14.0], False),
        ([10.0, 14.0, 12.0], [20.0, 24.0, 22.0], True),
        ([41.0, 41.0], 41.5, True),  # no noise at all
        ([10.0, 11.0], [11.0, 12.0], False),
        ([12.0], 12.02, True),  # nobody can tell
        ([12.0, 12.1, 12.2, 12.1, 12.0], [12.5], True),
    ],
)
def test_a_gain_within_the_noise_of_two_to_four_repeats_is_none(a, b, better):
    assert compare("rmse", a, b, [0]).better is better
    signed = [-v for v in b] if isinstance(b, list) else -b
    assert compare("accuracy", [-v for v in a], signed, [0]).better is better


few_scores = st.lists(any_score, min_size=2, max_size=ENOUGH - 1)


@given(few_scores, few_scores, any_score)
def test_the_interval_of_few_repeats_is_that_of_welch(a, b, fixed):
    for found, second in ((compare("rmse", a, b, [0]), b), (compare("rmse", a, fixed, [0]), fixed)):
        if np.std(a) < 1e-3 or np.std(b) < 1e-3:
            continue
        if second is fixed:
            known = stats.ttest_1samp(a, fixed).confidence_interval(0.95)
            known = known.low - fixed, known.high - fixed
        else:
            known = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
        ends = sorted((-known[0], -known[1]))
        assert [found.low, found.high] == pytest.approx(ends, rel=1e-6, abs=1e-6)


@given(few_scores)
@example([70773.0, 70773.0, 70773.0])
def test_few_scores_of_any_size_have_an_interval(scores):
    huge = [1e300 * s for s in scores]
    for values in (scores, huge):
        found = compare("rmse", values, values, [0])
        assert not found.better
        assert found.real is False or not math.isfinite(found.first)


def test_the_interval_of_three_repeats_covers_as_stated():
    rng = np.random.default_rng(1)
    cases = [rng.normal(10, 1, (2, 3)) for _ in range(2000)]
    covered = sum(not compare("rmse", *case.tolist(), [0]).real for case in cases)
    assert 0.94 <= covered / len(cases) <= 0.98


@given(metrics, enough_scores, enough_scores)
def test_better_requires_a_better_mean_and_a_positive_amount(metric, a, b):
    found = compare(metric, a, b, [0])
    said = difference_in_words(found, "A", "B")
    better = found.gain > 0
    assert better == (METRICS[metric].sign * np.mean(a) < METRICS[metric].sign * np.mean(b))
    if " beats " in said:
        assert said.startswith("A beats B by " if better else "B beats A by ")
        ends = [float(end) for end in re.findall(r"(?<= )-?[\d.]+(?:e[+-]\d+)?(?= |$)", said)][:-1]
        assert all(end >= 0 for end in ends)
        assert ends == sorted(ends)
        assert not ("%" in said.removesuffix("(95 % interval)") and metric == "r2")
    else:
        assert said == "A and B cannot be told apart"
        assert not found.real


@given(enough_scores, enough_scores)
def test_which_of_the_two_comes_first_does_not_matter(a, b):
    there, back = compare("mae", a, b, [1]), compare("mae", b, a, [1])
    assert there.gain == -back.gain
    assert there.low <= there.gain + 1e-6
    assert -back.high <= there.gain + 1e-6


@given(enough_scores, any_score)
def test_what_has_no_seeds_is_compared_with_as_well(a, fixed):
    found = compare("rmse", a, fixed, [0])
    assert found.second == fixed
    assert found.low <= found.gain + 1e-6
    assert found.high >= found.gain - 1e-6
    if min(a) > fixed + 1e-3:
        assert found.gain < 0


def test_the_interval_covers_no_difference_as_often_as_it_says():
    rng = np.random.default_rng(0)
    cases = [rng.normal(10, 1, (2, 5)) for _ in range(300)]
    covered = sum(not compare("rmse", *case.tolist(), [i]).real for i, case in enumerate(cases))
    assert 0.92 <= covered / len(cases) <= 0.98  # the plain percentile interval: 0.89


@given(metrics, any_score, any_score)
def test_percent_are_told_only_of_what_has_a_zero(metric, gain, reference):
    share = relative(metric, gain, reference)
    if metric == "r2" or reference <= 0:
        assert share is None
    elif share is not None:
        assert abs(share) <= 10
        assert share == pytest.approx(gain / reference)


@pytest.mark.parametrize(
    ("share", "written"),
    [(0.184, "18"), (0.0184, "2"), (0.00184, "0.2"), (1e-6, "less than 0.01"), (1.0, "100"),
     (-0.5, "-50"), (4.5, "450")],
)  # fmt: skip
def test_percent_are_written_short(share, written):
    assert percent(share) == written


@pytest.mark.parametrize(
    ("metric", "gap", "search", "says"),
    [
        ("rmse", 1.03, 24.9, "+1.03 (+4 %)"),
        ("rmse", -0.5, 25.0, "-0.5 (-2 %)"),
        ("r2", -0.25, 0.5, "-0.25"),
        ("r2", -0.25, -0.5, "-0.25"),
        ("rmse", 0.5, 0.0, "+0.5"),
        ("rmse", None, 1.0, None),
    ],
)
def test_the_gap_to_the_search_score_is_a_number_and_a_share(metric, gap, search, says):
    assert gap_in_words(metric, gap, search) == says


def test_an_interval_covers_when_seeds_matter_to_one_side():
    rng = np.random.default_rng(8)
    cases = [(rng.normal(0, 1, 5), rng.normal(0, 0.1, 20)) for _ in range(400)]
    covered = sum(
        not compare("rmse", one.tolist(), other.tolist(), [i]).real
        for i, (one, other) in enumerate(cases)
    )
    assert 0.90 <= covered / len(cases) <= 0.98  # with pooled degrees of freedom: 0.87
