"""The server as a process: it starts or refuses, ends on signals, and stands by."""

import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from helpers.ports import free_port

from tuner.cli.app import run
from tuner.errors import InputError
from tuner.service import connections
from tuner.service.server import check, shown_url
from tuner.service.settings import Settings

SCRIPT = Path(__file__).parents[1] / "helpers" / "simulated_service.py"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": 65536}, "--port: must be from 0 to 65535, got 65536; write --port 8080"),
        ({"port": -1}, "--port: must be from 0 to 65535, got -1"),
        ({"workers": -1}, "--workers: must be from 0 to 100000, got -1; write --workers 2"),
        (
            {"host": "0.0.0.0"},
            "--host: a service that other machines reach needs tokens, got 0.0.0",
        ),
        ({"host": "::"}, "needs tokens"),
        ({"host": "192.0.2.1"}, "needs tokens"),
        ({"host": "no.such.host.invalid"}, "needs tokens"),
        ({"allow_hosts": ("http://a",)}, "--allow-host: must be a name, without port and scheme"),
        ({"allow_hosts": ("a:80",)}, "--allow-host"),
        ({"allow_hosts": ("*",)}, "--allow-host"),
        ({"public_url": "tuner.example.com"}, "--public-url: must be http:// or https://"),
        ({"public_url": "https://a/b"}, "--public-url"),
        ({"public_url": "https://u:p@a"}, "--public-url"),
        ({"public_url": "https://a:x"}, "--public-url"),
        ({"root": Path("no/such/folder")}, "--root: must be in an existing folder"),
        ({"root": Path(__file__)}, "--root: must be a folder"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message, tmp_path):
    with pytest.raises(InputError) as refused:
        check(Settings(**{"root": tmp_path / "root", **settings}))
    assert message in str(refused.value)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_tokens(host, tmp_path):
    check(Settings(root=tmp_path / "root", host=host))
    assert (tmp_path / "root").stat().st_mode & 0o777 == 0o700


def test_files_of_a_service_are_private(tmp_path, monkeypatch):
    made = tmp_path / "made"
    monkeypatch.setattr("tuner.cli.serve.run_server", lambda *_: made.touch())
    before = os.umask(0o022)
    try:
        assert run(["serve", "--root", str(tmp_path / "root")]) == 0
        assert made.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_a_port_or_address_that_cannot_be_had_is_refused(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port: port {port} is in use; give another"):
            connections.listen("127.0.0.1", port)
    with pytest.raises(InputError, match="--host: is not of this machine, got 192.0.2.1"):
        connections.listen("192.0.2.1", 0)
    with pytest.raises(InputError, match="--host: unknown host"):
        connections.listen("no.such.host.invalid", 0)

    def denied(self, address):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", denied)
    with pytest.raises(InputError, match="needs the rights of root; give one above 1023"):
        connections.listen("127.0.0.1", 80)


def test_the_shown_url_is_one_that_a_person_can_open():
    with connections.listen("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert shown_url(Settings(), bound) == f"http://127.0.0.1:{port}"
        assert shown_url(Settings(host="::1"), bound) == f"http://[::1]:{port}"
        everywhere = shown_url(Settings(host="0.0.0.0"), bound)
        assert everywhere == f"http://{socket.gethostname()}:{port}"
        assert shown_url(Settings(public_url="https://a"), bound) == "https://a"


class Server:
    """A process with a simulated service."""

    def __init__(self, folder, *behaviour):
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), str(self.port), *behaviour],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self):
        """Wait for a line of output."""
        return self.process.stdout.readline()

    def end(self, signum=None):
        if signum is not None:
            self.process.send_signal(signum)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*behaviour):
        started.append(Server(tmp_path, *behaviour))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_server_with_status_0(start, signum, tmp_path):
    server = start()
    line = server.line()
    assert line == (
        f"serving on {server.url}; its folder is {tmp_path / 'root'}; Ctrl-C stops it\n"
    )
    assert requests.get(f"{server.url}/ready").json() == {"status": "ok"}
    began = time.monotonic()
    assert server.end(signum) == (0, "", "")
    assert time.monotonic() - began < 5
    assert (tmp_path / "stopped").exists()


def test_the_collector_leaves_alone_what_the_start_has_made(start, tmp_path):
    server = start()
    server.line()
    server.end(signal.SIGTERM)
    n_left_alone, threshold = map(int, (tmp_path / "stopped").read_text().split())
    assert (n_left_alone > 50_000, threshold) == (True, 50)


def test_a_second_signal_ends_the_server_at_once(start, tmp_path):
    server = start("lingers")
    server.line()
    server.process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        server.process.wait(1.5)
    assert server.end(signal.SIGINT)[0] == 130
    assert not (tmp_path / "stopped").exists()


def test_a_service_that_refuses_to_start_ends_the_server(start):
    status, out, err = start("fails").end()
    assert (status, out, err) == (2, "", "tuner: --journal: cannot be read; give another\n")


def test_a_server_stands_by_until_the_journal_is_free(start, tmp_path):
    server = start("waits")
    assert "standing by: another service has the journal; Ctrl-C stops it" in server.line()
    assert requests.get(f"{server.url}/health").status_code == 200
    for path in ("/ready", "/v1/me"):
        answer = requests.get(f"{server.url}{path}")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "standing by" in answer.json()["detail"]
    (tmp_path / "free").touch()
    assert server.line().startswith(f"serving on {server.url}; ")
    assert requests.get(f"{server.url}/v1/me").status_code == 200


def test_a_server_that_stands_by_ends_on_a_signal(start, tmp_path):
    server = start("waits")
    server.line()
    assert server.end(signal.SIGTERM)[0] == 0
    assert not (tmp_path / "started").exists()


HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def test_a_connection_that_sends_no_request_is_ended(start):
    server = start("impatient")
    server.line()
    for sent in ([], [HEALTH[:30]], [HEALTH], [HEALTH + b"\r\n", HEALTH]):
        assert_ended(server, sent)


def assert_ended(server, sent):
    received = b""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as client,
        contextlib.suppress(ConnectionResetError),
    ):
        for part in sent:
            client.sendall(part)
            while part.endswith(b"\r\n\r\n") and b"}" not in received:
                received += client.recv(10_000)
        assert client.recv(1) == b""
    assert received.count(b'{"status":"ok"}') == len(sent[1:])


def test_the_limit_on_open_files_is_raised(start):
    command = (
        "import resource; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard));"
        "from tuner.service.connections import allow_open_files;"
        "print(allow_open_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    out = subprocess.check_output([sys.executable, "-c", command], text=True)
    most, soft, hard = map(int, out.split())
    assert most == soft > 256
    assert soft == min(hard, 65536) or hard < 0


def test_an_answer_names_no_server_software(start):
    server = start()
    server.line()
    headers = requests.get(f"{server.url}/health").headers
    assert "server" not in headers
    assert re.search("no-store", headers["cache-control"])
