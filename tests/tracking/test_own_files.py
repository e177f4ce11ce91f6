"""Files in the folder of temporary files: nobody else's are touched, one is in at a time."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tuner.errors import InputError
from tuner.tracking import only_copier
from tuner.tracking import store as own_files
from tuner.tracking.store import alone, open_own, own_path


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_lock_leaves_nothing_behind_however_it_ends(temporary):
    path = own_path("sync", "abc", ".lock")
    with only_copier("abc"):
        assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyError), only_copier("abc"):
        raise KeyError
    assert list(temporary.iterdir()) == []
    command = "import os, signal, tempfile; from tuner.tracking import only_copier\n"
    command += "with only_copier('abc'): os.kill(os.getpid(), signal.SIGKILL)"
    environment = {**os.environ, "TMPDIR": str(temporary)}
    killed = subprocess.run([sys.executable, "-c", command], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.exists()
    with only_copier("abc"):  # and is not kept out by what the killed one left
        pass
    assert list(temporary.iterdir()) == []


def test_what_others_put_in_the_way_is_refused_and_left_as_it_is(temporary, monkeypatch):
    precious, path = temporary / "precious", own_path("sync", "abc", ".lock")
    precious.write_text("data")

    def refused(why):
        said = f"{path}: cannot be locked: {why}; remove it, or set TMPDIR"
        with pytest.raises(InputError, match=said), only_copier("abc"):
            pytest.fail("let in")

    path.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic"):
        open_own(path, "w")
    refused("Too many levels of symbolic links")
    assert precious.read_text() == "data"
    assert path.is_symlink()
    path.unlink()
    os.mkfifo(path)
    refused("is not a file of yours")
    path.unlink()
    path.mkdir()
    refused("Is a directory")
    path.rmdir()
    path.write_text("theirs")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    path = path.rename(own_path("sync", "abc", ".lock"))
    refused("is not a file of yours")
    with pytest.raises(PermissionError):
        open_own(path, "w")
    assert path.read_text() == "theirs"


def test_a_waiter_for_a_removed_file_waits_for_the_next(temporary, monkeypatch):
    """The first is in; another waits; the first goes, and a third is in before the other wakes."""
    path, inside = temporary / "lock", []
    waits, may, waits_again, entered = (threading.Event() for _ in range(4))
    take = own_files.fcntl.flock

    def flock(file, how):
        if threading.current_thread() is other:
            (waits_again if waits.is_set() else waits).set()
            assert may.wait(60)
        take(file, how)

    def enter():
        with alone(path):
            inside.append("other")
            entered.set()

    other = threading.Thread(target=enter, daemon=True)
    monkeypatch.setattr(own_files.fcntl, "flock", flock)
    with alone(path):
        other.start()
        assert waits.wait(60)
    with alone(path):
        may.set()  # its file is nobody's by now
        assert waits_again.wait(60)
        assert inside == []
    assert entered.wait(60)
    other.join(60)
    assert not path.exists()


COUNTS = """
import sys; from pathlib import Path; from tuner.tracking.store import alone
for _ in range(300):
    with alone(Path(sys.argv[1])):
        n = int(Path(sys.argv[2]).read_text())
        Path(sys.argv[2]).write_text(str(n + 1))
"""


def test_processes_that_come_and_go_are_never_in_together(tmp_path):
    count = tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", COUNTS, str(tmp_path / "lock"), str(count)]
    both = [subprocess.Popen(command) for _ in range(3)]
    assert [p.wait(60) for p in both] == [0, 0, 0]
    assert count.read_text() == "900"
    assert list(tmp_path.iterdir()) == [count]


def test_opening_makes_a_file_or_empties_it_only_where_it_is_to(tmp_path):
    path = Path(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        open_own(path, "r")
    with open_own(path, "w") as file:
        file.write(b"first one")
    with open_own(path, "r+"), open_own(path, "r") as file:
        assert file.read() == b"first one"
    with open_own(path, "w") as file:
        file.write(b"second")
    assert path.read_bytes() == b"second"
