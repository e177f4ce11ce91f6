"""A server whose service does as its arguments say, run as a script of its own.

`FOLDER PORT [BEHAVIOUR ...]`: `fails` refuses to start, `waits` stands by until FOLDER/free exists,
`lingers` takes a minute to stop, `impatient` waits for headers for 0.3 s. FOLDER/stopped has the
number of objects that the garbage collector leaves alone, and the last of its thresholds.
"""

import contextlib
import gc
import sys
import time
from pathlib import Path

from tuner.cli import app
from tuner.errors import InputError
from tuner.service import connections, server
from tuner.service.access import Access
from tuner.service.settings import Settings


class SimulatedService:
    access = Access()

    def __init__(self, folder, behaviour):
        self.folder, self.behaviour = folder, behaviour

    def start(self, stand_by, stop):
        if "fails" in self.behaviour:
            raise InputError("cannot be read", where="--journal", remedy="give another")
        if "waits" in self.behaviour:
            stand_by("another service has the journal")
            while not (self.folder / "free").exists():
                if stop.wait(0.05):
                    return False
        (self.folder / "started").touch()
        return True

    def stop(self):
        if "lingers" in self.behaviour:
            time.sleep(60)
        (self.folder / "stopped").write_text(f"{gc.get_freeze_count()} {gc.get_threshold()[2]}")


def main(folder, port, *behaviour):
    if "impatient" in behaviour:
        connections.HEADERS_S = 0.3
    folder = Path(folder)
    settings = Settings(root=folder / "root", port=int(port))
    server.log_to_stderr()
    server.serve(
        settings, SimulatedService(folder, behaviour), lambda line: print(line, flush=True)
    )


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        app.app = lambda **_: main(*sys.argv[1:])  # so errors end it as they end a command
        sys.exit(app.run(["serve"]))
