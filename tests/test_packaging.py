"""The source distribution and the wheel: complete, valid, and enough for a user."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import tuner

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command, cwd):
    """The output of a command that must succeed, without the environment of this Python."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def package_files():
    """The files of the package in the repository, without those that Python compiles."""
    files = (path for path in (ROOT / "tuner").rglob("*") if path.is_file())
    return {f.relative_to(ROOT).as_posix() for f in files if f.parent.name != "__pycache__"}


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A folder with the source distribution, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    (found,) = dist.glob("*.whl")
    return found


def test_every_packaged_file_is_python_or_declared_data():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    files = package_files()
    assert "tuner/py.typed" in files
    others = [name for name in files if not name.endswith(".py")]
    assert [n for n in others if not any(Path(n).match(p) for p in patterns)] == []


def test_every_dependency_is_pinned_in_the_constraints():
    lines = (ROOT / "constraints.txt").read_text().lower().split()
    pinned = {line.split("==")[0] for line in lines}
    extras = PROJECT["project"]["optional-dependencies"].values()
    needed = {d for group in (PROJECT["project"]["dependencies"], *extras) for d in group}
    names = {d.lower().split("[")[0].split(">")[0] for d in needed} - {"lstm-tuner"}
    assert sorted(names - pinned) == []


@pytest.mark.slow
def test_twine_accepts_the_distributions(dist):
    out = run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir(), cwd=dist)
    assert out.count("PASSED") == 2


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        headers = HeaderParser().parsestr(archive.read(metadata).decode())
    assert {name for name in names if ".dist-info/" not in name} == package_files()
    assert headers["Version"] == tuner.__version__


@pytest.mark.slow
def test_the_source_distribution_can_be_installed(dist):
    (source,) = dist.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    extra = {"CHANGELOG.md", "LICENSE", "README.md", "constraints.txt", "requirements-predict.txt"}
    assert names >= package_files() | extra
    assert not any(name.startswith("tests/") for name in names)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wheel_installs_and_takes_a_user_to_a_result(wheel, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    bin_ = tmp_path / "venv" / "bin"
    run(bin_ / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)

    user = tmp_path / "user"
    user.mkdir()
    rows = "".join(
        f"{2010 + i // 12}-{1 + i % 12:02}-01,{100 + 10 * (i % 12) + i}\n" for i in range(96)
    )
    (user / "sales.csv").write_text("month,sales\n" + rows)
    command = bin_ / "tuner"
    assert "sales" in run(command, "init", "sales.csv", cwd=user)
    assert "96 rows" in run(command, "check", "sales.yaml", cwd=user)
    out = run(command, "run", "sales.yaml", "--trials", 4, "--set", "budget.epochs=3", cwd=user)
    assert "test: sales, " in out
    run(command, "export", "sales-tpe-0", "-o", "best.yaml", cwd=user)
    assert "reproduced:" in run(command, "train", "best.yaml", cwd=user)
    written = {path.name for path in user.iterdir()}
    assert written == {
        "sales.csv",
        "sales.yaml",
        "best.yaml",
        "studies",
        "mlflow.db",
        "mlartifacts",
    }


def dockerfile():
    """The instructions of the Dockerfile, each with its arguments."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    found = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(name, text.strip()) for name, _, text in found]


def test_the_image_copies_what_the_build_reads():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert ignored[1] == "*"  # nothing else gets into the image
    assert [name for name in kept if not (ROOT / name).exists()] == []
    copied = {
        source
        for name, text in dockerfile()
        if name == "COPY" and not text.startswith("--from")
        for source in text.split()[:-1]
    }
    assert copied == {"constraints.txt", "."}
    project = PROJECT["project"]
    assert kept >= {"tuner", "pyproject.toml", "MANIFEST.in", "constraints.txt"}
    assert kept >= {project["readme"], *project["license-files"]}


def test_the_image_runs_the_command_as_a_user_without_rights():
    last = dict(dockerfile())  # of each instruction the last one holds
    assert json.loads(last["ENTRYPOINT"]) == ["tuner"]
    assert set(PROJECT["project"]["scripts"]) == {"tuner"}
    assert last["WORKDIR"] == "/work"
    names = [name for name, _ in dockerfile()]
    assert last["USER"] == "tuner"
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")


def test_the_image_installs_every_extra_with_pinned_versions():
    (installed,) = (text for name, text in dockerfile() if ".[" in text)
    assert "--constraint constraints.txt" in installed
    extras = set(PROJECT["project"]["optional-dependencies"]) - {"docs", "test"}
    assert set(re.findall(r"\.\[([\w,]+)\]", installed)[0].split(",")) == extras
