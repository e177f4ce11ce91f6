"""Files that people ask for, written whole or not at all; folders for arrays."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tuner.errors import RunError
from tuner.outputs import scratch_folder, written_whole


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("no"),
                                   KeyboardInterrupt()])  # fmt: skip
@pytest.mark.parametrize("earlier", [True, False])
def test_a_failed_write_keeps_the_earlier_file_alone(tmp_path, error, earlier):
    path = tmp_path / "best.yaml"
    if earlier:
        path.write_text("earlier")

    def write():
        with written_whole(path) as new:
            new.write_text("half of")
            raise error

    if isinstance(error, OSError):
        with pytest.raises(RunError, match=r"best\.yaml: cannot be written: No space left on dev"):
            write()
    else:
        with pytest.raises(type(error)):
            write()
    assert names_in(tmp_path) == ["best.yaml"] * earlier
    assert not earlier or path.read_text() == "earlier"


def test_rights_and_links_stay_as_they_are(tmp_path):
    (tmp_path / "kept").mkdir()
    real, link, fresh = tmp_path / "kept" / "a.html", tmp_path / "a.html", tmp_path / "b.html"
    real.write_text("earlier")
    real.chmod(0o640)
    link.symlink_to(real)
    before = os.umask(0o027)
    try:
        for path in (link, fresh):
            with written_whole(path) as new:
                assert new.suffix == ".html"  # what writes it may look at the ending
                new.write_text("new")
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert real.read_text() == fresh.read_text() == "new"
    assert [stat.S_IMODE(p.stat().st_mode) for p in (real, fresh)] == [0o640, 0o640]
    assert names_in(tmp_path / "kept") == ["a.html"]


def test_a_device_or_a_pipe_is_written_to_and_never_replaced(tmp_path):
    full = Path("/dev/full")
    with (
        pytest.raises(RunError, match="^/dev/full: cannot be written: No space left on device"),
        written_whole(full) as new,
    ):
        new.write_text("x")
    assert full.is_char_device()
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with written_whole(pipe) as new:
        new.write_text("x")
    reader.join()
    assert read == ["x"]
    assert pipe.is_fifo()


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
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"TMPDIR": str(temporary)}
    process = subprocess.Popen([sys.executable, "-c", HOLDS], env=environment, **pipes)
    return process, Path(process.stdout.readline().strip())


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
        os.utime(folder, (1e9, 1e9))  # it is old
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
    command = [sys.executable, "-c", script, str(temporary / "data")]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert out.startswith(f"{temporary / 'data'}: the prepared data cannot be written: ")
    assert out.rstrip().endswith("set TMPDIR to another folder")
    assert out.count("\n") == 1
