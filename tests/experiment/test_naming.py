"""Names of experiments and studies: with any letters, where files and MLflow can hold them."""

import shlex
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import ExperimentError, InputError
from tuner.experiment import Experiment, Override
from tuner.experiment.fields import EXPERIMENT_BYTES, STUDY_BYTES, mended, normalized, why_refused
from tuner.launch import sync_command
from tuner.studies import check_study_name

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
    assert "\n" not in message
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
