"""Names of tests are short sentences."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
LONGEST = 60


def names():
    return [
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def test_names_of_tests_are_sentences_of_60_characters():
    found = names()
    assert found
    assert [name for name in found if len(name) > LONGEST] == []
    assert [name for name in found if len(name.split("_")) < 4] == []  # test, subject, verb
