"""The events of a study as they happen, over connections that may break."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests

from tuner.client.connection import SILENT_S, Connection, spread

_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0  # before a stream that was closed is opened again
_LAST = "ended"


def follow(
    connection: Connection, path: str, after: str | None, has_ended: Callable[[], bool]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events of a study with their ids, each once, until its search has ended.

    A stream that breaks off, as when the service restarts, is continued after the last event.

    Args:
        connection: to the service.
        path: of the events.
        after: id of an event: those after it are yielded; None for all.
        has_ended: asks the service whether the search has ended.

    Raises:
        RefusedError: the study does not exist.
        RunError: the service does not answer any more.
    """
    last, pause = after, _PAUSE_S
    while True:
        before, event, broke = last, dict[str, Any](), False
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if last is not None:
            headers["Last-Event-ID"] = last
        answer = connection.send("GET", path, headers=headers, stream=True, silent_s=SILENT_S)
        with answer:
            try:
                for last, event in _parse(answer):
                    yield last, event
            except requests.RequestException:  # cut off, or silent
                broke = True
        # The service closes a stream after the last event, or because it stops itself.
        if not broke and (event.get("event") == _LAST or (last == before and has_ended())):
            return
        pause = _PAUSE_S if last != before else min(2 * pause, _LONGEST_PAUSE_S)
        time.sleep(spread(pause))


def _parse(answer: requests.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield id and object of each event of a stream; see the HTML standard on EventSource."""
    number, data = "", list[str]()
    for line in answer.iter_lines():
        field, _, value = line.decode("utf-8").partition(":")
        value = value.removeprefix(" ")
        match field:
            case "id":
                number = value
            case "data":
                data.append(value)
            case "" if not line and data:
                yield number, json.loads("\n".join(data))
                data = []
