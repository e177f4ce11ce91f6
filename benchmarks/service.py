"""The service under load: each figure beside its target, all of one run on one machine.

    python benchmarks/service.py storm      1,000 clients, 5 external trials each, at once
    python benchmarks/service.py steady     the same clients, 10 s between calls
    python benchmarks/service.py kills      SIGKILL twenty times under that load; 10,000 trials
    python benchmarks/service.py queue      200 studies of ten simulated trials by 10 owners
    python benchmarks/service.py overhead   a simulated trial here, and in `tuner run`
    python benchmarks/service.py streams    200 event streams, and a restart
    python benchmarks/service.py page       a study of 100,000 trials
    python benchmarks/service.py cancel     how soon workers are free
    python benchmarks/service.py memory     what the process holds
    python benchmarks/service.py peers      the storm in Optuna's gRPC proxy and in OSS Vizier
    python benchmarks/service.py parity     trained trials, bit for bit those of `tuner run`

The server is a process of its own, and so are the clients; all share the machine. Simulated
trials run in real worker processes that wait in place of training (`idle_worker.py`).
`--journal URL` puts the journals of external studies into a database.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from service_external import (
    LOAD,
    STRATEGIES,
    create,
    kills,
    loads,
    p99,
    page,
    peers,
    show,
    steady,
    storm,
)
from service_server import BENCHMARKS, ROOT, Owner, Server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in RUNS.items():
        one = commands.add_parser(name, help=(run.__doc__ or "").partition("\n")[0])
        if name in ("storm", "steady", "kills"):
            one.add_argument("--clients", type=int, default=1000)
        if name in ("storm", "steady"):
            one.add_argument("--strategy", default="random", choices=list(STRATEGIES))
            one.add_argument("--journal", metavar="URL", help="of an empty database")
        if name == "steady":
            one.add_argument("--pause", type=float, default=10.0)
            one.add_argument("--trials", type=int, default=3, help="of each client")
        if name == "kills":
            one.add_argument("--kills", type=int, default=20)
            one.add_argument("--told", type=int, default=10_000, help="trials of the large study")
        if name == "queue":
            one.add_argument("--studies", type=int, default=20, help="of each of 10 owners")
            one.add_argument("--workers", type=int, default=4)
        if name == "peers":
            one.add_argument("--clients", type=int, default=100)
            one.add_argument("--vizier", metavar="PYTHON", help="that has OSS Vizier")
        if name == "streams":
            one.add_argument("--streams", type=int, default=200)
        if name == "page":
            one.add_argument("--trials", type=int, default=100_000)
        if name == "overhead":
            one.add_argument("--trials", type=int, default=300)
            one.add_argument("--local", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        RUNS[options.command](Path(folder), options)
    load = f"{before:.1f} before, {os.getloadavg()[0]:.1f} after, on {os.cpu_count()} cores"
    if not getattr(options, "local", None):  # another one reads its output
        print(f"load of the machine: {load}")


# Searches


def write_data(folder: Path) -> Path:
    path = folder / "waves.csv"
    t = np.arange(90)
    y = 10 + 3 * np.sin(t / 2) + np.random.default_rng(0).normal(0, 0.3, len(t))
    path.write_text("y\n" + "".join(f"{float(v)!r}\n" for v in y))
    return path


def experiment(data: str, trials: int = 10, **more: Any) -> dict[str, Any]:
    """Return the experiment of all searches; `data` is a path, or a dataset's reference."""
    return {
        "name": "waves",
        "data": {"path": data, "target": "y", "split": {"validation": 15, "test": 12}},
        "task": {"window": 6, "season": 12},
        "search_space": {
            "hidden_size": {"type": "int", "low": 8, "high": 128, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.5},
        },
        "strategy": {"name": "random", "batch": 4},
        "budget": {"trials": trials, "epochs": 20},
        "pruner": {"name": "none"},
        "finalists": {"top": 0},
    } | more


def submit(owner: Owner, name: str, submitted: dict[str, Any]) -> None:
    body = {"name": name, "experiment": submitted, "tracking": False, "test": False}
    owner("POST", "/v1/studies", body)


def events_of(owner: Owner, study: str) -> list[dict[str, Any]]:
    lines = owner("GET", f"/v1/studies/{study}/events", headers={"Accept": "application/x-ndjson"})
    return [json.loads(line) for line in lines.splitlines() if line.strip()]


def span_s(events: Sequence[dict[str, Any]]) -> float:
    """Return the seconds from the first epoch of a trial to the last outcome."""
    times = [e["time"] for e in events if e.get("role") == "trial" and e["event"] != "asked"]
    first = next(e["time"] for e in events if e["event"] == "epoch")  # the worker has started
    return float(max(times) - first)


def queue(folder: Path, options: argparse.Namespace) -> None:
    """200 studies of ten simulated trials by 10 owners: when equals end.

    First all of them are there before the first worker starts; then workers begin with the first
    study, while the others are still submitted and prepared. Who comes first then ends first, as
    no worker waits for those to come.
    """
    for name in ("all there before the workers", "as they come"):
        print(f"{10 * options.studies} studies on {options.workers} workers, {name}")
        with tempfile.TemporaryDirectory(dir=folder) as inner:
            _queue(Path(inner), options, gated=name.startswith("all"))


def _queue(folder: Path, options: argparse.Namespace, *, gated: bool) -> None:
    from tuner.service.access import new_token

    epoch_s, tokens, gate = 0.005, folder / "tokens.yaml", folder / "gate"
    names, n_trials = [f"owner{n}" for n in range(10)], 10 * 10 * options.studies
    given = {name: new_token(tokens, name, "write") for name in names}
    how = {"epoch_s": epoch_s, "workers": options.workers, "tokens": tokens}
    with Server(folder / "root", gate=gate if gated else None, **how) as server:
        owners = {name: Owner(server, token) for name, token in given.items()}
        data = write_data(folder)
        references = {name: f"dataset:{owner.upload(data)}" for name, owner in owners.items()}
        began, before = time.time(), server.cpu_s
        for n in range(options.studies):
            for name, owner in owners.items():
                submit(owner, f"s{n}", experiment(references[name], seed=n))
        if gated:
            _wait_for_jobs(owners["owner0"], 4 * 10 * options.studies)  # a batch of each
            gate.touch()
            began, before = time.time(), server.cpu_s
        studies = [
            (name, owner.wait(f"s{n}", 1800.0))
            for name, owner in owners.items()
            for n in range(options.studies)
        ]
        if failed := [study["error"] for _, study in studies if study["state"] != "done"]:
            raise RuntimeError(failed[0])
        cpu_s = server.cpu_s - before
    ends = {
        name: [_time(s["ended"]) - began for who, s in studies if who == name] for name in names
    }
    times = sorted(time for each in ends.values() for time in each)
    low, high = (float(np.percentile(times, q)) for q in (5, 95))
    show("first study done after", times[0], " s")
    show("last study done after", times[-1], " s")
    target = 20 if gated else None
    show("the last study is done later than the first by", _later(times), " %", target)
    show("the 95th percentile is later than the 5th by", _later([low, high]), " %", target)
    last = [max(each) for each in ends.values()]
    show("owners: the last is done later than the first by", _later(last), " %", 20)
    means = [statistics.fmean(each) for each in ends.values()]
    show("owners: means of their studies differ by", _later(means), " %", 20)
    trained = 20 * epoch_s * n_trials / options.workers
    show("time without training, for a trial", 1000 * (times[-1] - trained) / n_trials, " ms")
    show("processor time of the server for a trial", 1000 * cpu_s / n_trials, " ms")


def _later(times: Sequence[float]) -> float:
    """Return by how much the last time is later than the first, in percent."""
    return 100 * (max(times) / min(times) - 1)


def _wait_for_jobs(owner: Owner, n: int) -> None:
    """Wait until so many trials wait for a worker."""
    give_up = time.monotonic() + 600
    while (waiting := owner.figure("tuner_trials_waiting")) < n:
        if time.monotonic() > give_up:
            raise TimeoutError(f"{waiting:.0f} of {n} trials wait")
        time.sleep(0.5)


def _time(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def overhead(folder: Path, options: argparse.Namespace) -> None:
    """A simulated trial in the service, and in `tuner run`."""
    if options.local is not None:
        local(options.local, options.trials)
        return
    data, n, spans, cpu = write_data(folder), options.trials, [], []
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{BENCHMARKS}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "overhead", "--trials", str(n), "--local", str(folder)]
    here, here_cpu = [], []
    with Server(folder / "root", epoch_s=0.0, workers=1) as server:
        owner = Owner(server)
        reference = f"dataset:{owner.upload(data)}"
        submit(owner, "first", experiment(reference, 2))  # imports what searches need
        owner.wait("first")
        for k in range(3):  # in turns, so that both see the same machine
            before = server.cpu_s
            submit(owner, f"s{k}", experiment(reference, n))
            owner.wait(f"s{k}")
            cpu.append(server.cpu_s - before)
            spans.append(span_s(events_of(owner, f"s{k}")))
            done = subprocess.run(command, check=True, env=env, capture_output=True, text=True)
            *lines, last = done.stdout.splitlines()
            here.append(span_s([json.loads(line) for line in lines]))
            here_cpu.append(float(last))
    show("a trial of 20 epochs in the service, best of 3", 1000 * min(spans) / n, " ms")
    show("a trial in tuner run, best of 3", 1000 * min(here) / n, " ms")
    show("difference", 1000 * (min(spans) - min(here)) / n, " ms", 5)
    show("processor time of a trial in the service, best of 3", 1000 * min(cpu) / n, " ms")
    show("processor time in tuner run, best of 3", 1000 * min(here_cpu) / n, " ms")
    show("difference", 1000 * (min(cpu) - min(here_cpu)) / n, " ms", 5)


def local(folder: Path, trials: int) -> None:
    """Search as `tuner run --json` does, with an idle worker."""
    from tuner.executors import LocalExecutor
    from tuner.experiment import Experiment
    from tuner.orchestrator import SearchOptions, search
    from tuner.progress.reporters import JsonReporter

    searched = Experiment.model_validate(experiment(str(folder / "waves.csv"), trials))
    options = SearchOptions("s", str(folder / f"{os.getpid()}.journal"), finalists=False)
    make = partial(LocalExecutor, module="idle_worker")
    few = searched.changed({"budget.trials": 2})
    warm = SearchOptions("w", str(folder / f"{os.getpid()}.warm.journal"), finalists=False)
    search(few, warm, make_executor=make)  # imports what searches need
    before = time.process_time()
    search(searched, options, [JsonReporter(sys.stdout)], make_executor=make)
    print(time.process_time() - before)


def streams(folder: Path, options: argparse.Namespace) -> None:
    """200 event streams of a busy study, a restart amid it, and its pace without them."""
    data, spans, n = write_data(folder), {}, options.streams
    for n_streams in (0, n):
        (folder / str(n_streams)).mkdir()
        with Server(folder / str(n_streams) / "root", epoch_s=0.02, workers=2) as server:
            owner = Owner(server)
            submitted = experiment(f"dataset:{owner.upload(data)}", 120)
            idle = server.memory_mb
            submit(owner, "s", submitted)
            if n_streams:
                followers = follow(server, ["s"], n_streams)
                most = _watch_memory(server, followers)
                found = loads(followers)
                late = found["late"]
                show(
                    f"{n_streams} streams, {found['events'] / n_streams:.0f} events each", n_streams
                )
                show("an event's delay, 99th percentile", p99(late), " ms", 250)
                show("an event's delay, median", 1000 * statistics.median(late), " ms")
                show("memory over idle", max(most) - idle, " MB", 300)
                _show_once(found, n_streams)
            owner.wait("s")
            spans[n_streams] = span_s(events_of(owner, "s"))
    show("the search is slower with streams by", 100 * (spans[n] / spans[0] - 1), " %", 2)
    (folder / "restarted").mkdir()
    with Server(folder / "restarted" / "root", epoch_s=0.02, workers=2) as server:
        owner = Owner(server)
        submit(owner, "s", experiment(f"dataset:{owner.upload(data)}", 100))
        followers = follow(server, ["s"], n)
        time.sleep(12)
        show("seconds to stop with all streams open", server.stop(), " s", 5)
        server.start()
        time.sleep(12)
        server.kill()
        server.start()
        print("after a stop and a SIGKILL:")
        found = loads(followers)
        _show_once(found, n)
        logged = [
            (e["event"], e.get("role"), e.get("trial"), e.get("epoch"))
            for e in events_of(owner, "s")
        ]
        of_trials = [key for key in logged if key[1]]
        show(
            "events of a trial in the log that came twice",
            len(of_trials) - len(set(of_trials)),
            target=0,
        )


def follow(server: Server, studies: Sequence[str], n: int) -> Any:
    command = [*LOAD, "follow", server.url, *studies, "--streams", str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _watch_memory(server: Server, while_runs: Any) -> list[float]:
    most = [0.0]

    def watch() -> None:
        while while_runs.poll() is None:
            most[0] = max(most[0], server.memory_mb)
            time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()
    return most


def _show_once(found: dict[str, Any], n: int) -> None:
    show("streams that had the event ended", found["ended"])
    show("streams that did not", n - found["ended"], target=0)
    show("connections", found["connections"])
    show("events that came twice", found["twice"] + found["repeated"], target=0)
    show(
        "streams whose events differ, or are out of order",
        found["different"] + found["out_of_order"],
        target=0,
    )


def memory(folder: Path, options: argparse.Namespace) -> None:
    """What the process holds: idle, with open streams, with open trials, during an upload."""
    with Server(folder / "root") as server:
        owner = Owner(server)
        idle = server.memory_mb
        show("idle", idle, " MB", 250)
        create(owner, "s", "random", 10_001)
        followers = follow(server, ["s"], 200)
        while owner.figure("tuner_event_streams") < 200:
            time.sleep(0.1)
        show("200 open streams, over idle", server.memory_mb - idle, " MB", 300)
        followers.terminate()
        followers.wait()
    (folder / "open").mkdir()
    with Server(folder / "open" / "root") as server:
        owner = Owner(server)
        idle = server.memory_mb
        create(owner, "s", "random", 10_001, lease_s=86_400)
        for _ in range(100):
            owner("POST", "/v1/external-studies/s/ask", {"client": "c", "n": 100})
        show("10,000 open trials, over idle", server.memory_mb - idle, " MB")
    (folder / "upload").mkdir()
    with Server(folder / "upload" / "root") as server:
        owner, large = Owner(server), folder / "large.csv"
        with large.open("wb") as file:
            file.write(b"y\n")
            for _ in range(1023):
                file.write(b"1.5\n" * (1 << 18))
        idle = server.memory_mb
        upload = threading.Thread(target=refused, args=[partial(owner.upload, large)])
        upload.start()
        most = 0.0
        while upload.is_alive():
            most = max(most, server.memory_mb)
            time.sleep(0.02)
        show(f"upload of {large.stat().st_size / 1e6:,.0f} MB, over idle", most - idle, " MB", 64)


def cancel(folder: Path, options: argparse.Namespace) -> None:
    """How soon the workers of a cancelled search work for another one."""
    with Server(folder / "root", epoch_s=5.0, workers=2) as server:
        owner = Owner(server)
        reference = f"dataset:{owner.upload(write_data(folder))}"
        submit(owner, "long", experiment(reference))
        while owner("GET", "/v1/queue")["busy"] < 2:
            time.sleep(0.1)
        time.sleep(6)  # amid the training of both
        began = time.monotonic()
        owner("POST", "/v1/studies/long/cancel")
        show("the answer", time.monotonic() - began, " s")
        while owner("GET", "/v1/queue")["busy"]:
            time.sleep(0.01)
        show("workers are free after", time.monotonic() - began, " s", 5)
        submit(owner, "next", experiment(reference, seed=1))
        while owner("GET", "/v1/queue")["busy"] < 2:
            time.sleep(0.01)
        show("and train for another search after", time.monotonic() - began, " s")


def parity(folder: Path, options: argparse.Namespace) -> None:
    """Trained trials of the service and of `tuner run`, bit for bit."""
    data = write_data(folder)
    trained = {
        "strategy": {"name": "woa", "population": 4},
        "budget": {"trials": 12, "epochs": 8},
        "pruner": {"name": "median", "n_startup_trials": 3, "n_warmup_steps": 2},
        "finalists": {"top": 2, "repeats": 2},
    }
    (folder / "waves.yaml").write_text(yaml.safe_dump(experiment(data.name, **trained)))
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    tuner = [sys.executable, "-m", "tuner"]
    subprocess.run(
        [*tuner, "run", "waves.yaml", "--study", "s", "--no-tracking", "--workers", "2"],
        cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    shown = subprocess.run(
        [*tuner, "show", "s", "--json"], cwd=folder, env=env, check=True, capture_output=True
    )
    here = json.loads(shown.stdout)
    with Server(folder / "root") as server:
        owner = Owner(server)
        reference = f"dataset:{owner.upload(data)}"
        body = {"name": "s", "experiment": experiment(reference, **trained), "tracking": False}
        owner("POST", "/v1/studies", body)
        owner.wait("s")
        there = owner("GET", "/v1/studies/s/summary") | {"all_trials": owner.trials("s")}
    for found in (here, there):
        for trial in found["all_trials"]:
            del trial["seconds"], trial["latency_ms"]
        del found["test"]["opened_at"]
    show("trials", len(here["all_trials"]))
    pairs = zip(here["all_trials"], there["all_trials"], strict=True)
    show("trials that differ", sum(a != b for a, b in pairs), target=0)
    for key in ("best", "finalists", "default"):
        show(f"difference in {key}", here[key] != there[key], target=0)
    show("difference in the test scores", here["test"] != there["test"], target=0)


def refused(do: Callable[[], Any]) -> None:
    """Do what the service takes, and refuses in the end: the file has too many rows."""
    with contextlib.suppress(RuntimeError):
        do()


RUNS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    run.__name__: run
    for run in (storm, steady, kills, queue, overhead, streams, page, cancel, parity, memory, peers)
}

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers end
    main()
