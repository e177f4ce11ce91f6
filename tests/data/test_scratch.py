"""The folder of prepared arrays goes away with its search, however that ends."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tuner.outputs import scratch_folder

HOLDS = """\
import sys
from tuner.outputs import scratch_folder
with scratch_folder() as folder:
    (folder / "array.npy").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def holder(temporary):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    return process, Path(process.stdout.readline().strip())


def grow_old(folder):
    os.utime(folder, (1e9, 1e9))


def test_a_folder_is_removed_in_the_end(temporary):
    with scratch_folder() as folder:
        (folder / "array.npy").write_text("x")
        assert folder.parent == temporary
    assert list(temporary.iterdir()) == []


def test_a_killed_processs_folder_is_removed_and_no_other(temporary):
    living, kept = holder(temporary)
    dead, lost = holder(temporary)
    other = temporary / "tuner-of-somebody-else"
    other.mkdir()
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    assert lost.exists()
    for folder in (kept, lost, other):
        grow_old(folder)
    with scratch_folder():
        assert not lost.exists()
        assert (kept / "array.npy").exists()
        assert other.exists()
    living.communicate("")
    assert not kept.exists()


def test_a_folder_that_has_just_been_made_is_left_alone(temporary):
    young = temporary / "lstm-tuner-arrays-young"
    young.mkdir()
    with scratch_folder():
        assert young.exists()


def test_a_full_disk_is_one_line_with_the_folder(temporary):
    script = (
        "import resource, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from tuner.outputs import save_arrays\n"
        "from tuner.errors import RunError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    save_arrays(Path(sys.argv[1]), {'inputs': np.zeros(100_000)})\n"
        "except RunError as error:\n"
        "    print(error)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, str(temporary / "data")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert out.startswith(f"{temporary / 'data'}: the prepared data cannot be written: ")
    assert out.rstrip().endswith("set TMPDIR to another folder")
    assert out.count("\n") == 1
