"""The words of verdicts: on a search, on two configurations, on strategies, on evaluations.

A search is judged against the strongest of the untuned default and the baselines, on the test
rows and on the validation rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from tuner.coordination.finalists import (
    Finalist,
    Winner,
    default_of,
    find_winner,
    model_name,
    rank_finalists,
    tested_name,
)
from tuner.data.baselines import baseline_name
from tuner.journal.records import StudyRecord, TestScore
from tuner.metrics import METRICS, short_name
from tuner.results.advice import advice_after
from tuner.results.differences import ENOUGH, Difference, StrategyDifference, compare, relative
from tuner.user_code import is_reference

REOPEN = "--reopen-test"  # the option that evaluates on the test set again
_METHOD = "Mann-Whitney with Holm's correction"
_MOST_IN_DETAIL = 4  # differences, each with its numbers


def ranked_baselines(metric: str, scores: Mapping[str, float | None]) -> list[tuple[str, float]]:
    """Return the baselines with a finite score, best first."""
    finite = [(name, s) for name, s in scores.items() if s is not None and math.isfinite(s)]
    return sorted(finite, key=lambda of: METRICS[metric].sign * of[1])


def best_baseline(metric: str, scores: Mapping[str, float | None]) -> tuple[str, float] | None:
    """Return name and score of the best baseline; None if no score is finite."""
    return next(iter(ranked_baselines(metric, scores)), None)


def left_out_in_words(left_out: Mapping[str, str], metric: str) -> list[str]:
    """Return a line for each reason, with the baselines that are left out for it."""
    names: dict[str, list[str]] = {}
    for name, why in left_out.items():
        names.setdefault(why, []).append(baseline_name(name, metric))
    return [f"without {' and '.join(of)}: {why}" for why, of in names.items()]


def percent(share: float) -> str:
    """Format a share as a percentage, without the sign for it."""
    value = 100 * abs(share)
    text = f"{value:.0f}" if value >= 1 else f"{value:.1g}" if value >= 0.01 else "less than 0.01"
    return f"-{text}" if share < 0 else text


def gap_in_words(metric: str, gap: float | None, search: float | None) -> str | None:
    """Format the difference between a mean and the score in the search that it was chosen for."""
    if gap is None or search is None:
        return None
    gap += 0.0  # no -0
    share = relative(metric, gap, search)
    if share is None:
        return f"{gap:+.3g}"
    return f"{gap:+.3g} ({round(100 * share):+d} %)" if round(100 * share) else f"{gap:+.3g} (0 %)"


def score_text(score: float) -> str:
    """Format a score with four significant digits; `none` for an infinitely bad one."""
    if not math.isfinite(score):
        return "none"
    return f"{score:.4g}" if abs(score) < 10_000 else f"{score:.0f}"


def difference_in_words(of: Difference, first: str, second: str) -> str:
    """Describe which of two configurations is better, and by how much."""
    if not (math.isfinite(of.first) and math.isfinite(of.second)):
        return f"{first} and {second} cannot be compared: a score is not finite"
    if of.low is None or of.high is None or of.repeats < ENOUGH:
        more = f"the same command with --set finalists.repeats={ENOUGH}"
        return f"too few repeats to tell ({of.repeats}; five or more are needed: {more})"
    if not of.real:
        return f"{first} and {second} cannot be told apart"
    if of.gain > 0:
        better, worse, gains = first, second, (of.low, of.high)
    else:
        better, worse, gains = second, first, (-of.high, -of.low)
    sign = METRICS[of.metric].sign
    reference = sign * max(sign * of.first, sign * of.second)  # the worse one
    shares = [relative(of.metric, gain, reference) for gain in gains]
    values, unit = [percent(share) for share in shares if share is not None], " %"
    if len(values) < 2:
        values, unit = [f"{gain:.3g}" for gain in gains], f" in {of.metric}"
    by = " to ".join(dict.fromkeys(values))
    return f"{better} beats {worse} by {by}{unit} (95 % interval)"


class Worth(StrEnum):
    """The verdict on a search, in a word."""

    PAID = "paid"  # the winner is better than the untuned default and every baseline
    UNPAID = "unpaid"  # better than every baseline, but no better than the default
    BETTER = "better"  # better than every baseline; there is no default to compare with
    USELESS = "useless"  # no better than a baseline, or not finite
    UNKNOWN = "unknown"  # there is nothing to compare with


@dataclass(frozen=True)
class Verdict:
    """The verdict on a search."""

    sentence: str  # without a capital and a full stop
    worth: Worth

    def of(self, record: StudyRecord) -> str:
        """Return the sentence, with the evaluated configuration if that no longer wins."""
        test = record.test
        if test is None or record.best is None or find_winner(record).was_tested(test):
            return self.sentence
        return f"of {tested_name(test)}, which no longer wins: {self.sentence}"


@dataclass(frozen=True)
class Rival:
    """A model to beat, and how much better the tested model is."""

    name: str  # default LSTM, or a baseline in words
    difference: Difference

    def relation(self) -> str:
        """Describe how much better or worse the tested model is: 12 % below the last value."""
        of = self.difference
        share = relative(of.metric, of.gain, of.second)
        if share is None:
            return f"{of.first:.4g} against {of.second:.4g} of {self.name}"
        above = "above" if METRICS[of.metric].maximize else "below"
        return f"{percent(share)} % {above} {self.name}"

    def no_better(self) -> str:
        """Describe a tested model that is not better."""
        if self.difference.equal:
            return f"equal to {self.name}"
        noise = self.difference.real is False
        return f"within noise of {self.name}" if noise else f"no better than {self.name}"

    def numbers(self) -> str:
        """Return both scores in brackets."""
        first, second = f"{self.difference.first:.4g}", f"{self.difference.second:.4g}"
        against = "" if first == second else f" against {second}"
        return f" ({_metric_name(self.difference.metric)} {first}{against})"


@dataclass(frozen=True)
class Evidence:
    """The scores of the tested configuration, the default and the best baseline on the same rows.

    `seed` is for the resampling of the scores.
    """

    rows: str  # test rows, or validation rows
    metric: str
    scores: Sequence[float]  # of every training of the tested configuration
    default: Sequence[float] | None  # of every training of the untuned default; None without one
    baseline: tuple[str, float] | None  # name in words and score of the best one
    seed: int

    @property
    def repeats(self) -> int:
        """The number of trainings of the tested configuration or the default, if it has fewer."""
        return min(len(scores) for scores in (self.scores, self.default) if scores)

    @cached_property
    def best_baseline(self) -> Rival | None:
        """The best baseline."""
        if self.baseline is None or not self.scores:
            return None
        name, score = self.baseline
        return Rival(name, compare(self.metric, self.scores, score, [self.seed]))

    def rival(self, default: str) -> Rival | None:
        """Return the untuned default under a name."""
        if not self.default or not self.scores:
            return None
        return Rival(default, compare(self.metric, self.scores, self.default, [self.seed]))


def evidence_of(record: StudyRecord, test: TestScore) -> list[Evidence]:
    """Return the evidence of the test rows and, if there are validation scores, of those rows."""
    shown, seed = test.judged, record.experiment.seed
    own = shown.default.scores if shown.default else None
    baseline = _best_in_words(test.metric, shown.baselines)
    found = [Evidence("test rows", test.metric, shown.scores, own, baseline, seed)]
    number, default = test.configuration, default_of(record)
    finalist = next((f for f in rank_finalists(record) if f.number == number), None)
    if finalist is not None:
        scores = finalist.scores
    elif test.default and test.default.is_winner and default is not None:
        scores = default.scores
    else:
        scores = [t.value for t in record.trials if t.number == number and t.value is not None]
    if scores:
        metric, own = record.experiment.objective.metric, default.scores if default else None
        baseline = _best_in_words(metric, record.baselines)
        found.append(Evidence("validation rows", metric, scores, own, baseline, seed))
    return found


def no_verdict(counts: Mapping[str, int], *, has_best: bool) -> str:
    """Return why there is no verdict; `counts` are the numbers of trials by status."""
    if has_best:
        return "no verdict yet: the winner has not been evaluated on the test set"
    failed = f", and {counts['failed']} failed" if counts["failed"] else ""
    return f"no verdict: no trial is complete{failed}"


def verdict_of(record: StudyRecord) -> Verdict | None:
    """Judge the configuration that was last evaluated on the test set; None before that.

    The winner is better than another model only if it is on both test rows and validation rows.
    Refitted models are judged if there are any. A difference within the noise of the repeats
    counts as none; with fewer than five repeats the sentence adds that it may be luck.
    """
    test = record.test
    if test is None:
        return None
    evidence = evidence_of(record, test)
    verdict = _judge(record, test, evidence)
    if verdict.worth not in (Worth.PAID, Worth.BETTER):
        return verdict
    repeats = min(on_rows.repeats for on_rows in evidence)
    if repeats >= ENOUGH:
        return verdict
    few = "1 repeat is" if repeats == 1 else f"{repeats} repeats are"
    sentence = f"{verdict.sentence}; {few} too few to rule out luck"
    validated = evidence[1].repeats if len(evidence) > 1 else 0
    if record.raised and validated >= ENOUGH and find_winner(record).was_tested(test):
        sentence += f": tuner run with {REOPEN} evaluates all {validated}"
    return replace(verdict, sentence=sentence)


def _judge(record: StudyRecord, test: TestScore, evidence: Sequence[Evidence]) -> Verdict:
    on_test = evidence[0]
    if not on_test.scores:
        sentence = "the forecasts of the test set are beyond all bounds: do not use this model"
        return Verdict(sentence, Worth.USELESS)
    there = on_test.best_baseline
    for on_rows in evidence:
        baseline = on_rows.best_baseline
        if baseline is None or baseline.difference.better:
            continue
        if on_rows is on_test:
            sentence = f"{baseline.no_better()}{baseline.numbers()}"
        else:
            sentence = f"{baseline.no_better()} on the {on_rows.rows}{baseline.numbers()}"
            if there is not None:
                sentence += f", though {there.relation()} on the {on_test.rows}"
        decides = on_rows is on_test or there is None
        as_good = None if decides and baseline.difference.worse else baseline.name
        return Verdict(f"{sentence}: {_conclusion(record, test, as_good)}", Worth.USELESS)
    than_baseline = there.relation() if there is not None else ""
    if test.judged.default is not None:
        return _beside_default(record, test, evidence, than_baseline)
    if not than_baseline:
        return Verdict("there is nothing to compare the test score with", Worth.UNKNOWN)
    searched = bool(record.experiment.search_space)
    why = "no default was trained to compare with" if searched else "nothing was searched"
    return Verdict(f"{than_baseline} ({_metric_name(test.metric)}); {why}", Worth.BETTER)


def _beside_default(
    record: StudyRecord, test: TestScore, evidence: Sequence[Evidence], than_baseline: str
) -> Verdict:
    """Judge a winner that is better than every baseline.

    If the default's refitted models have no test score, the models before the refit are compared.
    """
    own = test.default
    assert own is not None
    name, metric = f"the {own.name}", f" ({_metric_name(test.metric)})"
    also = f"{than_baseline}{metric}" if than_baseline else ""
    if own.is_winner:
        sentence = f"the search did not pay: {name} won"
        return Verdict(f"{sentence}, {also}" if also else sentence, Worth.UNPAID)
    compared = [
        (rival, _where(evidence, on_rows))
        for on_rows in _with_default(test, evidence)
        if (rival := on_rows.rival(name)) is not None
    ]
    for rival, where in compared:
        if not rival.difference.better:
            sentence = f"the search did not pay: {rival.no_better()}{where}"
            return Verdict(f"{sentence}, but {also}" if also else sentence, Worth.UNPAID)
    if compared:
        rival, where = compared[0]
        sentence = f"the search paid: {rival.relation()}{where}{metric}"
        sentence += f", and {than_baseline}" if than_baseline else ""
        return Verdict(sentence, Worth.PAID)
    default = default_of(record)
    if default is not None and default.failed and not default.repeats:
        sentence = f"the search paid: every training of {name} failed"
        return Verdict(f"{sentence}; {also}" if also else sentence, Worth.PAID)
    sentence = f"{name} has no score to compare with"
    if also:
        return Verdict(f"{also}; {sentence}", Worth.BETTER)
    return Verdict(sentence, Worth.UNKNOWN)


def _with_default(test: TestScore, evidence: Sequence[Evidence]) -> list[Evidence]:
    on_test = evidence[0]
    if not on_test.default and test.refit and test.default:
        on_test = replace(on_test, scores=test.scores, default=test.default.scores)
    return [on_test, *evidence[1:]]


def _where(evidence: Sequence[Evidence], on_rows: Evidence) -> str:
    if on_rows is evidence[0]:
        return ""
    same = on_rows.rows == evidence[0].rows
    return " before the refit" if same else f" on the {on_rows.rows}"


def _conclusion(record: StudyRecord, test: TestScore, simpler: str | None) -> str:
    """Return how the sentence on a winner that is no better ends; `simpler` is as good."""
    keys = dict.fromkeys(advice.key for advice in advice_after(record) if advice.blocks)
    model = _model(record, test)
    if keys:
        return f"change {' and '.join(keys)} before you judge {model}"
    return f"{simpler} is as good here and simpler" if simpler else f"do not use {model} here"


def _best_in_words(metric: str, baselines: Mapping[str, float | None]) -> tuple[str, float] | None:
    best = best_baseline(metric, baselines)
    return None if best is None else (baseline_name(best[0], metric), best[1])


def _model(record: StudyRecord, test: TestScore) -> str:
    tested = next((t for t in record.trials if t.number == test.configuration), None)
    params = dict(tested.params) if tested else {}
    if test.configuration is None and test.default:  # no trial of the search: the default won
        params = dict(test.default.params)
    cell = record.experiment.configuration(params)["cell"]
    name = model_name(cell)
    vowels = "AEIOaeio" if is_reference(cell) else "LR"  # LSTM and RNN are spelt: an LSTM
    return f"{'an' if name[0] in vowels else 'a'} {name}"


def _metric_name(metric: str) -> str:
    name = short_name(metric)
    return METRICS[metric].label or (name.upper() if name == metric else name)


def evaluations_in_words(record: StudyRecord) -> list[str]:
    """Return sentences about the evaluations on the test set; none before the first."""
    test = record.test
    if test is None:
        return []
    after = [f"{evaluation.after_trials:,}" for evaluation in record.openings]
    if len(after) == 1:
        trials = "1 trial" if after[0] == "1" else f"{after[0]} trials"
        lines = [f"Evaluated on the test set once, after {trials}."]
    else:
        lines = [
            f"Evaluated on the test set {len(after)} times, after {_listed(after)} trials: the "
            f"newest score is no longer of unseen rows, because an earlier one was known when the "
            f"search was resumed."
        ]
    if differing := test.retrained_differently:
        lines.append(
            f"Retrained for it, with other scores than in the journal (another CPU or version?): "
            f"{', '.join(differing)}."
        )
    if record.best is not None and (since := _since(record)):
        lines.append(f"{since}, and {_since_then(find_winner(record), test)}")
    return lines


def _since_then(winner: Winner, test: TestScore) -> str:
    """Describe whether the newest test score still holds after more training."""
    if winner.was_tested(test):
        more = len(winner.runs) > test.repeats
        of_first = f", of its first {test.repeats} trainings" if more else ""
        return f"the same configuration won: its score stands{of_first}."
    why, does = "has no test score", "evaluates"
    if winner.is_default and test.default:
        why, does = "was evaluated beside another configuration", "judges"
    return f"{with_article(winner)} won, which {why}: tuner run with {REOPEN} {does} it."


def why_not_again(record: StudyRecord) -> str | None:
    """Return why another evaluation would change nothing; None if it would, or is the first."""
    test = record.test
    if test is None:
        return None
    winner = find_winner(record)
    if not winner.was_tested(test) or len(winner.runs) > test.repeats:
        return None
    if default_of(record) and not test.default:
        return None
    if test.after_trials >= len(record.trained) and not record.raised:
        why = "no trial was trained since the last one"
    else:
        why = f"{with_article(winner)}, which was evaluated then, still wins"
    return f"{REOPEN}: no new evaluation on the test set, because it would change nothing: {why}"


def not_evaluated_again(record: StudyRecord) -> str:
    """Explain, for a study that was trained further, that its test score is not renewed."""
    earlier = evaluations_in_words(record)[0]
    again = "" if why_not_again(record) else f"; {REOPEN} evaluates again"
    return f"no new evaluation: {earlier[:1].lower()}{earlier[1:-1]}{again}"


def _since(record: StudyRecord) -> str | None:
    """Describe the training since the newest evaluation; None without any."""
    test, settings = record.test, record.experiment.finalists
    assert test is not None
    if test.after_trials < len(record.trained):
        return f"The search was resumed since, to {len(record.trained):,} trials"
    if record.raised and (test.finalists != [settings.top, settings.repeats]):
        repeats = f"{settings.repeats} seed{'s' * (settings.repeats != 1)}"
        return f"The best {settings.top} were retrained on {repeats} since"
    if not find_winner(record).was_tested(test):
        return "The untuned default counts as a finalist since"
    return None


def with_article(of: Finalist) -> str:
    """Return a configuration's name; a default that is no trial has an article."""
    return of.name if of.trial is not None else f"the {of.name}"


def strategies_in_words(
    medians: Mapping[str, float],
    differences: Sequence[StrategyDifference],
    real: Sequence[StrategyDifference],
    *,
    metric: str,
    n_seeds: int,
    fewest: int,
) -> str:
    """Describe which strategies are better than which.

    Args:
        medians: the median best score of each strategy, best first.
        differences: the differences of every two strategies.
        real: the significant differences.
        metric: the metric of the scores.
        n_seeds: number of searches with each strategy.
        fewest: fewest seeds at which a difference can be significant.
    """
    names = list(medians)
    if n_seeds < fewest:
        needed = f"{len(names)} strategies need {fewest}"
        return f"too few seeds to tell a difference from chance ({n_seeds}; {needed})"
    if not real:
        return f"{_listed(names)} cannot be told apart with {n_seeds} seeds ({_METHOD})"
    in_detail = len(real) <= _MOST_IN_DETAIL

    def loser(d: StrategyDifference) -> str:
        if not in_detail:
            return d.worse
        size = (
            _gap(medians[d.better], medians[d.worse], metric)
            or f"ahead in {d.wins:.0%} of the pairs"
        )
        return f"{d.worse} ({size}, p {p_text(d.p_adjusted)})"

    parts = []
    for betters, worses in _alike(names, real):
        wins = [d for d in real if d.better in betters]
        if len(betters) == 1:
            of = {d.worse: d for d in wins}
            parts.append(f"{betters[0]} is better than {_listed([loser(of[n]) for n in worses])}")
        else:
            surest = f" ({_at_most(wins)})" if in_detail else ""
            parts.append(f"{_listed(betters)} are better than {_listed(worses)}{surest}")
    if rest := len(differences) - len(real):
        others = "the other two" if rest == 1 else "others"
        parts.append(f"{others} cannot be told apart with {n_seeds} seeds")
    return f"{'; '.join(parts)} ({_METHOD}{'' if in_detail else f', {_at_most(real)}'})"


def _alike(
    names: Sequence[str], real: Sequence[StrategyDifference]
) -> list[tuple[list[str], list[str]]]:
    """Group the strategies that beat the same others: (better, worse) of each group."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        beaten = {d.worse for d in real if d.better == name}
        if beaten:
            found.setdefault(tuple(n for n in names if n in beaten), []).append(name)
    return [(betters, list(worses)) for worses, betters in found.items()]


def p_text(p_value: float) -> str:
    """Format a p-value with its relation: `= 0.012`, `< 0.001`."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.2g}"


def _at_most(differences: Sequence[StrategyDifference]) -> str:
    p_value = max(d.p_adjusted for d in differences)
    return f"p {p_text(p_value).replace('=', '<=')}"


def _gap(better: float, worse: float, metric: str) -> str:
    """Describe by how much a median is better; empty if it is not."""
    sign = METRICS[metric].sign
    if not sign * better < sign * worse:
        return ""
    if sign > 0 and better > 0 and math.isfinite(worse):  # an error: shares make sense
        share = 100 * (worse - better) / worse
        return f"median {metric} {share:{'.0f' if share >= 10 else '.2g'}} % lower"
    return f"median {metric} {score_text(better)} against {score_text(worse)}"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
