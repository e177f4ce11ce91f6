"""External studies under load: storms, kills, many trials; see `service.py`."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from service_load import score, space
from service_made import repeat_trial
from service_server import BENCHMARKS, Owner, Server

LOAD = [sys.executable, str(BENCHMARKS / "service_load.py")]


def show(what: str, value: float, unit: str = "", target: float | None = None) -> None:
    """Print a figure; its target is the most that it may be."""
    text = f"{value:,.0f}" if unit == "" or value >= 1000 else f"{value:,.3g}"
    aim = "" if target is None else f"   target {target:g}{unit}"
    missed = "   MISSED" if target is not None and value > target else ""
    print(f"{what:<58}{text + unit:>12}{aim}{missed}", flush=True)


def p99(seconds: Sequence[float]) -> float:
    """Return the 99th percentile, in milliseconds."""
    return 1000 * float(np.percentile(seconds, 99)) if seconds else float("nan")


STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"strategy": {"name": "random"}, "asynchronous": True},
    "qmc": {"strategy": {"name": "qmc"}, "asynchronous": True},
    "tpe": {"strategy": {"name": "tpe"}, "asynchronous": True},
    "pso": {"strategy": {"name": "pso", "population": 2000}},
    "repeatable": {"strategy": {"name": "random", "batch": 2000}},
}


def create(owner: Owner, name: str, strategy: str, trials: int, **more: Any) -> None:
    body = {"name": name, "space": space(), "direction": "minimize", "trials": trials}
    owner("POST", "/v1/external-studies", body | STRATEGIES[strategy] | more)


def load(server: Server, study: str, clients: int, trials: int, pause: float = 0.0) -> Any:
    """Start clients; what the result's `communicate` gives is for `loads`."""
    command = [*LOAD, "trials", server.url, study, "--clients", str(clients)]
    command += ["--trials", str(trials), "--pause", str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def loads(process: Any) -> dict[str, Any]:
    text, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("the clients failed")
    found: dict[str, Any] = json.loads(text)
    return found


def check_told(found: dict[str, Any], trials: list[dict[str, Any]], n: int) -> None:
    """Print whether every trial was given and told once, with the value that was acknowledged."""
    values = {trial["number"]: trial["value"] for trial in trials}
    told = {int(number): value for number, value in found["told"].items()}
    lost = sum(values.get(number) != value for number, value in told.items())
    wrong = [t for t in trials if abs(score(t["params"]) - t["value"]) > 1e-9]
    show("trials told and acknowledged", len(told))
    show("missing of them", n - len(told), target=0)
    show("acknowledged, but not there or with another value", lost, target=0)
    show("trials with the value of another configuration", len(wrong), target=0)
    for line in wrong[:3]:
        print("   ", line)
    show("trials given more than once", sum(k > 1 for k in found["given"].values()))
    show("requests that were refused", len(found["refused"]), target=0)
    for line in found["refused"][:3]:
        print("   ", line)
    print("   ", dict(sorted(found["statuses"].items())), "cut:", found["cut"])


def storm(folder: Path, options: argparse.Namespace) -> None:
    """1,000 clients, 5 external trials each, at once."""
    n = 5 * options.clients
    with Server(folder / "root", journal=options.journal) as server:
        owner = Owner(server)
        create(owner, "storm", options.strategy, n)
        before = server.cpu_s
        found = loads(load(server, "storm", options.clients, 5))
        seconds = found["ended"] - found["began"]
        show(
            f"{options.clients:,} clients with 5 trials each, {options.strategy}", seconds, " s", 30
        )
        show("processor time of the server for a trial", 1000 * (server.cpu_s - before) / n, " ms")
        show("ask, 99th percentile", p99(found["asks"]), " ms")
        show("tell, 99th percentile", p99(found["tells"]), " ms")
        check_told(found, owner.trials("storm"), n)


def steady(folder: Path, options: argparse.Namespace) -> None:
    """The same clients, with a pause between their calls; beside them a fifth of an empty one."""
    n, few = options.trials * options.clients, max(1, options.clients // 5)
    (folder / "floor").mkdir()
    with (
        Server(folder / "root", journal=options.journal) as server,
        Server(folder / "floor" / "root", floor=True) as floor,
    ):
        owner = Owner(server)
        create(owner, "steady", options.strategy, n)
        before = server.cpu_s
        beside = load(floor, "floor", few, options.trials, options.pause)
        found = loads(load(server, "steady", options.clients, options.trials, options.pause))
        empty, seconds = loads(beside), found["ended"] - found["began"]
        print(f"{options.clients:,} clients, {options.pause:g} s between calls, {options.strategy}")
        show("calls a second", 2 * n / seconds, " /s")
        show("processor time of the server for a trial", 1000 * (server.cpu_s - before) / n, " ms")
        limit = 100 if options.strategy == "tpe" else 50
        for what, target in (("ask", limit), ("tell", 50)):
            took, least = found[f"{what}s"], empty[f"{what}s"]
            show(f"{what}, 99th percentile", p99(took), " ms", target)
            show("  of an empty handler at the same time", p99(least), " ms")
            show("  times that", p99(took) / p99(least), " x")
            show(f"{what}, median", 1000 * statistics.median(took), " ms")
            show("  of an empty handler", 1000 * statistics.median(least), " ms")
        check_told(found, owner.trials("steady"), n)


def kills(folder: Path, options: argparse.Namespace) -> None:
    """SIGKILL twenty times under load; then a start with 10,000 trials."""
    n_trials, rng = 5, random.Random(0)
    n, winners = n_trials * options.clients, []
    for n_kills in (0, options.kills):
        (folder / str(n_kills)).mkdir()
        with Server(folder / str(n_kills) / "root") as server:
            owner = Owner(server)
            create(owner, "s", "repeatable", n, lease_s=600)
            clients = load(server, "s", options.clients, n_trials, 3.0 if n_kills else 0.0)
            starts, cpu = [], []
            for _ in range(n_kills):
                time.sleep(0.5 + 1.5 * rng.random())
                server.kill()
                starts.append(server.start())
                cpu.append(server.cpu_s)
            found = loads(clients)
            winners.append(owner("GET", "/v1/studies/s")["best"])
            if n_kills:
                show("SIGKILL under load", n_kills)
                show("longest start", max(starts), " s", 5)
                show("most processor time of a start", max(cpu), " s")
                check_told(found, owner.trials("s"), n)
    show("winners that differ from that of an undisturbed run", winners[0] != winners[1], target=0)
    restart(folder, options.told)


def restart(folder: Path, n: int) -> None:
    """Kill a service whose study has many trials, and start it."""
    with Server(folder / "root") as server:
        owner = Owner(server)
        make_large(owner, server, folder, n)
        server.kill()
        began = time.monotonic()
        server.start()
        owner("POST", "/v1/external-studies/large/ask", {"client": "c"})
        show(f"from a start to the next ask, with {n:,} trials", time.monotonic() - began, " s", 5)
        show("  processor time of that", server.cpu_s, " s")


def make_large(owner: Owner, server: Server, folder: Path, n: int) -> None:
    """Make a study `large` of n trials, but for the last one; the service is started again."""
    create(owner, "large", "random", n)
    loads(load(server, "large", 1, 1))
    server.stop()
    repeat_trial(folder / "root", "large", n - 1)
    server.start()


def page(folder: Path, options: argparse.Namespace) -> None:
    """A study of 100,000 trials: its page, its rows, and the list of studies."""
    n = options.trials
    with Server(folder / "root") as server:
        owner = Owner(server)
        make_large(owner, server, folder, n)
        for turn in ("first", "again"):
            for path in (
                "/?study=large",
                "/page/view?study=large",
                "/v1/studies",
                "/v1/studies/large",
                "/v1/studies/large/trials?limit=1000",
                "/v1/studies/large/trials?order=score",
            ):
                began = time.monotonic()
                size = len(owner("GET", path, parse=False))
                seconds = time.monotonic() - began
                show(f"{turn}: {path} ({size / 1000:.0f} kB)", seconds, " s", 2)
        began = time.monotonic()
        owner("POST", "/v1/external-studies/large/ask", {"client": "c"})
        show(f"an ask that opens the journal of {n:,} trials", time.monotonic() - began, " s")
        show("memory of the process then", server.memory_mb, " MB")


def peers(folder: Path, options: argparse.Namespace) -> None:
    """The storm here, and in other services that give out trials, with as many clients."""
    with Server(folder / "root") as server:
        create(Owner(server), "storm", "random", 5 * options.clients)
        before = server.cpu_s
        found = loads(load(server, "storm", options.clients, 5))
        rows = [("tuner serve, file", found["ended"] - found["began"], server.cpu_s - before)]
    script = str(BENCHMARKS / "service_peers.py")
    pythons = {"optuna": sys.executable} | ({"vizier": options.vizier} if options.vizier else {})
    n = 5 * options.clients
    for name, python in pythons.items():
        command = [python, script, name, "--clients", str(options.clients)]
        found = loads(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        rows.append((f"{name}, SQLite", found["seconds"], found["server_cpu_s"]))
        print(
            f"{name}: {found['told']} told, {found['distinct']} there, of {n}", *found["errors"][:3]
        )
    print(f"{options.clients} clients with 5 trials each:")
    for name, seconds, cpu in rows:
        show(name, seconds, " s")
        show("  processor time of the server for a trial", 1000 * cpu / n, " ms")
