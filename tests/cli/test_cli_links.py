"""The links of `tuner show`."""

import json
import shutil
import subprocess
import sys

STUDY = "air-random-0"

# `tuner`, which says at its end whether it has imported MLflow.
TUNER_AND_IMPORTS = """
import sys
from tuner.cli import main
try:
    main()
finally:
    print("imported" if "mlflow" in sys.modules else "not imported", file=sys.stderr)
"""


def show(folder, *options):
    """Run `tuner show`, which must not take the time that it takes to import MLflow."""
    done = subprocess.run(
        [sys.executable, "-c", TUNER_AND_IMPORTS, "show", *(options or [STUDY])],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "not imported\n")
    return done.stdout


def test_without_a_ui_show_says_how_to_start_one(finished):
    assert show(finished).endswith(f"\n\nIn MLflow: tuner ui {STUDY}\n")
    assert json.loads(show(finished, STUDY, "--json"))["links"] is None
    given = show(finished, STUDY, "--journal", f"studies/{STUDY}.journal")
    assert given.endswith(f"In MLflow: tuner ui {STUDY} --journal studies/{STUDY}.journal\n")


def test_a_study_that_mlflow_lacks_has_no_links(finished, tmp_path):
    shutil.copytree(finished / "studies", tmp_path / "studies")
    assert "MLflow" not in show(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["studies"]


def test_a_server_that_is_away_takes_nothing_but_the_links(finished, monkeypatch):
    with_store = show(finished).partition("\n\nIn MLflow")[0]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://127.0.0.1:1/mlflow")
    assert show(finished).rstrip() == with_store.rstrip()
    assert json.loads(show(finished, STUDY, "--json"))["links"] is None
