"""Which way imports run, read from the source."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import tuner

PACKAGE = Path(tuner.__file__).parent
HEAVY_OF_SEARCH = {"optuna", "pyswarms", "mlflow"}

# From the bottom up: a part imports those before it. `base` is the errors and the version.
ORDER = """
    base outputs pipeline_steps user_code metrics processes template signals one_thread strategies
    experiment tables data jobs batching training executors journal coordination prediction
    tracking results report progress winner studies orchestrator planning api client service cli
    forecaster
"""
LAYERS = ORDER.split()

BASE = ("errors", "__main__", "__init__", "__version__")

# Parts that may import less than what stands before them.
ALONE = {
    "tables": {"base", "pipeline_steps"},
    "training": {"base", "user_code", "metrics", "experiment", "data", "jobs"},
    "executors": {
        "base",
        "metrics",
        "processes",
        "template",
        "experiment",
        "data",
        "jobs",
        "training",
    },
    "strategies": {"base", "one_thread"},
    "journal": {"base", "experiment", "jobs", "strategies"},
    "prediction": {"base", "pipeline_steps", "tables", "data"},
}

FILES = sorted(PACKAGE.rglob("*.py"))
WAYS_IN = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}


def part_of(module):
    names = module.split(".")
    if len(names) < 2 or names[1] in BASE:
        return "base"
    return names[1]


def module_name(path):
    names = ("tuner", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


MODULES = {module_name(path): path for path in FILES}


def for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@functools.cache
def parsed(path):
    return ast.parse(path.read_text())


@functools.cache
def imported(path, *, at_once=False, types=True):
    """Return the modules that a file imports: all, or those imported when it is (`at_once`)."""
    found = set()
    waiting = [parsed(path)]
    while waiting:
        node = waiting.pop()
        if for_types(node) and not types:
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and at_once:
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            below = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= below or {node.module or ""}
    return frozenset(found)


def test_imports_run_downwards():
    wrong = []
    for path in set(FILES) - WAYS_IN:
        part = part_of(module_name(path))
        below = ALONE.get(part, set(LAYERS[: LAYERS.index(part)])) | {part}
        # Tables name the types of an experiment, and do without it.
        others = imported(path, types=part != "tables")
        wrong += [
            f"{module_name(path)} imports {other}"
            for other in others
            if other.startswith("tuner.") and part_of(other) not in below
        ]
    assert not wrong


def test_the_architecture_lists_the_parts_in_this_order():
    text = (PACKAGE.parent / "docs/architecture.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `tuner/")]
    names = [n for row in rows for n in re.findall(r"`tuner/(\w+)(?:\.py)?`", row.split("|")[1])]
    assert [name if name != "errors" else "base" for name in names] == LAYERS


def test_modules_import_each_other_in_no_circle():
    graph = {
        name: {m for m in imported(path, at_once=True, types=False) if m in MODULES} - {name}
        for name, path in MODULES.items()
    }
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_a_search_starts_without_what_it_may_need_later():
    late = {"torch", "mlflow", "sqlalchemy", "matplotlib", "jinja2", "sklearn", "scipy.stats"}
    late |= {"tuner.journal.database"}
    code = f"import sys, tuner.cli.run; print(*sorted({late} & sys.modules.keys()))"
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not ended.stdout.strip()


def test_search_and_training_do_not_know_each_other():
    wrong = []
    for name, path in MODULES.items():
        libraries = {module.split(".")[0] for module in imported(path)}
        if part_of(name) == "training" or name == "tuner.executors.worker":
            forbidden = HEAVY_OF_SEARCH
        else:
            forbidden = {"torch"} | (HEAVY_OF_SEARCH if part_of(name) == "data" else set())
            if any(m.startswith("tuner.training") for m in imported(path)):
                wrong.append(f"{name} imports training")
        wrong += [f"{name} imports {library}" for library in libraries & forbidden]
    assert not wrong


def test_only_worker_processes_import_torch():
    users = [name for name, path in MODULES.items() if "tuner.executors.worker" in imported(path)]
    assert users == []  # it is started by name


def test_only_one_file_imports_ray_and_only_when_used():
    users = [
        n for n, p in MODULES.items() if {m.split(".")[0] for m in imported(p)} & {"ray", "grpc"}
    ]
    assert users == ["tuner.executors.ray_executor"]
    command = (
        "import sys, tuner.executors; sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", command]).returncode == 0


def test_only_one_file_imports_pyswarms():
    users = [p.name for p in FILES if any(m.startswith("pyswarms") for m in imported(p))]
    assert users == ["swarms.py"]


def test_only_the_stage_after_the_search_reads_test_rows():
    users = [n for n, p in MODULES.items() if "open_test_part" in p.read_text()]
    assert users == ["tuner.data.prepared", "tuner.results.test_score"]
    users = [n for n, p in MODULES.items() if ".test_part(" in p.read_text()]
    assert users == ["tuner.results.test_score"]


def test_files_stay_readable_at_one_sitting():
    assert [p.name for p in FILES if len(p.read_text().splitlines()) > 610] == []
