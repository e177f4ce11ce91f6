"""The connection to Ray, of which a process has one, and what the cluster behind it has."""

from __future__ import annotations

import functools
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

from tuner.errors import InputError, one_line
from tuner.executors.capacity import n_cores
from tuner.executors.gpus import find_gpus

__all__ = ["RayConnection", "connection_to", "import_ray", "parse_address"]

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
        text = "--executor: ray is not installed; pip install 'lstm-tuner[ray]'"
        raise InputError(text) from None
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
        raise InputError(
            f"--executor: must be ray://HOST:PORT, got {address!r}; "
            f"write ray://{host or 'head-node'}:{port or 10001}, say"
        )
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
            raise InputError(f"--executor: {where}: {_brief(error)}") from None
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
        raise InputError(
            f"--executor: cannot reach {address}: {why}; is Ray running there?"
        ) from None
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
                raise InputError(
                    f"--executor: {address} wants a token; set RAY_AUTH_MODE=token, and "
                    f"RAY_AUTH_TOKEN to what `ray get-auth-token` prints on the cluster"
                ) from None
            raise InputError(
                f"--executor: {address} answers, but is no Ray Client server "
                f"({error.code().name.lower()}); the port is 10001 unless `ray start --head` "
                f"was given another"
            ) from None


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
