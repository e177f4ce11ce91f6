"""The documentation speaks of what exists: links, commands, options, keys, files."""

import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest
from typer.main import get_command

import tuner
from tuner.cli.app import app
from tuner.experiment import CategoricalDomain, Experiment, FloatDomain, Hyperparameters, IntDomain
from tuner.experiment.data import Data, Decomposition, Folds, Read, Split, Task, Wide
from tuner.experiment.schema import PRUNERS, Budget, Finalists, Objective, Recorded, Training
from tuner.experiment.yaml_files import read_mapping
from tuner.metrics import METRICS
from tuner.strategies import STRATEGIES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / n for n in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
COMMAND = get_command(app)
COMMANDS = COMMAND.commands

SECTIONS = {
    "top-level": [Experiment],
    "data": [Data],
    "read": [Read],
    "decompose": [Decomposition],
    "folds": [Folds],
    "wide": [Wide],
    "task": [Task],
    "hyperparameters": [Hyperparameters],
    "search_space": [IntDomain, FloatDomain, CategoricalDomain],
    "strategy": list(STRATEGIES.values()),
    "budget": [Budget],
    "pruner": list(PRUNERS),
    "objective": [Objective],
    "training": [Training],
    "finalists": [Finalists],
    "recorded": [Recorded],
}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def code(page):
    """All code of a page, in blocks and in lines."""
    return "\n".join(
        block or inline
        for block, inline in re.findall(
            r"^```\w*\n(.*?)^```|`([^`]+)`", page.read_text(), re.M | re.S
        )
    )


def yaml_blocks():
    for page in PAGES:
        for i, block in enumerate(
            re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.M | re.S)
        ):
            yield pytest.param(block, id=f"{page.stem}-{i}")


def documented(section):
    """The rows of a section's table: key -> the cell after it."""
    text = (ROOT / "docs/experiment-file.md").read_text()
    part = re.split(rf"^## {re.escape(section)}$", text, flags=re.M | re.I)[1]
    rows = re.findall(r"^\| (`.+?) \| (.*?) \|", re.split(r"^## ", part, flags=re.M)[0], re.M)
    return {key: cell for keys, cell in rows for key in re.findall(r"`([^`]+)`", keys)}


@every_page
def test_internal_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@every_page
def test_every_command_that_is_named_exists(page):
    for name in re.findall(r"(?<!from )\btuner ([a-z]+)\b", code(page)):
        assert name in COMMANDS, f"tuner {name}"


@every_page
def test_every_option_that_is_named_exists(page):
    known = {
        o
        for c in (COMMAND, *COMMANDS.values())
        for p in c.params
        for o in (*p.opts, *p.secondary_opts)
    }
    for line in code(page).splitlines():
        if re.search(r"(?<!-)\btuner\b", line) or line.startswith("--"):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line):
                assert option in known | {"--help"}, line


@every_page
def test_every_make_target_that_is_named_exists(page):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for name in re.findall(r"\bmake ([a-z-]+)\b", code(page)):
        assert name in targets, f"make {name}"


@every_page
def test_every_file_that_is_named_exists(page):
    folders = r"(?:tuner|tests|docs|experiments|search_spaces|benchmarks|\.ci)/[\w./-]*"
    files = r"Makefile|pyproject\.toml|constraints\.txt"
    for name in re.findall(rf"(?<![\w./])({folders}|{files})", page.read_text()):
        target = name.rstrip(".")
        assert (ROOT / target).exists() or (page.parent / target).exists(), name


def test_the_readme_names_every_command():
    assert set(re.findall(r"^\| `tuner ([a-z]+)", (ROOT / "README.md").read_text(), re.M)) == set(
        COMMANDS
    )


def test_the_page_on_commands_lists_each_and_where_it_works():
    rows = dict(
        re.findall(
            r"^\| `tuner ([a-z]+)[^`]*` \| .*? \| (.*?) ?\|$",
            (ROOT / "docs/commands.md").read_text(),
            re.M,
        )
    )
    assert set(rows) == set(COMMANDS)
    for name, command in COMMANDS.items():
        at_a_service = any("--server" in option.opts for option in command.params)
        assert bool(rows[name]) == at_a_service or name == "serve", name


@pytest.mark.parametrize("page", ["README.md", "docs/strategies.md"])
def test_every_strategy_is_described(page):
    text = (ROOT / page).read_text()
    assert [n for n in STRATEGIES if f"| `{n}` |" not in text] == []


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented_and_no_other(section):
    rows = documented(section.replace("-", " "))
    expected = {name for model in SECTIONS[section] for name in model.model_fields}
    if section == "data":
        expected |= {f"split.{name}" for name in Split.model_fields}
    assert set(rows) == expected


@pytest.mark.parametrize(
    "section", [s for s in SECTIONS if s not in ("top-level", "search_space", "pruner", "recorded")]
)
def test_the_defaults_are_as_documented(section):
    rows = documented(section)
    fields = {n: f for model in SECTIONS[section] for n, f in model.model_fields.items()}
    if section == "data":
        fields |= {f"split.{n}": f for n, f in Split.model_fields.items()}
        del fields["split"], fields["read"]
    if section == "strategy":
        fields["name"] = Experiment.model_fields["strategy"].default.__class__.model_fields["name"]
    for name, field in fields.items():
        if field.is_required():
            assert rows[name] == "required", name
        elif field.default is not None and field.default_factory is None:
            default = field.default
            written = str(default).lower() if isinstance(default, bool) else str(default)
            assert rows[name] == f"`{written}`", name
        else:
            assert not rows[name].startswith("`"), name


@pytest.mark.parametrize("block", list(yaml_blocks()))
def test_every_experiment_in_the_documentation_loads(block, tmp_path):
    file = tmp_path / "experiment.yaml"
    file.write_text(block)
    if {"name", "data"} <= read_mapping(file, "experiment file").keys():
        Experiment.load(file)


def test_every_metric_is_documented():
    assert set(documented("metrics")) == set(METRICS)


def test_the_example_of_the_documentation_is_the_one_that_ships(tmp_path):
    text = (ROOT / "docs/experiment-file.md").read_text()
    block = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)[1]
    (tmp_path / "experiment.yaml").write_text(block)
    here = Experiment.load(tmp_path / "experiment.yaml").to_dict()
    ours = Experiment.load(ROOT / "experiments/air_passengers.yaml").to_dict()
    del here["data"]["path"], ours["data"]["path"]
    assert here == ours


def test_every_picture_is_shown_and_small_enough_to_load():
    text = "".join(page.read_text() for page in PAGES)
    for picture in (ROOT / "docs/images").iterdir():
        assert f"images/{picture.name})" in text, picture
        assert picture.stat().st_size < 150_000, picture


def test_the_changelog_says_everything_once():
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    begun = [line[:40] for line in lines if line.startswith("- ")]
    assert begun
    assert len(set(begun)) == len(begun)


def test_the_changelog_dates_the_packages_version():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(tuner.__version__)} - \d{{4}}-\d\d-\d\d", headings[1])


def test_the_python_of_the_readme_forecasts(tmp_path, monkeypatch):
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    program = block.replace("trials=10", "trials=1")
    assert program != block
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(program, {})
    assert "1961-12-01" in out.getvalue()  # 12 months after the last row
    assert "RMSE" in out.getvalue().splitlines()[-1]
