"""Workers on a Ray cluster, one job each at a time."""

from __future__ import annotations

import functools
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tuner import __version__
from tuner.data import DataRef
from tuner.data.reference import read_arrays
from tuner.errors import InputError, RunError, one_line
from tuner.executors.base import Died, Event, Executor, Message, Ready, Started
from tuner.executors.choice import Machines, n_cores, room
from tuner.executors.local import find_gpus, this_machine
from tuner.executors.pool import PooledWorker, WorkerPool
from tuner.executors.ray_worker import N_CALLS, RayWorker
from tuner.jobs import ExportJob, Job, TrainJob

if TYPE_CHECKING:
    from tuner.experiment.schema import Resources

__all__ = [
    "RayConnection",
    "RayExecutor",
    "connection_to",
    "import_ray",
    "open_ray",
    "parse_address",
]

_REACH_S = 4.0  # for each of two steps: an address that does not answer is refused within ten


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
    """Connects when the first executor wants it, and disconnects after the last one.

    A connection that the process has already is used and left as it is.
    """

    def __init__(self, address: str | None) -> None:
        """Connect to nothing yet.

        Args:
            address: `ray://HOST:PORT`; None for a cluster on this machine that is started with
                the connection and ends with it; else what `ray.init` takes, `auto` say.
        """
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
            # Ray adds up what a client has ever sent, and thinks little of long searches; that
            # a connection is lost we say ourselves.
            for text in ("More than 10MB of messages", "Ray Client connection timed out"):
                warnings.filterwarnings("ignore", text, UserWarning)
        try:
            with _signal_handlers_kept():
                try:
                    ray.init(**quiet)
                except ConnectionAbortedError:
                    # Ray Client's server forks with threads, and now and then that goes wrong.
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
        """Undo one `hold`; after the last one disconnect, and end the cluster if it was begun."""
        self._n_users -= 1
        if self._n_users == 0:
            self.disconnect()

    def disconnect(self) -> None:
        """Disconnect if the connection was made here."""
        if self._is_ours:
            self._is_ours = False
            import_ray().shutdown()
            self._unsilence()

    @property
    def is_lost(self) -> bool:
        """Whether the connection, which was there, is no more."""
        return not import_ray().is_initialized()

    def nodes(self) -> list[dict[str, float]]:
        """Return the resources of every node that lives, by Ray's names: CPU, GPU."""
        return [node["Resources"] for node in import_ray().nodes() if node["Alive"]]

    def free(self) -> str:
        """Return in words which of the cluster's CPUs and GPUs nobody has reserved."""
        ray = import_ray()
        has, left = ray.cluster_resources(), ray.available_resources()
        kinds = [kind for kind in ("CPU", "GPU") if has.get(kind)]
        return " and ".join(f"{left.get(kind, 0):g} of {has[kind]:g} {kind}s" for kind in kinds)


@functools.cache
def connection_to(address: str | None) -> RayConnection:
    """Return the connection to an address, shared by all who use it."""
    return RayConnection(address)


def _check_reachable(address: str) -> None:
    """Raise InputError unless something answers at HOST:PORT, for ray:// a Ray Client server.

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


_STRANDED_S = 60.0  # without a node that has room for a worker, before the executor gives up

_PATIENT_S = 20.0  # that jobs wait for a first worker, before the executor says so

_LOOK_S = 1.0  # between two looks at the nodes, which are asked of the cluster


class _Actor(PooledWorker):
    """One Ray actor, and what of it is awaited: its next messages, and the end of its job."""

    def __init__(self, handle: Any, share: Any) -> None:
        super().__init__(ready=False)
        self._handle, self._share = handle, share
        self.said = handle.next_messages.remote()
        self.doing: Any = None

    def send_job(self, job: Job) -> None:
        folders = sorted({data.folder for data in _data_of(job)})
        references = [self._share(folder) for folder in folders]
        self.doing = self._handle.train.remote(job, folders, *references)

    def send_answer(self, go_on: bool) -> None:
        self._handle.hear.remote(go_on)

    def listen_on(self) -> None:
        """Ask for the messages after those that came."""
        self.said = self._handle.next_messages.remote()

    def end(self) -> None:
        import_ray().kill(self._handle)


class RayExecutor(WorkerPool[_Actor]):
    """Runs jobs in `n_workers` actors of a Ray cluster, which Ray places where there is room.

    Data goes into Ray's object store once, and every node fetches it from there. A worker that
    is lost, with its node say, is replaced by an actor that Ray places on what nodes are left;
    where no room is left for it the other workers do the jobs.
    """

    def __init__(
        self,
        n_workers: int,
        address: str | None = None,
        *,
        cpus: float = 1.0,
        gpus: float = 0.0,
        training: str = "tuner.executors.worker",
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Connect; each worker starts when there is a job for it.

        Args:
            n_workers: actors at a time, as far as the cluster has room.
            address: `ray://HOST:PORT`; None for a cluster of this machine alone, started here;
                else what `ray.init` takes, `auto` say. A connection that the process has
                already is used whatever this is.
            cpus: reserved for each worker.
            gpus: reserved for each worker; without any it trains on the processor.
            training: the module that workers train with, see `tuner.executors.worker`.
            note: is told what people should know: that nothing happens as others hold the room.

        Raises:
            ValueError: `n_workers` is below 1.
            InputError: Ray is not installed, or cannot be reached.
        """
        super().__init__(n_workers)
        self._connection = connection_to(address)
        self._cpus, self._gpus, self._training = cpus, gpus, training
        self._shared: dict[str, Any] = {}  # the object store's references, by folder
        self._note = note
        self._waiting_since: float | None = None  # jobs, for a first worker
        self._stranded_since: float | None = None  # they, without a node that has room for it
        self._looked = -_LOOK_S  # at the nodes
        self._has_noted = False  # since the last worker that was ready
        self._is_open = False
        self._connection.hold()
        self._is_open = True

    def submit(self, job: Job) -> None:
        """Queue a job; raises as `poll` does."""
        with self._failures_named():
            super().submit(job)

    def poll(self, timeout_s: float) -> list[Event]:
        """Return the events of all workers, waiting up to `timeout_s` for something to happen.

        Raises:
            RunError: the connection is lost, or workers cannot be started any more.
        """
        with self._failures_named():
            return super().poll(timeout_s)

    def answer(self, key: str, go_on: bool) -> None:
        """Tell a waiting job whether to train on; raises as `poll` does."""
        with self._failures_named():
            super().answer(key, go_on)

    def close(self) -> None:
        """End the workers, and disconnect or end the cluster if that was begun here."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            # Where that fails the cluster ends the workers by itself.
            with suppress(ConnectionError, import_ray().exceptions.RayError):
                if not self._connection.is_lost:
                    super().close()
        finally:
            self._shared.clear()
            self._connection.release()

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        """Make RunErrors of what is wrong with the cluster rather than with a worker."""
        try:
            if self._connection.is_lost:
                raise ConnectionError("it was closed")
            yield
        except ConnectionError as error:
            where = self._connection.address or "the cluster"
            rule = f"lost the connection to {where}: {one_line(error)}"
            raise RunError(rule, remedy="the same command goes on") from None
        except ModuleNotFoundError as error:
            raise RunError(f"the cluster's nodes cannot run workers: {one_line(error)}") from None
        except import_ray().exceptions.RayError as error:  # its object store is full, say
            rule = f"Ray failed: {type(error).__name__}: {one_line(error)[:300].rstrip('.')}"
            raise RunError(rule, remedy="the same command goes on") from None

    def _start_worker(self) -> _Actor:
        actor = import_ray().remote(RayWorker)
        options = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_concurrency": N_CALLS}
        return _Actor(actor.options(**options).remote(self._training, self._gpus), self._share)

    def _share(self, folder: str) -> Any:
        """Return the reference to a folder's arrays in the object store, put there once."""
        if folder not in self._shared:
            self._shared[folder] = import_ray().put(read_arrays(folder))
        return self._shared[folder]

    def _listen(self, timeout_s: float) -> list[tuple[_Actor, Message]]:
        ray = import_ray()
        workers = {ref: w for w in self._workers for ref in (w.said, w.doing) if ref is not None}
        if not workers:
            time.sleep(timeout_s)  # nothing can happen
            return []
        ready, _ = ray.wait(list(workers), timeout=timeout_s)
        if ready:  # then all that are
            ready, _ = ray.wait(list(workers), num_returns=len(workers), timeout=0)
        said: list[tuple[_Actor, Message]] = []
        for reference in ready:
            said += [(workers[reference], m) for m in self._hear(workers[reference], reference)]
        self._check_room()
        return said

    def _hear(self, worker: _Actor, reference: Any) -> list[Message]:
        """Return what a reference of a worker has come to."""
        ray = import_ray()
        try:
            messages: list[Message] | None = ray.get(reference)
        except ray.exceptions.RayError as error:
            if not isinstance(error, ray.exceptions.RayActorError):
                self._shared.clear()  # the store may have lost them
            return [Died(_reason(error))]
        if reference == worker.doing:
            worker.doing = None
            return []
        assert messages is not None
        for message in messages:
            if isinstance(message, Ready) and message.version != __version__:
                raise RunError(
                    f"a node of the cluster has lstm-tuner {message.version} and this machine "
                    f"{__version__}",
                    remedy="install the same everywhere",
                )
            if isinstance(message, Started):
                worker.send_answer(True)
        worker.listen_on()
        return messages

    def _check_room(self) -> None:
        """Say so where jobs wait for a first worker; raise where no node is left for one."""
        if any(w.ready for w in self._workers) or not self._queue:
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
        elif now - self._stranded_since > _STRANDED_S:
            raise RunError(
                f"no node of the cluster has {self._cpus:g} CPUs and {self._gpus:g} GPUs for a "
                "worker any more",
                remedy="the same command goes on when there is one",
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
    """Return the cluster, and what makes the executor; see `tuner.executors.choice.Opener`.

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
    cpus, gpus = resources.cpus, resources.gpus
    return machines, functools.partial(
        RayExecutor, address=address, cpus=cpus, gpus=gpus, note=note
    )


def _data_of(job: Job) -> tuple[DataRef, ...]:
    if isinstance(job, ExportJob):
        return ()
    return job.folds if isinstance(job, TrainJob) else (job.data,)


def _reason(error: Exception) -> str:
    """Return what Ray says of a death in one line, without its advice and addresses."""
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
