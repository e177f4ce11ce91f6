"""The connection to a service: its address and token, retries, and errors in one line."""

from __future__ import annotations

import ipaddress
import json
import random
import re
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from email.utils import mktime_tz, parsedate_tz
from typing import IO, Any, Self
from urllib.parse import SplitResult, quote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry

import tuner
from tuner.errors import InputError, NotReadyError, RunError, one_line

SERVER, TOKEN = "TUNER_SERVER", "TUNER_TOKEN"  # environment variables

_CONNECT_S, _READ_S = 5.0, 120.0
SILENT_S = 45.0  # of a stream of events; the service sends a comment every 15 s
_LONGEST_S = 10.0  # between two attempts, also where the service asks for more
_BUSY = (429, 502, 503, 504)  # statuses after which the same request may succeed
_jitter = random.Random()  # the program's own random numbers stay what they are


def spread(pause_s: float) -> float:
    """Return a pause that is up to half shorter, so that not all clients come at once."""
    return pause_s * _jitter.uniform(0.5, 1.0)


class InsecureServerWarning(UserWarning):
    """A token travels unencrypted to another machine."""


class ServiceError(RunError):
    """The service does not answer, fails, or is none of tuner."""


class RefusedError(InputError):
    """The service refuses a request; the text is the service's own line.

    Attributes:
        status: the HTTP status, 400 to 499: 404 for what does not exist, 409 for a wrong state.
        errors: every broken rule, with its `key`, `rule`, `got` and `remedy`; the first is that
            of the line. Empty where no key breaks a rule.
        exit_status: of a command; 3, as of a NotReadyError, if waiting helps.
    """

    status: int = 400
    errors: tuple[InputError, ...] = ()

    @property
    def lines(self) -> list[str]:
        """What is wrong, a line for each broken rule."""
        return [str(error) for error in self.errors] if len(self.errors) > 1 else [str(self)]


class _Patience(Retry):
    """Retries with a backoff, for half a minute in all, and never longer than `_LONGEST_S`.

    Args:
        failed: called when a request has failed twice: the first time the service may only have
            closed an idle connection.
        limits: those of `Retry`.
    """

    def __init__(self, *, failed: Callable[[], None] | None = None, **limits: Any) -> None:
        super().__init__(**limits)
        self._failed = failed

    def new(self, **changes: Any) -> Self:
        return super().new(failed=self._failed, **changes)

    def increment(self, *args: Any, **keys: Any) -> Self:
        more = super().increment(*args, **keys)
        if self._failed is not None and len(more.history) > 1:
            self._failed()
        return more

    def get_backoff_time(self) -> float:
        return spread(super().get_backoff_time())

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        wanted = super().get_retry_after(response)
        return None if wanted is None else min(wanted, _LONGEST_S)


def _patience(attempts: int, failed: Callable[[], None] | None = None) -> Retry:
    # Every request may be repeated: a POST has an idempotency key.
    return _Patience(
        failed=failed,
        total=attempts,
        status_forcelist=_BUSY,
        allowed_methods=None,
        backoff_factor=0.2,
        backoff_max=3.0,
        raise_on_status=False,
        redirect=0,
    )


_AT_FIRST = 4  # attempts, about 3 s: the address may be wrong
_LATER = 14  # about 30 s: the service restarts
_IGNORED = "Tuner-Token"
"""The header by which a service says that it needs no token; it answers one that was sent."""


def _authorization(token: str | None) -> Callable[[requests.PreparedRequest], Any]:
    """Return what adds the token to a request; with it, nothing of a `.netrc` is sent."""

    def add(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        return request

    return add


class Connection:
    """A service, over HTTP.

    Args:
        server: its URL, such as `http://127.0.0.1:8080`.
        token: of the caller; None for a service without tokens.
        note: takes lines for the user: that the service does not answer and is waited for, that
            it is back, or that it needs no token.

    Raises:
        InputError: the URL or the token cannot be one.
    """

    def __init__(
        self, server: str, token: str | None, note: Callable[[str], None] = lambda line: None
    ) -> None:
        self.server, host = _checked_url(server)
        _check_token(token)
        loopback = _is_loopback(host)
        if token is not None and not loopback and self.server.startswith("http://"):
            text = f"the token travels unencrypted to {host}; use https://, or a tunnel"
            warnings.warn(text, InsecureServerWarning, stacklevel=3)
        self.note, self._lock = note, threading.Lock()
        self._is_away = self._noted_token = False
        self._session = requests.Session()
        self._session.auth = _authorization(token)
        self._session.headers["User-Agent"] = f"lstm-tuner/{tuner.__version__}"
        if loopback:  # no proxy
            self._session.trust_env = False
        self._adapter = HTTPAdapter(max_retries=_patience(_AT_FIRST), pool_maxsize=64)
        self._session.mount(self.server, self._adapter)
        self.server_time = 0.0
        """Time of the newest answer by the service's clock: seconds since 1970, rounded down."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.server!r})"

    def close(self) -> None:
        """Close the idle connections."""
        self._session.close()

    def json(self, method: str, path: str, **how: Any) -> Any:
        """Send a request and return the JSON of its answer; arguments as of `send`.

        Raises:
            RefusedError: the service refuses the request.
            ServiceError: the service does not answer, fails, or is none of tuner.
        """
        return self.parsed(self.send(method, path, **how))

    def parsed(self, answer: requests.Response) -> Any:
        """Return the JSON of an answer; None if it is empty.

        Raises:
            ServiceError: it is no JSON.
        """
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError:
            raise self._no_service() from None

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        file: IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        silent_s: float = _READ_S,
    ) -> requests.Response:
        """Send a request, again while the service restarts or is busy, and return the answer.

        Args:
            method: of HTTP.
            path: below the server's URL, quoted.
            query: parameters of the URL; those that are None are left out.
            body: sent as JSON.
            file: sent as it is.
            headers: further ones.
            stream: whether the caller reads the content bit by bit.
            silent_s: the longest time without a byte, in seconds.

        Raises:
            RefusedError: the service refuses the request.
            ServiceError: the service does not answer, or fails.
        """
        sent = {"Accept": "application/json", **(headers or {})}
        if method == "POST":
            sent.setdefault("Idempotency-Key", str(uuid.uuid4()))
        data: Any = file
        if body is not None:
            data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            answer = self._session.request(
                method,
                self.server + path,
                params={k: v for k, v in (query or {}).items() if v is not None},
                data=data,
                headers=sent,
                stream=stream,
                timeout=(_CONNECT_S, silent_s),
                allow_redirects=False,  # they would carry the token elsewhere
            )
        except requests.RequestException as error:
            raise self.unreachable(error) from None
        self._adapter.max_retries = _patience(_LATER, self._away)
        self._back(answer)
        if (date := parsedate_tz(answer.headers.get("Date"))) is not None:
            self.server_time = float(mktime_tz(date))
        self._check(answer)
        return answer

    def pages(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page by page."""
        cursor: str | None = None
        while True:
            page = self.json("GET", path, query={**query, "cursor": cursor})
            if not isinstance(page, dict) or "items" not in page:
                raise self._no_service()
            yield from page["items"]
            if (cursor := page.get("next")) is None:
                return

    def _away(self) -> None:
        """Note that the service does not answer, once."""
        with self._lock:
            known, self._is_away = self._is_away, True
        if not known:
            self.note(f"{self.server}: the service does not answer; trying again")

    def _back(self, answer: requests.Response) -> None:
        """Note what an answer says: that the service is back, or has no use for the token."""
        if answer.status_code in _BUSY:
            return
        with self._lock:
            was_away, self._is_away = self._is_away, False
            ignored = _IGNORED in answer.headers and not self._noted_token
            self._noted_token |= ignored
        if was_away:
            self.note(f"{self.server}: the service is back")
        if ignored:
            self.note(f"{self.server}: the service needs no token; the one given is ignored")

    def unreachable(self, error: Exception) -> ServiceError:
        """Return the error about a service that does not answer."""
        rule = f"the service does not answer ({_reason(error)})"
        remedy = f"start it with `tuner serve`, or check --server and {SERVER}"
        return ServiceError(rule, where=self.server, remedy=remedy)

    def _no_service(self) -> ServiceError:
        rule = "what answers there is no service of tuner"
        return ServiceError(rule, where=self.server, remedy=f"check --server and {SERVER}")

    def _check(self, answer: requests.Response) -> None:
        status = answer.status_code
        if status < 300:
            return
        if status < 400:
            target = answer.headers.get("Location", "another address")
            rule = f"the server redirects to {one_line(target)[:200]}"
            raise ServiceError(rule, where=self.server, remedy="give that address as --server")
        detail = self._detail(answer)
        if status >= 500 or status == 429:
            raise ServiceError(detail, where=self.server)
        remedy = f"set {TOKEN}" if status == 401 and TOKEN not in detail else None
        refused = RefusedError(detail, where=self.server if remedy else None, remedy=remedy)
        refused.status, refused.errors = status, _broken_rules(answer)
        if status == 409 and "Retry-After" in answer.headers:
            refused.exit_status = NotReadyError.exit_status
        raise refused

    def _detail(self, answer: requests.Response) -> str:
        """Return the line of a problem+json, or of an answer that a proxy has made."""
        try:
            detail = answer.json()["detail"]
            if isinstance(detail, str) and detail:
                return one_line(detail)
        except (ValueError, KeyError, TypeError, requests.RequestException):
            pass
        return f"answers {answer.status_code} {answer.reason}"


def _broken_rules(answer: requests.Response) -> tuple[InputError, ...]:
    """Return what a problem+json says of each broken key."""
    try:
        listed = answer.json()["errors"]
        return tuple(
            InputError(each["rule"], **{name: each.get(name) for name in ("key", "got", "remedy")})
            for each in listed
        )
    except (ValueError, KeyError, TypeError, AttributeError, requests.RequestException):
        return ()


def segment(name: str) -> str:
    """Return a name as one part of a path."""
    return quote(name, safe="")


def _checked_url(server: str) -> tuple[str, str]:
    """Return the URL of a service without `/v1` and a slash at the end, and its host.

    A host on this machine may be without a scheme.
    """
    remedy = "write http://127.0.0.1:8080, say"
    given = server.strip()
    if given and "://" not in given:  # localhost:8080
        host, _ = _host_of(f"//{given}")
        if host is not None and _is_loopback(host):
            given = f"http://{given}"
        elif host is not None and "@" not in given:
            remedy = f"write https://{given}, or http://{given} where nobody listens"
    host, parts = _host_of(given)
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        shown = repr(re.sub(r"//[^/]*@", "//…@", server))
        raise InputError("must be the URL of a service", where="server", got=shown, remedy=remedy)
    if parts.username is not None or parts.password is not None:
        rule = "must be without a password"
        raise InputError(rule, where="server", remedy=f"give the token as {TOKEN}")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}", host


def _host_of(url: str) -> tuple[str | None, SplitResult]:
    """Return the host of a URL, None where it is none, and the parts of the URL."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None, urlsplit("")
    return (host if host and re.fullmatch(r"[\w.:%-]+", host) else None), parts


def _check_token(token: str | None) -> None:
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
        rule = "must be letters, digits and signs of ASCII, without spaces"
        raise InputError(rule, where=TOKEN, remedy="copy the token again")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(error: BaseException) -> str:
    """Return why a connection failed, without the addresses of Python's objects."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = getattr(cause, "reason", None) or cause.__cause__ or cause.__context__
        if not isinstance(cause, BaseException):
            break
    text = one_line(error)
    if "timed out" in text:
        return "no answer in time"
    if "resolve" in text:
        return "no such host"
    return re.sub(r"<[^>]*>:? ?|HTTPS?ConnectionPool\([^)]*\):? ?", "", text)[:120]
