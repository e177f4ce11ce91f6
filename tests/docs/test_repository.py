"""The files around the package: issue forms, hooks of pre-commit, the security policy."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_what_github_needs_to_show_it(form):
    content = yaml.safe_load(form.read_text())
    assert content.keys() >= {"name", "description", "body"}
    questions = [element for element in content["body"] if element["type"] != "markdown"]
    assert {q["type"] for q in questions} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert all(q["attributes"]["label"] for q in questions)
    ids = [q["id"] for q in questions]
    assert len(set(ids)) == len(ids) > 0
    assert any(q.get("validations", {}).get("required") for q in questions)


def test_pre_commit_runs_make_check_without_downloads():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = [hook for repo in repos for hook in repo["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}
    makefile = (ROOT / "Makefile").read_text()
    checks = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.M)
    assert checks is not None
    wanted = re.findall(r"\$\(BIN\)/(ruff check|ruff format|mypy)", checks[1])
    assert [hook["name"] for hook in hooks] == wanted
    assert all(hook["entry"].startswith(f".venv/bin/{hook['name']}") for hook in hooks)


def test_the_security_policy_names_contact_and_switch():
    policy = (ROOT / "SECURITY.md").read_text()
    assert "Report a vulnerability" in policy
    assert "--allow-code" in policy
