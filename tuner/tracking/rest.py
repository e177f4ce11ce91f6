"""MLflow's REST interface, for the few questions that are not worth MLflow's import of 1.6 s."""

from __future__ import annotations

import base64
import json
import os
import ssl
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit

from tuner.errors import show_location

__all__ = ["RestServer"]


class RestServer:
    """A server, with the credentials and certificates that MLflow's variables name."""

    def __init__(self, uri: str, timeout_s: float, *, ours: bool = False) -> None:
        """Ask nothing yet.

        Args:
            uri: of the server.
            timeout_s: for every single read from it.
            ours: whether it is a UI of our own on loopback, with no proxy before it and no need
                of credentials.
        """
        self.base_url = show_location(uri).rstrip("/")  # without the password
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json"} | ({} if ours else _credentials(uri))
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if ours:
            handlers.append(urllib.request.ProxyHandler({}))
        elif uri.lower().startswith("https"):
            handlers.append(urllib.request.HTTPSHandler(context=_certificates()))
        self._opener = urllib.request.build_opener(*handlers)

    def ask(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer to a GET, or to a POST of a query.

        Raises:
            OSError: there is no answer, or it is an error.
            ValueError: it is not JSON.
        """
        request = urllib.request.Request(
            f"{self.base_url}/api/2.0/mlflow/{path}",
            data=None if query is None else json.dumps(query).encode(),
            headers=self._headers,
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                content: dict[str, Any] = json.load(answer)
                return content
        except HTTPException as error:  # what answers speaks no HTTP
            raise OSError(str(error)) from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows none: it leads to a page to log in, and would take the credentials along."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _credentials(uri: str) -> dict[str, str]:
    """Return the header that MLflow would send: from the URI, or from the environment."""
    parts = urlsplit(uri)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not user:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if user:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    return {}


def _certificates() -> ssl.SSLContext:
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    return ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
