"""Which way imports run, read from the source."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import tuner

PACKAGE = Path(tuner.__file__).parent
HEAVY_OF_SEARCH = {"optuna", "pyswarms", "mlflow"}

# Each part, and the parts below it that it may import. `base` is the errors and the version.
BELOW = {
    "base": set(),
    "outputs": {"base"},
    "dialect": set(),
    "transform_steps": {"base"},
    "process_start": {"base"},
    "own_code": {"base"},
    "expressions": {"base"},
    "experiment": {
        "base",
        "dialect",
        "transform_steps",
        "process_start",
        "own_code",
        "expressions",
    },
    "data": {"base", "dialect", "transform_steps", "own_code", "expressions", "experiment"},
    "jobs": {"base", "data"},
    "training": {"base", "own_code", "expressions", "experiment", "data", "jobs"},
    "executors": {"base", "process_start", "experiment", "data", "jobs", "training"},
    "strategies": {"base", "experiment"},
    "coordination": {"base", "experiment", "data", "jobs", "executors", "strategies"},
    "prediction": {"base", "dialect", "transform_steps", "data"},
    "tracking": {"base", "experiment", "data", "jobs", "coordination", "prediction"},
    "results": {
        "base",
        "own_code",
        "experiment",
        "data",
        "jobs",
        "executors",
        "strategies",
        "coordination",
        "prediction",
    },
    "report": {"base", "experiment", "jobs", "strategies", "coordination", "results"},
    "comparison": {"base", "outputs", "experiment", "coordination", "results", "report"},
}
BELOW["watching"] = {"base", "experiment", "jobs", "coordination", "results"}
BELOW["orchestrator"] = set(BELOW) - {"watching"}
BELOW["study"] = {"base", "outputs", "experiment", "coordination", "results", "report"}
BELOW["study"] |= {"prediction"}  # it gives the winner as a model
BELOW["launching"] = set(BELOW) - {"study"}
BELOW["cli"] = set(BELOW) - {"study"}
BELOW["library"] = set(BELOW) - {"cli"}
BELOW["forecaster"] = set(BELOW)  # it plans as `tuner init` does

FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    names = module.split(".")
    if len(names) < 2 or names[1] in ("errors", "__main__", "__init__", "__version__"):
        return "base"
    return names[1]


@functools.cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            if node.module == "tuner":
                found |= {f"tuner.{alias.name}" for alias in node.names}
    return found


def module_name(path: Path) -> str:
    return ".".join(("tuner", *path.relative_to(PACKAGE).with_suffix("").parts))


def test_imports_run_downwards():
    upwards = []
    for path in FILES:
        part = part_of(module_name(path))
        if path.name == "__main__.py" or path == PACKAGE / "__init__.py":
            continue  # the two ways in
        others = {part_of(module) for module in imports(path) if module.startswith("tuner.")}
        upwards += [(module_name(path), other) for other in others - BELOW[part] - {part}]
    assert upwards == []


def test_search_and_training_do_not_know_each_other():
    wrong = []
    for path in FILES:
        name, part = module_name(path), part_of(module_name(path))
        libraries = {module.split(".")[0] for module in imports(path)}
        trains = part == "training" or name == "tuner.executors.training"
        forbidden = HEAVY_OF_SEARCH if trains else {"torch"}
        if part == "data":
            forbidden = HEAVY_OF_SEARCH | {"torch"}
        wrong += [(name, library) for library in libraries & forbidden]
        if not trains:
            wrong += [(name, m) for m in imports(path) if m.startswith("tuner.training")]
    assert wrong == []


def test_only_worker_processes_bring_torch_along():
    users = {
        other: [module_name(p) for p in FILES if other in imports(p)]
        for other in ("tuner.executors.training", "tuner.executors.worker")
    }
    assert users["tuner.executors.training"] == ["tuner.executors.worker"]
    assert users["tuner.executors.worker"] == []  # it is started by name


def test_only_one_file_imports_ray_and_only_when_it_is_used():
    users = [p for p in FILES if any(m.split(".")[0] in ("ray", "grpc") for m in imports(p))]
    assert [module_name(p) for p in users] == ["tuner.executors.ray_connection"]
    command = (
        "import sys, tuner.executors; sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", command]).returncode == 0


def test_only_one_file_knows_pyswarms():
    assert [p.name for p in FILES if any(m.startswith("pyswarms") for m in imports(p))] == [
        "pso.py"
    ]


def test_only_the_stage_after_the_search_can_open_the_test_part():
    users = [module_name(p) for p in FILES if "tuner.data.test_part" in imports(p)]
    assert users == ["tuner.results.predictions", "tuner.results.test_score"]


def test_files_stay_readable_at_one_sitting():
    lengths = {module_name(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 600} == {}
