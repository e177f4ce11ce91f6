"""A way to an MLflow server that can fail: what stands between, a proxy or the server itself."""

from __future__ import annotations

import contextlib
import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Gateway:
    """Passes requests on to a server, unless it has been told to fail.

    Attributes:
        url: where it listens, on loopback.
        status: what it answers by itself, 500 say; None passes requests on.
        silent: whether it takes requests and answers none.
        delay_s: how long each answer takes.
        authorization: the header without which it answers 401.
    """

    def __init__(self, target: str) -> None:
        self.status: int | None = None
        self.silent = False
        self.delay_s = 0.0
        self.authorization: str | None = None
        self._let_go = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(urlsplit(target).netloc))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def answer_again(self) -> None:
        """Let go of those who wait, and be in order again."""
        self.status, self.silent, self.delay_s = None, False, 0.0
        let_go, self._let_go = self._let_go, threading.Event()
        let_go.set()

    def close(self) -> None:
        """Let go of those who wait, and stop listening."""
        self.answer_again()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self, netloc: str) -> type[BaseHTTPRequestHandler]:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.body()
                let_go = gateway._let_go
                if let_go.wait(None if gateway.silent else gateway.delay_s):
                    self.close_connection = True  # unanswered
                elif gateway.authorization not in (None, self.headers.get("Authorization")):
                    self.send(401, b"You are not authenticated.")
                elif gateway.status is not None:
                    self.send(gateway.status, b"out of order")
                else:
                    self.pass_on(body)

            def handle(self) -> None:
                with contextlib.suppress(OSError):  # one side is gone: so is the other one
                    super().handle()

            def body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                chunks = []
                while size := int(self.rfile.readline(), 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)

            def pass_on(self, body: bytes) -> None:
                ours = ("connection", "content-length", "transfer-encoding")
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ours}
                connection = http.client.HTTPConnection(netloc, timeout=60)
                with contextlib.closing(connection):
                    connection.request(self.command, self.path, body, headers)
                    answer = connection.getresponse()
                    self.send(answer.status, answer.read(), answer.headers["Content-Type"])

            def send(self, status: int, body: bytes, kind: str = "text/plain") -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        return Handler
