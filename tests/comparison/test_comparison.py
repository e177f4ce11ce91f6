"""Strategies side by side, and the sentence that says which differences are real."""

import json
import math

import numpy as np
import pytest
from helpers.compared_studies import comparison
from helpers.examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.progress.reporters import to_json

LOW, MIDDLE, HIGH = [1.0, 1.1, 1.2, 1.3, 1.4], [2.0, 2.1, 2.2, 2.3, 2.4], [3.0, 3.1, 3.2, 3.3, 3.4]
METHOD = "(Mann-Whitney with Holm's correction)"


def test_strategies_are_ranked_by_their_median():
    found = comparison({"tpe": MIDDLE, "woa": HIGH, "pso": LOW})
    assert [(row.strategy, row.median) for row in found.rows] == [
        *(("pso", 1.2), ("tpe", 2.2), ("woa", 3.2))
    ]
    assert (found.rows[0].interval.low, found.rows[0].interval.high) == (1.0, 1.4)
    assert found.seeds == [0, 1, 2, 3, 4]
    up = comparison({"tpe": MIDDLE, "woa": HIGH}, metric="r2")
    assert [row.strategy for row in up.rows] == ["woa", "tpe"]


def test_the_verdict_names_the_better_one_and_the_amount():
    assert comparison({"tpe": MIDDLE, "pso": LOW}).verdict == (
        f"pso is better than tpe (median rmse 45 % lower, p = 0.0079) {METHOD}"
    )
    assert comparison({"tpe": MIDDLE, "pso": LOW, "woa": HIGH}).verdict == (
        "pso is better than tpe (median rmse 45 % lower, p = 0.024) and "
        "woa (median rmse 62 % lower, p = 0.024); "
        f"tpe is better than woa (median rmse 31 % lower, p = 0.024) {METHOD}"
    )


def test_the_sentence_says_what_cannot_be_told_apart():
    mixed = [1.05, 1.15, 1.25, 1.35, 1.45]
    found = comparison({"tpe": HIGH, "pso": LOW, "woa": mixed})
    assert found.verdict == (
        "pso and woa are better than tpe (p <= 0.024); "
        f"the other two cannot be told apart with 5 seeds {METHOD}"
    )
    assert comparison({"pso": LOW, "woa": mixed}).verdict == (
        f"pso and woa cannot be told apart with 5 seeds {METHOD}"
    )


def test_too_few_seeds_are_reported_whatever_the_scores():
    found = comparison({"pso": LOW[:4], "woa": HIGH[:4]})
    assert found.differences[0].p_adjusted < 0.05
    assert found.real == []
    assert (
        found.verdict == "too few seeds to tell a difference from chance (4; 2 strategies need 5)"
    )
    five = {name: [k + 10.0 * i for k in LOW] for i, name in enumerate(
        ("tpe", "pso", "woa", "qpso", "random")
    )}  # fmt: skip
    assert comparison(five).verdict.endswith("(5; 5 strategies need 6)")
    assert comparison({"pso": LOW[:1], "woa": HIGH[:1]}).verdict.startswith("too few seeds")


def test_the_sentence_stays_short_where_much_is_different():
    scores = {
        name: [k + 10.0 * i for k in (*LOW, 1.5)]
        for i, name in enumerate(("tpe", "pso", "woa", "qpso", "random"))
    }
    assert comparison(scores).verdict == (
        "tpe is better than pso, woa, qpso and random; pso is better than woa, qpso and random; "
        "woa is better than qpso and random; qpso is better than random "
        "(Mann-Whitney with Holm's correction, p <= 0.022)"
    )


def test_a_score_that_is_no_error_is_not_given_as_a_share():
    found = comparison({"pso": [-0.5, -0.4, -0.3, -0.2, -0.1], "woa": LOW}, metric="r2")
    assert "woa is better than pso (median r2 1.2 against -0.3, p = 0.0079)" in found.verdict


def test_a_search_without_a_complete_trial_counts_as_the_worst():
    found = comparison({"pso": [*LOW[:3], None, None], "tpe": [None] * 5})
    assert (found.rows[0].median, found.rows[1].median) == (1.2, math.inf)
    bad = comparison({"pso": LOW, "tpe": [None] * 5})
    assert "pso is better than tpe (median rmse 1.2 against none, p = 0.0079)" in bad.verdict
    facts = json.loads(to_json(bad.to_json()))
    assert facts["strategies"][1]["median"] is None
    assert [s["score"] for s in facts["strategies"][1]["searches"]] == [None] * 5


def test_a_rank_difference_is_not_reported_as_one_of_medians():
    # Equal medians, and yet pso's scores are mostly the lower ones.
    pso = [1.0] * 6 + [5.0] * 5
    tpe = [5.0] * 11
    found = comparison({"pso": [*pso, 5.0, 5.0], "tpe": [*tpe, 5.0, 5.0]})
    assert found.rows[0].median == found.rows[1].median == 5.0
    assert found.real
    assert "pso is better than tpe (ahead in 73% of the pairs, p = " in found.verdict


def test_the_facts_are_all_there_as_json():
    facts = json.loads(to_json(comparison({"tpe": MIDDLE, "pso": LOW}).to_json()))
    assert facts["metric"] == "rmse"
    assert facts["direction"] == "minimize"
    assert facts["trials"] == 2
    best, worst = facts["strategies"]
    assert best["strategy"] == "pso"
    assert best["options"]["population"] == 2
    assert [s["score"] for s in best["searches"]] == LOW
    assert [s["study"] for s in worst["searches"]] == [f"made-tpe-{i}" for i in range(5)]
    assert best["interval"] == [1.0, 1.4]
    assert best["confidence"] == 0.9375
    (difference,) = facts["differences"]
    assert difference == {
        **{"better": "pso", "worse": "tpe", "wins": 1.0, "real": True},
        **{"p_value": pytest.approx(2 / 252), "p_adjusted": pytest.approx(2 / 252)},
    }


@settings(max_examples=examples(30))
@given(
    st.permutations(["tpe", "pso", "woa"]),
    st.lists(st.lists(st.floats(0.5, 2), min_size=5, max_size=5), min_size=3, max_size=3),
)
def test_the_order_in_which_strategies_are_given_changes_nothing(names, scores):
    of = dict(zip(("tpe", "pso", "woa"), scores, strict=True))
    ours, theirs = comparison(of), comparison({name: of[name] for name in names})
    assert ours.to_json() == theirs.to_json()
    assert ours.verdict == theirs.verdict


@pytest.mark.parametrize(
    ("kind", "n"),
    [
        ("scores with many draws", 50),
        pytest.param("scores without draws", 400, marks=pytest.mark.slow),
        pytest.param("scores with many draws", 150, marks=pytest.mark.slow),
    ],
)
def test_like_strategies_differ_falsely_in_one_of_twenty(kind, n):
    rng = np.random.default_rng(0)

    def draw():
        values = rng.lognormal(size=(3, 5))
        return values if kind == "scores without draws" else np.ceil(2 * values)

    def says(scores):
        return comparison(dict(zip(["tpe", "pso", "woa"], scores.tolist(), strict=True))).verdict

    said = sum("is better than" in says(draw()) for _ in range(n))
    assert said / n <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / n)
    # And where one is better that is seen, so that the test above says something.
    assert "tpe is better than" in says(np.add(draw(), [[0], [90], [90]]))
