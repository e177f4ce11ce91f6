"""What every answer to a hostile request obeys: refused with 4xx, in a second, in one line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any


class Clock:
    """Takes the time of a request: that of this process, which others do not slow down."""

    def __init__(self) -> None:
        self._began = time.monotonic(), time.process_time()

    def check(self) -> None:
        """Check that a second has not passed, or two where other work takes the machine."""
        wall, cpu = time.monotonic() - self._began[0], time.process_time() - self._began[1]
        # Alone, none takes more than half a second; beside other tests a processor is slower.
        assert min(wall, cpu) < 2, f"{wall:.2f} s, of which the process ran {cpu:.2f} s"
        assert wall < 10, f"{wall:.2f} s"


def check_refused(answer: Any, clock: Clock, hidden: Iterable[str]) -> None:
    """Check that a request was refused, quickly, in one line, and nothing was shown.

    Args:
        answer: of the service.
        clock: made before the request.
        hidden: texts that no answer has.
    """
    clock.check()
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:500])
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert len(problem.pop("errors", ())) <= 100
    assert "\n" not in problem["detail"]
    assert len(json.dumps(problem)) < 4000
    assert len(answer.content) < 50_000
    for text in (*hidden, "root:x:0", "Traceback", "site-packages"):
        assert text not in answer.text
