"""The words of verdicts: on a search, on two configurations, on strategies, on evaluations.

A search is judged against the strongest of the untuned default and the baselines, on the test
rows and on the validation rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tuner.coordination.finalists import Finalist, default_of, model_name, rank_finalists
from tuner.data.baselines import baseline_name
from tuner.journal.records import StudyRecord
from tuner.journal.test_scores import TestScore
from tuner.metrics import METRICS, short_name
from tuner.results.advice import advice_after
from tuner.results.differences import ENOUGH, Difference, StrategyDifference, compare, relative
from tuner.results.winner import Winner, find_winner, tested_name
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
class Part:
    """The scores of winner, default and best baseline on the same rows."""

    rows: str  # test rows, or validation rows
    metric: str
    scores: Sequence[float]  # of every training of the tested configuration
    default: Sequence[float] | None  # of every training of the untuned default; None without one
    baseline: tuple[str, float] | None  # name in words and score of the best one

    def over_baseline(self, seed: Sequence[int]) -> Difference | None:
        """Return how much better the model is than the best baseline."""
        if self.baseline is None or not self.scores:
            return None
        return compare(self.metric, self.scores, self.baseline[1], seed)

    def over_default(self, seed: Sequence[int]) -> Difference | None:
        """Return how much better the model is than the untuned default."""
        if not self.default or not self.scores:
            return None
        return compare(self.metric, self.scores, self.default, seed)


def test_part_of(test: TestScore) -> Part:
    """Return the scores on the test set, of the refitted models if there are any."""
    shown = test.judged
    return Part(
        rows="test rows",
        metric=test.metric,
        scores=shown.scores,
        default=shown.default.scores if shown.default else None,
        baseline=_named(test.metric, shown.baselines),
    )


def validation_part_of(record: StudyRecord) -> Part | None:
    """Return the validation scores of the tested configuration; None without any."""
    assert record.test is not None
    number, default = record.test.configuration, default_of(record)
    finalist = next((f for f in rank_finalists(record) if f.number == number), None)
    if finalist is not None:
        scores = finalist.scores
    elif record.test.default and record.test.default.is_winner and default is not None:
        scores = default.scores
    else:
        trial = next((t for t in record.trials if t.number == number), None)
        scores = [trial.value] if trial is not None and trial.value is not None else []
    if not scores:
        return None
    return Part(
        rows="validation rows",
        metric=record.experiment.objective.metric,
        scores=scores,
        default=default.scores if default is not None else None,
        baseline=_named(record.experiment.objective.metric, record.baselines),
    )


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
    if record.test is None:
        return None
    verdict = _judged(record, record.test)
    if verdict.worth not in (Worth.PAID, Worth.BETTER):
        return verdict
    on_test, on_validation = test_part_of(record.test), validation_part_of(record)
    validated = _fewest(on_validation) if on_validation else None
    repeats = min(n for n in (_fewest(on_test), validated) if n is not None)
    if repeats >= ENOUGH:
        return verdict
    few = "1 repeat is" if repeats == 1 else f"{repeats} repeats are"
    sentence = f"{verdict.sentence}; {few} too few to rule out luck"
    since = record.raised and validated is not None and validated >= ENOUGH
    if since and find_winner(record).was_tested(record.test):
        sentence += f": tuner run with {REOPEN} evaluates all {validated}"
    return replace(verdict, sentence=sentence)


def _fewest(part: Part) -> int:
    """Return the repeats of the one that has fewer, of winner and default."""
    return min(len(scores) for scores in (part.scores, part.default) if scores)


def _judged(record: StudyRecord, test: TestScore) -> Verdict:
    seed, on_test = [record.experiment.seed], test_part_of(test)
    if not on_test.scores:
        sentence = "the forecasts of the test set are beyond all bounds: do not use this model"
        return Verdict(sentence, Worth.USELESS)
    on_validation = validation_part_of(record)
    parts = [on_test] if on_validation is None else [on_test, on_validation]
    for part in parts:
        over = part.over_baseline(seed)
        if over is not None and part.baseline is not None and not over.better:
            where = "" if part is on_test else f" on the {part.rows}"
            sentence = f"{_no_better(over, part.baseline[0])}{where}{_numbers(over)}"
            if part is not on_test and on_test.baseline is not None:
                there = on_test.over_baseline(seed)
                assert there is not None
                sentence += (
                    f", though {_relation(there, on_test.baseline[0])} on the {on_test.rows}"
                )
            worse = part is on_test or on_test.baseline is None
            useless = worse and over.gain < 0 and not over.equal and over.real is not False
            simpler = None if useless else part.baseline[0]
            return Verdict(f"{sentence}: {_what_to_do(record, test, simpler)}", Worth.USELESS)
    than_baseline = ""
    over = on_test.over_baseline(seed)
    if over is not None and on_test.baseline is not None:
        than_baseline = _relation(over, on_test.baseline[0])
    metric = test.metric
    if test.judged.default is None:
        if not than_baseline:
            return Verdict("there is nothing to compare the test score with", Worth.UNKNOWN)
        searched = bool(record.experiment.search_space)
        why = "no default was trained to compare with" if searched else "nothing was searched"
        return Verdict(f"{than_baseline} ({_written(metric)}); {why}", Worth.BETTER)
    return _beside_default(record, test, parts, than_baseline, seed)


def _beside_default(
    record: StudyRecord, test: TestScore, parts: Sequence[Part], than_baseline: str, seed: list[int]
) -> Verdict:
    """Judge a winner that is better than every baseline.

    If the default's refitted models have no test score, the models before the refit are compared.
    """
    own = test.default
    assert own is not None
    name, written = f"the {own.name}", f" ({_written(parts[0].metric)})"
    also = f"{than_baseline}{written}" if than_baseline else ""
    if own.is_winner:
        sentence = f"the search did not pay: {name} won"
        return Verdict(f"{sentence}, {also}" if also else sentence, Worth.UNPAID)
    compared = [(of, _where(parts, of)) for of in _with_default(test, parts)]
    for part, where in compared:
        over = part.over_default(seed)
        if over is not None and not over.better:
            sentence = f"the search did not pay: {_no_better(over, name)}{where}"
            return Verdict(f"{sentence}, but {also}" if also else sentence, Worth.UNPAID)
    over = compared[0][0].over_default(seed) if compared else None
    if over is not None:
        sentence = f"the search paid: {_relation(over, name)}{compared[0][1]}{written}"
        return Verdict(
            f"{sentence}, and {than_baseline}" if than_baseline else sentence, Worth.PAID
        )
    default = default_of(record)
    if default is not None and default.failed and not default.repeats:
        sentence = f"the search paid: every training of {name} failed"
        return Verdict(f"{sentence}; {also}" if also else sentence, Worth.PAID)
    sentence = f"{name} has no score to compare with"
    return (
        Verdict(f"{also}; {sentence}", Worth.BETTER) if also else Verdict(sentence, Worth.UNKNOWN)
    )


def _with_default(test: TestScore, parts: Sequence[Part]) -> list[Part]:
    """Return the parts with scores of winner and default, the best evidence first."""
    on_test = parts[0]
    if not on_test.default and test.refit and test.default:
        on_test = replace(on_test, scores=test.scores, default=test.default.scores)
    return [part for part in (on_test, *parts[1:]) if part.default and part.scores]


def _where(parts: Sequence[Part], part: Part) -> str:
    if part is parts[0]:
        return ""
    return " before the refit" if part.rows == parts[0].rows else f" on the {part.rows}"


def _what_to_do(record: StudyRecord, test: TestScore, simpler: str | None) -> str:
    """Return the advice for a winner that is no better than a baseline: `simpler`, if as good."""
    keys = dict.fromkeys(advice.key for advice in advice_after(record) if advice.blocks)
    model = _model(record, test)
    if keys:
        return f"change {' and '.join(keys)} before you judge {model}"
    return f"{simpler} is as good here and simpler" if simpler else f"do not use {model} here"


def _no_better(difference: Difference, name: str) -> str:
    if difference.equal:
        return f"equal to {name}"
    if difference.real is False:
        return f"within noise of {name}"
    return f"no better than {name}"


def _numbers(difference: Difference) -> str:
    written = f"{_written(difference.metric)} {difference.first:.4g}"
    if f"{difference.first:.4g}" != f"{difference.second:.4g}":
        written += f" against {difference.second:.4g}"
    return f" ({written})"


def _relation(difference: Difference, name: str) -> str:
    share = relative(difference.metric, difference.gain, difference.second)
    if share is None:
        return f"{difference.first:.4g} against {difference.second:.4g} of {name}"
    above = "above" if METRICS[difference.metric].maximize else "below"
    return f"{percent(share)} % {above} {name}"


def _named(metric: str, baselines: Mapping[str, float | None]) -> tuple[str, float] | None:
    best = best_baseline(metric, baselines)
    return None if best is None else (baseline_name(best[0], metric), best[1])


def _model(record: StudyRecord, test: TestScore) -> str:
    """Return the name of the tested model, with an article."""
    tested = next((t for t in record.trials if t.number == test.configuration), None)
    params = dict(tested.params) if tested else {}
    if test.configuration is None and test.default:  # no trial of the search: the default won
        params = dict(test.default.params)
    cell = record.experiment.configuration(params)["cell"]
    name = model_name(cell)
    vowels = "AEIOaeio" if is_reference(cell) else "LR"  # of those that are spelt: an LSTM
    return f"{'an' if name[0] in vowels else 'a'} {name}"


def _written(metric: str) -> str:
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
            f"Evaluated on the test set {len(after)} times, after {', '.join(after[:-1])} and "
            f"{after[-1]} trials: the newest score is no longer of unseen rows, because an earlier "
            f"one was known when the search was resumed."
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
    """Describe what the newest test score is worth after more training."""
    if winner.was_tested(test):
        stands = "the same configuration won: its score stands"
        of_first = f", of its first {test.repeats} trainings"
        return f"{stands}{of_first if len(winner.runs) > test.repeats else ''}."
    if winner.is_default and test.default:
        return (
            f"{with_article(winner)} won, which was evaluated beside another configuration: "
            f"tuner run with {REOPEN} judges it."
        )
    return (
        f"{with_article(winner)} won, which has no test score: tuner run with {REOPEN} evaluates "
        f"it."
    )


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
    """Describe what was trained since the newest evaluation; None for nothing."""
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


def with_article(of: Winner | Finalist) -> str:
    """Return a configuration's name; a default that is no trial has an article."""
    return of.name if of.trial is not None else f"the {of.name}"


def strategies_in_words(
    medians: Mapping[str, float],
    differences: Sequence[StrategyDifference],
    real: Sequence[StrategyDifference],
    *,
    metric: str,
    sign: int,
    n_seeds: int,
    fewest: int,
) -> str:
    """Describe which strategies are better than which.

    Args:
        medians: best scores by strategy, best first.
        differences: of every two strategies.
        real: the significant ones.
        metric: of the scores.
        sign: 1 if less is better, -1 if more is.
        n_seeds: number of searches with each strategy.
        fewest: number of seeds that can tell any two apart.
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
        gap = _gap(medians[d.better], medians[d.worse], metric, sign)
        size = gap or f"ahead in {d.wins:.0%} of the pairs"
        return f"{d.worse} ({size}, p {p_text(d.adjusted)})"

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
    """Group the strategies that are better than the same ones: (better, worse) of each group."""
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
    p_value = max(d.adjusted for d in differences)
    return f"p {p_text(p_value).replace('=', '<=')}"


def _gap(better: float, worse: float, metric: str, sign: int) -> str:
    """Describe by how much a median is better; empty if it is not."""
    if not sign * better < sign * worse:
        return ""
    if sign > 0 and better > 0 and math.isfinite(worse):  # an error: shares make sense
        share = 100 * (worse - better) / worse
        return f"median {metric} {share:{'.0f' if share >= 10 else '.2g'}} % lower"
    return f"median {metric} {score_text(better)} against {score_text(worse)}"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
