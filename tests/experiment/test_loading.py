"""Experiments from files and options, and how studies are named."""

import json
import shlex
import tempfile
import unicodedata
from pathlib import Path

import pytest
from helpers.examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.errors import ExperimentError, InputError
from tuner.experiment import Experiment, Override, dump_yaml, parse_value, space_size
from tuner.experiment.messages import GENERATIONS, WORDS
from tuner.experiment.schema import EXPERIMENT_BYTES, STUDY_BYTES, mended, normalized, why_refused
from tuner.experiment.yaml_files import line_of
from tuner.orchestrator import sync_command
from tuner.results.export import render
from tuner.strategies.swarms import ParticleSwarmStrategy
from tuner.studies import check_study_name

MINIMAL = "name: air\ndata: {path: air.csv, target: y}\n"


def written(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "e.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0e-3", "1E-3"])
def test_a_number_with_an_exponent_is_a_number(tmp_path, text):
    path = written(tmp_path, MINIMAL + f"hyperparameters: {{learning_rate: {text}}}\n")
    assert Experiment.load(path).hyperparameters.learning_rate == 0.001
    assert parse_value(text, "--set x") == 0.001


def test_no_is_a_text_and_a_date_is_a_date(tmp_path):
    text = "name: air\ndata: {path: a.csv, target: no, split: {test: 1960-01-01}}\n"
    data = Experiment.load(written(tmp_path, text)).data
    assert data.target == "no"
    assert data.split.test == "1960-01-01"


def test_every_block_but_the_data_has_defaults(tmp_path):
    experiment = Experiment.load(written(tmp_path, MINIMAL))
    assert experiment.strategy.name == "tpe"
    assert experiment.budget.trials == 40
    assert experiment.start() == {}
    assert space_size(experiment.search_space) == 1


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    text = MINIMAL.replace("air.csv", "data/air.csv") + "search_space: ../spaces/my.yaml\n"
    path = written(tmp_path / "experiments", text)
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces/my.yaml").write_text("num_layers: {type: int, low: 1, high: 3}\n")
    (tmp_path / "spaces/other.yaml").write_text("dropout: {type: float, low: 0, high: 0.5}\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    experiment = Experiment.load(path)
    assert experiment.data.path == str(tmp_path / "experiments/data/air.csv")
    assert list(experiment.search_space) == ["num_layers"]
    assert Experiment.load("../experiments/e.yaml") == experiment

    changed = Experiment.load(
        path,
        [
            Override("data.path", "../other.csv", "--set"),
            Override("search_space", "../spaces/other.yaml", "--set"),
        ],
    )
    assert changed.data.path == str(tmp_path / "other.csv")
    assert list(changed.search_space) == ["dropout"]


def test_a_key_of_a_space_in_another_file_can_be_changed(tmp_path):
    path = written(tmp_path, MINIMAL + "search_space: my.yaml\n")
    (tmp_path / "my.yaml").write_text("num_layers: {type: int, low: 1, high: 3}\n")
    changed = Experiment.load(path, [Override("search_space.num_layers.high", 2, "--set")])
    assert space_size(changed.search_space) == 2


def test_a_named_strategy_replaces_the_block_and_later_wins(tmp_path):
    path = written(tmp_path, MINIMAL + "strategy: {name: woa, population: 7}\nseed: 3\n")
    strategy = Override("strategy", {"name": "pso"}, "--strategy")
    assert Experiment.load(path, [strategy]).strategy.model_dump()["population"] == 10
    seeds = [Override("seed", 4, "--seed"), Override("seed", 5, "--set")]
    assert Experiment.load(path, seeds).seed == 5
    population = Override("strategy.population", 4, "--set")
    changed = Experiment.load(path, [strategy, population]).strategy.model_dump()
    assert (changed["name"], changed["population"]) == ("pso", 4)


@pytest.mark.parametrize(
    ("strategy", "trials", "population"),
    [
        ({"name": "woa"}, 40, 10),
        ({"name": "woa"}, 1000, 10),
        ({"name": "woa"}, 39, 9),
        ({"name": "qpso"}, 20, 5),
        ({"name": "cmaes"}, 8, 4),
        ({"name": "pso"}, 3, 2),
        ({"name": "pso", "topology": "ring"}, 8, 3),  # as many as its neighbours
        ({"name": "pso", "population": 30}, 8, 30),
        ({"name": "pso"}, None, 4),  # the space has 16 configurations
    ],
)
def test_the_default_population_leaves_four_generations(strategy, trials, population):
    space = {"hidden_size": {"type": "int", "low": 1, "high": 16 if trials is None else 8000}}
    raw = {
        "name": "air",
        "data": {"path": "a.csv", "target": "y"},
        "search_space": space,
        "strategy": strategy,
        "budget": {"trials": trials},
    }
    experiment = Experiment.model_validate(raw)
    assert experiment.strategy.model_dump()["population"] == population
    assert experiment.to_dict()["strategy"]["population"] == population
    longer = experiment.changed({"budget.trials": 2000}).strategy.model_dump()["population"]
    written_or_not = strategy.get("population", min(10, 4 if trials is None else 10))
    assert longer == written_or_not
    assert Experiment.model_validate(experiment.to_dict()).strategy == experiment.strategy


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400), ("45", 45)]
)
def test_a_timeout_is_seconds_or_a_time_with_units(tmp_path, text, seconds):
    path = written(tmp_path, MINIMAL + f"budget: {{timeout: {text}}}\n")
    assert Experiment.load(path).budget.timeout == seconds


def test_a_search_starts_from_given_values_or_defaults():
    raw = {
        "name": "air",
        "data": {"path": "a.csv", "target": "y"},
        "hyperparameters": {"dropout": 0.2},
        "search_space": {
            "dropout": {"type": "float", "low": 0.0, "high": 0.5},
            "num_layers": {"type": "int", "low": 1, "high": 3},
            "hidden_size": {"type": "int", "low": 4, "high": 8},  # the default, 32, is outside
            "batch_size": {"type": "categorical", "choices": [8, 16]},  # so is 32
        },
    }
    assert Experiment.model_validate(raw).start() == {"dropout": 0.2, "num_layers": 1}


def test_the_editor_schema_refuses_unknown_keys():
    schema = Experiment.model_json_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Budget"]["properties"]["trials"]["description"]
    assert schema["required"] == ["name", "data"]


ints = st.integers(1, 200)
shares = st.one_of(st.floats(0.01, 0.4), st.integers(1, 500), st.just("1960-01-01"))
columns = st.text(min_size=1, max_size=12).filter(lambda s: s.isprintable() and s != "when")
int_domains = st.builds(
    lambda low, more, log: {"type": "int", "low": low, "high": low + more, "log": log},
    ints,
    ints,
    st.booleans(),
)
float_domains = st.builds(
    lambda low, high: {"type": "float", "low": low, "high": high},
    st.floats(0, 0.4),
    st.floats(0.5, 0.9),
)
choices = st.lists(ints, min_size=1, max_size=4, unique=True)
spaces = st.fixed_dictionaries(
    {},
    optional={
        "hidden_size": int_domains,
        "dropout": float_domains,
        "batch_size": st.builds(lambda c: {"type": "categorical", "choices": c}, choices),
        "bidirectional": st.just({"type": "categorical", "choices": [False, True]}),
    },
)
experiments = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True),
        "data": st.fixed_dictionaries(
            {"path": st.just("/data/a.csv"), "target": columns},
            optional={
                "time": st.just("when"),
                "features": st.lists(columns, min_size=1, max_size=3, unique=True),
                "split": st.fixed_dictionaries({"validation": shares, "test": shares}),
                "transform": st.sampled_from(["none", "log", "difference"]),
            },
        ),
    },
    optional={
        "search_space": spaces,
        "hyperparameters": st.fixed_dictionaries(
            {}, optional={"learning_rate": st.floats(1e-6, 1), "num_layers": st.integers(1, 4)}
        ),
        "strategy": st.one_of(
            st.builds(lambda n: {"name": "woa", "population": n}, st.integers(2, 50)),
            st.builds(lambda n: {"name": "tpe", "batch": n}, ints),
            st.sampled_from([{"name": "pso"}, {"name": "random"}]),
        ),
        "budget": st.fixed_dictionaries(
            {"trials": ints}, optional={"timeout": st.one_of(st.none(), st.just("10m"))}
        ),
        "pruner": st.sampled_from([{"name": "none"}, {"name": "median", "n_warmup_steps": 3}]),
        "objective": st.sampled_from([{"metric": "r2"}, {"metric": "mae"}]),
        "seed": st.integers(0, 2**32 - 1),
    },
)


@settings(max_examples=examples(50))
@given(raw=experiments)
def test_an_experiment_survives_writing_and_reading(tmp_path_factory, raw):
    experiment = Experiment.model_validate(raw)
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    for text in (experiment.to_yaml(), render(experiment.to_dict(), as_json=True), dump_yaml(raw)):
        path.write_text(text, encoding="utf-8")
        again = Experiment.load(path)
        assert again == experiment
        assert again.to_dict() == experiment.to_dict()
        assert again.start() == experiment.start()


GOOD = ["销量", "Umsätze 2024", "продажи", "x", "2024", "a'b", "$HOME `ls`", "مبيعات", "🚲 bikes"]
LONG = "长" * 90
BAD = ["", " ", "a/b", "..", ".a", "-x", " a", "a ", "a\nb", "a:b", "a\\b", 'a"', "\ud800", LONG]


@given(st.text(max_size=300))
def test_a_name_is_refused_or_safe_for_files_and_shells(text):
    name = normalized(text)
    if why_refused(name, STUDY_BYTES):
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{name}.journal.held").touch()
        (found,) = Path(folder).iterdir()
        assert found.name == f"{name}.journal.held"
    assert shlex.split(sync_command(name, None)) == ["tuner", "sync", name]


@given(st.text(max_size=300))
def test_what_is_offered_instead_is_never_refused(text):
    near = mended(text, EXPERIMENT_BYTES)
    assert near == "" or why_refused(near, EXPERIMENT_BYTES) is None
    assert mended(near, EXPERIMENT_BYTES) == near


@pytest.mark.parametrize("name", GOOD)
def test_names_may_hold_letters_of_any_language_and_spaces(tmp_path, name):
    path = tmp_path / "e.yaml"
    path.write_text("name: a\ndata: {path: d.csv, target: y}\n")
    experiment = Experiment.load(path, [Override("name", name, "--set")])
    assert experiment.name == name
    path.write_text(experiment.to_yaml(), encoding="utf-8")
    assert Experiment.load(path).name == name
    assert check_study_name(name) == name


@pytest.mark.parametrize("name", BAD)
def test_an_impossible_file_name_is_refused_with_a_possible_one(tmp_path, name):
    path = tmp_path / "e.yaml"
    path.write_text("name: a\ndata: {path: d.csv, target: y}\n")
    with pytest.raises(ExperimentError) as error:
        Experiment.load(path, [Override("name", name, "--set")])
    message = str(error.value)
    assert message.startswith("--set: name: must ")
    offered = message.partition("; write `--set ")[2].removesuffix("`, say")
    key, _, value = shlex.split(offered)[0].partition("=")
    path.write_text(f"{key}: {value}\ndata: {{path: d.csv, target: y}}\n", encoding="utf-8")
    Experiment.load(path)


def test_a_name_that_is_too_long_says_how_long_it_is():
    with pytest.raises(InputError, match="at most 240 bytes in UTF-8, has 270"):
        check_study_name(LONG)


def test_one_name_is_one_study_however_it_is_typed():
    composed, typed = "é", unicodedata.normalize("NFD", "é")
    assert composed != typed
    assert check_study_name(typed) == composed


def test_a_study_named_by_default_has_room_for_strategy_and_seed():
    longest = "x" * EXPERIMENT_BYTES + f"-random-{2**32 - 1}"
    assert why_refused(longest, STUDY_BYTES) is None
    assert len(f"{'x' * STUDY_BYTES}.journal.held") <= 255


DOCS = Path(__file__).parents[2] / "docs/articles.md"
RAW = {"name": "a", "data": {"path": "a.csv", "target": "y"}}


def refusal(folder, raw):
    path = folder / "e.yaml"
    path.write_text(dump_yaml(raw))
    with pytest.raises(ExperimentError) as error:
        Experiment.load(path)
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


@pytest.mark.parametrize("key", ["hyperparameters", "search_space"])
@pytest.mark.parametrize("value", [5, [{"a": 1}]])
def test_a_malformed_block_of_a_record_is_refused(key, value):
    data = {"path": "x.csv", "text": "t", "target": "y"}
    with pytest.raises(InputError, match=f"{key}: must be a block of keys"):
        Experiment.from_dict(RAW | {"data": data, "recorded": {"score": 1.0}, key: value})


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


LINES = """\
name: air          # 1
data:
  path: air.csv    # 3
  split: {test: 0.1, validation: 0.2}
task:
  quantiles:
    - 0.1
    - 0.9          # 8
"a.b":
  c: 1             # 10
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("name", 1),
        ("data.path", 3),
        ("data.split.validation", 4),
        ("data.target", 2),
        ("task.quantiles.1", 8),
        ("task.quantiles.7", 6),
        ("a.b.c", 10),
        ("seed", 1),
        ("name.inner", 1),
    ],
)
def test_a_dotted_key_is_found_in_its_line(key, line):
    assert line_of(LINES, key) == line


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "a: 1960-13-01", "just text"])
def test_no_line_is_found_where_there_is_no_mapping(text):
    assert line_of(text, "a.b") in (None, 1)
