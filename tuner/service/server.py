"""The server: it starts the service behind its application, and ends both on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol as Interface
from urllib.parse import urlsplit

import uvicorn

from tuner.errors import InputError
from tuner.service import connections
from tuner.service.access import Access
from tuner.service.app import make_app
from tuner.service.audit import AuditLog
from tuner.service.external_limits import FILES, most_open
from tuner.service.guard import Condition
from tuner.service.settings import Settings

_FINISH_S = 1.0  # for the requests that run when the service stops
_SPARE_FILES = 200  # of the process, beside connections
_COLLECTIONS = 700, 10, 50  # new objects a collection; of these a middle one; of those a full one
_log = logging.getLogger("tuner.service")


class Served(Interface):
    """What the server starts and stops: a `Service`."""

    access: Access

    def start(self, stand_by: Callable[[str], None], stop: threading.Event) -> bool:
        """Start, waiting while another service has the journal; see `Service.start`."""

    def stop(self) -> None:
        """Hand back the running trials, and close everything; does nothing before a start."""


def check(settings: Settings) -> None:
    """Refuse settings that cannot work.

    Raises:
        InputError: with the option, the rule, the value and a remedy.
    """
    for option, value, low, high in (
        ("--port", settings.port, 0, 65535),
        ("--workers", settings.workers, 0, 100_000),
    ):
        if value is not None and not low <= value <= high:
            remedy = f"write {option} {8080 if option == '--port' else 2}"
            rule = f"must be from {low} to {high}"
            raise InputError(rule, where=option, got=value, remedy=remedy)
    if settings.tokens is None and not connections.is_loopback(settings.host):
        rule = "a service that other machines reach needs tokens"
        remedy = "make one with tuner token NAME --tokens FILE, and give --tokens FILE"
        raise InputError(rule, where="--host", got=settings.host, remedy=remedy)
    if settings.public_url is not None:
        _check_url(settings.public_url)
    for name in settings.allow_hosts:
        if not name or any(sign in name for sign in "/:*@ "):
            rule = "must be a name, without port and scheme"
            remedy = "write --allow-host tuner.example.com"
            raise InputError(rule, where="--allow-host", got=repr(name), remedy=remedy)
    _make_root(settings.root)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        rule = "must be http:// or https://, a host, and a port if it is not the usual one"
        remedy = "write --public-url https://tuner.example.com"
        raise InputError(rule, where="--public-url", got=repr(url), remedy=remedy)


def _make_root(root: Path) -> None:
    try:
        root.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        rule = "must be in an existing folder"
        raise InputError(rule, where="--root", got=root, remedy="create it first") from None
    except OSError as error:
        rule = "cannot be made" if not root.exists() else "must be a folder"
        got = f"{root}: {error.strerror}"
        raise InputError(rule, where="--root", got=got, remedy="give another") from None
    if not os.access(root, os.W_OK | os.X_OK):
        rule = "may not be written to"
        raise InputError(rule, where="--root", got=root, remedy="give another")


def serve(settings: Settings, service: Served, show: Callable[[str], None]) -> None:
    """Serve until a signal: SIGINT, SIGTERM or SIGHUP.

    The first signal ends the service within seconds: requests are finished, event streams closed,
    running trials handed back. The second one ends the process at once.

    Args:
        settings: see `check`.
        service: is started once the port is open, and stopped.
        show: prints a line for the user.

    Raises:
        InputError: `check` refuses the settings, the port cannot be used, or the service refuses
            to start.
    """
    check(settings)
    most_files = connections.allow_open_files()
    of_studies = FILES * most_open(most_files)
    with (
        contextlib.closing(connections.listen(settings.host, settings.port)) as listening,
        contextlib.closing(AuditLog(settings.root / "audit.log")) as audit,
    ):
        condition = Condition("the service starts")
        app = make_app(service, service.access, settings, condition=condition, audit=audit)
        config = uvicorn.Config(
            app,
            http=connections.Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            forwarded_allow_ips=["127.0.0.1", "::1"],
            limit_concurrency=max(most_files - of_studies - _SPARE_FILES, 100),
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
        )
        run = _Run(config, settings, service, condition, show)
        asyncio.run(run.until_signal(listening))


def shown_url(settings: Settings, listening: socket.socket) -> str:
    """Return the URL for people."""
    if settings.public_url is not None:
        return settings.public_url
    host, port = settings.host, listening.getsockname()[1]
    if host in ("", "0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class _Server(uvicorn.Server):
    """A server that leaves the signals to `_Run`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Run:
    """One run of the server."""

    def __init__(
        self,
        config: uvicorn.Config,
        settings: Settings,
        service: Served,
        condition: Condition,
        show: Callable[[str], None],
    ) -> None:
        self._server, self._settings, self._service = _Server(config), settings, service
        self._condition, self._show = condition, show
        self._stop = threading.Event()  # ends the wait for another service's journal

    async def until_signal(self, listening: socket.socket) -> None:
        """Serve until a signal, or until the service fails to start."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup
                loop.add_signal_handler(signum, self._on_signal, signum)
        serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        starting = asyncio.create_task(self._start(shown_url(self._settings, listening)))
        try:
            await asyncio.wait((serving, starting), return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and starting.exception() is not None:
                self._begin_stop()
            await serving
            await starting
        finally:
            await asyncio.to_thread(self._service.stop)

    async def _start(self, url: str) -> None:
        loop, where = asyncio.get_running_loop(), f"serving on {url}"

        def stand_by(why: str) -> None:
            loop.call_soon_threadsafe(self._stand_by, f"{where}, standing by: {why}")

        if not await asyncio.to_thread(self._service.start, stand_by, self._stop):
            return  # a signal came first
        if self._condition.stopping:
            return
        _settle()
        self._condition.not_ready = None
        self._show(f"{where}; its folder is {self._settings.root}; Ctrl-C stops it")

    def _stand_by(self, shown: str) -> None:
        if not self._condition.stopping:
            self._condition.not_ready = "standing by: another service has the journal"
            self._show(f"{shown}; Ctrl-C stops it")

    def _on_signal(self, signum: int) -> None:
        if self._condition.stopping:
            os._exit(128 + signum)  # workers end with this process
        self._begin_stop()

    def _begin_stop(self) -> None:
        loop = asyncio.get_running_loop()
        self._stop.set()
        self._condition.end_requests(streams_only=True)
        self._server.should_exit = True
        loop.call_later(_FINISH_S, self._condition.end_requests)


def _settle() -> None:
    """Have the garbage collector leave alone what is there for good: imports, mostly.

    Each full collection would stop all requests for a tenth of a second otherwise. There are
    fewer of them, as trials that are kept are no garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTIONS)  # the command has set others, for its imports


def log_to_stderr() -> None:
    """Have the service's log written to stderr."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # bad requests of scanners
