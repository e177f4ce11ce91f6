"""An HTTP server whose answers a test writes down, with what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What the server sends; without a status it cuts the connection."""

    status: int | None = 200
    body: Any = None  # JSON, or bytes
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    cut: bool = False  # the connection, in the middle of a chunked body

    @property
    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else json.dumps(self.body).encode()


def problem(status: int, detail: str, **headers: str) -> Answer:
    body = {"type": "about:blank", "title": "", "status": status, "detail": detail}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, body, sent, "application/problem+json")


@dataclass
class Asked:
    """A request that the server got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class ScriptedServer:
    """Answers with `answers` in order, then with the last one for ever; or as `answers` says."""

    answers: list[Answer] | Callable[[Asked], Answer]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def next(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        if callable(self.answers):
            return self.answers(asked)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextlib.contextmanager
def serving(
    answers: list[Answer] | Callable[[Asked], Answer], port: int = 0
) -> Iterator[ScriptedServer]:
    script = ScriptedServer(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, self.rfile.read(length))
            answer = script.next(asked)
            if answer.status is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", answer.kind)
            if answer.cut:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"%x\r\n%b\r\n" % (len(answer.content), answer.content))
                self.close_connection = True
                return
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PUT = do_DELETE = handle_one

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        script.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=lambda: server.serve_forever(0.01))
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()
