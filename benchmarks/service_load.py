"""Clients of the service for its benchmark: they ask, wait, tell; or follow events.

Each command is a process of its own, so that clients do not share the server's processor time
with it any more than they must. It prints what it found as JSON.

    python benchmarks/service_load.py trials URL STUDY --clients 1000 --trials 5 --pause 10
    python benchmarks/service_load.py follow URL STUDY... --streams 200
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

_AGAIN_S, _MOST_AGAIN_S = 0.1, 2.0  # from a refused connection to the next attempt, and later
_GIVE_UP_S = 600.0  # without an answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("trials")
    one.add_argument("url")
    one.add_argument("study")
    one.add_argument("--clients", type=int, default=1000)
    one.add_argument("--trials", type=int, default=5, help="of each client")
    one.add_argument("--pause", type=float, default=0.0, help="seconds between its calls")
    one.add_argument("--first", type=int, default=0, help="the number of the first client")
    one = commands.add_parser("follow")
    one.add_argument("url")
    one.add_argument("studies", nargs="+")
    one.add_argument("--streams", type=int, default=200, help="in all")
    options = parser.parse_args()
    run = trials if options.command == "trials" else follow
    gc.freeze()
    gc.disable()  # a collection would delay all clients, and count as the server's time
    json.dump(asyncio.run(run(options)), sys.stdout)


def score(params: dict[str, Any]) -> float:
    """Return the value of a configuration: the same for every client."""
    return sum((float(value) - 0.3) ** 2 for value in params.values())


def space(n: int = 3) -> dict[str, Any]:
    """Return a search space of n parameters from 0 to 1."""
    return {f"x{i}": {"type": "float", "low": 0.0, "high": 1.0} for i in range(n)}


@dataclass
class Load:
    """What all clients of a process found."""

    asks: list[float] = field(default_factory=list)  # seconds, of those that gave a trial
    tells: list[float] = field(default_factory=list)
    told: dict[int, float] = field(default_factory=dict)  # acknowledged, by number
    given: Counter[int] = field(default_factory=Counter)  # how often each number was asked
    statuses: Counter[str] = field(default_factory=Counter)
    cut: int = 0  # requests whose connection was lost, or refused
    refused: list[str] = field(default_factory=list)  # problems that should not be


async def trials(options: argparse.Namespace) -> dict[str, Any]:
    """Run clients, each to the end of its trials."""
    load, began = Load(), time.time()
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=_GIVE_UP_S)
    async with aiohttp.ClientSession(
        options.url, connector=connector, timeout=timeout, json_serialize=json.dumps
    ) as session:
        numbers = range(options.first, options.first + options.clients)
        clients = [Client(session, options, f"client-{n}", load) for n in numbers]
        await asyncio.gather(*(client.run() for client in clients))
    return vars(load) | {"began": began, "ended": time.time()}


class Client:
    """One client: asks for a trial, pauses, tells its value, pauses."""

    def __init__(
        self, session: aiohttp.ClientSession, options: argparse.Namespace, name: str, load: Load
    ) -> None:
        self._session, self._name, self._load = session, name, load
        self._root = f"/v1/external-studies/{options.study}"
        self._trials, self._pause = options.trials, options.pause
        self._rng = random.Random(name)

    async def run(self) -> None:
        """Run all of its trials, or until there is none for it."""
        await asyncio.sleep(self._rng.random() * self._pause)
        for _ in range(self._trials):
            trial = await self._ask()
            if trial is None:
                return
            self._load.given[trial["number"]] += 1
            await asyncio.sleep(self._pause)
            await self._tell(trial)
            await asyncio.sleep(self._pause)

    async def _ask(self) -> dict[str, Any] | None:
        key = uuid.uuid4().hex
        while True:
            body = {"client": self._name, "wait_s": 20}
            status, answer, seconds, headers = await self._post("/ask", body, key)
            match status:
                case 200:
                    self._load.asks.append(seconds)
                    trial: dict[str, Any] = answer["trials"][0]
                    return trial
                case 204:
                    await asyncio.sleep(float(headers.get("Retry-After", 1)))
                case _:
                    if status != 410:
                        self._load.refused.append(f"ask: {status} {answer.get('detail')}")
                    return None

    async def _tell(self, trial: dict[str, Any]) -> None:
        number, value = trial["number"], score(trial["params"])
        body = {"lease": trial["lease"], "value": value}
        path = f"/trials/{number}/tell"
        status, answer, seconds, _ = await self._post(path, body, uuid.uuid4().hex)
        if status == 200:
            self._load.tells.append(seconds)
            self._load.told[number] = value
        else:
            self._load.refused.append(f"tell {number}: {status} {answer.get('detail')}")

    async def _post(self, path: str, body: dict[str, Any], key: str) -> tuple[int, Any, float, Any]:
        """Send a request until it is answered; the time is that of the attempt that was."""
        give_up, again_s = time.monotonic() + _GIVE_UP_S, _AGAIN_S
        while True:
            began = time.perf_counter()
            try:
                async with self._session.post(
                    self._root + path, json=body, headers={"Idempotency-Key": key}
                ) as response:
                    text = await response.read()
                    seconds = time.perf_counter() - began
                    self._load.statuses[f"{path.rpartition('/')[2]} {response.status}"] += 1
                    if response.status not in (429, 503):
                        answer = json.loads(text) if text else {}
                        return response.status, answer, seconds, response.headers
                    await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                self._load.cut += 1
                await asyncio.sleep(again_s * (1 + self._rng.random()))
                again_s = min(2 * again_s, _MOST_AGAIN_S)  # as clients do
            if time.monotonic() > give_up:
                raise TimeoutError(f"{self._name} has no answer to {path}")


async def follow(options: argparse.Namespace) -> dict[str, Any]:
    """Follow studies to their ends; streams that are cut go on from their last event."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
    async with aiohttp.ClientSession(options.url, connector=connector, timeout=timeout) as session:
        studies = [options.studies[n % len(options.studies)] for n in range(options.streams)]
        found = await asyncio.gather(*(Follower(session, study).run() for study in studies))
    late = sorted(seconds for follower in found for seconds in follower.late)
    sequences: dict[str, set[int]] = {}
    for follower in found:
        sequences.setdefault(follower.study, set()).add(hash(tuple(follower.ids)))
    return {
        "events": sum(len(follower.ids) for follower in found),
        "per_study": {f.study: len(f.ids) for f in found},
        "connections": sum(follower.connections for follower in found),
        "twice": sum(len(f.ids) - len(set(f.ids)) for f in found),
        "out_of_order": sum(f.ids != sorted(f.ids) for f in found),
        "different": sum(len(hashes) - 1 for hashes in sequences.values()),
        "repeated": sum(f.repeated for f in found),
        "late": late,
        "ended": sum(follower.ended for follower in found),
    }


class Follower:
    """One stream of events."""

    def __init__(self, session: aiohttp.ClientSession, study: str) -> None:
        self._session, self.study = session, study
        self.ids: list[int] = []
        self.late: list[float] = []  # seconds from an event to its arrival
        self._seen: set[tuple[Any, ...]] = set()
        self.repeated = 0  # events of a trial that came before, under another id
        self.connections, self.ended = 0, False

    async def run(self) -> Follower:
        """Read to the end of the study."""
        while not self.ended:
            headers = {"Last-Event-ID": str(self.ids[-1])} if self.ids else {}
            try:
                async with self._session.get(
                    f"/v1/studies/{self.study}/events", headers=headers
                ) as response:
                    if response.status == 204:
                        break
                    response.raise_for_status()
                    self.connections += 1
                    await self._read(response)
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                pass
            if not self.ended:
                await asyncio.sleep(_AGAIN_S)
        return self

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        connected, left = time.time(), b""
        async for chunk in response.content.iter_any():
            now = time.time()
            *frames, left = (left + chunk).split(b"\n\n")
            for event, id_ in _events(frames):
                self.ids.append(id_)
                if event["time"] > connected:  # else it waited for this client, or its server
                    self.late.append(now - event["time"])
                key = tuple(event.get(k) for k in ("event", "role", "trial", "epoch"))
                if "role" in event:
                    self.repeated += key in self._seen
                    self._seen.add(key)
                self.ended |= event["event"] == "ended"


def _events(frames: Iterable[bytes]) -> Iterable[tuple[dict[str, Any], int]]:
    for frame in frames:
        fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if line[:1] != b":")
        if fields:
            yield json.loads(fields[b"data"]), int(fields[b"id"])


if __name__ == "__main__":
    main()
