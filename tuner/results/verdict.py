"""What the test part says of a search, in one sentence.

It is about the strongest that the winner has to beat, the untuned default and every plain
prediction, and by the rows of both parts: those that the search chose by, and those it never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tuner.coordination.finalists import default_of, rank_finalists
from tuner.coordination.records import StudyRecord
from tuner.experiment.metrics import METRICS, short_name
from tuner.experiment.untuned import model_name
from tuner.own_code import is_reference
from tuner.results.advice import advice_after
from tuner.results.differences import ENOUGH, Difference, compare, percent, relative
from tuner.results.judged import has_refit, judged
from tuner.results.plain import best_plain, plain_name
from tuner.results.winner import find_winner

__all__ = ["Part", "Verdict", "Worth", "test_part_of", "validation_part_of", "verdict_of"]

_WRITTEN = {
    "r2": "R²", "f1": "F1", "smape": "sMAPE", "pinball": "pinball loss", "accuracy": "accuracy",
    "cross_entropy": "cross entropy",
}  # fmt: skip


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


def test_part_of(test: Mapping[str, Any]) -> Part:
    """Return what an opening of the test part says.

    Where the models were trained again on training and validation rows, it is their scores: the
    record's `refit` holds those of the winner, of the default and of plain predictions as the
    record itself does.
    """
    shown = judged(test)
    default = shown.get("default")
    return Part(
        rows="test rows",
        metric=test["metric"],
        scores=shown["scores"],
        default=default["scores"] if default else None,
        plain=_named(test["metric"], shown["baselines"]),
    )


def validation_part_of(record: StudyRecord) -> Part | None:
    """Return what the validation rows say of the tested configuration; None without a score."""
    assert record.test is not None
    number, default = record.test["configuration"], default_of(record)
    finalist = next((f for f in rank_finalists(record) if f.number == number), None)
    if finalist is not None:
        scores = finalist.scores
    elif (record.test.get("default") or {}).get("is_winner") and default is not None:
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


def verdict_of(record: StudyRecord) -> Verdict | None:
    """Judge the configuration for which the test part was last opened; None before it was.

    It is better than something only where it is on the test rows and on the validation rows.
    Where its models were refitted, they are judged.
    What lies within the noise of its repeats counts as no better. With fewer than five of them,
    what is said to be better is said to be no more than that. Scores that are equal as they are
    printed are equal.
    """
    if record.test is None:
        return None
    test = judged(record.test)
    verdict = _judged(record, test)
    if verdict.worth not in (Worth.PAID, Worth.BETTER):
        return verdict
    on_test, on_validation = test_part_of(test), validation_part_of(record)
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


def _judged(record: StudyRecord, test: Mapping[str, Any]) -> Verdict:
    seed, on_test = [record.experiment.seed], test_part_of(test)
    if not on_test.scores:
        said = "the forecasts of the test part are beyond all bounds: do not use this model"
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
    default, metric = test.get("default"), test["metric"]
    if default is None:
        if not than_plain:
            return Verdict("there is nothing to compare the test score with", Worth.UNKNOWN)
        searched = bool(record.experiment.search_space)
        why = "no default was trained to compare with" if searched else "nothing was searched"
        return Verdict(f"{than_plain} ({_written(metric)}); {why}", Worth.BETTER)
    return _beside_default(record, parts, than_plain, seed)


def _beside_default(
    record: StudyRecord, parts: Sequence[Part], than_plain: str, seed: list[int]
) -> Verdict:
    """Judge a winner that is better than any plain prediction, where there is one.

    A default whose refitted models have no test score is compared by the others, and one that
    has none at all on the validation rows alone.
    """
    assert record.test is not None
    own = record.test["default"]
    name, written = f"the {own['name']}", f" ({_written(parts[0].metric)})"
    also = f"{than_plain}{written}" if than_plain else ""
    if own["is_winner"]:
        said = f"the search did not pay: {name} won"
        return Verdict(f"{said}, {also}" if also else said, Worth.UNPAID)
    compared = [(of, _where(parts, of)) for of in _with_default(record, parts)]
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


def _with_default(record: StudyRecord, parts: Sequence[Part]) -> list[Part]:
    """Return the parts that have scores of the winner and of the default, the best evidence first.

    In place of refitted models without a score come those of the training part.
    """
    assert record.test is not None
    on_test = parts[0]
    if not on_test.default and has_refit(record.test):
        own = record.test["default"]
        on_test = replace(on_test, scores=record.test["scores"], default=own["scores"])
    return [part for part in (on_test, *parts[1:]) if part.default and part.scores]


def _where(parts: Sequence[Part], part: Part) -> str:
    """Return on which rows and by which models it is said, where that is not the usual."""
    if part is parts[0]:
        return ""
    return " before the refit" if part.rows == parts[0].rows else f" on the {part.rows}"


def _what_to_do(record: StudyRecord, test: Mapping[str, Any], simpler: str | None) -> str:
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


def _model(record: StudyRecord, test: Mapping[str, Any]) -> str:
    """Return what people call the tested model, with an article."""
    tested = next((t for t in record.trials if t.number == test["configuration"]), None)
    params = dict(tested.params) if tested else {}
    if test["configuration"] is None:  # no trial of the search: the default won
        params = test["default"]["params"]
    cell = record.experiment.configuration(params)["cell"]
    name = model_name(cell)
    vowels = "AEIOaeio" if is_reference(cell) else "LR"  # of those that are spelt: an LSTM
    return f"{'an' if name[0] in vowels else 'a'} {name}"


def _written(metric: str) -> str:
    name = short_name(metric)
    return _WRITTEN.get(metric, name.upper() if name == metric else name)
