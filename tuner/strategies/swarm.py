"""The base of swarms: individuals that remember their own best, and the swarm's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tuner.strategies.codec import FloatArray
from tuner.strategies.generations import GenerationalSampler
from tuner.strategies.records import Record

__all__ = ["Past", "SwarmSampler"]


@dataclass(frozen=True)
class Past:
    """What the earlier generations came to; at least one individual has a best of its own."""

    latest: list[Record]  # the generation before, whole
    positions: FloatArray  # (individuals, n_columns), of the latest generation
    best_positions: FloatArray  # (individuals, n_columns); nan where there was no value yet
    best_costs: FloatArray  # (individuals,); inf where there was no value yet
    leader: FloatArray  # (n_columns,), the best position of all
    leader_cost: float


class SwarmSampler(GenerationalSampler[Past]):
    """A sampler whose individuals move by where they are, their own bests and the leader."""

    def learn(
        self, past: Past | None, generation: int, records: list[Record], costs: FloatArray
    ) -> Past:
        """Return the bests after one more generation; of equal ones the first stays."""
        positions = np.array([record.position for record in records])
        if past is None:
            nowhere = np.full_like(positions, np.nan)
            unknown = np.full(len(records), np.inf)
            past = Past([], nowhere, nowhere, unknown, nowhere[0], math.inf)
        better = costs < past.best_costs  # (individuals,)
        i = int(costs.argmin())
        leads = costs[i] < past.leader_cost
        return Past(
            latest=records,
            positions=positions,
            best_positions=np.where(better[:, np.newaxis], positions, past.best_positions),
            best_costs=np.where(better, costs, past.best_costs),
            leader=positions[i] if leads else past.leader,
            leader_cost=float(costs[i]) if leads else past.leader_cost,
        )
