from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tuner.strategies.codec import Codec, count_of

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


@given(distribution=continuous, z=st.floats(0, 1))
def test_encoded_reals_decode_to_themselves(distribution, z):
    codec = Codec({"x": distribution})
    if codec.n_columns:
        x = codec.decode(np.array([z]))
        scale = max(abs(distribution.low), abs(distribution.high))
        assert codec.decode(codec.encode(x))["x"] == pytest.approx(
            x["x"], rel=1e-12, abs=1e-15 * scale
        )


@settings(max_examples=50)
@given(distribution=ints | log_ints | floats | log_floats | grids, z=st.floats(0.001, 0.999))
def test_numbers_lie_where_optunas_own_transform_puts_them(distribution, z):
    codec = Codec({"x": distribution})
    if codec.n_columns:
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
    "distribution",
    [IntDistribution(0, 10**30), IntDistribution(-3 * 2**100, 3 * 2**100, step=3)],
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


def test_columns_do_not_depend_on_the_order_of_the_space():
    x, y = FloatDistribution(0, 1), FloatDistribution(5, 6)
    position = np.array([0.25, 0.5])
    assert Codec({"x": x, "y": y}).decode(position) == Codec({"y": y, "x": x}).decode(position)
