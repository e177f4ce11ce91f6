"""The documentation site: its pages, its links, and the API reference."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import tuner
from tuner.prediction import Model, load_model

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def pages(nav):
    """The files of a navigation, as MkDocs nests them."""
    if isinstance(nav, str):
        yield nav
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else []:
        yield from pages(entry)


def test_every_page_is_in_the_navigation_once():
    assert sorted(pages(CONFIG["nav"])) == sorted(p.name for p in (ROOT / "docs").glob("*.md"))


def test_every_public_name_is_in_the_api_reference():
    described = re.findall(r"^::: tuner\.(\w+)$", (ROOT / "docs/api.md").read_text(), re.M)
    assert sorted(described) == sorted(tuner.__all__)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; a warning, such as a broken link or anchor, is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_loads_nothing_from_other_hosts(site):
    html = "".join(page.read_text() for page in site.glob("*.html"))
    loaded = re.findall(r"<(?:script|img|iframe)\b[^>]*\bsrc=[\"']?([^\"' >]+)", html)
    loaded += re.findall(r"<link\b[^>]*\brel=\"?stylesheet\b[^>]*\bhref=[\"']?([^\"' >]+)", html)
    assert "assets/javascripts/bundle" in "".join(loaded)
    assert [address for address in loaded if "//" in address] == []


def test_the_api_reference_has_signatures_and_errors(site):
    html = (site / "api.html").read_text()
    ids = set(re.findall(r'id="tuner\.([\w.]+)"', html))
    assert ids >= {*tuner.__all__, "Study.trials", "LSTMForecaster.fit", "prediction.Model.predict"}
    search = html.split('id="tuner.search"')[1].split('id="tuner.load_study"')[0]
    assert "Parameters:" in search
    assert "Raises:" in search


CLASSES = (tuner.Study, tuner.Report, tuner.LSTMForecaster, Model)
METHODS = [f for cls in CLASSES for f in vars(cls).values() if inspect.isfunction(f)]
PUBLIC = [tuner.search, tuner.load_study, load_model]
PUBLIC += [method for method in METHODS if not method.__name__.startswith("_")]


@pytest.mark.parametrize("function", PUBLIC, ids=lambda f: f.__qualname__)
def test_public_docstrings_describe_every_parameter(function):
    parameters = [p for p in inspect.signature(function).parameters if p != "self"]
    described = re.findall(r"^ +(\w+): ", (function.__doc__ or "").partition("Args:")[2], re.M)
    assert [p for p in parameters if p not in described] == []
