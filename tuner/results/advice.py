"""Advice on the limits of a search, and on models too large to export.

Each piece of advice names the key of the experiment to change. `tuner check` prints the advice on
data and budget; the rest needs the record of a search.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tuner.coordination.finalists import default_of, rank_finalists
from tuner.data.prepared import Facts, counted
from tuner.data.profile import Trend
from tuner.experiment import Experiment
from tuner.experiment.hyperparameters import WIDTH
from tuner.experiment.schema import (
    HyperbandPruner,
    MedianPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    WilcoxonPruner,
)
from tuner.jobs import LARGEST_ONNX
from tuner.journal.records import StudyRecord, TrialRecord
from tuner.strategies.base import Section


def why_not_exportable(experiment: Experiment, facts: Facts) -> str | None:
    """Return why the largest model cannot be exported as ONNX (2 GB at most); None if it can."""
    n_bytes = 4 * _weights(experiment, facts)
    if n_bytes <= LARGEST_ONNX:
        return None
    return (
        f"not possible for the largest model: its weights are {n_bytes / 1e9:.1f} GB, and an ONNX "
        f"file holds 2 GB; make {_largest_part(experiment, facts)} smaller to export it"
    )


def _weights(experiment: Experiment, facts: Facts) -> int:
    """Return the approximate number of weights of the largest model."""
    widths, directions = _widths(experiment), 1 + _most(experiment, "bidirectional")
    inputs = _columns(experiment, facts)
    if facts.vocabulary:
        inputs = _most(experiment, "embedding_size")
    found = facts.vocabulary * inputs
    if channels := _most(experiment, "conv_channels"):
        found += channels * inputs * _most(experiment, "conv_kernel")
        inputs = channels
    if (segment := _most(experiment, "segment")) > 1:
        found += segment * inputs * widths[0]
        inputs = widths[0]
    for width in widths:
        found += 4 * directions * width * (inputs + width + 2)
        inputs = directions * width
    task = experiment.task
    if _most(experiment, "linear_path"):
        found += _most(experiment, "window") * task.horizon
    outputs = len(facts.classes) or task.horizon * len(facts.targets)
    return found + inputs * outputs * max(1, len(task.quantiles))


def _columns(experiment: Experiment, facts: Facts) -> int:
    """Return the largest number of input columns, with calendar and lags."""
    found = len(facts.features)
    for name in ("calendar", "lags"):
        if domain := experiment.search_space.get(name):
            made = [_made(experiment.prepared_as({name: choice})) for choice in domain.bounds()]
            found += max(0, max(made) - _made(experiment))
    return found


def _made(experiment: Experiment) -> int:
    data = experiment.data
    return 2 * len(data.calendar) + sum(map(len, data.lags.values()))


def _widths(experiment: Experiment) -> list[int]:
    space = experiment.search_space
    if searched := [name for name in space if WIDTH.fullmatch(name)]:
        return [_most(experiment, name) for name in searched]
    if "hidden_size" not in space and "num_layers" not in space:
        return experiment.hyperparameters.widths
    return [_most(experiment, "hidden_size")] * _most(experiment, "num_layers")


def _largest_part(experiment: Experiment, facts: Facts) -> str:
    """Return the key with most of the weights."""
    embedding = facts.vocabulary * _most(experiment, "embedding_size")
    return "embedding_size" if 2 * embedding > _weights(experiment, facts) else "hidden_size"


def _most(experiment: Experiment, name: str) -> int:
    """Return the largest value of a hyperparameter."""
    if domain := experiment.search_space.get(name):
        return int(max(domain.bounds()))
    value = experiment.given(name)
    return int(max(value) if isinstance(value, list) else value)


@dataclass(frozen=True)
class Advice:
    """A limit of the search, and the key that changes it."""

    key: str  # of the experiment: budget.epochs
    text: str  # the problem and the remedy, without capital and full stop
    blocks: bool = False  # whether the model cannot be judged before

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"

    def to_json(self) -> dict[str, Any]:
        """Return the advice as in journals and summaries."""
        return asdict(self)


def advice_on_data(experiment: Experiment, facts: Facts) -> list[Advice]:
    """Return advice on the data before the test set."""
    if experiment.task.kind != "forecast" or _takes_trend_out(experiment):
        return []
    return [_on_trend(trend) for trend in facts.trends]


def advice_on_budget(experiment: Experiment) -> list[Advice]:
    """Return advice on budget, pruner and strategy."""
    return [*_on_pruner(experiment), *_on_strategy(experiment)]


def in_the_way(record: StudyRecord) -> list[str]:
    """Return lines of advice on strategy and pruner for the trials to come."""
    n_trials = record.experiment.n_trials
    if n_trials is not None and len(record.trained) >= n_trials:
        return []
    return [str(advice) for advice in advice_on_budget(record.experiment)]


def advice_after(record: StudyRecord) -> list[Advice]:
    """Return all advice for a study."""
    known = [Advice(r["key"], r["text"], bool(r.get("blocks"))) for r in record.remarks]
    return [*known, *_on_epochs(record), *_on_classes(record), *advice_on_budget(_as_run(record))]


def _as_run(record: StudyRecord) -> Experiment:
    """Return the experiment with a budget of at least the trained trials."""
    experiment, n_trained = record.experiment, len(record.trained)
    if experiment.budget.trials is None or experiment.budget.trials >= n_trained:
        return experiment
    budget = experiment.budget.model_copy(update={"trials": n_trained})
    return experiment.model_copy(update={"budget": budget})


def _takes_trend_out(experiment: Experiment) -> bool:
    """Return whether data or model are relative to earlier values in any trial."""

    def choices(name: str) -> list[Any]:
        return list(getattr(experiment.search_space.get(name), "choices", ()))

    fixed = experiment.hyperparameters
    transforms = [experiment.data.transform, *choices("transform")]
    return (
        any("difference" in str(transform) for transform in transforms)
        or any(value != "none" for value in choices("normalize") or [fixed.normalize])
        or any(choices("linear_path") or [fixed.linear_path])
    )


def _on_trend(trend: Trend) -> Advice:
    of = f" of {trend.series}" if trend.series else ""
    more = f", and so in {trend.others} more series" if trend.others else ""
    level, low, high = (f"{value:.4g}" for value in (trend.level, trend.low, trend.high))
    where = "outside" if trend.outside else "at the end"
    text = (
        f"{trend.target}{of} has a trend that nothing takes out: the mean of the last {trend.rows} "
        f"rows before the test set is {level}, {where} of the range of the training set ({low} to "
        f"{high}){more}"
    )
    key = "hyperparameters.normalize"
    return Advice(key, f"{text}; write {key}: last, or difference in data.transform", True)


def _on_pruner(experiment: Experiment) -> Iterator[Advice]:
    if (found := _why_idle(experiment.pruner, experiment)) is not None:
        option, why = found
        name = experiment.pruner.name
        yield Advice(f"pruner.{option}", f"the {name} pruner cannot stop any trial: {why}")


def _why_idle(pruner: Section, experiment: Experiment) -> tuple[str, str] | None:
    """Return the option that keeps a pruner from acting, and why; None if it may act."""
    folds = experiment.n_folds
    steps, unit = (experiment.budget.epochs, "epochs") if folds == 1 else (folds, "folds")
    match pruner:
        case MedianPruner() | PercentilePruner():
            if folds == 1 and pruner.n_warmup_steps >= steps:
                spared = f"it spares the first {counted(pruner.n_warmup_steps, 'epoch')} of a trial"
                remedy = "write a smaller n_warmup_steps, or a larger budget.epochs"
                return "n_warmup_steps", f"{spared}, which has at most {steps}; {remedy}"
            seen, needed = _most_seen(experiment), max(1, pruner.n_startup_trials)
            if seen is not None and seen < needed:
                why = f"it acts once {counted(needed, 'trial')} ended, and the last one starts when"
                remedy = "write a smaller n_startup_trials, or a larger budget.trials"
                return "n_startup_trials", f"{why} at most {seen} have; {remedy}"
        case SuccessiveHalvingPruner() | HyperbandPruner():
            first = pruner.min_resource
            if isinstance(pruner, SuccessiveHalvingPruner):
                first *= pruner.reduction_factor**pruner.min_early_stopping_rate
            if first >= steps:
                why = f"it first decides after {first} {unit}, and a trial has at most {steps}"
                return "min_resource", f"{why}; write a smaller min_resource"
        case PatientPruner():
            if steps <= pruner.patience + 1:
                why = f"it bears {pruner.patience} {unit} without a gain, and a trial has {steps}"
                return "patience", f"{why}; write a smaller patience"
            if (inner := _why_idle(pruner.wrapped, experiment)) is not None:
                option, why = inner
                return f"wrapped.{option}", why
        case WilcoxonPruner():
            needed = max(2, pruner.n_startup_steps)
            if folds - 1 < needed or 0.5 ** (folds - 1) > pruner.p_threshold:
                why = f"{folds - 1} folds before the last cannot reach p {pruner.p_threshold:g}"
                return "p_threshold", f"{why}; write more folds, or another pruner"
    return None


def _most_seen(experiment: Experiment) -> int | None:
    """Return the number of trials before the last one; None if unlimited."""
    if experiment.n_trials is None:
        return None
    last = experiment.n_trials - 1
    return last if experiment.asynchronous else experiment.strategy.rhythm.told_before(last)


def _on_strategy(experiment: Experiment) -> Iterator[Advice]:
    strategy, n_trials = experiment.strategy, experiment.n_trials
    if n_trials is None or not experiment.search_space:
        return
    rhythm = strategy.rhythm
    if rhythm.generational and n_trials <= rhythm.size:
        yield Advice(
            "budget.trials",
            f"{strategy.name} cannot move: all {n_trials} trials are its first generation of "
            f"{rhythm.size}, which is drawn at random; write a larger budget.trials, or a smaller "
            f"strategy.population",
        )
    drawn = getattr(strategy, "n_startup_trials", 0)
    if drawn >= n_trials > 0:
        yield Advice(
            "strategy.n_startup_trials",
            f"{strategy.name} never models anything: its first {drawn} trials are drawn at random, "
            f"and there are {n_trials}; write a larger budget.trials, or a smaller "
            f"strategy.n_startup_trials",
        )


def _on_epochs(record: StudyRecord) -> Iterator[Advice]:
    runs, most = _runs(record), record.experiment.budget.epochs
    at_end = [run for run in runs if _ended_at_its_best(run, most, record.sign)]
    if 2 * len(at_end) > len(runs):
        of = f"in {len(at_end)} of its {len(runs)} trainings " if len(runs) > 1 else ""
        yield Advice(
            "budget.epochs",
            f"the winner was still getting better: {of}the best epoch is the last one, "
            f"{most}; write a larger budget.epochs",
            blocks=True,
        )


def _runs(record: StudyRecord) -> list[TrialRecord]:
    """Return the trainings of the evaluated configuration, or of the best one."""
    finalists = rank_finalists(record)
    if record.test and record.test.default and record.test.default.is_winner:
        default = default_of(record)
        if default is not None and default.repeats:
            return list(default.repeats)
    if record.test is not None:
        number = record.test.configuration
        if found := next((f for f in finalists if f.number == number), None):
            return list(found.repeats)
    if finalists:
        return list(finalists[0].repeats)
    return [record.best] if record.best is not None else []


def _ended_at_its_best(run: TrialRecord, most: int, sign: int) -> bool:
    """Return whether the last possible epoch of a training is strictly the best."""
    outcome = run.outcome
    if outcome is None or not outcome.history:
        return False
    last = outcome.history[-1]
    before = [e.metric for e in outcome.history if e.fold == last.fold][:-1]
    if len(before) + 1 < most or not before or outcome.best_epoch != last.epoch:
        return False
    return sign * last.metric < min(sign * metric for metric in before)


def _on_classes(record: StudyRecord) -> Iterator[Advice]:
    kept = record.test.predictions if record.test else {}
    if kept.get("kind") != "classes":
        return
    counts = kept["confusion"]
    columns = zip(kept["classes"], zip(*counts, strict=True), strict=True)
    predicted = [name for name, column in columns if any(column)]
    if len(predicted) != 1 or sum(map(any, counts)) < 2:
        return
    if record.experiment.hyperparameters.class_weights == "none":
        key, write = "hyperparameters.class_weights", "balanced"
    else:
        key, write = "objective.metric", "f1"
    yield Advice(
        key,
        f"every prediction of the test set is {predicted[0]!r}: nothing was learned but which "
        f"class is usual; write {key}: {write}, or a larger budget.epochs",
        blocks=True,
    )
