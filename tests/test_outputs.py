"""Files that people ask for: written whole or not at all."""

import os
import stat
import threading
from pathlib import Path

import pytest

from tuner.errors import RunError
from tuner.outputs import written_whole


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
