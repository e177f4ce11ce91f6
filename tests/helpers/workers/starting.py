"""A worker that does not come up as it should; what goes wrong stands in the environment.

`hang` never gets ready, and `die once` dies while the file named after it is missing.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import tuner.executors.worker
from helpers.workers import environment
from tuner.executors import worker


def prepare() -> Any:
    """As `tuner.executors.worker.prepare`."""
    fault, _, file = os.environ["TEST_STARTING"].partition(": ")
    if fault == "hang":
        time.sleep(1000)
    if fault == "die once" and not Path(file).exists():
        Path(file).touch()
        sys.exit("cannot start yet")
    return environment.prepare()


if __name__ == "__main__":
    tuner.executors.worker.prepare = prepare
    worker.main(int(sys.argv[1]))
