from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tuner.coordination.history import configuration_key, fresh_configuration

FINITE = {
    "a": IntDistribution(1, 9, step=4),
    "b": FloatDistribution(0.0, 0.3, step=0.1),
    "c": CategoricalDistribution(["x", 1]),
    "d": FloatDistribution(2.0, 2.0),
}


def test_every_configuration_of_a_finite_space_is_found_once():
    trained = set()
    for number in range(3 * 4 * 2):
        params = fresh_configuration(FINITE, trained, seed=1, number=number)
        for name, distribution in FINITE.items():
            assert distribution._contains(distribution.to_internal_repr(params[name]))
        assert configuration_key(params) not in trained
        trained.add(configuration_key(params))
    assert len(trained) == 24


def test_an_infinite_space_is_drawn_from_by_seed_and_number():
    space = {**FINITE, "e": FloatDistribution(1e-4, 1e-1, log=True)}
    first = fresh_configuration(space, set(), seed=1, number=5)
    assert first == fresh_configuration(space, set(), seed=1, number=5)
    assert first != fresh_configuration(space, set(), seed=2, number=5)
    assert 1e-4 <= first["e"] <= 1e-1


def test_equal_configurations_have_equal_keys():
    assert configuration_key({"a": 1, "b": 0.3}) == configuration_key({"b": 0.1 + 0.2, "a": 1})
    assert configuration_key({"a": 1}) != configuration_key({"a": 2})


def test_a_range_too_long_to_list_is_not_listed():
    space = {"a": IntDistribution(1, 10**12), "b": FloatDistribution(0.0, 1.0)}
    assert 1 <= fresh_configuration(space, set(), seed=1, number=5)["a"] <= 10**12
