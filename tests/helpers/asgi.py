"""One request to an ASGI application, part by part."""

import asyncio
import json


class Exchange:
    """A request, and what is answered.

    After its parts, the client waits; it leaves when `leave` is called, or at once (`leaves`).
    """

    def __init__(self, method, path, headers=(), *, parts=((b"", False),), leaves=False):
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [
                (b"host", b"127.0.0.1:8080"),
                *((k.encode(), v.encode()) for k, v in dict(headers).items()),
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8080),
            "state": {},
        }
        self.status, self.headers, self.body, self.is_complete = None, {}, b"", False
        self.on_receive = lambda: None
        self._parts, self._left = list(parts), asyncio.Event()
        if leaves:
            self._left.set()

    async def run(self, app):
        await app(self.scope, self._receive, self._send)

    def leave(self):
        self._left.set()

    def json(self):
        return json.loads(self.body)

    async def _receive(self):
        self.on_receive()
        if self._parts:
            body, more = self._parts.pop(0)
            return {"type": "http.request", "body": body, "more_body": more}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode().lower(): v.decode() for k, v in message["headers"]}
        else:
            self.body += message.get("body", b"")
            self.is_complete = not message.get("more_body", False)
