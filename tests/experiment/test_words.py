"""Words of articles as keys: refused with the key that says the same."""

from pathlib import Path

import pytest

from tuner.errors import ExperimentError
from tuner.experiment import Experiment
from tuner.experiment.fields import GENERATIONS, WORDS
from tuner.experiment.yaml_files import dump_yaml
from tuner.strategies.pso import ParticleSwarmStrategy

DOCS = Path(__file__).parents[2] / "docs/articles.md"
RAW = {"name": "a", "data": {"path": "a.csv", "target": "y"}}


def refusal(folder, raw):
    path = folder / "e.yaml"
    path.write_text(dump_yaml(raw))
    with pytest.raises(ExperimentError) as error:
        Experiment.load(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("key", WORDS)
def test_every_word_leads_to_a_key_that_exists(tmp_path, key):
    section = Experiment.model_validate(RAW)
    *parents, last = key.split(".")
    for parent in parents:
        section = getattr(section, parent)
    fields = ParticleSwarmStrategy if parents == ["strategy"] else type(section)
    assert last in fields.model_fields
    word = WORDS[key][-1]
    assert refusal(tmp_path, RAW | {word: 3}).endswith(f"unknown key {word!r}; did you mean {key}?")


def test_generations_are_trials_over_the_population(tmp_path):
    for raw in ({"strategy": {"name": "pso", "iterations": 50}}, {"maxIter": 50}):
        message = refusal(tmp_path, RAW | raw)
        assert message.endswith("budget.trials: as many as generations times strategy.population")


def test_a_word_in_a_search_space_leads_to_the_hyperparameter(tmp_path):
    space = {"neurons": {"type": "int", "low": 1, "high": 9}}
    assert refusal(tmp_path, RAW | {"search_space": space}).endswith(
        "unknown hyperparameter 'neurons'; did you mean search_space.hidden_size?"
    )


def test_the_page_has_every_word_once():
    text = DOCS.read_text()
    for key, words in WORDS.items():
        assert f"| {', '.join(words)} | `{key}` |" in text
    assert ", ".join(GENERATIONS) in text
    every = [word for words in (*WORDS.values(), GENERATIONS) for word in words]
    assert len(every) == len(set(every))
