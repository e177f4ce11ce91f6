from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import TypeAdapter

from tuner.experiment import SearchSpace
from tuner.experiment.space import to_distributions


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
