from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler

from tuner.strategies import ParticleSwarmSampler, keys
from tuner.strategies.records import Record
from tuner.strategies.swarm import Past


def records(positions: object, velocities: object) -> list[Record]:
    return [
        Record(np.array(x), np.array(v))
        for x, v in zip(positions, velocities, strict=True)  # type: ignore[call-overload]
    ]


def drawn(seed: int, generation: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.RandomState(keys.seed32(seed, "pso", generation))
    return stream.uniform(0, 1, shape), stream.uniform(0, 1, shape)


def test_a_step_is_the_particle_swarm_formula_worked_by_hand() -> None:
    x0 = np.array([[0.2, 0.3], [0.6, 0.9], [0.5, 0.5]])
    x1 = np.array([[0.4, 0.4], [0.7, 0.8], [0.9, 0.1]])
    v1 = np.array([[0.1, 0.0], [0.2, -0.1], [-0.3, 0.3]])
    past = Past(np.array([x0, x1]), np.array([[3.0, 1.0, 9.0], [2.0, 4.0, 5.0]]), records(x1, v1))
    sampler = ParticleSwarmSampler(
        population_size=3, inertia=0.5, c1=0.7, c2=0.3, velocity_clamp=0.2, seed=11
    )

    r1, r2 = drawn(11, 2, (3, 2))
    own = np.array([x1[0], x0[1], x1[2]])
    velocity = 0.5 * v1 + 0.7 * r1 * (own - x1) + 0.3 * r2 * (x0[1] - x1)
    velocity = velocity.clip(-0.2, 0.2)
    for i in range(3):
        moved = sampler.move(past, 2, i)
        assert moved.velocity == pytest.approx(velocity[i])
        assert moved.position == pytest.approx(x1[i] + velocity[i])  # no bound was crossed


def test_a_particle_that_crosses_a_bound_is_reflected_and_not_wrapped() -> None:
    x = np.array([[0.95, 0.02], [0.95, 0.02]])
    v = np.array([[0.4, -0.4], [0.4, -0.4]])
    past = Past(np.array([x]), np.array([[1.0, 2.0]]), records(x, v))
    sampler = ParticleSwarmSampler(population_size=2, inertia=0.5, c1=0, c2=0, seed=0)
    assert sampler.move(past, 1, 0).position == pytest.approx([0.85, 0.18])


def test_a_particle_without_a_value_is_pulled_by_the_swarms_best_alone() -> None:
    x0 = np.array([[0.1, 0.1], [0.8, 0.8]])
    x1 = np.array([[0.3, 0.3], [0.7, 0.7]])
    v1 = np.zeros((2, 2))
    past = Past(np.array([x0, x1]), np.array([[np.inf, 1.0], [np.inf, 2.0]]), records(x1, v1))
    sampler = ParticleSwarmSampler(population_size=2, c1=1, c2=1, velocity_clamp=1, seed=4)
    _, r2 = drawn(4, 2, (2, 2))
    assert sampler.move(past, 2, 0).velocity == pytest.approx(r2[0] * (x0[1] - x1[0]))


def test_a_search_is_what_pyswarms_own_optimizer_does_with_the_same_random_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "logging.yaml"  # keeps pyswarms' hands off the loggers
    config.write_text("{version: 1, incremental: true}")
    monkeypatch.setenv("LOG_CFG", str(config))
    from pyswarms.single import GlobalBestPSO

    n, d, generations = 6, 3, 8
    sampler = ParticleSwarmSampler(population_size=n, seed=5)
    first = sampler.spread(0, d)
    positions = [np.array([r.position for r in first])]
    costs, latest = [], first
    for generation in range(1, generations):
        costs.append(((positions[-1] - 0.3) ** 2).sum(axis=1))
        past = Past(np.array(positions), np.array(costs), latest)
        latest = [sampler.move(past, generation, i) for i in range(n)]
        positions.append(np.array([r.position for r in latest]))

    theirs: list[np.ndarray] = []

    def sphere(x: np.ndarray) -> np.ndarray:
        theirs.append(x.copy())
        np.random.seed(keys.seed32(5, "pso", len(theirs)))  # noqa: NPY002
        return np.asarray(((x - 0.3) ** 2).sum(axis=1))

    before = np.random.get_state()  # noqa: NPY002
    optimizer = GlobalBestPSO(
        n,
        d,
        {"w": 0.7298, "c1": 1.49618, "c2": 1.49618},
        bounds=(np.zeros(d), np.ones(d)),
        bh_strategy="reflective",
        velocity_clamp=(-0.5, 0.5),
        init_pos=positions[0].copy(),
    )
    optimizer.swarm.velocity = np.array([r.velocity for r in first])
    optimizer.reset = lambda: None
    optimizer.optimize(sphere, generations, verbose=False)
    np.random.set_state(before)  # noqa: NPY002
    np.testing.assert_array_equal(theirs, positions)


def test_a_particle_swarm_finds_a_shifted_optimum_far_better_than_random_search() -> None:
    space = {f"x{i}": FloatDistribution(-5, 5) for i in range(6)}

    def best(sampler: BaseSampler, seed: int) -> float:
        optimum = np.random.default_rng(seed).uniform(-4, 4, 6)
        study = optuna.create_study(sampler=sampler)
        for _ in range(200):
            trial = study.ask(space)
            x = np.array([trial.params[name] for name in space])
            study.tell(trial, float((((x - optimum) / 10) ** 2).sum()))
        return study.best_value

    swarm = [best(ParticleSwarmSampler(seed=s, search_space=space), s) for s in range(15)]
    chance = [best(RandomSampler(seed=s), s) for s in range(15)]
    assert np.median(swarm) < np.median(chance) / 8


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("population_size", 0),
        ("inertia", 1.0),
        ("c1", -0.1),
        ("c2", 4.1),
        ("velocity_clamp", 0.0),
        ("velocity_clamp", 1.5),
    ],
)
def test_an_argument_out_of_range_is_refused_by_name_and_value(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{argument} must be .*, got {value}$"):
        ParticleSwarmSampler(**{argument: value})  # type: ignore[arg-type]
