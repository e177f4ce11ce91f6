"""The verdict on a search, and which differences are beyond the luck of seeds.

It is about the strongest that the winner has to beat, the untuned default and every plain
prediction, and by the rows of both parts: those that the search chose by, and those it never saw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from tuner.coordination.finalists import default_of, model_name, rank_finalists
from tuner.journal.records import StudyRecord
from tuner.journal.test_scores import TestScore
from tuner.metrics import METRICS, short_name
from tuner.results.advice import advice_after
from tuner.results.winner import find_winner
from tuner.user_code import is_reference

_NAMES = {"seasonal_arima": "seasonal ARIMA"}


def plain_name(name: str, metric: str) -> str:
    """Return what people call a plain prediction, without an article.

    Where the most probable class alone is scored, the shares of the classes are the majority.
    """
    if name == "linear":
        of_classes = metric in METRICS and METRICS[metric].of == "classes"
        return "logistic regression" if of_classes else "linear regression"
    if name == "class_frequencies" and metric in ("accuracy", "f1"):
        return "majority class"
    return _NAMES.get(name, name.replace("_", " "))


def best_plain(metric: str, scores: Mapping[str, float | None]) -> tuple[str, float] | None:
    """Return the plain prediction with the best score by its name, and the score.

    None where none has a finite one. The first of equals is taken.
    """
    return next(iter(ranked_plain(metric, scores)), None)


def ranked_plain(metric: str, scores: Mapping[str, float | None]) -> list[tuple[str, float]]:
    """Return the plain predictions with a finite score, the best first."""
    finite = [(name, s) for name, s in scores.items() if s is not None and math.isfinite(s)]
    return sorted(finite, key=lambda of: METRICS[metric].sign * of[1])


def left_out_in_words(left_out: Mapping[str, str], metric: str) -> list[str]:
    """Return a line for each reason, with the plain predictions that are left out for it."""
    names: dict[str, list[str]] = {}
    for name, why in left_out.items():
        names.setdefault(why, []).append(plain_name(name, metric))
    return [f"without {' and '.join(of)}: {why}" for why, of in names.items()]


ENOUGH = 5
"""Repeats of each below which no two are said to differ; see `compare`."""

_CONFIDENCE = 0.95
_RESAMPLES = 9_999
_ROLE = 105  # keys this generator apart from those of the search
_NO_GAIN = 0.0005  # a share of an error that is no gain
_MOST = 10.0  # a score more than so many times another one is not told in percent


@dataclass(frozen=True)
class Difference:
    """How much better the first of two configurations is, by its mean score."""

    metric: str
    first: float  # mean score
    second: float
    repeats: int  # of the one that has fewer
    low: float | None = None  # 95 % interval of the gain; None where there is a single repeat,
    high: float | None = None  # or a score is not finite

    @property
    def gain(self) -> float:
        """By how much the first is better, in the metric's units; negative where it is worse."""
        return METRICS[self.metric].sign * (self.second - self.first)

    @property
    def equal(self) -> bool:
        """Whether they are the same as people read them.

        Their first four digits are, or one error is less than 0.05 % above the other.
        """
        if f"{self.first:.4g}" == f"{self.second:.4g}":
            return True
        share = relative(self.metric, abs(self.gain), max(self.first, self.second))
        return not METRICS[self.metric].maximize and share is not None and share < _NO_GAIN

    @property
    def better(self) -> bool:
        """Whether the first is better, and as far as one can tell not by chance alone."""
        return self.gain > 0 and not self.equal and self.real is not False

    @property
    def real(self) -> bool | None:
        """Whether they differ beyond chance; None where nobody can tell."""
        if self.low is None or self.high is None:
            return None
        rounding = 1e-12 * max(abs(self.first), abs(self.second))
        return self.low > rounding or self.high < -rounding

    def in_words(self, first: str, second: str) -> str:
        """Say which of the two is better, and by how much."""
        if not (math.isfinite(self.first) and math.isfinite(self.second)):
            return f"{first} and {second} cannot be compared: a score is not finite"
        if self.low is None or self.high is None or self.repeats < ENOUGH:
            more = f"the same command with --set finalists.repeats={ENOUGH}"
            return f"too few repeats to tell ({self.repeats}; five or more are needed: {more})"
        if not self.real:
            return f"{first} and {second} cannot be told apart"
        if self.gain > 0:
            better, worse, low, high = first, second, self.low, self.high
        else:
            better, worse, low, high = second, first, -self.high, -self.low
        sign = METRICS[self.metric].sign
        reference = sign * max(sign * self.first, sign * self.second)  # the worse one
        shares = [relative(self.metric, gain, reference) for gain in (low, high)]
        told = [percent(share) for share in shares if share is not None]
        unit = " %"
        if len(told) < 2:
            told, unit = [f"{gain:.3g}" for gain in (low, high)], f" in {self.metric}"
        by = " to ".join(dict.fromkeys(told))
        return f"{better} beats {worse} by {by}{unit} (95 % interval)"


def compare(
    metric: str, first: Sequence[float], second: Sequence[float] | float, seed: Sequence[int]
) -> Difference:
    """Compare the scores of one configuration's repeats with another's, or with a fixed score.

    The interval is a bootstrap of the difference of the means: the expanded percentile interval
    of Hesterberg (The American Statistician 69, 2015), because the plain one is too narrow for
    few repeats (five of each: it covers 89 % instead of 95 %), with the degrees of freedom of
    Welch (Biometrika 34, 1947). Two to four scores are too few to resample: for them it is the
    t-interval of the same degrees of freedom. It is wide, and that is all that so few can say.

    Args:
        metric: of `tuner.metrics.METRICS`.
        first: its scores, one at least.
        second: likewise, or the score of something that has no seeds.
        seed: keys the resampling: the same gives the same interval.
    """
    samples = [first] if isinstance(second, float | int) else [first, second]
    means = _mean(first), second if isinstance(second, float | int) else _mean(second)
    repeats = min(map(len, samples))
    if repeats < 2 or not all(map(math.isfinite, means)):
        return Difference(metric, *means, repeats)
    if repeats < ENOUGH:
        gain = Difference(metric, *means, repeats).gain
        width = _half_width(samples)
        return Difference(metric, *means, repeats, gain - width, gain + width)
    known = means[1] if len(samples) == 1 else None
    return Difference(metric, *means, repeats, *_interval(metric, samples, known, seed))


def relative(metric: str, gain: float, reference: float) -> float | None:
    """Return a gain as a share of the score that it is over; None where that would mean nothing.

    So it would of r2, which has no natural zero, of scores that are not above 0, and of gains
    that are many times the score.
    """
    if not (METRICS[metric].ratios and math.isfinite(gain) and 0 < reference < math.inf):
        return None
    share = gain / reference
    return share if abs(share) <= _MOST else None


def percent(share: float) -> str:
    """Write a share as a number of percent, without the sign for it."""
    value = 100 * abs(share)
    text = f"{value:.0f}" if value >= 1 else f"{value:.1g}" if value >= 0.01 else "less than 0.01"
    return f"-{text}" if share < 0 else text


def gap_in_words(metric: str, gap: float | None, search: float | None) -> str | None:
    """Write how far a mean lies from the search's score, which it was chosen for; None for none."""
    if gap is None or search is None:
        return None
    gap += 0.0  # no -0
    share = relative(metric, gap, search)
    if share is None:
        return f"{gap:+.3g}"
    percent = round(100 * share)
    return f"{gap:+.3g} ({percent:+d} %)" if percent else f"{gap:+.3g} (0 %)"


def _interval(
    metric: str, samples: Sequence[Sequence[float]], known: float | None, seed: Sequence[int]
) -> tuple[float, float]:
    """Return the interval of the gain of the first sample over the second, or over `known`."""
    from scipy.stats import bootstrap, norm, t  # half a second

    sign = METRICS[metric].sign

    def gain(*resampled: np.ndarray, axis: int) -> np.ndarray:
        means = [r.mean(axis=axis) for r in resampled]
        return np.asarray(sign * ((means[1] if known is None else known) - means[0]))

    narrow, freedom = _of_few(samples)
    widened = t.ppf((1 + _CONFIDENCE) / 2, freedom) / narrow
    with np.errstate(all="ignore"):
        found = bootstrap(
            samples,
            gain,
            n_resamples=_RESAMPLES,
            confidence_level=1 - 2 * norm.cdf(-widened),
            method="percentile",
            rng=np.random.default_rng([*seed, _ROLE]),
        ).confidence_interval
    return float(found.low), float(found.high)


def _half_width(samples: Sequence[Sequence[float]]) -> float:
    """Return half the width of Welch's t-interval of a mean, or of the difference of two."""
    from scipy.special import stdtrit

    errors, spread = _errors(samples)
    _, freedom = _of_few(samples)
    return float(stdtrit(freedom, (1 + _CONFIDENCE) / 2) * math.sqrt(errors.sum()) * spread)


def _of_few(samples: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return by how much resampling so few scores understates the error, and its freedom.

    The degrees of freedom are Welch's and Satterthwaite's, as configurations differ in how much
    their seeds matter. Both are those of equal deviations where no score deviates at all.
    """
    sizes = np.array([len(sample) for sample in samples], dtype=float)
    errors, _ = _errors(samples)
    if not errors.any():
        errors = np.ones_like(errors)
    understated = float((errors * (sizes - 1) / sizes).sum() / errors.sum())
    freedom = float(errors.sum() ** 2 / (errors**2 / (sizes - 1)).sum())
    return math.sqrt(understated), freedom


def _errors(samples: Sequence[Sequence[float]]) -> tuple[np.ndarray, float]:
    """Return the squared errors of the means, (samples,), in units of a spread, and the spread.

    Scores are told relative to the first of each sample: of huge ones that are all alike the mean
    is another by rounding, which is no error.
    """
    spread = max(max(sample) - min(sample) for sample in samples) or 1.0
    away = [np.subtract(sample, sample[0]) / spread for sample in samples]
    return np.array([a.var(ddof=1) / len(a) for a in away]), spread


def _mean(scores: Sequence[float]) -> float:
    with np.errstate(all="ignore"):
        return float(np.mean(scores))


class Worth(StrEnum):
    """What a search was worth."""

    PAID = "paid"  # the winner is better than the untuned default, and than any plain prediction
    UNPAID = "unpaid"  # better than plain predictions, and no better than the default
    BETTER = "better"  # better than plain predictions, without a default to compare with
    USELESS = "useless"  # no better than a plain prediction, or absurd
    UNKNOWN = "unknown"  # there is nothing to compare with


@dataclass(frozen=True)
class Verdict:
    """A sentence, and what it comes to."""

    sentence: str  # without a capital and a full stop
    worth: Worth


@dataclass(frozen=True)
class Part:
    """The scores on the rows of one part that are compared: like with like."""

    rows: str  # what its rows are called
    metric: str
    scores: Sequence[float]  # of every training of the tested configuration
    default: Sequence[float] | None  # of every training of the untuned default; None without one
    plain: tuple[str, float] | None  # what people call the best plain prediction, and its score

    def over_plain(self, seed: Sequence[int]) -> Difference | None:
        """Return how much better the model is than the best plain prediction."""
        if self.plain is None or not self.scores:
            return None
        return compare(self.metric, self.scores, self.plain[1], seed)

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
        plain=_named(test.metric, shown.baselines),
    )


def validation_part_of(record: StudyRecord) -> Part | None:
    """Return what the validation rows say of the tested configuration; None without a score."""
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
        plain=_named(record.experiment.objective.metric, record.baselines),
    )


def no_verdict(counts: Mapping[str, int], *, has_best: bool) -> str:
    """Return why there is no verdict; `counts` are the numbers of trials by status."""
    if has_best:
        return "no verdict yet: the winner has not been evaluated on the test set"
    failed = f", and {counts['failed']} failed" if counts["failed"] else ""
    return f"no verdict: no trial is complete{failed}"


def verdict_of(record: StudyRecord) -> Verdict | None:
    """Judge the configuration for which the test set was last opened; None before it was.

    It is better than something only where it is on the test rows and on the validation rows.
    Where its models were refitted, they are judged.
    What lies within the noise of its repeats counts as no better. With fewer than five of them,
    what is said to be better is said to be no more than that. Scores that are equal as they are
    printed are equal.
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
    said = f"{verdict.sentence}; {few} too few to rule out luck"
    since = record.raised and validated is not None and validated >= ENOUGH
    if since and find_winner(record).was_tested(record.test):
        said += f": tuner run with --reopen-test tests all {validated}"
    return replace(verdict, sentence=said)


def _fewest(part: Part) -> int:
    """Return the repeats of the one that has fewer, of winner and default."""
    return min(len(scores) for scores in (part.scores, part.default) if scores)


def _judged(record: StudyRecord, test: TestScore) -> Verdict:
    seed, on_test = [record.experiment.seed], test_part_of(test)
    if not on_test.scores:
        said = "the forecasts of the test set are beyond all bounds: do not use this model"
        return Verdict(said, Worth.USELESS)
    on_validation = validation_part_of(record)
    parts = [on_test] if on_validation is None else [on_test, on_validation]
    for part in parts:
        over = part.over_plain(seed)
        if over is not None and part.plain is not None and not over.better:
            where = "" if part is on_test else f" on the {part.rows}"
            said = f"{_no_better(over, part.plain[0])}{where}{_numbers(over)}"
            if part is not on_test and on_test.plain is not None:
                there = on_test.over_plain(seed)
                assert there is not None
                said += f", though {_relation(there, on_test.plain[0])} on the {on_test.rows}"
            worse = part is on_test or on_test.plain is None
            useless = worse and over.gain < 0 and not over.equal and over.real is not False
            simpler = None if useless else part.plain[0]
            return Verdict(f"{said}: {_what_to_do(record, test, simpler)}", Worth.USELESS)
    than_plain = ""
    over = on_test.over_plain(seed)
    if over is not None and on_test.plain is not None:
        than_plain = _relation(over, on_test.plain[0])
    metric = test.metric
    if test.judged.default is None:
        if not than_plain:
            return Verdict("there is nothing to compare the test score with", Worth.UNKNOWN)
        searched = bool(record.experiment.search_space)
        why = "no default was trained to compare with" if searched else "nothing was searched"
        return Verdict(f"{than_plain} ({_written(metric)}); {why}", Worth.BETTER)
    return _beside_default(record, test, parts, than_plain, seed)


def _beside_default(
    record: StudyRecord, test: TestScore, parts: Sequence[Part], than_plain: str, seed: list[int]
) -> Verdict:
    """Judge a winner that is better than any plain prediction, where there is one.

    A default whose refitted models have no test score is compared by the others, and one that
    has none at all on the validation rows alone.
    """
    own = test.default
    assert own is not None
    name, written = f"the {own.name}", f" ({_written(parts[0].metric)})"
    also = f"{than_plain}{written}" if than_plain else ""
    if own.is_winner:
        said = f"the search did not pay: {name} won"
        return Verdict(f"{said}, {also}" if also else said, Worth.UNPAID)
    compared = [(of, _where(parts, of)) for of in _with_default(test, parts)]
    for part, where in compared:
        over = part.over_default(seed)
        if over is not None and not over.better:
            said = f"the search did not pay: {_no_better(over, name)}{where}"
            return Verdict(f"{said}, but {also}" if also else said, Worth.UNPAID)
    over = compared[0][0].over_default(seed) if compared else None
    if over is not None:
        said = f"the search paid: {_relation(over, name)}{compared[0][1]}{written}"
        return Verdict(f"{said}, and {than_plain}" if than_plain else said, Worth.PAID)
    default = default_of(record)
    if default is not None and default.failed and not default.repeats:
        said = f"the search paid: every training of {name} failed"
        return Verdict(f"{said}; {also}" if also else said, Worth.PAID)
    said = f"{name} has no score to compare with"
    return Verdict(f"{also}; {said}", Worth.BETTER) if also else Verdict(said, Worth.UNKNOWN)


def _with_default(test: TestScore, parts: Sequence[Part]) -> list[Part]:
    """Return the parts that have scores of the winner and of the default, the best evidence first.

    In place of refitted models without a score come those of the training part.
    """
    on_test = parts[0]
    if not on_test.default and test.refit and test.default:
        on_test = replace(on_test, scores=test.scores, default=test.default.scores)
    return [part for part in (on_test, *parts[1:]) if part.default and part.scores]


def _where(parts: Sequence[Part], part: Part) -> str:
    """Return on which rows and by which models it is said, where that is not the usual."""
    if part is parts[0]:
        return ""
    return " before the refit" if part.rows == parts[0].rows else f" on the {part.rows}"


def _what_to_do(record: StudyRecord, test: TestScore, simpler: str | None) -> str:
    """Say what follows where a model is no better: the set-up is to blame first.

    `simpler` is a plain prediction that is as good; None where one is better on the test rows.
    """
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
    """Return both scores, in brackets; of equal ones what both are."""
    written = f"{_written(difference.metric)} {difference.first:.4g}"
    if f"{difference.first:.4g}" != f"{difference.second:.4g}":
        written += f" against {difference.second:.4g}"
    return f" ({written})"


def _relation(difference: Difference, name: str) -> str:
    """Say how much better a score is than that of `name`."""
    share = relative(difference.metric, difference.gain, difference.second)
    if share is None:
        return f"{difference.first:.4g} against {difference.second:.4g} of {name}"
    above = "above" if METRICS[difference.metric].maximize else "below"
    return f"{percent(share)} % {above} {name}"


def _named(metric: str, baselines: Mapping[str, float | None]) -> tuple[str, float] | None:
    best = best_plain(metric, baselines)
    return None if best is None else (plain_name(best[0], metric), best[1])


def _model(record: StudyRecord, test: TestScore) -> str:
    """Return what people call the tested model, with an article."""
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
