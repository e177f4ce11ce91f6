"""How worker processes start.

Python puts the folder of a script, or with `-m` the current one, before its own library. A worker
would import a `statistics.py` of the user's from there in place of Python's. The coordinator gets
the command of a worker from this file, and the worker runs this file as a script.
"""

from __future__ import annotations

import json
import runpy
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_PACKAGE = Path(__file__).absolute().parent


def start_command(module: str, argument: str) -> list[str]:
    """Return the command that runs a module in a new process, with one argument.

    The process imports this tuner, and all else from the `sys.path` of this process without the
    folder that Python added.
    """
    return [sys.executable, "-P", __file__, module, argument, json.dumps(import_path())]


def import_path() -> list[str]:
    """Return the `sys.path` of this process without the folder that Python added."""
    path = [entry for entry in sys.path if isinstance(entry, str)]
    added = _added_by_python()
    for entry in added:
        path.remove(entry)  # the first one alone: PYTHONPATH may have it too
    folder = _PACKAGE.parent
    if any(Path(entry).resolve() == folder.resolve() for entry in added):
        path.append(str(folder))  # tuner's dependencies may be beside it
    return path


def _added_by_python() -> list[str]:
    """Return the entries of `sys.path` that Python added by itself."""
    added = [entry for entry in sys.path if entry == ""]  # the current folder, in notebooks say
    main = sys.modules["__main__"]
    if sys.flags.safe_path:
        return added
    if getattr(main, "__spec__", None) is not None:  # started with -m
        first = Path.cwd()
    elif file := getattr(main, "__file__", None):
        first = Path(file).resolve().parent
    else:
        return added
    return [*added, str(first)] if str(first) in sys.path else added


def _main(module: str, argument: str, import_path: str) -> None:
    handed = json.loads(import_path)
    sys.path[:] = handed + [entry for entry in sys.path if entry not in handed]
    sys.argv[1:] = [argument]
    # By its path: another tuner may be first in sys.path.
    spec = spec_from_file_location("tuner", _PACKAGE / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules["tuner"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["tuner"])
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
