"""Particles, quantum particles and whales: one move of each."""

import math
import re
import threading

import numpy as np
import pytest

from tuner.strategies import ParticleSwarmSampler, QuantumSwarmSampler, WhaleSampler
from tuner.strategies.base import Record
from tuner.strategies.population import CmaSampler
from tuner.strategies.rng import generator, seed32
from tuner.strategies.swarms import WhaleStrategy, move_particle


def records(positions, velocities):
    return [
        Record(np.array(x), np.array(v))
        for x, v in zip(positions, velocities, strict=True)  # type: ignore[call-overload]
    ]


def past_of(sampler, positions, costs, velocities):
    """What the swarm knows after these generations."""
    past = None
    history = zip(positions, costs, velocities, strict=True)  # type: ignore[call-overload]
    for generation, (x, c, v) in enumerate(history):
        past = sampler.options.learn(past, generation, records(x, v), np.array(c))
    assert past is not None
    return past


def drawn(seed, generation, shape):
    stream = np.random.RandomState(seed32(seed, "pso", generation))
    return stream.uniform(0, 1, shape), stream.uniform(0, 1, shape)


def test_a_step_is_the_particle_swarm_formula_worked_by_hand():
    x0 = np.array([[0.2, 0.3], [0.6, 0.9], [0.5, 0.5]])
    x1 = np.array([[0.4, 0.4], [0.7, 0.8], [0.9, 0.1]])
    v1 = np.array([[0.1, 0.0], [0.2, -0.1], [-0.3, 0.3]])
    sampler = ParticleSwarmSampler(
        population_size=3, inertia=0.5, c1=0.7, c2=0.3, velocity_clamp=0.2, seed=11
    )
    past = past_of(sampler, [x0, x1], [[3.0, 1.0, 9.0], [2.0, 4.0, 5.0]], [v1, v1])

    r1, r2 = drawn(11, 2, (3, 2))
    own = np.array([x1[0], x0[1], x1[2]])
    velocity = 0.5 * v1 + 0.7 * r1 * (own - x1) + 0.3 * r2 * (x0[1] - x1)
    velocity = velocity.clip(-0.2, 0.2)
    for i in range(3):
        moved = sampler.move(past, 2, i)
        assert moved.velocity == pytest.approx(velocity[i])
        assert moved.position == pytest.approx(x1[i] + velocity[i])  # no bound was crossed


def test_a_particle_is_reflected_at_a_bound():
    x = np.array([[0.95, 0.02], [0.95, 0.02]])
    v = np.array([[0.4, -0.4], [0.4, -0.4]])
    sampler = ParticleSwarmSampler(population_size=2, inertia=0.5, c1=0, c2=0, seed=0)
    past = past_of(sampler, [x], [[1.0, 2.0]], [v])
    assert sampler.move(past, 1, 0).position == pytest.approx([0.85, 0.18])


def test_a_particle_without_a_value_follows_the_swarms_best():
    x0 = np.array([[0.1, 0.1], [0.8, 0.8]])
    x1 = np.array([[0.3, 0.3], [0.7, 0.7]])
    v1 = np.zeros((2, 2))
    sampler = ParticleSwarmSampler(population_size=2, c1=1, c2=1, velocity_clamp=1, seed=4)
    past = past_of(sampler, [x0, x1], [[np.inf, 1.0], [np.inf, 2.0]], [v1, v1])
    _, r2 = drawn(4, 2, (2, 2))
    assert sampler.move(past, 2, 0).velocity == pytest.approx(r2[0] * (x0[1] - x1[0]))


OPTIONS = {"w": 0.7298, "c1": 1.49618, "c2": 1.49618}
SCHEDULES = {"w": "lin_variation", "c1": "lin_variation"}  # to 0.4, and to 0.8 of its start


@pytest.mark.parametrize("topology", ["star", "ring"])
@pytest.mark.parametrize("scheduled", [False, True])
def test_a_search_matches_pyswarms_given_its_random_numbers(
    topology, scheduled, tmp_path, monkeypatch
):
    config = tmp_path / "logging.yaml"  # keeps pyswarms' hands off the loggers
    config.write_text("{version: 1, incremental: true}")
    monkeypatch.setenv("LOG_CFG", str(config))
    from pyswarms.single import GlobalBestPSO, LocalBestPSO

    n, d, generations = 6, 3, 8
    ends = {"inertia_end": 0.4, "c1_end": 0.8 * 1.49618} if scheduled else {}
    sampler = ParticleSwarmSampler(
        population_size=n, n_generations=generations, topology=topology, neighbors=4, seed=5, **ends
    )
    latest = first = sampler.options.spread(sampler.seed, 0, d)
    positions = [np.array([r.position for r in first])]
    past = None
    for generation in range(1, generations):
        costs = ((positions[-1] - 0.3) ** 2).sum(axis=1)
        past = sampler.options.learn(past, generation - 1, latest, costs)
        latest = [sampler.move(past, generation, i) for i in range(n)]
        positions.append(np.array([r.position for r in latest]))

    theirs = []

    def sphere(x):
        theirs.append(x.copy())
        np.random.seed(seed32(5, "pso", len(theirs)))  # noqa: NPY002
        return np.asarray(((x - 0.3) ** 2).sum(axis=1))

    before = np.random.get_state()  # noqa: NPY002
    optimizer = (GlobalBestPSO if topology == "star" else LocalBestPSO)(
        n,
        d,
        OPTIONS if topology == "star" else OPTIONS | {"k": 4, "p": 2},
        bounds=(np.zeros(d), np.ones(d)),
        oh_strategy=SCHEDULES if scheduled else None,
        bh_strategy="reflective",
        velocity_clamp=(-0.5, 0.5),
        init_pos=positions[0].copy(),
    )
    optimizer.swarm.velocity = np.array([r.velocity for r in first])
    optimizer.reset = lambda: None
    optimizer.optimize(sphere, generations, verbose=False)
    np.random.set_state(before)  # noqa: NPY002
    np.testing.assert_array_equal(theirs, positions)


def test_velocities_stay_between_the_least_and_the_largest():
    sampler = ParticleSwarmSampler(population_size=20, velocity_clamp=(-0.1, 0.3), seed=0)
    first = sampler.options.spread(sampler.seed, 0, 5)
    past = sampler.options.learn(None, 0, first, np.arange(20.0))
    moved = [sampler.move(past, 1, i) for i in range(20)]
    for generation in (first, moved):
        velocities = np.array([record.velocity for record in generation])
        assert velocities.min() >= -0.1
        assert velocities.max() <= 0.3
        assert velocities.max() > 0.1


def test_a_schedule_starts_again_after_its_last_generation():
    def velocity(generation, **options):
        sampler = ParticleSwarmSampler(population_size=2, n_generations=4, c1=0, c2=0, **options)
        past = past_of(sampler, [np.full((2, 1), 0.5)], [[1.0, 2.0]], [np.full((2, 1), 0.2)])
        moved = sampler.move(past, generation, 0).velocity
        assert moved is not None
        return list(moved)

    falling = [velocity(g, inertia=0.8, inertia_end=0.4)[0] / 0.2 for g in range(1, 6)]
    assert falling == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.8])


@pytest.mark.parametrize(
    ("sampler", "argument", "value"),
    [
        (ParticleSwarmSampler, "population_size", 0),
        (ParticleSwarmSampler, "inertia", 1.0),
        (ParticleSwarmSampler, "inertia_end", -0.1),
        (ParticleSwarmSampler, "c1", -0.1),
        (ParticleSwarmSampler, "c1_end", 4.5),
        (ParticleSwarmSampler, "c2", 4.1),
        (ParticleSwarmSampler, "c2_end", float("nan")),
        (ParticleSwarmSampler, "velocity_clamp", 0.0),
        (ParticleSwarmSampler, "velocity_clamp", 1.5),
        (ParticleSwarmSampler, "velocity_clamp", (-2, 0.5)),
        (ParticleSwarmSampler, "velocity_clamp", (0.1,)),
        (ParticleSwarmSampler, "velocity_clamp", ("a", 0.5)),
        (ParticleSwarmSampler, "velocity_clamp", "0.5"),
        (ParticleSwarmSampler, "velocity_clamp", True),
        (ParticleSwarmSampler, "velocity_clamp", None),
        (ParticleSwarmSampler, "inertia", None),
        (ParticleSwarmSampler, "c1", "1"),
        (ParticleSwarmSampler, "topology", "pyramid"),
        (ParticleSwarmSampler, "neighbors", 0),
        (ParticleSwarmSampler, "neighbors", 2.5),
        (QuantumSwarmSampler, "population_size", 1),
        (QuantumSwarmSampler, "alpha_start", 0.0),
        (QuantumSwarmSampler, "alpha_start", 1.8),
        (QuantumSwarmSampler, "alpha_end", 0.0),
        (QuantumSwarmSampler, "alpha_end", math.nan),
        (WhaleSampler, "population_size", 1),
        (WhaleSampler, "n_generations", 0),
        (WhaleSampler, "b", 0.0),
        (WhaleSampler, "b", math.nan),
        (WhaleSampler, "a_start", 4.5),
        (WhaleSampler, "a_start", 0.0),
        (WhaleSampler, "a_end", -0.1),
        (CmaSampler, "population_size", 3),
        (CmaSampler, "sigma", 0.0),
    ],
)
def test_an_argument_out_of_range_is_refused(sampler, argument, value):
    with pytest.raises(ValueError, match=rf"^{argument} must be .*, got {re.escape(repr(value))}$"):
        sampler(**{argument: value})


def test_a_ring_needs_as_many_particles_as_neighbors():
    assert ParticleSwarmSampler(population_size=2).options.neighbors == 3
    ring = ParticleSwarmSampler(population_size=2, topology="ring", neighbors=2)
    assert ring.options.neighbors == 2


def test_a_step_and_the_global_generator_leave_each_other_alone():
    """An objective in another thread may draw from numpy's generator at any moment."""
    sampler = ParticleSwarmSampler(population_size=3, seed=1)
    x, v = np.random.default_rng(0).random((2, 3, 2))
    past = past_of(sampler, [x], [[1.0, 2.0, 3.0]], [v])
    expected = sampler.move(past, 1, 2)
    stop = threading.Event()

    def draw():
        while not stop.is_set():
            np.random.seed(0)  # noqa: NPY002
            first = [np.random.random() for _ in range(5)]  # noqa: NPY002
            disturbed.append(first != alone)

    alone = np.random.RandomState(0).random_sample(5).tolist()
    disturbed = []
    thread = threading.Thread(target=draw)
    thread.start()
    try:
        moved = [sampler.move(past, 1, 2) for _ in range(300)]
    finally:
        stop.set()
        thread.join()
    assert all(m.position.tolist() == expected.position.tolist() for m in moved)
    assert len(disturbed) > 100
    assert not any(disturbed)


def test_a_step_is_the_formula_worked_by_hand():
    # attractor = (0.25 * 0.4 + 0.75 * 0.8, 0.5 * 0.2 + 0.5 * 0.6) = (0.7, 0.4)
    # |mean_best - x| = (0.2, 0.1)
    moved = move_particle(
        np.array([0.5, 0.5]),
        np.array([0.4, 0.2]),
        np.array([0.8, 0.6]),
        np.array([0.3, 0.6]),
        alpha=0.75,
        phi=np.array([0.25, 0.5]),
        jump=np.array([1.0, -2.0]),
    )
    assert moved == pytest.approx([0.7 + 0.75 * 0.2, 0.4 - 0.75 * 0.1 * 2])


def test_a_particle_jumps_by_its_best_the_leader_and_the_mean():
    first, last = np.random.default_rng(0).random((2, 3, 4))
    for seed in range(20):
        sampler = QuantumSwarmSampler(population_size=3, n_generations=5, seed=seed)
        learn = sampler.options.learn
        past = learn(None, 0, [Record(x) for x in first], np.array([3.0, 1.0, 2.0]))
        past = sampler.options.learn(
            past, 1, [Record(x) for x in last], np.array([2.5, 4.0, math.inf])
        )
        phi, u, coin = generator(seed, "qpso", 2, 0).random((3, 4))
        expected = move_particle(
            last[0],
            last[0],
            first[1],
            (last[0] + first[1] + first[2]) / 3,
            alpha=1 - 0.5 * 2 / 5,
            phi=phi,
            jump=np.where(coin < 0.5, 1, -1) * np.log(1 - u),
        )
        assert sampler.move(past, 2, 0).position == pytest.approx(expected.clip(0, 1))


def test_a_particle_without_a_value_is_outside_the_mean():
    x = np.array([[0.1, 0.9], [0.4, 0.4], [0.6, 0.2]])
    sampler = QuantumSwarmSampler(population_size=3, seed=2)
    past = sampler.options.learn(None, 0, [Record(p) for p in x], np.array([math.inf, 1.0, 2.0]))
    _, u, coin = generator(2, "qpso", 1, 0).random((3, 2))
    jump = (1 - 0.5 / 20) * np.abs(np.array([0.5, 0.3]) - x[0]) * -np.log(1 - u)
    expected = x[1] + np.where(coin < 0.5, -jump, jump)
    assert sampler.move(past, 1, 0).position == pytest.approx(expected.clip(0, 1))


def test_particles_never_leave_the_cube():
    sampler = QuantumSwarmSampler(population_size=2, alpha_start=1.7, alpha_end=1.7, seed=0)
    corners = [Record(np.array([0.0, 1.0])), Record(np.array([1.0, 0.0]))]
    past = sampler.options.learn(None, 0, corners, np.array([1.0, 2.0]))
    moved = np.array([sampler.move(past, g, 0).position for g in range(1, 100)])
    assert (moved.min(), moved.max()) == (0, 1)


X = np.array([0.5, -0.5])
LEADER = np.array([0.2, 0.4])
OTHER = np.array([-0.6, 0.1])


def step(b=1.0, **drawn):
    whale = WhaleStrategy(b=b)
    return whale.step(X, LEADER, OTHER, **({"A": 0.0, "C": 1.0, "ell": 0.0} | drawn)).tolist()


def test_a_whale_encircles_the_leader_as_worked_by_hand():
    # D = |1.5 X* - X| = (0.2, 1.1); X' = X* - 0.5 D
    assert step(p=0.49, A=0.5, C=1.5) == pytest.approx([0.1, -0.15])
    assert step(p=0.49, A=-0.5, C=1.5) == pytest.approx([0.3, 0.95])


def test_a_whale_searches_around_another_as_worked_by_hand():
    # D = |0.5 X_rand - X| = (0.8, 0.55); X' = X_rand - A D
    assert step(p=0.49, A=-1.0, C=0.5) == pytest.approx([0.2, 0.65])
    assert step(p=0.49, A=1.5, C=0.5) == pytest.approx([-1.8, -0.725])


def test_a_whale_spirals_towards_the_leader_as_worked_by_hand():
    # D' = |X* - X| = (0.3, 0.9); cos(2 pi l) = 1 at 0, 0 at 1/4, -1 at -1/2
    assert step(p=0.5, A=1.5) == pytest.approx([0.5, 1.3])
    assert step(p=0.9, ell=0.25) == pytest.approx([0.2, 0.4])
    shrunk = math.exp(-0.5 * 2)
    assert step(p=0.9, ell=-0.5, b=2.0) == pytest.approx([0.2 - 0.3 * shrunk, 0.4 - 0.9 * shrunk])


def whales_past(*generations):
    """What the whales know after these positions and costs."""
    sampler, past = WhaleSampler(), None
    for g, (whales, costs) in enumerate(generations):
        records = [Record(x) for x in np.array(whales, dtype=float)]
        past = sampler.options.learn(past, g, records, np.array(costs))
    assert past is not None
    return past


@pytest.mark.parametrize("individual", [0, 1, 2])
def test_a_whale_moves_in_unit_bounds_by_the_leader(individual):
    first, last = np.random.default_rng(0).random((2, 3, 2))
    past = whales_past((first, [3.0, 1.0, 2.0]), (last, [4.0, 5.0, 6.0]))
    for seed in range(20):
        rng = generator(seed, "woa", 2, individual)
        r1, r2, p = rng.random(3)
        ell, other = rng.uniform(-1, 1), rng.integers(3)
        a = 2 - 2 * 2 / 5
        x, leader, prey = (2 * z - 1 for z in (last[individual], first[1], last[other]))
        sampler = WhaleSampler(population_size=3, n_generations=5, seed=seed)
        step = sampler.options.step
        expected = step(x, leader, prey, A=2 * a * r1 - a, C=2 * r2, p=p, ell=ell)
        moved = 2 * sampler.move(past, 2, individual).position - 1
        assert moved == pytest.approx(expected.clip(-1, 1))


def test_a_late_whale_that_encircles_comes_close_to_the_leader():
    past = whales_past(
        ([[0.5, 0.5], [0.9, 0.7]], [1.0, 2.0])
    )  # the leader is the origin: X' = -A |X|

    def share_close(generation):
        samplers = [WhaleSampler(population_size=2, n_generations=99, seed=s) for s in range(200)]
        moved = np.array([s.move(past, generation, 1).position for s in samplers])
        return float((np.abs(2 * moved - 1).max(axis=1) < 2 / 99).mean())

    assert 0.4 < share_close(98) < 0.6  # all but the spirals
    assert share_close(99) < 0.1  # the next cycle has begun


def test_a_new_cycle_starts_where_the_first_one_did():
    past = whales_past(([[0.3, 0.5], [0.9, 0.7]], [1.0, 2.0]))
    a_of_cycle_start = WhaleSampler(population_size=2, n_generations=7, a_end=0, seed=1)
    constant_a = WhaleSampler(population_size=2, n_generations=7, a_end=2, seed=1)
    for generation, same in ((7, True), (14, True), (13, False)):
        moved = [
            [s.move(past, generation, i).position.tolist() for i in range(2)]
            for s in (a_of_cycle_start, constant_a)
        ]
        assert (moved[0] == moved[1]) is same


def test_whales_never_leave_the_cube():
    sampler = WhaleSampler(population_size=3, a_start=4, a_end=4, b=10, seed=0)
    past = whales_past(([[0.0, 1.0], [1.0, 0.0], [0.1, 0.5]], [3.0, 1.0, math.inf]))
    moved = np.array([sampler.move(past, g, 0).position for g in range(1, 200)])
    assert moved.min() == 0.0
    assert moved.max() == 1.0
