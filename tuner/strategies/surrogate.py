"""Surrogates: a cheap model of the trials told so far chooses among a swarm's candidates.

Each individual proposes several places, and the one that promises most is trained. This is the
preselection of Jin, Surrogate-assisted evolutionary computation: Recent advances and future
challenges, Swarm and Evolutionary Computation 1(2), 2011, doi 10.1016/j.swevo.2011.05.001, which
Sun, Jin, Cheng, Ding and Zeng use in swarms, IEEE Transactions on Evolutionary Computation 21(4),
2017, doi 10.1109/TEVC.2017.2675628.

The model is a Gaussian process (Rasmussen and Williams, Gaussian Processes for Machine Learning,
2006) with a Matern kernel, and the promise is the expected improvement (Jones, Schonlau and Welch,
Journal of Global Optimization 13, 1998, doi 10.1023/A:1008306431147) over the best that the model
expects at a trained place, as scores have noise. Length scale and noise are those of a small grid
that make the trials most likely: a sum that is rounded in another way does not change them, as it
would change the end of a descent. scikit-learn is imported when a model is first fitted.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.one_thread import one_thread
from tuner.strategies.base import FloatArray, Past, Record, SwarmStrategy, Turn
from tuner.strategies.rng import generator

if TYPE_CHECKING:
    from tuner.strategies.codec import Codec

_MOST_FITTED = 200  # trials: fitting takes their number to the power of three
_LENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # in sides of the unit cube
_NOISES = (0.003, 0.03, 0.1, 0.3)  # shares of the variance of the scores
_PART = 4096  # candidates that are predicted at a time
_DIGITS = 9  # positions that agree in these are one configuration


@dataclass
class Told:
    """The trials of all earlier generations, as the model sees them."""

    places: FloatArray  # (trials, n_columns), each that of its configuration: see `Codec.snap`
    costs: FloatArray  # (trials,); less is better, inf for a failed trial, nan for an unfinished
    chosen: list[Record] | None = field(default=None, compare=False)  # a cache: what follows

    def plus(self, places: FloatArray, costs: Sequence[float]) -> Told:
        """Return the trials with more of them, in the order of their numbers."""
        return Told(np.vstack([self.places, places]), np.append(self.costs, costs))

    def samples(self) -> tuple[FloatArray, FloatArray]:
        """Return the configurations that ended, each once with its least cost, and their scores.

        Returns:
            Places `(configurations, n_columns)` and scores `(configurations,)`. A score is the
            quantile of the cost's rank in a normal distribution, so how far off a bad trial is
            does not count, and a failed one is the worst. Of many trials, half are the best and
            half the latest of the others.
        """
        from scipy.stats import norm, rankdata

        ended = ~np.isnan(self.costs)
        places, costs = self.places[ended], self.costs[ended]
        _, first, which = np.unique(
            _rounded(places), axis=0, return_index=True, return_inverse=True
        )
        least = np.full(len(first), np.inf)
        np.minimum.at(least, which.reshape(-1), costs)  # its shape varies with numpy's version
        in_order = first.argsort()
        places, costs = places[first[in_order]], least[in_order]
        scores = norm.ppf((rankdata(costs) - 0.5) / len(costs))
        if len(scores) > _MOST_FITTED:
            ranked = scores.argsort(kind="stable")
            best, others = np.split(ranked, [_MOST_FITTED // 2])
            latest = np.sort(others)[-_MOST_FITTED // 2 :]
            kept = np.sort(np.append(best, latest))
            places, scores = places[kept], scores[kept]
        return places, scores


def candidates_of(swarm: SwarmStrategy, past: Past, turn: Turn) -> list[list[Record]]:
    """Return the candidates of each individual: its moves, and from each second one a mutation.

    A mutation draws each coordinate anew with probability 1/5, or 1/n of n columns if that is
    more, and one at least. Without it a swarm that has come together proposes what it has had.
    The first candidate is the move that the swarm makes without candidates.

    Args:
        swarm: The options.
        past: What is known of earlier generations.
        turn: Of any individual in the generation.
    """
    moves = []
    for candidate in range(swarm.candidates):
        now = dataclasses.replace(turn, candidate=candidate)
        moved = swarm.move_all(past, now)
        if candidate % 2:
            rng = generator(turn.seed, "mutation", turn.generation, candidate)
            moved = [_mutated(record, rng) for record in moved]
        moves.append(moved)
    return [list(own) for own in zip(*moves, strict=True)]


def _mutated(record: Record, rng: np.random.Generator) -> Record:
    """Return a record elsewhere, with the same velocity."""
    n_columns = len(record.position)
    redrawn = rng.random(n_columns) < max(0.2, 1 / n_columns)
    redrawn[rng.integers(n_columns)] = True
    position = np.where(redrawn, rng.random(n_columns), record.position)
    return dataclasses.replace(record, position=position)


@one_thread
def choose(
    told: Told,
    candidates: Sequence[Sequence[Record]],
    codec: Codec,
    gone: Mapping[int, Record] | None = None,
) -> list[Record]:
    """Return the most promising candidate of each individual.

    One that no trial had, and no individual before takes, is chosen wherever there is one.

    Args:
        told: At least one trial has a finite cost.
        candidates: Those of each individual.
        codec: Of the search space.
        gone: The individuals that have gone already, and where.
    """
    gone = gone or {}
    flat = [record for own in candidates for record in own]
    places = codec.snap(np.array([record.position for record in flat]))
    means, promises = _promise(*told.samples(), places)
    keys = [place.tobytes() for place in _rounded(places)]
    taken = {place.tobytes() for place in _rounded(told.places)}
    if gone:
        went = codec.snap(np.array([record.position for record in gone.values()]))
        taken |= {place.tobytes() for place in _rounded(went)}
    chosen, start = [], 0
    for individual, own in enumerate(candidates):
        indices = range(start, start + len(own))
        start += len(own)
        if individual in gone:
            chosen.append(gone[individual])
            continue
        best = min(indices, key=lambda k: (keys[k] in taken, -promises[k], means[k], k))
        taken.add(keys[best])
        chosen.append(flat[best])
    return chosen


def _promise(
    places: FloatArray, scores: FloatArray, candidates: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the expected score of each candidate, and its expected improvement.

    Args:
        places: Trained places, `(trials, n_columns)`.
        scores: Their scores, `(trials,)`; less is better.
        candidates: `(candidates, n_columns)`.
    """
    from scipy.stats import norm

    model = _fitted(places, scores)
    # In parts: the kernel of all candidates and trials may be larger than memory.
    parts = [candidates[k : k + _PART] for k in range(0, len(candidates), _PART)]
    predicted = [model.predict(part, return_std=True) for part in parts]
    mean, deviation = (np.concatenate(each) for each in zip(*predicted, strict=True))
    deviation = np.maximum(deviation, 1e-9)
    z = (model.predict(places).min() - mean) / deviation
    return mean, deviation * (z * norm.cdf(z) + norm.pdf(z))


def _fitted(places: FloatArray, scores: FloatArray) -> Any:
    """Return the process of the grid under which the scores are most likely."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern

    models = [
        GaussianProcessRegressor(
            Matern(length, nu=2.5), alpha=noise, optimizer=None, normalize_y=True
        ).fit(places, scores)
        for length, noise in itertools.product(_LENGTHS, _NOISES)
    ]
    return max(models, key=lambda model: model.log_marginal_likelihood_value_)


def _rounded(places: FloatArray) -> FloatArray:
    return places.round(_DIGITS) + 0.0  # -0 becomes 0
