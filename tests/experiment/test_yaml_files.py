"""YAML that is small on disk and large in memory is refused before a value is constructed."""

import tracemalloc

import pytest
from helpers.refusals import assert_refused
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import ExperimentError
from tuner.experiment import Experiment, parse_value
from tuner.experiment.yaml_files import (
    Bounds,
    dump_yaml,
    line_of,
    parse_mapping,
    read_mapping,
    value_of,
)

SMALL = Bounds(n_bytes=4096, n_values=100, depth=8)


def laughs(levels, merge=False):
    """Each level is nine times the one before: a billion with nine levels."""
    lines = ["a0: &a0 {k0: 1}" if merge else "a0: &a0 [1]"]
    for level in range(1, levels + 1):
        nine = ", ".join([f"*a{level - 1}"] * 9)
        body = f"{{<<: [{nine}], k{level}: 1}}" if merge else f"[{nine}]"
        lines.append(f"a{level}: &a{level} {body}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("merge", [False, True])
def test_nested_aliases_are_refused_before_they_are_built(merge):
    text = laughs(40, merge)
    tracemalloc.start()
    try:
        rule = "must hold at most 100,000 values, with aliases written out"
        assert_refused(lambda: parse_mapping(text, "e.yaml"), rule, "line 6", where="e.yaml")
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    assert_refused(lambda: value_of(f"{{{', '.join(text.splitlines())}}}"), "with aliases")
    assert_refused(lambda: parse_value(f"[{laughs(9)}", "--set x"), where="--set x")


def test_an_experiment_of_nested_aliases_is_refused(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text("name: air\ndata: {path: a.csv, target: y}\n" + laughs(9))
    assert_refused(lambda: Experiment.load(path), "with aliases written out", where=path)
    path.write_text("name: air\ndata: {path: a.csv, target: y}\nsearch_space: s.yaml\n")
    (tmp_path / "s.yaml").write_text(laughs(9))
    assert_refused(lambda: Experiment.load(path), "with aliases", where=tmp_path / "s.yaml")


def test_aliases_that_people_write_are_read():
    text = """
        base: &base {low: 0.0, high: 0.5}
        wide: &wide [16, 32]
        dropout: {<<: *base, type: float}
        other: {<<: [*base, {step: 0.1}], high: 0.9}
        units: {choices: *wide, again: *wide}
    """
    read = parse_mapping(text, "e.yaml", SMALL)
    assert read["dropout"] == {"low": 0.0, "high": 0.5, "type": "float"}
    assert read["other"] == {"low": 0.0, "high": 0.9, "step": 0.1}
    assert read["units"] == {"choices": [16, 32], "again": [16, 32]}


REFUSED = {
    "a: &a [*a]\n": "the alias 'a' stands within what it names",
    "a: &a {b: {<<: *a}}\n": "the alias 'a' stands within what it names",
    "a: " + "[" * 8 + "]" * 8: "must be at most 8 lists and mappings deep",
    "a: " + "[" * 3000: "must be at most 8 lists and mappings deep",
    "\n".join(" " * i + "a:" for i in range(10)): "must be at most 8 lists and mappings deep",
    "a: 0x" + "f" * 1000: "numbers and times must have at most 1,000 characters",
    "%YAML 1.1\n---\na: 1" + ":1" * 1000: "numbers and times must have at most 1,000 characters",
    "a: 1." + "1" * 1000: "numbers and times must have at most 1,000 characters",
    "a: 2001-01-01 00:00:00." + "1" * 1000: "numbers and times must have at most",
    "a: !!omap [b: 1, b: 1]": "is not YAML",
    "a: !!omap [b]": "is not YAML",
    "a: !!python/object/apply:os.system [ls]": "could not determine a constructor",
    "a: *b": "found undefined alias 'b'",
    "a: " + "x" * 5000: "must have at most 4 KiB",
    "a: " + "ä" * 2100: "must have at most 4 KiB",
    "a: [" + "1," * 100 + "]": "must hold at most 100 values",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:24])
def test_a_document_beyond_a_bound_is_refused(text):
    assert_refused(lambda: parse_mapping(text, "e.yaml", SMALL), REFUSED[text], where="e.yaml")


def test_a_file_above_one_mebibyte_is_refused_unread(tmp_path):
    path = tmp_path / "e.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    rule = "must have at most 1,024 KiB"
    assert_refused(lambda: read_mapping(path, "experiment file"), rule, where=path)


Nested = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab"), inner, max_size=4),
    max_leaves=30,
)


def size(value):
    if isinstance(value, dict):
        return 1 + sum(1 + size(inner) for inner in value.values())
    return 1 + sum(map(size, value)) if isinstance(value, list) else 1


def depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    within = max(map(depth, inner), default=0)
    return within + isinstance(value, dict | list)


@given(st.dictionaries(st.text("ab", min_size=1), Nested, max_size=4), st.integers(1, 3))
def test_what_is_counted_is_the_size_of_the_value(value, times):
    """Written out or by aliases, as many values and levels are counted as there are."""
    text = dump_yaml({"once": value}) + "many: [" + ", ".join(["*a"] * times) + "]\n"
    text = text.replace("once:", "once: &a", 1) if value else "once: &a {}\n" + text[9:]
    whole = {"once": value, "many": [value] * times}
    fits = Bounds(1 << 20, size(whole), depth({"once": value}))
    assert parse_mapping(text, "e", fits) == whole
    for bounds in (
        Bounds(1 << 20, fits.n_values - 1, fits.depth),
        Bounds(1 << 20, fits.n_values, fits.depth - 1),
    ):
        with pytest.raises(ExperimentError, match="must (hold|be) at most"):
            parse_mapping(text, "e", bounds)


LONG = {
    "data.read.date_format": '"' + "%d" * 50_000 + '"',
    "data.read.encoding": "x" * 50_000,
    "budget.timeout": '"' + "1" * 50_000 + '"',
    "search_space.dropout": "{type: float, low: 0.0, high: 0.9, step: 1.0e-300}",
}


@pytest.mark.parametrize("key", LONG)
def test_a_value_that_is_costly_to_read_is_refused(tmp_path, key):
    """A format becomes a regular expression, a range of 1e300 steps a number of 300 digits."""
    path, raw = tmp_path / "e.yaml", parse_value(LONG[key], "x")
    experiment = {"name": "air", "data": {"path": "a.csv", "target": "y", "read": {}}}
    *blocks, last = key.split(".")
    block = experiment
    for name in blocks:
        block = block.setdefault(name, {})
    block[last] = raw
    path.write_text(dump_yaml(experiment))
    with pytest.raises(ExperimentError, match=key) as caught:
        Experiment.load(path)
    assert len(str(caught.value)) < 400


def test_a_file_may_name_twenty_thousand_columns():
    columns = "features: [" + ", ".join(f"c{i}" for i in range(20_000)) + "]"
    assert len(parse_mapping(columns, "e.yaml")["features"]) == 20_000


def test_the_lines_of_a_document_beyond_a_bound_are_unknown():
    assert line_of(laughs(3), "a3") == 4
    assert line_of(laughs(9), "a3") is None
    assert line_of("a: " + "[" * 3000, "a") is None
