"""Comparison of strategies: trajectories of their searches, page, plot and tables."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.data.baselines import baseline_name
from tuner.experiment import Experiment
from tuner.journal.records import StudyRecord, TrialRecord
from tuner.metrics import METRICS
from tuner.outputs import written_whole
from tuner.report import plotting
from tuner.report.page import render
from tuner.report.plotting import COLOURS, Picture, good_range, label
from tuner.results.differences import (
    ALPHA,
    Interval,
    StrategyDifference,
    fewest_seeds,
    median_interval,
    pairwise,
)
from tuner.results.verdict import ranked_baselines, score_text, strategies_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILES = ("comparison.html", "curves.png", "scores.csv", "curves.csv")
_GENERATOR = "tuner compare"
_STYLES = ("-", "--", ":")  # of as many strategies as there are colours, each


@dataclass(frozen=True)
class Trajectory:
    """The best score so far of one search; infinitely bad before the first complete trial."""

    study: str
    strategy: str
    seed: int
    best: tuple[float, ...]  # after each trained trial, by their numbers
    seconds: tuple[float, ...]  # of the search, when each trial had ended; rising
    best_then: tuple[float, ...]  # at each of these times
    baselines: Mapping[str, float] = field(default_factory=dict, hash=False)  # of the same rows

    @property
    def score(self) -> float:
        """The final best score."""
        return self.best[-1]


def trajectory_of(record: StudyRecord, n_trials: int) -> Trajectory:
    """Follow a search through its first `n_trials` trained trials, at least 1.

    Seconds are those of all runs of the search, without the pauses between them and the start of
    the first workers. The journal has the times of trainings; the remaining time, mostly of the
    sampler, is spread over them.
    """
    trained = record.trained
    first = trained[:n_trials]
    clock = _Clock(record.spans, record.seconds - _waited_s(trained, record.spans))
    in_time = sorted(first, key=lambda t: (clock.at(_ended_at(t)), t.number))
    return Trajectory(
        study=record.name,
        strategy=record.experiment.strategy.name,
        seed=record.experiment.seed,
        best=_best_so_far(first, record.sign),
        seconds=tuple(clock.at(_ended_at(t)) for t in in_time),
        best_then=_best_so_far(in_time, record.sign),
        baselines=record.baselines,
    )


class _Clock:
    """Maps times to seconds of the search.

    Args:
        spans: the begin and end of each training, in order.
        seconds: the time of the whole search; the time of its trials if that is more.
    """

    def __init__(self, spans: Iterable[tuple[float, float]], seconds: float) -> None:
        self._times: list[float] = []  # starts and ends of periods in which trials trained
        self._busy: list[float] = []  # seconds of training until then
        for begun, ended in spans:
            busy = self._busy[-1] if self._busy else 0.0
            if not self._times or begun > self._times[-1]:
                self._times += [begun, ended]
                self._busy += [busy, busy + ended - begun]
            elif ended > self._times[-1]:
                self._busy[-1] += ended - self._times[-1]
                self._times[-1] = ended
        total = self._busy[-1] if self._busy else 0.0
        self._scale = max(1.0, seconds / total) if total > 0 else 1.0

    def at(self, time: float) -> float:
        return self._scale * float(np.interp(time, self._times, self._busy))


def _waited_s(trials: Sequence[TrialRecord], spans: Sequence[tuple[float, float]]) -> float:
    """Return the seconds between the first trial's request and the first training."""
    asked = [t.asked_at.timestamp() for t in trials if t.asked_at is not None]
    began = [begin for begin, end in spans if end > begin]
    return max(0.0, began[0] - min(asked)) if asked and began else 0.0


def _best_so_far(trials: Sequence[TrialRecord], sign: int) -> tuple[float, ...]:
    scores = (t.value for t in trials)
    costs = (math.inf if s is None or math.isnan(s) else sign * s for s in scores)
    return tuple(sign * cost for cost in itertools.accumulate(costs, min))


def _ended_at(trial: TrialRecord) -> float:
    return trial.outcome.finished_at if trial.outcome else 0.0


@dataclass(frozen=True)
class Row:
    """The searches of one strategy, one for each seed."""

    strategy: str
    options: Mapping[str, Any]
    searches: Sequence[Trajectory]  # by seed

    @property
    def scores(self) -> list[float]:
        """The best validation score of each search."""
        return [search.score for search in self.searches]

    @property
    def median(self) -> float:
        """Of the best scores; infinitely bad if half of the searches have none."""
        return statistics.median(self.scores)

    @property
    def interval(self) -> Interval:
        """The confidence interval of the median."""
        return median_interval(self.scores)

    @property
    def seconds(self) -> float:
        """The median duration of a search."""
        return statistics.median(search.seconds[-1] for search in self.searches)

    def to_json(self) -> dict[str, Any]:
        """Return what `tuner compare --json` prints of the strategy."""
        keys = ("study", "seed", "score")
        return {
            "strategy": self.strategy,
            "options": dict(self.options),
            "median": self.median,
            "interval": [self.interval.low, self.interval.high],
            "confidence": self.interval.confidence,
            "seconds": self.seconds,
            "searches": [
                {key: getattr(search, key) for key in keys} | {"seconds": search.seconds[-1]}
                for search in self.searches
            ],
        }


@dataclass(frozen=True)
class Comparison:
    """Searches of the same experiment with several strategies, on the same seeds and budget."""

    experiment: Experiment  # of one of them; they differ in strategy and seed
    n_trials: int  # trained by each search
    rows: tuple[Row, ...]  # best median first
    differences: tuple[StrategyDifference, ...]  # of every two strategies

    @property
    def seeds(self) -> list[int]:
        """The seeds, the same for all strategies."""
        return [search.seed for search in self.rows[0].searches]

    @property
    def metric(self) -> str:
        """The metric of the searches."""
        return self.experiment.objective.metric

    @property
    def baselines(self) -> list[tuple[str, float]]:
        """Baselines and their validation scores, best first."""
        return ranked_baselines(self.metric, self.rows[0].searches[0].baselines)

    @property
    def fewest_seeds(self) -> int:
        """The fewest seeds at which a difference can be significant."""
        return fewest_seeds(len(self.rows))

    @property
    def real(self) -> list[StrategyDifference]:
        """The significant differences."""
        if len(self.seeds) < self.fewest_seeds:
            return []
        return [d for d in self.differences if d.p_adjusted <= ALPHA]

    @property
    def to_beat(self) -> str | None:
        """The baselines' validation scores in one sentence; None without any."""
        known = [f"{baseline_name(n, self.metric)} {score:.4g}" for n, score in self.baselines]
        if not known:
            return None
        return f"to beat on the validation set ({self.metric}): {', '.join(known)}"

    @property
    def verdict(self) -> str:
        """The significant differences in one sentence."""
        return strategies_in_words(
            {row.strategy: row.median for row in self.rows},
            self.differences,
            self.real,
            metric=self.metric,
            n_seeds=len(self.seeds),
            fewest=self.fewest_seeds,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `tuner compare --json` prints."""
        return {
            "experiment": self.experiment.name,
            "metric": self.metric,
            "direction": self.experiment.objective.direction,
            "trials": self.n_trials,
            "seeds": self.seeds,
            "verdict": self.verdict,
            "fewest_seeds": self.fewest_seeds,
            "baselines": dict(self.baselines),
            "strategies": [row.to_json() for row in self.rows],
            "differences": [asdict(d) | {"real": d in self.real} for d in self.differences],
        }


def compare(
    experiments: Sequence[Experiment], trajectories: Sequence[Trajectory], n_trials: int
) -> Comparison:
    """Compare strategies by the best validation scores of their searches.

    Args:
        experiments: one for each strategy; they differ in nothing else.
        trajectories: one for each strategy and seed.
        n_trials: trained trials of each search.
    """
    sign = METRICS[experiments[0].objective.metric].sign
    rows = []
    for experiment in experiments:
        strategy = experiment.strategy
        searches = [t for t in trajectories if t.strategy == strategy.name]
        options = strategy.model_dump(mode="json", exclude={"name"}, exclude_none=True)
        rows.append(Row(strategy.name, options, sorted(searches, key=lambda t: t.seed)))
    costs = {row.strategy: [sign * score for score in row.scores] for row in rows}
    return Comparison(
        experiment=experiments[0],
        n_trials=n_trials,
        rows=tuple(sorted(rows, key=lambda row: (sign * row.median, row.strategy))),
        differences=tuple(pairwise(costs)),
    )


class Band:
    """Median and quartiles over searches at some trials or seconds; NaN where infinite."""

    def __init__(self, places: np.ndarray, best: np.ndarray) -> None:
        """Compute the quantiles.

        Args:
            places: trials or seconds, (n,).
            best: the best score of each search there, (searches, n).
        """
        self.places = places
        ordered = np.sort(best, axis=0)
        self.low, self.median, self.high = (_quantile(ordered, q) for q in (0.25, 0.5, 0.75))


def _quantile(ordered: np.ndarray, share: float) -> np.ndarray:
    """Return a quantile of each column like numpy's, but also of infinite values."""
    place = share * (len(ordered) - 1)
    below, part = int(place), place % 1
    value = ordered[below]
    if part:
        value = (1 - part) * value + part * ordered[below + 1]
    return np.where(np.isfinite(value), value, np.nan)


def band_by_trials(row: Row) -> Band:
    """Return the best scores by number of trained trials, from 1."""
    best = np.array([search.best for search in row.searches])  # (searches, trials)
    return Band(np.arange(1, best.shape[1] + 1), best)


def band_by_seconds(row: Row, sign: float) -> Band:
    """Return the best scores by seconds; a search that has ended keeps its score."""
    times = np.unique(np.concatenate([search.seconds for search in row.searches]))  # (n,)
    best = []
    for search in row.searches:
        known = np.array([sign * np.inf, *search.best_then])  # no score before the first end
        best.append(known[np.searchsorted(search.seconds, times, side="right")])
    return Band(times, np.array(best))


def curves_picture(comparison: Comparison) -> Picture:
    """Plot the best scores so far, by trials and by seconds."""
    about = (
        "The best validation score so far: the median over the seeds as a line, the quartiles as "
        "a band. On the left by the trials that were trained, on the right by the seconds that "
        "the search took; a search that has ended keeps its score."
    )
    return Picture("curves", "Best score so far", about, plotting.png(curves_figure(comparison)))


def curves_figure(comparison: Comparison) -> Figure:
    """Return the plot as a figure."""
    figure = plotting.new_figure(4.2, width_in=9.6)
    by_trials, by_seconds = figure.subplots(1, 2, sharey=True)
    sign = METRICS[comparison.metric].sign
    bands = []
    for i, row in enumerate(comparison.rows):
        colour = COLOURS[i % len(COLOURS)]
        style = _STYLES[i // len(COLOURS) % len(_STYLES)]
        bands.append(band_by_trials(row))
        _draw(by_trials, bands[-1], colour, style, row.strategy)
        _draw(by_seconds, band_by_seconds(row, sign), colour, style)
    limits = good_range(_to_be_seen(bands), sign)
    metric = label(comparison.metric)
    by_trials.set(xlabel="trained trials", ylabel=f"best validation {metric} so far")
    by_trials.set(ylim=limits, yticks=plotting.round_values(limits))
    by_seconds.set(xlabel="seconds")
    plotting.whole_ticks(by_trials.xaxis)
    for axes in (by_trials, by_seconds):
        axes.set_xlim(left=0)
        plotting.tidy(axes)
    figure.legend(loc="outside upper left", ncols=5, frameon=False, fontsize="small")
    return figure


def _to_be_seen(bands: Sequence[Band]) -> list[float]:
    """Return all medians and the ends of the bands; the start of a band may be out of view."""
    ends = [(band.low[-1], band.high[-1]) for band in bands]
    values = np.concatenate([*(band.median for band in bands), *ends])
    return [float(value) for value in values[~np.isnan(values)]]


def _draw(axes: Axes, band: Band, colour: str, style: str, name: str | None = None) -> None:
    low, high, text = band.low, band.high, None if name is None else label(name)
    axes.fill_between(band.places, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
    axes.step(band.places, band.median, where="post", color=colour, ls=style, lw=1.6, label=text)


def page(comparison: Comparison, curves: Picture, command: str) -> str:
    """Return the comparison as an HTML page; `command` is shown to repeat it."""
    rows, real = comparison.rows, comparison.real
    names = [row.strategy for row in rows]
    options = [", ".join(f"{name} {value}" for name, value in r.options.items()) for r in rows]
    return render(
        "comparison.html",
        generator=_GENERATOR,
        title=f"{comparison.experiment.name}: {', '.join(names[:-1])} and {names[-1]}",
        comparison=comparison,
        metric=comparison.metric,
        confidence=confidence_text(rows[0]),
        rows=[
            (row.strategy, score_text(row.median), interval_text(row), f"{row.seconds:,.1f}")
            for row in rows
        ],
        searches=[
            (search.study, score_text(search.score), f"{search.seconds[-1]:,.1f}")
            for search in _searches(comparison)
        ],
        curves=curves,
        differences=[
            (f"{d.better} over {d.worse}", f"{d.wins:.2f}", f"{d.p_value:.2g}",
             f"{d.p_adjusted:.2g}", "real" if d in real else "")
            for d in comparison.differences
        ],
        settings="; ".join(f"{n} ({of})" for n, of in zip(names, options, strict=True)),
        alpha=ALPHA,
        command=command,
    )  # fmt: skip


def interval_text(row: Row) -> str:
    """Format the interval of the median."""
    low, high = row.interval.low, row.interval.high
    return score_text(low) if low == high else f"{score_text(low)} to {score_text(high)}"


def confidence_text(row: Row) -> str:
    """Name the interval; below 95 % for few seeds."""
    return f"{int(100 * min(row.interval.confidence, 0.95))} % interval"


def is_free(folder: Path) -> bool:
    """Return whether a comparison may be written there without replacing other files."""
    taken = [folder / name for name in FILES if (folder / name).exists()]
    if not taken:
        return True
    try:
        with (folder / FILES[0]).open(encoding="utf-8") as file:
            return f'content="{_GENERATOR}"' in file.read(500)
    except (OSError, ValueError):
        return False


def write(comparison: Comparison, folder: Path, command: str) -> None:
    """Write the files into a folder, which is created if necessary.

    - `comparison.html`: the page, with the command that makes it again.
    - `curves.png`: the best scores so far.
    - `scores.csv`: a row for each search.
    - `curves.csv`: a row for each search and each trained trial.
    """
    folder.mkdir(exist_ok=True)
    picture = curves_picture(comparison)
    assert picture.png is not None
    files = {
        "comparison.html": page(comparison, picture, command).encode(),
        "curves.png": picture.png,
        "scores.csv": _csv(_scores(comparison)),
        "curves.csv": _csv(_curves(comparison)),
    }
    for name, content in files.items():
        with written_whole(folder / name) as new:
            new.write_bytes(content)


def _scores(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for search in _searches(comparison):
        of = {"strategy": search.strategy, "seed": search.seed, "study": search.study}
        yield {**of, comparison.metric: search.score, "seconds": search.seconds[-1]}


def _curves(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for search in _searches(comparison):
        for i in range(comparison.n_trials):
            yield {
                "strategy": search.strategy,
                "seed": search.seed,
                "trials": i + 1,
                "best_by_trials": search.best[i],
                "seconds": search.seconds[i],
                "best_by_seconds": search.best_then[i],
            }


def _searches(comparison: Comparison) -> list[Trajectory]:
    return [search for row in comparison.rows for search in row.searches]


def _csv(rows: Iterable[dict[str, Any]]) -> bytes:
    """Format rows as CSV; a score that is not finite is empty."""
    import pandas as pd

    table = pd.DataFrame(rows).replace([math.inf, -math.inf], math.nan)
    return table.to_csv(index=False, lineterminator="\n").encode()
