"""Workers on a Ray cluster, one job each at a time: the executor and the actor that it starts."""

from __future__ import annotations

import functools
import importlib
import os
import queue
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from tuner import __version__
from tuner.data.reference import hold_arrays, read_arrays
from tuner.errors import InputError, RunError, one_line
from tuner.executors.base import (
    Died,
    Event,
    Executor,
    JobSource,
    Message,
    PooledWorker,
    Ready,
    Started,
    Work,
    WorkerPool,
    serve,
)
from tuner.executors.choice import Machines, n_cores, room
from tuner.executors.local import find_gpus, this_machine
from tuner.jobs import Job, data_of

if TYPE_CHECKING:
    from tuner.experiment.schema import Resources

_REACH_S = 4.0  # for each of two steps: an address that does not answer is refused within 10 s


def import_ray() -> Any:
    """Return the package `ray`, an extra.

    Raises:
        InputError: it is not installed.
    """
    # Ray reports its use to its makers unless it is told not to, and where a connection is lost
    # the next call would start a cluster here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        import ray
    except ImportError:
        rule = "ray is not installed"
        raise InputError(rule, where="--executor", remedy="pip install 'lstm-tuner[ray]'") from None
    return ray


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of `ray://HOST:PORT`.

    Raises:
        InputError: it is not written so.
    """
    try:
        url = urlsplit(address)
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if not host or not port or address.lower() not in _spellings(host, port):
        rule = "must be ray://HOST:PORT"
        remedy = f"write ray://{host or 'head-node'}:{port or 10001}, say"
        raise InputError(rule, where="--executor", got=repr(address), remedy=remedy)
    return host, port


def _spellings(host: str, port: int) -> tuple[str, str]:
    return f"ray://{host}:{port}", f"ray://[{host}]:{port}"


class RayConnection:
    """A connection from the first executor that holds it to the release by the last one.

    A connection that the process has already is used and left as it is.

    Args:
        address: `ray://HOST:PORT`; None for a cluster on this machine that starts and ends with
            the connection; else an address for `ray.init`, such as `auto`.
    """

    def __init__(self, address: str | None) -> None:
        self.address = address
        self._n_users = 0
        self._is_ours = False
        self._unsilence: Callable[[], None] = lambda: None

    def connect(self) -> None:
        """Connect, unless that is done.

        Raises:
            InputError: Ray is not installed, or not at that address.
        """
        ray = import_ray()
        if ray.is_initialized():
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address is None:
            quiet |= {
                "address": "local",
                "num_cpus": n_cores(),
                "num_gpus": len(find_gpus()),
                "include_dashboard": False,
            }
        else:
            quiet["address"] = self.address
            if ":" in self.address:
                _check_reachable(self.address)
            # Ray counts the bytes of a whole search; a lost connection is reported by `poll`.
            for text in ("More than 10MB of messages", "Ray Client connection timed out"):
                warnings.filterwarnings("ignore", text, UserWarning)
        try:
            with _signal_handlers_kept():
                try:
                    ray.init(**quiet)
                except ConnectionAbortedError:
                    # Ray Client's server forks with threads, which fails now and then.
                    ray.init(**quiet)
        except Exception as error:  # of many kinds, RuntimeError and ConnectionError among them
            where = self.address or "a cluster on this machine cannot be started"
            raise InputError(f"{where}: {_brief(error)}", where="--executor") from None
        self._is_ours = True
        self._unsilence = _silence(ray)

    def hold(self) -> None:
        """Connect, and stay connected at least until `release`; raises as `connect` does."""
        self.connect()
        self._n_users += 1

    def release(self) -> None:
        """Undo one `hold`; the last one disconnects, and ends a cluster that was started here."""
        self._n_users -= 1
        if self._n_users == 0 and self._is_ours:
            self._is_ours = False
            import_ray().shutdown()
            self._unsilence()

    @property
    def is_lost(self) -> bool:
        """Whether the connection is closed."""
        return not import_ray().is_initialized()

    def nodes(self) -> list[dict[str, float]]:
        """Return the resources of every live node, by Ray's names: CPU, GPU."""
        return [node["Resources"] for node in import_ray().nodes() if node["Alive"]]

    def free(self) -> str:
        """Return in words how many of the cluster's CPUs and GPUs are not reserved."""
        ray = import_ray()
        has, left = ray.cluster_resources(), ray.available_resources()
        kinds = [kind for kind in ("CPU", "GPU") if has.get(kind)]
        return " and ".join(f"{left.get(kind, 0):g} of {has[kind]:g} {kind}s" for kind in kinds)


@functools.cache
def connection_to(address: str | None) -> RayConnection:
    """Return the connection to an address, which all executors share."""
    return RayConnection(address)


def _check_reachable(address: str) -> None:
    """Raise InputError unless HOST:PORT answers, for ray:// as a Ray Client server.

    `ray.init` would try for minutes.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with closing(socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S)):
            pass
    except (OSError, ValueError) as error:
        why = one_line(getattr(error, "strerror", None) or error)
        rule = f"cannot reach {address}: {why}"
        raise InputError(rule, where="--executor", remedy="is Ray running there?") from None
    if address.startswith("ray://"):
        _ping(address)


def _ping(address: str) -> None:
    """Raise InputError unless a Ray Client server at the address lets us in."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import ray_client_pb2, ray_client_pb2_grpc

    request = ray_client_pb2.ClusterInfoRequest(type=ray_client_pb2.ClusterInfoType.PING)
    no_proxy = [("grpc.enable_http_proxy", 0)]  # as when Ray connects
    with init_grpc_channel(address.removeprefix("ray://"), options=no_proxy) as channel:
        try:
            ray_client_pb2_grpc.RayletDriverStub(channel).ClusterInfo(request, timeout=_REACH_S)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                rule = f"{address} wants a token"
                remedy = (
                    "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what `ray get-auth-token` "
                    "prints on the cluster"
                )
                raise InputError(rule, where="--executor", remedy=remedy) from None
            rule = f"{address} answers, but is no Ray Client server ({error.code().name.lower()})"
            remedy = "the port is 10001 unless `ray start --head` was given another"
            raise InputError(rule, where="--executor", remedy=remedy) from None


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Put SIGTERM's handler back: `ray.init` sets its own, which exits on the spot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _brief(error: Exception) -> str:
    """Return an error in one line, of a traceback in it the last line alone."""
    text, _, traceback = str(error).partition("Traceback (most recent call last):")
    return one_line(text + " ".join(traceback.strip().splitlines()[-1:])) or repr(error)


def _silence(ray: Any) -> Callable[[], None]:
    """Keep what raylets say of dead workers off stdout, until the returned function is called.

    `log_to_driver` does not keep it off, and an executor reports every death with its reason.
    """
    worker = ray._private.worker
    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *args, **kwargs: None
    return lambda: setattr(worker, "print_to_stdstream", before)


_STRANDED_S = 60.0  # without a node that has room for a worker, until the executor gives up
_PATIENT_S = 20.0  # that jobs wait for a first worker, until a note
_LOOK_S = 1.0  # between two requests for the nodes of the cluster
_WOKEN_S = 0.01  # at most so long until a pool that waits is woken
_N_CALLS = 3  # to an actor at a time: `train`, `hear`, and a `next_messages` that waits


class RayWorker:
    """The actor: does one job at a time, and queues messages for the executor, `Ready` first.

    Args:
        training: the module whose `prepare` returns the functions that do jobs.
        gpus: reserved for it; with 0, the GPUs of other jobs are hidden.
    """

    def __init__(self, training: str, gpus: float) -> None:
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._work: Work = importlib.import_module(training).prepare()
        self._answers: queue.SimpleQueue[Sequence[bool]] = queue.SimpleQueue()
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._messages.put(Ready(__version__))

    def train(self, job: Job, folders: Sequence[str], *arrays: Mapping[str, np.ndarray]) -> None:
        """Do a job whose data was prepared in these folders and arrives as these arrays."""
        hold_arrays(dict(zip(folders, arrays, strict=True)))
        serve(job, self._work, self._send, self._answers.get)

    def hear(self, answers: Sequence[bool]) -> None:
        """Receive the answer to `Started`, or those to a report of jobs that can be pruned."""
        self._answers.put(answers)

    def next_messages(self) -> list[Message]:
        """Return the messages since the last call, waiting for the first."""
        messages = [self._messages.get()]
        while not self._messages.empty():
            messages.append(self._messages.get())
        return messages

    def _send(self, message: Message) -> None:
        self._messages.put(message)
        if isinstance(message, Started):
            # A job that hangs with Python's lock sends nothing: it must not start before the
            # executor measures its time.
            self._answers.get()


class _Actor(PooledWorker):
    """The executor's end of an actor, with the results that it waits for."""

    def __init__(self, handle: Any, share: Callable[[str], Any]) -> None:
        super().__init__()
        self._handle, self._share = handle, share
        self.messages = handle.next_messages.remote()
        self.training: Any = None  # the end of its job

    def send_job(self, job: Job) -> None:
        folders = sorted({data.folder for data in data_of(job)})
        references = [self._share(folder) for folder in folders]
        self.training = self._handle.train.remote(job, folders, *references)

    def send_answers(self, answers: Sequence[bool]) -> None:
        self._handle.hear.remote(answers)

    def listen_on(self) -> None:
        """Ask for the next messages."""
        self.messages = self._handle.next_messages.remote()

    def end(self) -> None:
        import_ray().kill(self._handle)


class RayExecutor(WorkerPool[_Actor]):
    """Runs jobs in `n_workers` actors of a Ray cluster, which Ray places where there is room.

    Data goes into Ray's object store once, and every node fetches it from there. A worker that is
    lost, for instance with its node, is replaced by an actor on the remaining nodes; if none has
    room, the other workers do the jobs.

    Args:
        n_workers: actors at a time, as far as the cluster has room; each starts when there is a
            job for it.
        address: `ray://HOST:PORT`; None for a cluster of this machine alone, started here; else
            an address for `ray.init`, such as `auto`. A connection that the process has already
            is used in any case.
        cpus: reserved for each worker.
        gpus: reserved for each worker; with 0 it trains on the processor.
        wait_s: seconds that jobs wait while no node has room for a worker, even an idle one; at
            least a minute. A cluster that can grow needs some minutes.
        training: the module that workers train with, see `tuner.executors.worker`.
        note: receives messages for the user: that jobs wait because others hold the room.

    Raises:
        ValueError: `n_workers` is below 1.
        InputError: Ray is not installed, or cannot be reached.
    """

    def __init__(
        self,
        n_workers: int,
        address: str | None = None,
        *,
        cpus: float = 1.0,
        gpus: float = 0.0,
        wait_s: float | None = None,
        training: str = "tuner.executors.worker",
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__(n_workers)
        self._connection = connection_to(address)
        self._cpus, self._gpus, self._training = cpus, gpus, training
        self._shared: dict[str, Any] = {}  # references of the object store, by folder
        self._note, self._stranded_s = note, max(_STRANDED_S, wait_s or 0.0)
        self._waiting_since: float | None = None  # jobs, for a first worker
        self._stranded_since: float | None = None  # the same, without a node that has room for it
        self._looked = -_LOOK_S  # at the nodes
        self._has_noted = False  # since the last worker that was ready
        self._alarm: threading.Event | None = None  # of a pool that another thread wakes
        self._is_open = False
        self._connection.hold()
        self._is_open = True

    def submit(self, job: Job) -> None:
        """Queue a job; raises as `poll` does."""
        with self._failures_named():
            super().submit(job)

    def poll(self, timeout_s: float) -> list[Event]:
        """Return the events of all workers, waiting up to `timeout_s` for the first.

        Raises:
            RunError: the connection is lost, or no worker can be started any more.
        """
        with self._failures_named():
            return super().poll(timeout_s)

    def answer(self, key: str, go_on: bool) -> None:
        """Answer a job that waits; raises as `poll` does."""
        with self._failures_named():
            super().answer(key, go_on)

    @property
    def has_gpus(self) -> bool:
        """Whether GPUs are reserved for each worker."""
        return self._gpus > 0

    def take_from(self, source: JobSource) -> None:
        """Take jobs from a source; the pool can then be woken."""
        super().take_from(source)
        self._alarm = threading.Event()

    def wake(self) -> None:
        """Have a `poll` that waits return within 10 ms."""
        if self._alarm is not None:
            self._alarm.set()

    def end_job(self, key: str) -> None:
        """End a job with its worker; raises as `poll` does."""
        with self._failures_named():
            super().end_job(key)

    def forget(self, folders: Iterable[str]) -> None:
        """Let the object store drop the data of these folders."""
        for folder in folders:
            self._shared.pop(folder, None)

    def close(self) -> None:
        """End the workers, and release the connection."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            # If that fails, the cluster ends the workers by itself.
            with suppress(ConnectionError, import_ray().exceptions.RayError):
                if not self._connection.is_lost:
                    super().close()
        finally:
            self._shared.clear()
            self._connection.release()

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        """Turn errors of the cluster, as opposed to a worker, into RunErrors."""
        try:
            if self._connection.is_lost:
                raise ConnectionError("it was closed")
            yield
        except ConnectionError as error:
            where = self._connection.address or "the cluster"
            rule = f"lost the connection to {where}: {one_line(error)}"
            raise RunError(rule, remedy="the same command resumes") from None
        except ModuleNotFoundError as error:
            raise RunError(f"the cluster's nodes cannot run workers: {one_line(error)}") from None
        except import_ray().exceptions.RayError as error:  # its object store is full, say
            rule = f"Ray failed: {type(error).__name__}: {one_line(error)[:300].rstrip('.')}"
            raise RunError(rule, remedy="the same command resumes") from None

    def _start_worker(self) -> _Actor:
        actor = import_ray().remote(RayWorker)
        options = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_concurrency": _N_CALLS}
        return _Actor(actor.options(**options).remote(self._training, self._gpus), self._share)

    def _share(self, folder: str) -> Any:
        """Return the reference to a folder's arrays in the object store, put there once."""
        if folder not in self._shared:
            self._shared[folder] = import_ray().put(read_arrays(folder))
        return self._shared[folder]

    def _listen(self, timeout_s: float) -> list[tuple[_Actor, Message]]:
        ray = import_ray()
        workers = {
            ref: w for w in self._workers for ref in (w.messages, w.training) if ref is not None
        }
        if not workers:
            (self._alarm or threading.Event()).wait(timeout_s)  # nothing else can happen
        ready = self._wait(list(workers), timeout_s) if workers else []
        if self._alarm is not None:
            self._alarm.clear()
        if not workers:
            return []
        if ready:  # then all that are
            ready, _ = ray.wait(list(workers), num_returns=len(workers), timeout=0)
        received = [(workers[ref], m) for ref in ready for m in self._receive(workers[ref], ref)]
        self._check_room()
        return received

    def _wait(self, references: list[Any], timeout_s: float) -> list[Any]:
        """Return references that are ready, waiting for the first, or for `wake`."""
        ray = import_ray()
        if self._alarm is None:
            return list(ray.wait(references, timeout=timeout_s)[0])
        # Ray has no way to end a wait from another thread.
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            ready, _ = ray.wait(references, timeout=min(left_s, _WOKEN_S))
            if ready or left_s <= _WOKEN_S or self._alarm.is_set():
                return list(ready)

    def _receive(self, worker: _Actor, reference: Any) -> list[Message]:
        ray = import_ray()
        try:
            messages: list[Message] = ray.get(reference) or []
        except ray.exceptions.RayError as error:
            if not isinstance(error, ray.exceptions.RayActorError):
                self._shared.clear()  # the store may have lost them
            return [Died(_reason(error))]
        if reference == worker.training:
            worker.training = None
            return []
        for message in messages:
            if isinstance(message, Ready) and message.version != __version__:
                versions = f"lstm-tuner {message.version} and this machine {__version__}"
                rule = f"a node of the cluster has {versions}"
                raise RunError(rule, remedy="install the same everywhere")
            if isinstance(message, Started):
                worker.send_answers([True])
        worker.listen_on()
        return messages

    def _check_room(self) -> None:
        """Note that jobs wait for a first worker; raise if no node is left for one."""
        if any(w.ready for w in self._workers) or not len(self._source):
            self._waiting_since = self._stranded_since = None
            self._has_noted = False
            return
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        if self._waiting_since is None:
            self._waiting_since = now
        if any(room(node, self._cpus, self._gpus) for node in self._connection.nodes()):
            self._stranded_since = None
        elif self._stranded_since is None:
            self._stranded_since = now
        elif now - self._stranded_since > self._stranded_s:
            raise RunError(
                f"no node of the cluster has {self._cpus:g} CPUs and {self._gpus:g} GPUs for a "
                "worker any more",
                remedy="the same command resumes when there is one",
            )
        if now - self._waiting_since > _PATIENT_S and not self._has_noted:
            self._has_noted = True
            self._note(
                f"waiting for room on the cluster: a worker takes {self._cpus:g} CPUs and "
                f"{self._gpus:g} GPUs, and {self._connection.free()} are free"
            )


def open_ray(
    name: str, resources: Resources, note: Callable[[str], None]
) -> tuple[Machines, Callable[[int], Executor]]:
    """Return the cluster, and the maker of the executor; see `tuner.executors.choice.Opener`.

    `ray` is a cluster of this machine, or the one in the environment variable RAY_ADDRESS.
    """
    address = os.environ.get("RAY_ADDRESS") or None if name == "ray" else name
    if address is not None and address.startswith("ray:"):
        parse_address(address)
    import_ray()
    if address is None:
        machines = this_machine(resources)
    else:
        connection = connection_to(address)
        connection.connect()
        machines = Machines(connection.nodes(), is_cluster=True)
    return machines, functools.partial(
        RayExecutor,
        address=address,
        cpus=resources.cpus,
        gpus=resources.gpus,
        wait_s=resources.wait,
        note=note,
    )


def _reason(error: Exception) -> str:
    """Return Ray's description of a death in one line, without its advice and addresses."""
    last_line = one_line(str(error).strip().rpartition("\n")[2])
    if "creation task" in str(error):
        return last_line
    if isinstance(error, import_ray().exceptions.RayTaskError):
        return f"its worker died ({last_line})"
    text = one_line(error)
    _, unreachable, why = text.partition("temporarily unavailable: ")
    if unreachable:
        return f"its worker died, or cannot be reached ({why.partition(' rpc_code')[0]})"
    _, found, why = text.partition("The actor is dead because ")
    why = (why if found else text).partition(" Some common causes")[0]
    why = why.removeprefix("its worker process has died. Worker exit type: ")
    return f"its worker died ({why.replace(' Worker exit detail:', ':')[:300].rstrip('.')})"
