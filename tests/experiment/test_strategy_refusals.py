"""A strategy that cannot be is refused by the key that was written, with the words to write."""

from pathlib import Path

import pytest

from tuner.errors import ExperimentError
from tuner.experiment import Experiment, Override, dump_yaml

DATA = {"path": "air.csv", "target": "y"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refusal(strategy, *overrides):
    path = Path("e.yaml")
    path.write_text(dump_yaml({"name": "air", "data": DATA, "strategy": strategy}))
    with pytest.raises(ExperimentError) as error:
        Experiment.load(path, [Override(*override) for override in overrides])
    return str(error.value)


@pytest.mark.parametrize(
    ("word", "name"),
    [("wao", "woa"), ("PSO", "pso"), ("whale", "woa"), ("Gaussian", "gp"), ("CMA-ES", "cmaes")],
)
def test_a_name_that_is_nearly_one_is_answered_with_it(word, name):
    expected = f"e.yaml: strategy.name: unknown strategy {word!r}; did you mean {name!r}?"
    assert refusal({"name": word}) == expected


def test_a_name_without_its_block_is_answered_with_the_block():
    begins = "e.yaml: strategy: must be a block of keys, got"
    assert refusal("woa") == f"{begins} 'woa'; write `strategy: {{name: woa}}`, say"
    assert refusal("x") == f"{begins} 'x'; write `strategy: {{name: tpe}}`, say"


def test_a_bare_name_in_set_suggests_the_option():
    begins = "--set: strategy: must be a block of keys, got"
    remedy = "write `--strategy woa`, which takes that strategy's defaults"
    assert refusal({"name": "pso"}, ("strategy", "woa", "--set")) == f"{begins} 'woa'; {remedy}"
    refused = refusal({"name": "pso"}, ("strategy", "x", "--set"))
    assert refused == f"{begins} 'x'; write `--set 'strategy={{name: tpe}}'`, say"
    refused = refusal({"name": "pso"}, ("pruner", "none", "--set"))
    assert refused.endswith("; write `--set 'pruner={name: none}'`, say")


def test_a_name_over_anothers_options_suggests_the_option():
    pso, woa = {"name": "pso", "inertia": 0.5}, ("strategy.name", "woa", "--set")
    assert refusal(pso, woa) == (
        "e.yaml: strategy.inertia: unknown key 'inertia'; "
        "write `--strategy woa`, which takes that strategy's defaults"
    )
    refused = refusal(pso, woa, ("strategy.inertia", 0.3, "--set"))
    assert refused.startswith("--set: strategy.inertia: unknown key 'inertia'; choose from: ")
    refused = refusal(pso, ("strategy.name", "wao", "--set"))
    assert refused == "--set: strategy.name: unknown strategy 'wao'; did you mean 'woa'?"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"name": "woa", "a_start": 1.0, "a_end": 2.0},
            "a_end: must not be above a_start, 1.0, got 2.0; give a smaller number, or a larger "
            "a_start",
        ),
        (
            {"name": "woa", "a_end": 2.5},
            "a_end: must not be above a_start, 2.0 (its default), got 2.5; give a smaller number, "
            "or a larger a_start",
        ),
        (
            {"name": "qpso", "alpha_start": 0.3},
            "alpha_start: must not be below alpha_end, 0.5 (its default), got 0.3; "
            "give alpha_end too, 0.3 at most",
        ),
        (
            {"name": "pso", "topology": "ring", "population": 2},
            "population: must not be below neighbors, 3 (its default), got 2; "
            "give neighbors too, 2 at most",
        ),
        (
            {"name": "pso", "topology": "ring", "neighbors": 11},
            "neighbors: must not be above population, 10 (its default), got 11; "
            "give a smaller number, or a larger population",
        ),
    ],
)
def test_one_of_two_exclusive_options_is_named(options, text):
    assert refusal(options) == f"e.yaml: strategy.{text}"


def test_an_option_excluded_by_a_default_is_refused_by_source():
    qpso = ("strategy", {"name": "qpso"}, "--strategy")
    refused = refusal({"name": "pso"}, qpso, ("strategy.alpha_start", 0.3, "--set"))
    assert refused.startswith("--set: strategy.alpha_start: must not be below alpha_end, 0.5 (its")
