"""Keyed random numbers, the code of parameters, and places in a space."""

import math
from collections import Counter

import numpy as np
import optuna
import pytest
from helpers.examples import examples
from helpers.swarms import SPACE, N, positions, search
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import TrialState
from pydantic import TypeAdapter

from tuner.experiment import SearchSpace
from tuner.experiment.space import to_distributions
from tuner.strategies.codec import Codec, count_of
from tuner.strategies.rng import generator, new_seed, seed32
from tuner.strategies.samplers import KeyedSampler


def test_equal_keys_give_equal_numbers_and_others_do_not():
    def draw(*key):
        return generator(*key).random(3).tolist()  # type: ignore[arg-type]

    assert draw(1, "a", 2, "x") == draw(1, "a", 2, "x")
    assert draw(np.int64(1), "a") == draw(1, "a")
    others = [(1, "a"), (2, "a"), (1, "b"), (1, "a", 1), (1, "a", 0, 1), (1, "a", 2**32), (-1, "a")]
    assert len({tuple(draw(*key)) for key in others}) == len(others)


def test_numbers_stay_the_same_from_one_version_to_the_next():
    assert seed32(0, "independent", 7, "x") == 1528970149


def test_seeds_for_libraries_fit_in_32_bits():
    assert all(0 <= seed32(n, "a") < 2**32 for n in range(100))
    assert new_seed() != new_seed()


KEYED_SPACE = {"x": FloatDistribution(0, 1), "y": CategoricalDistribution(["a", "b", "c"])}


def test_a_reopened_study_does_not_repeat_the_first_draws():
    study = optuna.create_study(sampler=KeyedSampler(RandomSampler, seed=0))
    for _ in range(5):
        study.tell(study.ask(KEYED_SPACE), 1.0)
    study.sampler = KeyedSampler(RandomSampler, seed=0)
    for _ in range(5):
        study.tell(study.ask(KEYED_SPACE), 1.0)
    assert len({t.params["x"] for t in study.trials}) == 10


def test_parameters_of_one_trial_have_separate_generators():
    study = optuna.create_study(sampler=KeyedSampler(RandomSampler, seed=0))
    trial = study.ask()
    assert len({trial.suggest_float(name, 0, 1) for name in "abcdef"}) == 6


def test_every_trial_has_a_sampler_with_a_seed_of_its_own():
    seeds = []

    class Relative(RandomSampler):
        def __init__(self, seed):
            super().__init__(seed)
            self.seed = seed

        def infer_relative_search_space(self, study, trial):
            return KEYED_SPACE

        def sample_relative(self, study, trial, search_space):
            seeds.append(self.seed)
            return {}

    study = optuna.create_study(sampler=KeyedSampler(Relative, seed=0))
    trials = [study.ask() for _ in range(3)]
    assert all(trial.relative_params == {} for trial in trials)
    once = list(seeds)
    assert len(set(once)) == len(once) == 3
    assert all(optuna.Trial(study, trial._trial_id).relative_params == {} for trial in trials)
    assert seeds == once * 2


@pytest.mark.parametrize("hides", [False, True])
def test_a_space_is_inferred_as_by_a_sampler_made_anew(hides):
    def new(seed):
        return TPESampler(seed=seed, multivariate=True, n_startup_trials=2)

    class Hiding(optuna.Study):
        """Shows every other trial, as a bracket of Hyperband does."""

        def _get_trials(self, *args, **keys):
            return super()._get_trials(*args, **keys)[::2]

    study = optuna.create_study(sampler=KeyedSampler(new, seed=0))
    spaces = []
    for number in range(8):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        if number != 5:
            trial.suggest_int("n", 1, 9)
        frozen = study._storage.get_trial(trial._trial_id)
        seen = Hiding(study.study_name, study._storage) if hides else study  # keeps what it read
        spaces.append(study.sampler.infer_relative_search_space(seen, frozen))
        assert spaces[-1] == new(1).infer_relative_search_space(seen, frozen)
        study.tell(trial, state=(TrialState.FAIL if number == 3 else TrialState.PRUNED))
    assert {len(space) for space in spaces} == ({0, 2} if hides else {0, 1, 2})


def test_the_sampler_inside_still_learns_from_the_trials():
    sampler = KeyedSampler(lambda seed: TPESampler(seed=seed, n_startup_trials=10), seed=0)
    study = optuna.create_study(sampler=sampler)
    for _ in range(60):
        trial = study.ask(KEYED_SPACE)
        study.tell(trial, abs(trial.params["x"] - 0.7) + (trial.params["y"] != "b"))
    late = study.trials[40:]
    assert sum(t.params["y"] == "b" for t in late) >= 11
    assert sum(abs(t.params["x"] - 0.7) < 0.1 for t in late) >= 10


def test_a_seed_that_is_not_given_is_drawn():
    assert KeyedSampler(RandomSampler).seed != KeyedSampler(RandomSampler).seed


def distributions(**space):
    return dict(to_distributions(TypeAdapter(SearchSpace).validate_python(space)))


def test_every_kind_of_domain_has_its_distribution():
    assert distributions(
        units={"type": "int", "low": 8, "high": 128, "log": True},
        layers={"type": "int", "low": 1, "high": 3},
        dropout={"type": "float", "low": 0.0, "high": 0.5, "step": 0.1},
        rate={"type": "float", "low": 1e-4, "high": 0.1, "log": True},
        batch={"type": "categorical", "choices": [8, 16]},
        cell={"type": "categorical", "choices": ["lstm", "gru"]},
    ) == {
        "units": IntDistribution(8, 128, log=True),
        "layers": IntDistribution(1, 3),
        "dropout": FloatDistribution(0.0, 0.5, step=0.1),
        "rate": FloatDistribution(1e-4, 0.1, log=True),
        "batch": CategoricalDistribution([8, 16]),
        "cell": CategoricalDistribution(["lstm", "gru"]),
    }


def test_an_off_grid_bound_becomes_the_last_grid_value():
    assert distributions(
        i={"type": "int", "low": 1, "high": 10, "step": 4},
        f={"type": "float", "low": 0.1, "high": 1.0, "step": 0.4},
        one={"type": "float", "low": 0.1, "high": 0.3, "step": 0.5},
    ) == {
        "i": IntDistribution(1, 9, step=4),
        "f": FloatDistribution(0.1, 0.9, step=0.4),
        "one": FloatDistribution(0.1, 0.1, step=0.5),
    }


def test_the_order_is_the_files():
    domain = {"type": "int", "low": 1, "high": 3}
    assert list(distributions(b=domain, a=domain, c=domain)) == ["b", "a", "c"]


ints = st.tuples(st.integers(-50, 50), st.integers(0, 40), st.integers(1, 7)).map(
    lambda t: IntDistribution(t[0], t[0] + t[1] * t[2], step=t[2])
)
log_ints = st.tuples(st.integers(1, 300), st.integers(0, 3000)).map(
    lambda t: IntDistribution(t[0], t[0] + t[1], log=True)
)
floats = st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e6)).map(
    lambda t: FloatDistribution(t[0], t[0] + t[1])
)
log_floats = st.tuples(st.floats(1e-9, 1e3), st.floats(1, 1e6)).map(
    lambda t: FloatDistribution(t[0], t[0] * t[1], log=True)
)
grids = st.tuples(
    st.integers(-30, 30), st.integers(0, 30), st.sampled_from(["0.1", "0.05", "0.3", "2.5"])
).map(
    lambda t: FloatDistribution(
        round(t[0] * float(t[2]), 6), round((t[0] + t[1]) * float(t[2]), 6), step=float(t[2])
    )
)
words = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=7, unique=True).map(
    CategoricalDistribution
)
ordered = st.lists(st.integers(-99, 99), min_size=1, max_size=7, unique=True).map(
    lambda choices: CategoricalDistribution(sorted(choices))
)
continuous = floats | log_floats
discrete = ints | log_ints | grids | words | ordered
spaces = st.dictionaries(st.sampled_from("uvwxyz"), continuous | discrete, max_size=6)


def position_in(codec, data):
    n = codec.n_columns
    return np.array(data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n)))


@given(space=spaces, data=st.data())
def test_a_decoded_position_is_a_value_of_every_distribution(space, data):
    codec = Codec(space)
    params = codec.decode(position_in(codec, data))
    assert list(params) == sorted(name for name, d in space.items() if not d.single())
    for name, value in params.items():
        assert space[name]._contains(space[name].to_internal_repr(value))
        kind = {IntDistribution: int, FloatDistribution: float}.get(type(space[name]))
        assert kind is None or type(value) is kind


@given(space=st.dictionaries(st.sampled_from("uvwxyz"), discrete, max_size=6), data=st.data())
def test_encoded_values_decode_to_themselves(space, data):
    codec = Codec(space)
    params = codec.decode(position_in(codec, data))
    assert codec.decode(codec.encode(params)) == params


@given(space=st.dictionaries(st.sampled_from("uvwxyz"), discrete, max_size=6), data=st.data())
def test_a_snapped_position_is_that_of_its_configuration(space, data):
    codec = Codec(space)
    position = position_in(codec, data)
    placed = codec.snap(position[np.newaxis])[0]
    assert placed == pytest.approx(codec.encode(codec.decode(position)), abs=1e-9)


def test_a_real_number_keeps_its_place():
    codec = Codec({"u": FloatDistribution(0, 9), "v": FloatDistribution(1, 9, log=True)})
    position = np.array([[0.3, 0.7], [0.1, 1.0]])
    assert (codec.snap(position) == position).all()


@given(distribution=continuous, z=st.floats(0, 1))
def test_encoded_reals_decode_to_themselves(distribution, z):
    codec = Codec({"x": distribution})
    if codec.n_columns:
        x = codec.decode(np.array([z]))
        scale = max(abs(distribution.low), abs(distribution.high))
        assert codec.decode(codec.encode(x))["x"] == pytest.approx(
            x["x"], rel=1e-12, abs=1e-15 * scale
        )


@settings(max_examples=examples(50))
@given(distribution=ints | log_ints | floats | log_floats | grids, z=st.floats(0.001, 0.999))
def test_numbers_lie_where_optunas_own_transform_puts_them(distribution, z):
    codec = Codec({"x": distribution})
    # Where logarithms of the ends are one number, every place of the range is theirs.
    if codec.n_columns and not math.isclose(distribution.low, distribution.high, rel_tol=1e-9):
        theirs = _SearchSpaceTransform({"x": distribution}, transform_0_1=True)
        x = codec.decode(np.array([z]))
        encoded = theirs.transform(codec.decode(codec.encode(x)))
        assert codec.encode(x) == pytest.approx(encoded, abs=1e-9)


@pytest.mark.parametrize(
    ("distribution", "n_columns"),
    [
        (FloatDistribution(0, 1), 1),
        (IntDistribution(3, 3), 0),
        (FloatDistribution(2.0, 2.0), 0),
        (CategoricalDistribution(["only"]), 0),
        (CategoricalDistribution([8, 16, 32]), 1),
        (CategoricalDistribution([0.5, 0.1, 0]), 1),
        (CategoricalDistribution([16, 8, 32]), 3),
        (CategoricalDistribution(["a", "b"]), 1),
        (CategoricalDistribution([True, False]), 1),
        (CategoricalDistribution(["a", "b", "c"]), 3),
        (CategoricalDistribution([False, 1, 2]), 3),
    ],
)
def test_a_parameter_takes_the_columns_that_its_kind_needs(distribution, n_columns):
    assert Codec({"x": distribution}).n_columns == n_columns


@pytest.mark.parametrize(
    "distribution",
    [
        IntDistribution(1, 5),
        IntDistribution(0, 12, step=3),
        FloatDistribution(0.0, 0.4, step=0.1),
        CategoricalDistribution([8, 16, 32, 64, 128]),
    ],
)
def test_every_value_gets_an_equal_share_of_the_cube(distribution):
    codec = Codec({"x": distribution})
    drawn = Counter(codec.decode(np.array([z]))["x"] for z in (np.arange(1000) + 0.5) / 1000)
    assert set(drawn.values()) == {1000 // len(drawn)}


def test_a_logarithmic_int_samples_its_ends_by_logarithm():
    codec = Codec({"x": IntDistribution(1, 4, log=True)})
    drawn = Counter(codec.decode(np.array([z]))["x"] for z in (np.arange(9999) + 0.5) / 9999)
    for value in (1, 2, 3, 4):
        share = np.log((value + 0.5) / (value - 0.5)) / np.log(4.5 / 0.5)
        assert drawn[value] / 9999 == pytest.approx(share, abs=1e-3)


def test_grid_values_are_the_decimals_that_a_person_wrote():
    codec = Codec({"x": FloatDistribution(0.1, 0.9, step=0.1)})
    assert codec.decode(np.array([0.25]))["x"] == 0.3


@pytest.mark.parametrize(
    "distribution", [IntDistribution(0, 10**30), IntDistribution(-3 * 2**100, 3 * 2**100, step=3)]
)
def test_ints_of_any_size_are_counted_exactly(distribution):
    codec = Codec({"x": distribution})
    low, high, step = distribution.low, distribution.high, distribution.step
    assert count_of(distribution) == (high - low) // step + 1
    assert [codec.decode(np.array([z]))["x"] for z in (0, 1)] == [low, high]
    middle = codec.decode(np.array([0.5]))["x"]
    assert (middle - low) % step == 0
    assert codec.encode({"x": middle}).tolist() == [0.5]


def test_values_outside_the_space_are_encoded_on_its_edge():
    codec = Codec(
        {
            "f": FloatDistribution(0, 1),
            "i": IntDistribution(2, 9),
            "l": FloatDistribution(0.1, 1, log=True),
        }
    )
    assert codec.encode({"f": 7.0, "i": 0, "l": -1.0}).tolist() == [1, 0, 0]


def test_the_first_highest_column_of_a_choice_wins():
    codec = Codec({"x": CategoricalDistribution(["a", "b", "c"])})
    assert codec.decode(np.array([0.2, 0.9, 0.3])) == {"x": "b"}
    assert codec.decode(np.array([0.2, 1.0, 1.0])) == {"x": "b"}
    assert codec.encode({"x": "c"}).tolist() == [0, 0, 1]


UNIT = FloatDistribution(0, 1)


def test_individuals_move_from_their_undecoded_positions(make):
    space = {"n": IntDistribution(1, 3), "c": CategoricalDistribution(["a", "b", "c"])}
    sampler = make(search_space=space)
    study = optuna.create_study(sampler=sampler)
    for _ in range(2 * N):
        study.tell(study.ask(space), 1.0)
    past = sampler.past(study, 2, Codec(space))
    assert past is not None
    np.testing.assert_array_equal(past.positions, positions(study, range(N, 2 * N)))
    np.testing.assert_array_equal(past.best_positions, positions(study, range(N)))


def test_an_enqueued_trial_takes_its_place(make):
    best = {"x": 0.3, "y": 0.01, "n": 1, "c": "a", "one": 4}
    study = optuna.create_study(sampler=make(seed=8))
    study.enqueue_trial(best)
    params = search(study, 6 * N)
    assert params[0] == best
    assert all(params[k] != best for k in (N, 2 * N))  # it flies on
    codec = Codec(SPACE)
    distance = np.abs(positions(study, range(5 * N, 6 * N)) - codec.encode(best)).mean()
    assert distance < np.abs(positions(study, range(1, N)) - codec.encode(best)).mean()


def test_a_partly_enqueued_trial_stands_where_its_parameters_are(make):
    study = optuna.create_study(sampler=make())
    study.enqueue_trial({"x": 0.125})
    search(study, N)
    whole = optuna.create_study(sampler=make())
    whole.enqueue_trial(study.trials[0].params)
    assert search(study, 2 * N)[N:] == search(whole, 2 * N)[N:]


def test_trials_of_another_space_take_part_only_by_their_number(make):
    study = optuna.create_study(sampler=make())
    foreign = {"q": FloatDistribution(0, 1)}
    study.add_trial(optuna.create_trial(params={"q": 0.5}, distributions=foreign, value=-99.0))
    search(study, 3 * N)
    assert len(study.trials) == 3 * N


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"lr": UNIT, "y": UNIT}, {"rate": UNIT, "y": UNIT}),
        ({"u": UNIT, "v": UNIT}, {"x": UNIT, "y": UNIT}),
        ({"n": IntDistribution(1, 2)}, {"n": IntDistribution(1, 3)}),
    ],
)
def test_a_record_of_another_space_of_equal_size_is_refused(make, old, new):
    study = optuna.create_study(sampler=make(search_space=old))
    for _ in range(N):
        study.tell(study.ask(old), -99.0)
    assert make(search_space=old).past(study, 1, Codec(old)) is not None
    assert make(search_space=new).past(study, 1, Codec(new)) is None


def test_a_trial_asked_in_another_space_is_placed_there(make):
    old, new = {"u": UNIT, "v": UNIT}, {"x": UNIT, "y": UNIT}
    study = optuna.create_study(sampler=make(seed=9, search_space=old))
    trial = study.ask(old)
    study.sampler = make(search_space=new)
    again = optuna.Trial(study, trial._trial_id)
    other = optuna.create_study(sampler=make(search_space=new))
    assert again.relative_params == other.ask(new).params


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution should be")
def test_choices_may_be_lists(make):
    space = {"c": CategoricalDistribution([(1, 2), [3, 4], [5]]), "x": UNIT}
    study = optuna.create_study(sampler=make(search_space=space))
    for k in range(3 * N):
        study.tell(study.ask(space), float(k))
    assert len({str(t.params["c"]) for t in study.trials}) > 1
